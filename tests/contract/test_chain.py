"""Biscuits keep the promises of `ports.ChainIssuer` and `ports.ChainHolder`."""

from tests.support.biscuits import Agent, Keys

from crank.adapters.biscuit import BiscuitHolder, BiscuitIssuer
from crank.ports import ChainHolder, ChainIssuer
from crank.testing.contracts_chain import ChainContract, Somebody


class TestBiscuits(ChainContract):
    """The library's tokens, in our forms."""

    def make(self) -> tuple[ChainIssuer, ChainHolder]:
        return BiscuitIssuer(Keys()), BiscuitHolder()

    def somebody(self) -> Somebody:
        agent = Agent()
        return Somebody(agent.holder, agent.pem)
