#!/bin/sh
# Gives the tests an HSM: SoftHSM2, the software token of Debian's package softhsm2. Root gets it from apt if this
# machine has none; the script says so before it does it. Without it the tests of PKCS#11 say that they were skipped.
set -eu
for place in /usr/lib/softhsm /usr/lib/*/softhsm /usr/local/lib/softhsm; do
    [ -e "$place/libsofthsm2.so" ] && command -v softhsm2-util >/dev/null 2>&1 && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "test setup: no HSM to test with; installing Debian's softhsm2 with apt-get" >&2
    if apt-get update -qq && apt-get install -y -qq --no-install-recommends softhsm2 >&2; then
        exit 0
    fi
fi
echo "test setup: no SoftHSM2 here, so the tests of PKCS#11 are skipped; 'apt-get install softhsm2' gives one" >&2
