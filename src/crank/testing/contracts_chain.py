"""The promises of `ports.ChainIssuer` and `ports.ChainHolder` as tests. Subclass and say how both are made, and a holder's key."""

from dataclasses import dataclass

from crank.domain.chain import Holder, Presenter
from crank.domain.json import JsonObject
from crank.errors import InvalidRequest, NotAuthenticated
from crank.ports import ChainHolder, ChainIssuer
from crank.testing.expect import faults

NOW_US = 1_800_000_000_000_000
ENDS_SEC = NOW_US // 1_000_000 + 600


@dataclass(frozen=True, slots=True)
class Somebody:
    """A holder with their private key in PEM."""

    holder: Holder
    pem: bytes

    @property
    def presenter(self) -> Presenter:
        """Return them as proven."""
        return Presenter(self.holder.name)


class ChainContract:
    """What every issuer and every holder's side promise each other."""

    def make(self) -> tuple[ChainIssuer, ChainHolder]:
        """Return both sides."""
        raise NotImplementedError

    def somebody(self) -> Somebody:
        """Return a holder with a fresh key."""
        raise NotImplementedError

    def _claims(self) -> JsonObject:
        return {"jti": "g", "exp": ENDS_SEC, "text": 'quote " and \u2028', "depth": 2}

    def test_what_was_minted_is_opened_and_looked_at(self) -> None:
        """Claims and holder come back to the issuer, who checks signatures, and to the holder, who need not."""
        issuer, holding = self.make()
        ann = self.somebody()
        token = issuer.mint(self._claims(), ann.holder)
        opened = issuer.open(token)
        assert opened.chain == holding.look(token)
        assert (opened.chain.claims, opened.chain.holder, opened.chain.hops) == (self._claims(), ann.holder, ())
        opened.evaluate(ann.presenter, NOW_US)

    def test_hops_are_read_in_order_with_who_made_them(self) -> None:
        """A hop for the same holder has no signer; one to another has the giver's key and names the taker."""
        issuer, holding = self.make()
        ann, bob = self.somebody(), self.somebody()
        token = holding.narrow(issuer.mint(self._claims(), ann.holder), {"exp": ENDS_SEC - 60})
        token = holding.pass_on(token, {"depth": 0}, bob.holder, ann.pem)
        first, second = issuer.open(token).chain.hops
        assert (first.signer, first.holder, first.claims) == (None, None, {"exp": ENDS_SEC - 60})
        assert (second.signer, second.holder, second.claims) == (ann.holder.name, bob.holder, {"depth": 0})

    def test_the_tokens_own_checks_bind_end_and_holder(self) -> None:
        """Its last holder is let through until the earliest end; nobody else ever."""
        issuer, holding = self.make()
        ann, bob = self.somebody(), self.somebody()
        token = holding.pass_on(issuer.mint(self._claims(), ann.holder), {"exp": ENDS_SEC - 60}, bob.holder, ann.pem)
        opened = issuer.open(token)
        opened.evaluate(bob.presenter, NOW_US)
        for presenter, at_us in ((ann.presenter, NOW_US), (bob.presenter, (ENDS_SEC - 60) * 1_000_000)):
            with faults(NotAuthenticated, "invalid_token"):
                opened.evaluate(presenter, at_us)

    def test_each_block_has_an_id_of_its_own_that_stays(self) -> None:
        """Ids of blocks before are those of the token before, and can be asked for without believing anything."""
        issuer, holding = self.make()
        ann = self.somebody()
        token = issuer.mint(self._claims(), ann.holder)
        longer = holding.narrow(token, {})
        ids = tuple(issuer.revocation_ids(longer))
        assert ids[:1] == tuple(issuer.revocation_ids(token))
        assert len(set(ids)) == 2
        assert ids == issuer.open(longer).chain.revocation_ids
        assert issuer.claimed_id(longer) == "g"

    def test_only_the_holder_passes_on(self) -> None:
        """Another key than that of the present holder is refused by the holder's side already."""
        issuer, holding = self.make()
        ann, bob = self.somebody(), self.somebody()
        token = holding.pass_on(issuer.mint(self._claims(), ann.holder), {}, bob.holder, ann.pem)
        with faults(InvalidRequest, "not_the_holder"):
            holding.pass_on(token, {}, ann.holder, ann.pem)

    def test_a_holder_without_a_key_gets_none(self) -> None:
        """What nobody is bound to could be passed on by anybody."""
        issuer, _ = self.make()
        with faults(InvalidRequest, "holder_key_missing"):
            issuer.mint(self._claims(), Holder(self.somebody().holder.name))

    def test_noise_and_strangers_tokens_are_one_refusal(self) -> None:
        """What is no token, and a token of another issuer, are told apart by nobody."""
        issuer, holding = self.make()
        stranger, _ = self.make()
        for text in ("", "x", "a.b.c", stranger.mint(self._claims(), self.somebody().holder)):
            with faults(NotAuthenticated, "invalid_token"):
                issuer.open(text)
        for text in ("", "x", "a.b.c"):
            with faults(NotAuthenticated, "invalid_token"):
                issuer.claimed_id(text)
        with faults(InvalidRequest, "not_a_biscuit"):
            holding.look("a.b.c")

    def test_keys_are_published_without_their_secret(self) -> None:
        """Each has a name, and the number by which tokens name it."""
        issuer, _ = self.make()
        keys = issuer.public_keys()
        assert keys
        assert all({"kid", "root_key_id"} <= set(key) and "d" not in key for key in keys)
