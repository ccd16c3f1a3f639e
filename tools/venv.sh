#!/bin/sh
# Makes the virtual environment in .venv with a Python 3.11 of this machine, whoever calls it.
# An ordinary user needs no system package. Root gets python3-venv from apt if this machine's Python
# came without it; the script says so before it does it.
set -eu
target=${1:?usage: tools/venv.sh FOLDER}

works() { # a Python that this user can run, of the version that the lock files are for
    "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1
}
has_pip_source() {
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1
}

bare=
for candidate in ${PYTHON:-} python3.11 python3 /usr/bin/python3.11 /usr/bin/python3 /usr/local/bin/python3.11; do
    command -v "$candidate" >/dev/null 2>&1 && works "$candidate" || continue
    if has_pip_source "$candidate"; then
        echo "setup: virtual environment from $("$candidate" -c 'import sys; print(sys.executable)')" >&2
        exec "$candidate" -m venv --clear "$target"
    fi
    bare=${bare:-$candidate}
done

if [ -z "$bare" ]; then
    echo "setup: no Python 3.11 found. Install one (Debian 12: apt-get install python3), or name it: make PYTHON=/path/to/python3.11 setup" >&2
    exit 1
fi
if "$bare" -m pip --version >/dev/null 2>&1; then
    echo "setup: this Python has no ensurepip; its own pip fills the virtual environment" >&2
    "$bare" -m venv --clear --without-pip "$target"
    exec "$bare" -m pip --python "$target/bin/python" install --quiet pip
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "setup: this Python cannot make virtual environments; installing Debian's python3-venv with apt-get" >&2
    apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv >&2
    exec "$bare" -m venv --clear "$target"
fi
echo "setup: $bare can make no virtual environment: it has neither ensurepip nor pip." >&2
echo "setup: ask an administrator for 'apt-get install python3-venv', or name another: make PYTHON=/path/to/python3.11 setup" >&2
exit 1
