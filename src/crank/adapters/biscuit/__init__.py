"""Grants as Biscuits: tokens that their holders narrow and pass on by themselves (biscuit-python, version 3 tokens)."""

from crank.adapters.biscuit.holder import BiscuitHolder
from crank.adapters.biscuit.issuer import BiscuitIssuer
from crank.adapters.biscuit.keys import new_holder_key

__all__ = ["BiscuitHolder", "BiscuitIssuer", "new_holder_key"]
