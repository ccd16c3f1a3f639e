"""Mutual TLS for everyone who writes a part of Crank: contexts that always verify, and who the peer is.

    from crank.security import MutualTls

    mine = MutualTls(folder)                                    # what `crank identity fetch` wrote
    link = mine.connect("10.0.0.7", 7443, expect="spiffe://crank.internal/worker/w1")

There is no parameter that turns verification off.
"""

from crank.security.author import MutualTls
from crank.security.certificates import peer_identity, read_workload
from crank.security.contexts import bearer_server_context, client_context, server_context
from crank.security.verifier import Verifier, bundle_from_pem, peer_chain

__all__ = [
    "MutualTls",
    "Verifier",
    "bearer_server_context",
    "bundle_from_pem",
    "client_context",
    "peer_chain",
    "peer_identity",
    "read_workload",
    "server_context",
]
