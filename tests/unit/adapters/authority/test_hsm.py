"""The authority's key in an HSM: made there, used there, and nowhere else."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pkcs11
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from crank.adapters.authority import FileAuthority
from crank.adapters.authority.hsm import HsmKeys
from crank.errors import ConfigurationError
from crank.ports import Authority
from crank.testing.contracts_authority import DOMAIN, WORKER, WORKLOAD, AuthorityContract, public_key
from crank.testing.fakes import FakeClock, FakeIdSource
from tests.support.hsm import TOKEN, Hsm, open_hsm

MARK = "0123456789ab"
SHA256 = ec.ECDSA(hashes.SHA256())


@pytest.fixture(scope="module")
def hsm(tmp_path_factory):
    """Give a token of its own to the tests of this file."""
    yield from open_hsm(tmp_path_factory.mktemp("hsm"))


@pytest.fixture
def keys(hsm: Hsm):
    """Give the store of keys in that token, empty again afterwards."""
    store = HsmKeys(hsm.module, TOKEN, hsm.pin_file)
    yield store
    store.remove(MARK)


class TestAuthorityWithAnHsm(AuthorityContract):
    """An authority whose key is in the token keeps every promise."""

    @pytest.fixture
    def authority(self, tmp_path, clock: FakeClock, hsm: Hsm) -> Authority:
        made = FileAuthority(
            tmp_path / "authority",
            trust_domain=DOMAIN,
            clock=clock,
            ids=FakeIdSource(),
            keys=HsmKeys(hsm.module, TOKEN, hsm.pin_file),
        )
        made.ensure()
        return made

    def change_keys(self, authority, clock: FakeClock) -> None:
        clock.advance(7 * 86_400)
        authority.ensure()
        clock.advance(3600)
        authority.ensure()


def test_no_file_holds_the_authoritys_key(hsm, tmp_path):
    """Beside the root's there is none on the disk, of tokens neither; another start finds all of them in the token."""
    made = [
        FileAuthority(
            tmp_path, trust_domain=DOMAIN, clock=FakeClock(), ids=FakeIdSource(), keys=HsmKeys(hsm.module, TOKEN, hsm.pin_file)
        )
        for _ in range(2)
    ]  # fmt: skip
    chains = [each.issue(WORKER, WORKLOAD, public_key()).chain for each in made]
    assert chains[0][2] == chains[1][2]
    private = {path.parent.name for path in tmp_path.rglob("*") if path.is_file() and b"PRIVATE" in path.read_bytes()}
    assert private == {"offline"}
    signed = [each.sign_access_token({"n": 1}).split(".")[0] for each in made]
    assert signed[0] == signed[1]
    assert [each["kid"] for each in made[0].access_token_keys()] == [each["kid"] for each in made[1].access_token_keys()]


def test_the_key_cannot_be_taken_out(hsm, keys):
    """In the token it is sensitive and not extractable, and never was otherwise; this program has no way to its value."""
    key = keys.make(MARK)
    with pytest.raises(TypeError, match="does not leave"):
        key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(TypeError, match="does not leave"):
        key.private_numbers()
    with pytest.raises(TypeError):
        key.exchange(ec.ECDH(), key.public_key())
    assert copy.deepcopy(key) is copy.copy(key) is key

    def look(session):
        (found,) = session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY, pkcs11.Attribute.ID: bytes.fromhex(MARK)})  # fmt: skip
        names = ("SENSITIVE", "ALWAYS_SENSITIVE", "NEVER_EXTRACTABLE", "EXTRACTABLE")
        assert [found[getattr(pkcs11.Attribute, name)] for name in names] == [True, True, True, False]
        with pytest.raises(pkcs11.exceptions.AttributeSensitive):
            found[pkcs11.Attribute.VALUE]

    keys.run(look)


