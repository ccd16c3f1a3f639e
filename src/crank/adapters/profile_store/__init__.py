"""Builds environment profiles into root folders that a sandbox can use as they are.

A job must see its own interpreter and packages and nothing of the host. So a build is a folder that
holds everything the interpreter needs, down to the dynamic loader, and names no path outside itself.

source       the profile's file and its lock, read and checked
interpreter  which Python, and a copy of it
packages     what pip installs, and proof that it is what the lock says
libraries    the shared libraries that all of it loads
store        the order of the steps, and which finished builds exist
shipped      the capabilities that lie beside the profiles, with their code
"""

from crank.adapters.profile_store.shipped import read_shipped
from crank.adapters.profile_store.store import ProfileStore

__all__ = ["ProfileStore", "read_shipped"]
