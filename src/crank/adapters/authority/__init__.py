"""The node's own certificate authority, made on first start: it issues every identity of its trust domain."""

from crank.adapters.authority.authority import FileAuthority
from crank.adapters.authority.generation import AUTHORITY_FILE, LIST_FILE, ROOT_FILE, root_keys_in
from crank.adapters.authority.identities import Identity

__all__ = ["AUTHORITY_FILE", "LIST_FILE", "ROOT_FILE", "FileAuthority", "Identity", "root_keys_in"]
