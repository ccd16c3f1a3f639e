"""Changing the root, with a crash at every moment: nobody who was let in is locked out, and the state goes on."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from crank.adapters.authority import FileAuthority
from crank.adapters.clock import SystemClock, SystemIdSource
from crank.domain.trust import RotationPhase, RotationStep
from crank.errors import Conflict, Unavailable
from crank.testing.contracts_authority import DOMAIN, WORKER, WORKLOAD, public_key
from crank.testing.fakes import FakeClock, FakeFailpoints, FakeIdSource

LEAF_SEC = 3600
MEMORY = Path("/dev/shm")
MOMENTS = ("rotation.made", "authority.before_state", "authority.after_state")


class Crash(Exception):
    """The process ended here."""


def start(folder, clock, failpoints=None):
    """Start a controller's authority."""
    authority = FileAuthority(folder, trust_domain=DOMAIN, clock=clock, ids=FakeIdSource(), failpoints=failpoints)
    authority.ensure()
    return authority


@pytest.fixture
def clock():
    """Give a clock that stands still."""
    return FakeClock()


def signed_by(authority):
    """Return the root that a leaf issued now chains to, by its place in the bundle; it must be in the bundle."""
    chain = [x509.load_der_x509_certificate(each) for each in authority.issue(WORKER, WORKLOAD, public_key()).chain]
    return root_of(chain, authority)


def root_of(chain, authority):
    """Return the root of the bundle that a chain leads to, or None."""
    for octets in authority.bundle().x509_authorities:
        root = x509.load_der_x509_certificate(octets)
        if root.subject == chain[-1].issuer:
            chain[-1].verify_directly_issued_by(root)
            return octets
    return None


@pytest.mark.must("Federation 4.1/1", "Trust Domain and Bundle 4.1.1/2")
def test_the_whole_way(tmp_path, clock):
    """Both roots are published before the new one signs, and until the last leaf of the old one has expired."""
    authority = start(tmp_path, clock)
    (old,) = authority.bundle().x509_authorities
    before = authority.bundle().sequence
    clock.advance(1)
    authority.turn_root(RotationStep.PREPARE)
    assert authority.bundle().sequence > before
    (new,) = set(authority.bundle().x509_authorities) - {old}
    assert authority.ca_file.read_bytes().count(b"BEGIN CERTIFICATE") == 2
    assert signed_by(authority) == old
    published = authority.bundle()
    authority.turn_root(RotationStep.ACTIVATE)
    assert signed_by(authority) == new
    # What peers check by did not change: nobody has to hear of it first.
    assert authority.bundle() == published
    with pytest.raises(Conflict) as caught:
        authority.turn_root(RotationStep.RETIRE)
    assert caught.value.error_code == "leaves_alive"
    clock.advance(LEAF_SEC + 60)
    authority.turn_root(RotationStep.RETIRE)
    assert authority.bundle().x509_authorities == (new,)
    assert authority.bundle().sequence > published.sequence
    again = start(tmp_path, clock)
    assert again.bundle() == authority.bundle()
    assert signed_by(again) == new
    assert len(list(tmp_path.glob("*/authority-key.pem"))) == 1


def test_the_way_back(tmp_path, clock):
    """A new root that signed already goes back to being published, and goes when its leaves have."""
    authority = start(tmp_path, clock)
    (old,) = authority.bundle().x509_authorities
    authority.turn_root(RotationStep.PREPARE)
    authority.turn_root(RotationStep.ACTIVATE)
    authority.turn_root(RotationStep.ABORT)
    assert signed_by(authority) == old
    assert len(authority.bundle().x509_authorities) == 2
    with pytest.raises(Conflict, match="valid for 3660 s more"):
        authority.turn_root(RotationStep.ABORT)
    clock.advance(LEAF_SEC + 60)
    authority.turn_root(RotationStep.ABORT)
    assert authority.bundle().x509_authorities == (old,)
    assert [path.name for path in (tmp_path / "offline").iterdir()] == ["root-key.pem"]


def test_each_root_key_is_written_once_beside_the_first(tmp_path, clock):
    """A prepared root's key lies under its own name, and an aborted root's is destroyed."""
    authority = start(tmp_path, clock)
    first = (tmp_path / "offline" / "root-key.pem").read_bytes()
    rotation = authority.turn_root(RotationStep.PREPARE)
    (later,) = (tmp_path / "offline").glob("root-key-*.pem")
    assert later.name == f"root-key-{rotation.other}.pem"
    assert later.stat().st_mode & 0o777 == 0o600
    assert authority.status().root_keys == (str(later), str(tmp_path / "offline" / "root-key.pem"))
    authority.turn_root(RotationStep.ABORT)
    assert not later.exists()
    assert (tmp_path / "offline" / "root-key.pem").read_bytes() == first


