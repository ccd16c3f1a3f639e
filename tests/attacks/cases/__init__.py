"""Every hostile job, by group; what cannot be a single job is a pair, a session, or a test of its own."""

from tests.attacks.case import Case
from tests.attacks.cases.borders import BORDERS
from tests.attacks.cases.channel import CHANNEL_CASES
from tests.attacks.cases.endings import ENDINGS
from tests.attacks.cases.exhaustion import EXHAUSTION
from tests.attacks.cases.exhaustion_tricks import EXHAUSTION_TRICKS
from tests.attacks.cases.exhaustion_unseen import EXHAUSTION_UNSEEN
from tests.attacks.cases.files import FILES
from tests.attacks.cases.files_tricks import FILES_TRICKS
from tests.attacks.cases.identity import IDENTITY
from tests.attacks.cases.identity_tricks import IDENTITY_TRICKS
from tests.attacks.cases.kernel import KERNEL
from tests.attacks.cases.kernel_tricks import KERNEL_TRICKS
from tests.attacks.cases.language import LANGUAGE
from tests.attacks.cases.lifetime import LIFETIME
from tests.attacks.cases.output import OUTPUT

ALL: tuple[Case, ...] = (
    *KERNEL,
    *KERNEL_TRICKS,
    *IDENTITY,
    *IDENTITY_TRICKS,
    *FILES,
    *FILES_TRICKS,
    *EXHAUSTION,
    *EXHAUSTION_TRICKS,
    *EXHAUSTION_UNSEEN,
    *LIFETIME,
    *ENDINGS,
    *OUTPUT,
    *CHANNEL_CASES,
    *BORDERS,
    *LANGUAGE,
)

# What a bare root can run.
ON_RUNNER = tuple(case for case in ALL if not case.api_only)
