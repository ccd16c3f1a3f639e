#!/bin/sh
# Resolves the requirement files. They carry hashes and no address, so that every mirror serves them.
set -eu
index=$("${PY:?}" -m pip config get global.index-url 2>/dev/null || true)
[ -z "$index" ] || export UV_DEFAULT_INDEX="$index"
compile() {
    .cache/lock/bin/uv pip compile --quiet --no-header --generate-hashes --universal --python-version 3.11 \
        --exclude-newer "$(date -u -d '7 days ago' +%Y-%m-%dT00:00:00Z)" "$@"
}
compile pyproject.toml --output-file requirements/runtime.txt
compile --group dev --constraints requirements/runtime.txt --output-file requirements/dev.txt
printf 'hatchling==1.33.0\neditables\n' | compile - --constraints requirements/dev.txt --output-file requirements/build.txt
# What `make bench` measures beside: an environment of its own, because its versions are not ours.
compile benchmarks/peers/requirements.in --output-file benchmarks/peers/requirements.txt
# The compiler of protobuf messages, which only `make proto` needs.
compile tools/proto/requirements.in --output-file tools/proto/requirements.txt
# The foreign judges of tests/judges: one environment each, because their versions collide.
for wanted in tests/judges/*/requirements.in; do
    compile "$wanted" --output-file "${wanted%.in}.txt"
done
# npm writes where it found each package; taken out, every mirror serves the same bytes by their hash.
for wanted in tests/judges/*/package.json; do
    [ -e "$wanted" ] || continue
    (cd "$(dirname "$wanted")" && npm install --package-lock-only --ignore-scripts --no-audit --no-fund --loglevel=error)
    sed -i '/^ *"resolved": /d' "$(dirname "$wanted")/package-lock.json"
done