def test_a_local_worker_moves_to_the_new_root_at_once(tmp_path, clock):
    """The node's own files are issued anew below the root that signs, and name every root."""
    authority = start(tmp_path / "authority", clock)
    worker = authority.issue_worker("w1", tmp_path / "w1")
    first = worker.certificate_file.read_bytes()
    authority.turn_root(RotationStep.PREPARE)
    authority.issue_worker("w1", tmp_path / "w1")
    assert worker.certificate_file.read_bytes() == first
    assert worker.ca_file.read_bytes() == authority.ca_file.read_bytes()
    assert worker.ca_file.read_bytes().count(b"BEGIN CERTIFICATE") == 2
    authority.turn_root(RotationStep.ACTIVATE)
    authority.issue_worker("w1", tmp_path / "w1")
    assert worker.certificate_file.read_bytes() != first


def test_the_status_says_how_it_stands(tmp_path, clock):
    """Each tier has its dates and where its key is; while two roots are there, both are shown."""
    authority = start(tmp_path, clock)
    authority.issue(WORKER, WORKLOAD, public_key())
    status = authority.status()
    assert [each.tier for each in status.certificates] == ["root", "authority", "issuing"]
    assert status.rotation.phase is RotationPhase.SETTLED
    assert status.root_keys == (str(tmp_path / "offline" / "root-key.pem"),)
    root, online, issuing = status.certificates
    assert online.key_place == str(tmp_path / root.mark / "authority-key.pem")
    assert issuing.key_place == "in memory alone"
    authority.turn_root(RotationStep.PREPARE)
    assert [each.tier for each in authority.status().certificates] == ["root", "authority", "issuing", "root", "authority"]


def test_leaves_of_a_longer_setting_are_waited_for(tmp_path, clock):
    """The operator made lives shorter a moment ago: the old root stays until those of an hour have expired, too."""
    made = {"trust_domain": DOMAIN, "clock": clock, "ids": FakeIdSource()}
    FileAuthority(tmp_path, **made).ensure()
    clock.advance(60)
    authority = FileAuthority(tmp_path, **made, leaf_ttl_sec=30.0)
    authority.ensure()
    authority.turn_root(RotationStep.PREPARE)
    drained_us = authority.turn_root(RotationStep.ACTIVATE).drained_us
    assert drained_us == clock.now_us() + (LEAF_SEC + 60) * 1_000_000
    clock.advance(LEAF_SEC + 60)
    authority.turn_root(RotationStep.RETIRE)
    authority.turn_root(RotationStep.PREPARE)
    assert authority.turn_root(RotationStep.ACTIVATE).drained_us == clock.now_us() + 90 * 1_000_000


@pytest.mark.parametrize("noted", [True, False])
def test_since_when_a_root_is_published_outlives_a_restart(tmp_path, clock, noted):
    """Where others follow the bundle the wait goes on where it was; of an older version's state it begins with the start."""
    start(tmp_path, clock).turn_root(RotationStep.PREPARE)
    if not noted:
        file = tmp_path / "state.json"
        file.write_text(json.dumps({name: of for name, of in json.loads(file.read_text()).items() if name != "prepared_us"}))
    clock.advance(600)
    authority = start(tmp_path, clock)
    left_sec = 300 if noted else 900
    clock.advance(left_sec - 1)
    with pytest.raises(Conflict) as caught:
        authority.turn_root(RotationStep.ACTIVATE, followed=True)
    assert (caught.value.error_code, "for 1 s more" in caught.value.message) == ("root_too_new", True)
    clock.advance(1)
    assert authority.turn_root(RotationStep.ACTIVATE, followed=True).phase is RotationPhase.ACTIVATED


@pytest.mark.parametrize("left", ["root.pem", "authority.pem", "authority-key.pem"])
def test_what_was_half_destroyed_goes_at_the_next_look(tmp_path, clock, left):
    """A crash in the middle of removing a root leaves any of its files; the keys of tokens are not taken for one."""
    authority = start(tmp_path, clock)
    stray = tmp_path / "0123456789ab"
    stray.mkdir()
    (stray / left).write_bytes(b"half")
    authority.ensure()
    assert not stray.exists()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir() and "-" in path.name) == ["access-token", "jwt-svid"]


