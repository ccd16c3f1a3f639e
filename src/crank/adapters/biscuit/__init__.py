"""Grants as Biscuits: tokens that their holders narrow and pass on by themselves (biscuit-python, version 3 tokens)."""

from crank.adapters.biscuit.holder import BiscuitHolder
from crank.adapters.biscuit.issuer import BiscuitIssuer

__all__ = ["BiscuitHolder", "BiscuitIssuer"]
