"""Keys that sign tokens, kept in an HSM: they follow each other as those in files do, and an HSM that is away stops no key that is there."""

import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from crank.adapters.authority.files import new_key
from crank.adapters.authority.token_keys import TOKEN_KEY_LIVES, Hsm, TokenKeys
from crank.errors import ConfigurationError, Unavailable
from crank.testing.fakes import FakeClock, FakeIdSource

WEEK_SEC, AHEAD_SEC, AFTER_SEC = TOKEN_KEY_LIVES.signs_sec, TOKEN_KEY_LIVES.ahead_sec, TOKEN_KEY_LIVES.after_sec


class Key(ec.EllipticCurvePrivateKey):
    """A key that signs as long as its token is there."""

    def __init__(self, token: "Token") -> None:
        self._token, self._key = token, new_key()

    def sign(self, data, signature_algorithm, *, rng=None) -> bytes:
        """Sign."""
        self._token.look()
        return self._key.sign(data, signature_algorithm)

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the public half."""
        return self._key.public_key()

    curve = key_size = property(lambda self: pytest.fail("nobody asks"))
    exchange = private_numbers = private_bytes = __copy__ = __deepcopy__ = lambda self, *_: pytest.fail("nobody may ask")  # type: ignore[assignment]


class Token:
    """The KeyStore, in memory; `away` as an HSM is that somebody unplugged."""

    def __init__(self) -> None:
        self.kept: dict[str, Key] = {}
        self.away = False

    def look(self) -> None:
        """Insist that it is there."""
        if self.away:
            raise ConfigurationError("The HSM cannot be used: the token 'secret place' is gone.", code="hsm_unusable")

    def find(self, mark: str) -> Key | None:
        """Return the key."""
        self.look()
        return self.kept.get(mark)

    def make(self, mark: str) -> Key:
        """Make the key, once."""
        self.look()
        assert mark not in self.kept
        self.kept[mark] = Key(self)
        return self.kept[mark]

    def remove(self, mark: str) -> None:
        """Destroy the key."""
        self.look()
        self.kept.pop(mark, None)

    def place(self, mark: str) -> str:
        """Say where it is."""
        return f"here, as {mark}"


@pytest.fixture
def token() -> Token:
    """Give an empty token."""
    return Token()


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock that a test moves."""
    return FakeClock()


def opened(folder: Path, clock: FakeClock, token: Token | None) -> TokenKeys:
    """Open the set in a folder, as a start does."""
    keys = TokenKeys(folder, use="sig", clock=clock, hsm=None if token is None else Hsm(token, FakeIdSource()))
    keys.load()
    keys.rotate()
    return keys


def kids(keys: TokenKeys) -> list[str]:
    """Return the published names, the newest first."""
    return [str(each["kid"]) for each in keys.public()]


def marks(folder: Path) -> set[str]:
    """Return the names that lie in the folder."""
    return {path.stem for path in folder.glob("*.hsm")}


def test_keys_follow_each_other_in_the_hsm(tmp_path, clock, token):
    """No private key is in a file; a successor is published, signs, and at last the old one is destroyed in the HSM."""
    keys = opened(tmp_path, clock, token)
    (first,) = kids(keys)
    clock.advance(WEEK_SEC - AHEAD_SEC)
    assert keys.rotate()
    (second, _) = kids(keys)
    assert len(token.kept) == 2
    clock.advance(AHEAD_SEC + AFTER_SEC)
    assert keys.rotate()
    assert kids(keys) == kids(opened(tmp_path, clock, token)) == [second] != [first]
    assert set(token.kept) == marks(tmp_path)
    assert len(token.kept) == 1
    assert not list(tmp_path.glob("*.pem"))


def test_a_set_moves_into_an_hsm_and_out_again(tmp_path, clock, token):
    """Keys in files go on until they end, and only the next one is made where the settings say."""
    (in_file,) = kids(opened(tmp_path, clock, None))
    keys = opened(tmp_path, clock, token)
    assert (kids(keys), token.kept) == ([in_file], {})
    clock.advance(WEEK_SEC)
    keys.rotate()
    assert len(kids(keys)) == 2
    assert kids(opened(tmp_path, clock, token)) == kids(keys)
    clock.advance(AHEAD_SEC + AFTER_SEC)
    keys.rotate()
    assert in_file not in kids(keys)
    assert not list(tmp_path.glob("*.pem"))
    with pytest.raises(ConfigurationError, match="settings name none"):
        opened(tmp_path, clock, None)


def test_an_hsm_that_is_away_stops_nothing_but_signing(tmp_path, clock, token):
    """The next key is made when it is back, once; meanwhile a signature is refused, and whoever asked learns nothing of the HSM."""
    keys = opened(tmp_path, clock, token)
    token.away = True
    clock.advance(WEEK_SEC)
    for _ in range(3):
        assert not keys.rotate()
    with pytest.raises(Unavailable) as refused, capture_logs() as said:
        keys.sign({"n": 1}, kind="at+jwt")
    assert refused.value.error_code == "token_key_unavailable"
    assert "secret place" not in refused.value.message + str(refused.value.fix)
    assert "secret place" in said[0]["cause"]
    assert len(kids(keys)) == 1
    token.away = False
    assert keys.rotate()
    assert keys.sign({"n": 1}, kind="at+jwt")
    assert len(kids(keys)) == 2
    assert set(token.kept) == marks(tmp_path)


def test_the_first_key_needs_the_hsm(tmp_path, clock, token):
    """A node whose HSM is away at its first start says so, and does not put the key into a file instead."""
    token.away = True
    with pytest.raises(ConfigurationError, match="HSM"):
        opened(tmp_path, clock, token)
    assert not list(tmp_path.glob("*.pem"))


def test_a_crash_leaves_no_key_that_nobody_knows(tmp_path, clock, token, monkeypatch):
    """What was made and never listed is destroyed with the next change; its name was written before it was made."""
    keys = opened(tmp_path, clock, token)
    clock.advance(WEEK_SEC)

    def full(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(keys, "_write_times", full)
    with pytest.raises(OSError, match="no space"):
        keys.rotate()
    assert len(token.kept) == 2
    again = opened(tmp_path, clock, token)
    assert len(kids(again)) == len(token.kept) == 2
    assert set(token.kept) == marks(tmp_path)


def test_a_name_that_is_taken_in_the_hsm_is_not_used(tmp_path, clock, token):
    """Another node's key in the same token is neither signed with nor destroyed."""
    taken = hashlib.sha256(FakeIdSource().secret().encode()).hexdigest()[:12]
    other = token.make(taken)
    keys = opened(tmp_path, clock, token)
    assert keys.signing_key() is not other
    assert token.kept[taken] is other


def test_a_key_that_is_another_than_the_list_says_is_refused(tmp_path, clock, token):
    """One that somebody put into the HSM in its place is never published or signed with."""
    opened(tmp_path, clock, token)
    (mark,) = token.kept
    token.kept[mark] = Key(token)
    with pytest.raises(ConfigurationError, match="no longer in the HSM"):
        opened(tmp_path, clock, token)
    assert len(json.loads((tmp_path / "keys.json").read_bytes())) == 1