def test_a_key_that_could_be_taken_out_is_refused(keys):
    """Somebody else's key of the right name, extractable, is never signed with."""

    def plant(session):
        parameters = session.create_domain_parameters(
            pkcs11.KeyType.EC,
            {pkcs11.Attribute.EC_PARAMS: pkcs11.util.ec.encode_named_curve_parameters("secp256r1")},
            local=True,
        )
        parameters.generate_keypair(
            store=True,
            label=f"crank-authority-{MARK}",
            id=bytes.fromhex(MARK),
            private_template={pkcs11.Attribute.SENSITIVE: False, pkcs11.Attribute.EXTRACTABLE: True},
        )

    keys.run(plant, writing=True)
    with pytest.raises(ConfigurationError, match="give the authority's key away"):
        keys.find(MARK)


def test_threads_never_meet_in_the_token(keys):
    """Many threads sign at once, each call in a session of its own that no other sees, and every signature holds."""
    key = keys.make(MARK)
    inside, gate = [], threading.Barrier(4)

    def look(session) -> None:
        inside.append(session)
        assert len(inside) == 1
        inside.clear()

    def sign(number: int) -> None:
        gate.wait(20)
        for turn in range(10):
            octets = f"{number} {turn}".encode()
            key.public_key().verify(key.sign(octets, SHA256), octets, SHA256)
            keys.run(look)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(sign, range(4)))


def test_a_lost_login_is_made_again(hsm, keys):
    """The HSM's module starts anew, and all sessions are gone: the next signature logs in again."""
    key = keys.make(MARK)
    pkcs11.lib(str(hsm.module)).reinitialize()
    key.public_key().verify(key.sign(b"after", SHA256), b"after", SHA256)


def test_a_key_that_was_destroyed_is_named(keys):
    """A key that is gone from the token is a fault of the configuration, said with its name."""
    key = keys.make(MARK)
    keys.remove(MARK)
    assert keys.find(MARK) is None
    with pytest.raises(ConfigurationError, match=MARK):
        key.sign(b"x", SHA256)
    keys.remove(MARK)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda hsm, folder: (folder / "none.so", TOKEN, hsm.pin_file), "none.so"),
        (lambda hsm, folder: (hsm.module, "no such token", hsm.pin_file), "no such token"),
        (lambda hsm, folder: (hsm.module, TOKEN, folder / "none"), "PIN cannot be read"),
        (lambda hsm, folder: (hsm.module, TOKEN, _file(folder, "\n", 0o600)), "no PIN"),
        (lambda hsm, folder: (hsm.module, TOKEN, _file(folder, "x" * 300, 0o600)), "no PIN"),
        (lambda hsm, folder: (hsm.module, TOKEN, _file(folder, "648219", 0o644)), "other accounts"),
        (lambda hsm, folder: (hsm.module, TOKEN, _file(folder, "111111", 0o600)), "refused"),
    ],
)
def test_what_is_wrong_is_named(hsm, tmp_path, change, said):
    """No module, no token, no PIN, a PIN that others may read, a wrong one: each has a cause, a fix, and no PIN in it."""
    pkcs11.lib(str(hsm.module)).reinitialize()
    with pytest.raises(ConfigurationError, match=said) as caught:
        HsmKeys(*change(hsm, tmp_path)).find(MARK)
    assert caught.value.error_code == "hsm_unusable"
    assert caught.value.fix
    assert "648219" not in caught.value.message


def test_a_wrong_pin_is_tried_once(hsm, tmp_path):
    """Too many wrong PINs lock a token: the second call does not reach it, and says why."""
    keys = HsmKeys(hsm.module, TOKEN, _file(tmp_path, "111111", 0o600))
    with pytest.raises(ConfigurationError, match="refused: PinIncorrect"):
        keys.find(MARK)
    with pytest.raises(ConfigurationError, match="would lock it"):
        keys.find(MARK)


def _file(folder, text, mode):
    path = folder / "pin"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_only_ecdsa_with_sha256_is_signed(keys):
    """Another hash is refused before the token is asked."""
    with pytest.raises(TypeError):
        keys.make(MARK).sign(b"x", ec.ECDSA(hashes.SHA384()))