class Rotations(RuleBasedStateMachine):
    """An operator who does anything at any time, on a node that crashes anywhere."""

    def __init__(self) -> None:
        super().__init__()
        # In memory where that can be: what is tested is the order of writes, not the disk.
        self.folder = Path(tempfile.mkdtemp(prefix="crank-rotation-", dir=MEMORY if MEMORY.is_dir() else None))
        self.clock = FakeClock()
        self.failpoints = FakeFailpoints()
        self.authority = start(self.folder, self.clock, self.failpoints)
        self.sequence = self.authority.bundle().sequence
        self.roots = self.authority.bundle().x509_authorities
        # Chains that were handed out, with when they end.
        self.leaves: list[tuple[int, list[x509.Certificate]]] = []

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def restart(self) -> None:
        self.failpoints = FakeFailpoints()
        self.authority = start(self.folder, self.clock, self.failpoints)

    @rule(step=st.sampled_from(RotationStep), crash=st.sampled_from([None, None, *MOMENTS]))
    def turn(self, step: RotationStep, crash: str | None) -> None:
        before = self.authority.status().rotation
        if crash is not None:
            self.failpoints.raise_at(crash, Crash())
        try:
            after = self.authority.turn_root(step)
        except Conflict:
            assert self.authority.status().rotation == before
            self.restart()
            assert self.authority.status().rotation == before
            return
        except Crash:
            self.restart()
            now = self.authority.status().rotation
            if crash == "authority.after_state":
                assert now.phase != before.phase
            else:
                assert now == before
            return
        assert after.phase != before.phase

    @rule(seconds=st.sampled_from([1, 600, LEAF_SEC, LEAF_SEC + 60, 13 * 3600]))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)
        self.authority.ensure()

    @rule()
    def issue(self) -> None:
        svid = self.authority.issue(WORKER, WORKLOAD, public_key())
        self.leaves.append((svid.not_after_us, [x509.load_der_x509_certificate(each) for each in svid.chain]))

    @rule()
    def start_again(self) -> None:
        before = self.authority.bundle()
        self.restart()
        assert self.authority.bundle() == before

    @precondition(lambda self: self.leaves)
    @invariant()
    def whoever_was_let_in_still_is(self) -> None:
        """No leaf that is valid leads to a root that is not published."""
        self.leaves = [each for each in self.leaves if each[0] > self.clock.now_us()]
        for _, chain in self.leaves:
            assert root_of(chain, self.authority) is not None

    @invariant()
    def the_sequence_tells_of_every_change(self) -> None:
        """It grows with the content, and never turns back."""
        bundle = self.authority.bundle()
        assert bundle.sequence >= self.sequence
        if bundle.x509_authorities != self.roots:
            assert bundle.sequence > self.sequence
        self.sequence, self.roots = bundle.sequence, bundle.x509_authorities

    @invariant()
    def nothing_is_left_over(self) -> None:
        """There is a folder for each root that is published, and no other."""
        rotation = self.authority.status().rotation
        expected = {mark for mark in (rotation.current, rotation.other) if mark}
        found = {path.parent.name for path in self.folder.glob("*/root.pem")}
        assert found == expected
        assert len(self.authority.bundle().x509_authorities) == len(expected)


TestRotations = Rotations.TestCase
TestRotations.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


KILLED = """
import sys
from pathlib import Path
from crank.adapters.authority import FileAuthority
from crank.adapters.clock import SystemClock, SystemIdSource
from crank.adapters.clock import SystemClock, SystemIdSource
from crank.adapters.failpoints import EnvFailpoints
from crank.domain.trust import RotationStep

folder, step, moment = sys.argv[1:]
made = {"trust_domain": "test.internal", "clock": SystemClock(), "ids": SystemIdSource()}
FileAuthority(Path(folder), **made).ensure()
FileAuthority(Path(folder), **made, failpoints=EnvFailpoints(f"{moment}:kill")).turn_root(RotationStep(step))
"""


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_process_leaves_a_step_undone_or_done(tmp_path, moment):
    """SIGKILL in the middle of `prepare`: another start has one root or two, says which, and goes on to the end."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), "prepare", moment], timeout=60, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    authority = FileAuthority(tmp_path, trust_domain=DOMAIN, clock=SystemClock(), ids=SystemIdSource())
    authority.ensure()
    two = moment == "authority.after_state"
    assert len(authority.bundle().x509_authorities) == (2 if two else 1)
    assert len(list(tmp_path.glob("*/root.pem"))) == (2 if two else 1)
    assert len(authority.status().root_keys) == (2 if two else 1)
    if not two:
        authority.turn_root(RotationStep.PREPARE)
    assert authority.turn_root(RotationStep.ACTIVATE).phase is RotationPhase.ACTIVATED
    assert signed_by(authority) is not None


def test_a_full_disk_leaves_it_as_it_was(tmp_path, clock):
    """A step that cannot be written is refused as such, and taken when there is room again."""
    failpoints = FakeFailpoints()
    authority = start(tmp_path, clock, failpoints)
    failpoints.raise_at("authority.before_state", OSError(28, "No space left on device"))
    with pytest.raises(Unavailable) as caught:
        authority.turn_root(RotationStep.PREPARE)
    assert caught.value.error_code == "authority_unwritable"
    assert authority.status().rotation.phase is RotationPhase.SETTLED
    assert len(authority.bundle().x509_authorities) == 1
    assert authority.turn_root(RotationStep.PREPARE).phase is RotationPhase.PREPARED
    authority.ensure()
    assert len(list(tmp_path.glob("*/root.pem"))) == 2
