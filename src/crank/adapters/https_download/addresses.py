"""Where a name leads: resolved once, and every address judged before anything connects to one of them."""

import asyncio
import concurrent.futures
import functools
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence

PORT = 443
# At once: each may hold a whole file in memory.
FETCHES_MAX = 4
# Of version 6 only this is the public internet: what hides another address in front of zeros, what is translated,
# site-local and segment routing all lie outside.
_UNICAST = ipaddress.ip_network("2000::/3")
# What lies inside of the public ranges and yet leads to a relay, a translator, an example or whoever is near.
_SPECIAL = tuple(
    ipaddress.ip_network(each)
    for each in (
        "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
        "192.0.0.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.175.48.0/24",
    )
)  # fmt: skip
# This machine, and the networks that RFC 1918, 4193 and 6598 set apart; one cloud keeps its secrets in the third.
_NEAR = tuple(
    ipaddress.ip_network(each)
    for each in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "::1/128", "fc00::/7")
)
_SECRETS = ipaddress.ip_network("fd00:ec2::/32")
Resolve = Callable[[str], Awaitable[Sequence[str]]]


def is_public(address: str) -> bool:
    """Tell whether an address lies in the public internet: not here, not in a private network, not reserved."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if parsed.version == 6 and parsed not in _UNICAST:
        return False
    return parsed.is_global and not parsed.is_multicast and not any(parsed in each for each in _SPECIAL)


# Threads of their own: a name that is never answered must not hold those that the store and the blobs need.
_RESOLVING = concurrent.futures.ThreadPoolExecutor(max_workers=FETCHES_MAX, thread_name_prefix="resolve")


async def resolve(host: str) -> Sequence[str]:
    """Return the addresses of a name. Raises OSError."""
    found = await asyncio.get_running_loop().run_in_executor(
        _RESOLVING, functools.partial(socket.getaddrinfo, host, PORT, type=socket.SOCK_STREAM)
    )
    return [str(entry[4][0]) for entry in found]


def is_near(address: str) -> bool:
    """Tell whether an address is this machine or in a private network, where an operator said that it may be.

    Never link-local, where clouds keep their secrets, whichever way it is written.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return any(parsed in each for each in _NEAR) and parsed not in _SECRETS
