"""What a joined machine keeps in files: other roots come from its controller, and only such as go on from those it has."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crank.bootstrap import member_keeper
from crank.bootstrap.member import as_member, member_dir, pem, read_chain
from crank.bootstrap.member_keeper import MemberFiles
from crank.config import Settings, load
from crank.domain.rules.root_rotation import MACHINE_LOOK_SEC
from crank.domain.trust import TrustBundle
from crank.errors import Unavailable
from crank.wire import Trust
from tests.support.svids import DOMAIN, root

OLD, NEW, LATER = root(), root(), root()
FAR_SEC = 3600.0


class Controller:
    """Answers looks with what a test says, and keeps which sequence each look said to have."""

    def __init__(self) -> None:
        self.sequence = 1
        self.roots: tuple[Any, ...] = (OLD,)
        self.away = False
        self.said: list[int] = []

    def change(self, *roots: Any) -> None:
        """Publish other roots."""
        self.sequence, self.roots = self.sequence + 1, roots


class Held:
    """An identity that need not be renewed and believes whatever it is told, as one does that has a proven controller."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._roots: tuple[bytes, ...] = ()
        self.due_sec = FAR_SEC

    def due_in_sec(self) -> float:
        """Say when it is due."""
        return self.due_sec

    async def renew(self) -> float:
        """Bring what the controller has."""
        self._roots = tuple(one.der for one in self._controller.roots)
        return FAR_SEC

    async def look(self, has: int) -> Trust:
        """Bring what the controller has, and say what is kept."""
        if self._controller.away:
            raise Unavailable("Nobody is there.")
        self._controller.said.append(has)
        trust = Trust(
            self._controller.sequence, [base64.b64encode(one.der).decode() for one in self._controller.roots], 0, [], []
        )
        self.believe(trust)
        return trust

    def believe(self, trust: Trust) -> None:
        """Believe this."""
        self._roots = tuple(base64.b64decode(one) for one in trust.roots)

    def bundle(self, trust_domain: str) -> TrustBundle:
        """Return what is believed."""
        return TrustBundle(trust_domain, 0, 0, self._roots)

    def files(self) -> tuple[bytes, bytes]:
        """Return something that stands for a certificate."""
        return b"renewed", b""


@pytest.fixture
def controller() -> Controller:
    """Give a controller with one root."""
    return Controller()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Give the settings of a machine that has joined and believes one root."""
    found = as_member(load(environment={"CRANK_HOME": str(tmp_path / "home")}), DOMAIN)
    for folder in MemberFiles(found).folders:
        folder.mkdir(parents=True)
        (folder / "ca.pem").write_bytes(pem([OLD.der]))
    return found


@pytest.fixture
def files(settings: Settings, controller: Controller, monkeypatch: pytest.MonkeyPatch) -> MemberFiles:
    """Give its files, and that controller to ask."""
    made = MemberFiles(settings)
    monkeypatch.setattr(made, "_held", lambda _folder: Held(controller))
    return made


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Give a way to let time pass."""
    now = [100.0]

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now[0]

    monkeypatch.setattr(member_keeper, "time", Clock)

    def passes(seconds: float) -> None:
        now[0] += seconds

    return passes


def kept(settings: Settings) -> list[list[bytes]]:
    """Return the roots that lie in each folder."""
    return [read_chain(folder / "ca.pem") for folder in (settings.identity_dir, member_dir(settings))]


async def test_other_roots_are_kept_where_the_worker_cannot(
    settings: Settings, files: MemberFiles, controller: Controller
) -> None:
    """A new root beside the old one stands in both folders after a ring, so does the new one alone later; the controller hears that it does."""
    for roots in ((OLD, NEW), (NEW,), (NEW, LATER)):
        controller.change(*roots)
        files.ring()
        await files.round()
        assert kept(settings) == [[one.der for one in roots]] * 2
        assert controller.said[-1] == controller.sequence


@pytest.mark.parametrize(
    "roots",
    [
        (), (NEW,), (root("other.example"),), (OLD, root("other.example")), (OLD, *(root() for _ in range(4))), (OLD, root(uris=())),
    ],
    ids=["none", "strangers alone", "another domain", "one of another", "too many", "no domain"],
)  # fmt: skip
async def test_what_does_not_go_on_from_what_is_known_changes_nothing(
    settings: Settings, files: MemberFiles, controller: Controller, roots: tuple[Any, ...]
) -> None:
    """Even what a proven controller says must be of its own domain and hold a root that is known here; else it is not said to be kept."""
    controller.change(*roots)
    await files.round()
    files.ring()
    await files.round()
    assert kept(settings) == [[OLD.der]] * 2
    assert set(controller.said) == {0}


async def test_a_renewal_brings_no_other_roots_either(
    settings: Settings, files: MemberFiles, controller: Controller
) -> None:
    """Roots that come with a certificate are held against the same rule, and the certificate is not kept without them."""
    own = Held(controller)
    own.due_sec = 0.0
    files._kept[member_dir(settings)] = own  # type: ignore[assignment]
    controller.change(NEW)
    await files._renew(member_dir(settings))
    assert kept(settings) == [[OLD.der]] * 2
    assert not (member_dir(settings) / "cert.pem").exists()


async def test_a_ring_is_a_look_and_a_thousand_are_one(
    files: MemberFiles, controller: Controller, later: Callable[[float], None]
) -> None:
    """A worker that rings without end makes its machine look once a round; one that keeps silent has it look by itself, each minute."""
    await files.round()
    assert controller.said == [0, 1]
    for _ in range(1_000):
        files.ring()
    await files.round()
    await files.round()
    assert controller.said == [0, 1, 1]
    later(MACHINE_LOOK_SEC - 1)
    await files.round()
    assert len(controller.said) == 3
    later(1)
    await files.round()
    assert len(controller.said) == 4


async def test_a_controller_that_is_away_is_asked_again(
    settings: Settings, files: MemberFiles, controller: Controller, later: Callable[[float], None]
) -> None:
    """A look that fails changes nothing and is made again, at the next ring or after its time."""
    controller.change(OLD, NEW)
    controller.away = True
    await files.round()
    assert kept(settings) == [[OLD.der]] * 2
    controller.away = False
    await files.round()
    assert kept(settings) == [[OLD.der]] * 2
    later(MACHINE_LOOK_SEC)
    await files.round()
    assert kept(settings) == [[OLD.der, NEW.der]] * 2


@pytest.mark.parametrize("planted", [pem([OLD.der, LATER.der]), b"noise"], ids=["one more", "noise"])
async def test_what_lies_there_and_is_not_the_controllers_goes(
    settings: Settings, files: MemberFiles, later: Callable[[float], None], planted: bytes
) -> None:
    """A root that somebody put beside the true one, or half a file, is gone after the next look, whatever was looked at before."""
    await files.round()
    (settings.identity_dir / "ca.pem").write_bytes(planted)
    later(MACHINE_LOOK_SEC)
    await files.round()
    assert kept(settings) == [[OLD.der]] * 2
