#!/bin/sh
# Writes *_pb2.py and *_pb2.pyi beside every .proto file, with a compiler in an environment of its own.
set -eu
if [ ! -e .cache/proto/.ready ]; then
    "${PY:?}" -m venv --without-pip .cache/proto
    "$PY" -m pip --python .cache/proto/bin/python install -qq --disable-pip-version-check --require-hashes -r tools/proto/requirements.txt
    touch .cache/proto/.ready
fi
cd src
find crank -name '*.proto' -exec ../.cache/proto/bin/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. {} +
