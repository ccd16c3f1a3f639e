"""The walls by name, and what a person can do when one is missing. One place, for errors and for `doctor`."""

from collections.abc import Mapping

from crank.errors import SandboxError

FIXES: Mapping[str, str] = {
    "user_namespace": (
        "Allow user namespaces: 'sysctl user.max_user_namespaces=15000'; on Debian also "
        "'sysctl kernel.unprivileged_userns_clone=1', on Ubuntu 24.04 and later "
        "'sysctl kernel.apparmor_restrict_unprivileged_userns=0'. In a container run with "
        "'--security-opt seccomp=unconfined --security-opt apparmor=unconfined'. Or start the worker as root."
    ),
    "namespaces": (
        "The kernel refused new namespaces. In a container, allow them: "
        "'--security-opt seccomp=unconfined --security-opt apparmor=unconfined'."
    ),
    "mounts": (
        "The kernel refused a mount. In a container, /proc must not be masked: "
        "'--security-opt systempaths=unconfined'; the kernel must be 5.12 or newer."
    ),
    "cgroup": "Restart the worker; if it stays, look whether another program changes its control group.",
    "identity": "Give the container a range of at least 65536 user ids, or run the worker as an ordinary user.",
    "capabilities": "Start the worker as root with its usual capabilities, or as an ordinary user.",
    "permissions": (
        "Let every account read and enter it ('chmod -R a+rX'), and every folder above it, or start the worker as its owner; "
        "without namespaces nobody can lend jobs the right."
    ),
    "processes": "Use Linux 6.12 or newer, or a machine that gives namespaces.",
    "no_new_privs": "The kernel must be 3.5 or newer.",
    "landlock": "Use a kernel built with CONFIG_SECURITY_LANDLOCK, or leave Landlock out of the 'lsm=' boot option.",
    "seccomp": "Use a kernel built with CONFIG_SECCOMP_FILTER; in a container do not forbid seccomp(2).",
    "limits": "Raise the worker's own hard limits ('ulimit -H -a'); a job's limits must fit inside them.",
    "interpreter": "Build the profile again: 'crank profile build'.",
    "programs": "Build the profile again: 'crank profile build'.",
    "zygote": "Take the module that starts a thread out of the profile's 'preimports'; jobs may import it themselves.",
    "preimports": "Build the profile again: 'crank profile build', then 'crank profile check'.",
    "module": "Correct the module: it is imported in a sandbox, without network, other files, programs or threads.",
    "memory": "Raise the profile's memory limit: its own modules do not fit.",
    "network": "Report this: the network of the sandbox is not empty.",
}


def missing(layer: str, cause: str) -> SandboxError:
    """Return the fault that names a missing layer and what to do about it."""
    return SandboxError(
        f"The sandbox layer '{layer}' could not be raised: {cause}",
        code=f"layer_{layer}",
        fix=FIXES.get(layer),
        detail=cause,
    )
