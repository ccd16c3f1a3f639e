"""The node's own certificate authority, made on first start: it issues every identity of its trust domain."""

from crank.adapters.authority.authority import FileAuthority
from crank.adapters.authority.identities import Identity

__all__ = ["FileAuthority", "Identity"]
