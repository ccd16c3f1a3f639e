# One definition of every check; CI and people call the same words. `make help` lists them.
#
# Nothing here needs an administrator. The one system package that may be missing (python3-venv) is
# fetched by tools/venv.sh when root calls it, and it says so; everything else lives in .venv and .cache.
# The tests add one more, a software HSM (tools/softhsm.sh); without it those that need it are skipped.

.DEFAULT_GOAL := help
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
READY := $(VENV)/.ready
# Built profiles are shared by the demo, the tests and the benchmarks.
BUILDS := $(CURDIR)/.cache/profiles
PYTEST_ARGS ?=
# Options of the benchmark: --rounds 300, --profiles python-core, …
BENCH_ARGS ?=
# Two test processes: the suite is written for a machine with two cores.
JOBS ?= 2
# All state of the demo's node: inside the clone, away from your own node.
DEMO_HOME := $(CURDIR)/.demo

.PHONY: help setup profiles profiles-small judges demo test check lint types imports deps golden reference proto docs soak bench mcpb lock clean

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv with the locked dependencies (runs once)

$(READY): requirements/runtime.txt requirements/dev.txt requirements/build.txt pyproject.toml tools/venv.sh
	@$(PY) -c '' 2>/dev/null || ./tools/venv.sh $(VENV)
	@echo "setup: installing locked dependencies into $(VENV)" >&2
	@$(PY) -m pip install -qq --disable-pip-version-check --no-warn-script-location --require-hashes \
		-r requirements/runtime.txt -r requirements/dev.txt -r requirements/build.txt
	@$(PY) -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

profiles-small: setup ## Build the profiles python-core, python-docs and python-interpreter
	@CRANK_PROFILES_BUILDS=$(BUILDS) $(BIN)/crank profile build python-core python-docs python-interpreter

profiles: profiles-small ## Build every profile, python-ml (large) too
	@CRANK_PROFILES_BUILDS=$(BUILDS) $(BIN)/crank profile build python-ml

judges: setup ## Build the environments of the foreign clients that the tests use (each once)
	@$(PY) tests/judges/install.py

demo: setup ## Convert a folder of documents with a real node, and show the result
	@$(PY) examples/demo.py --home $(DEMO_HOME) --builds $(BUILDS)

test: setup check profiles-small judges ## Run every check and every test
	@./tools/softhsm.sh
	@if [ -n "$${CRANK_TEST_ML:-}" ]; then $(MAKE) --no-print-directory profiles; fi
	@$(BIN)/pytest -n $(JOBS) --dist loadgroup -m "not soak" $(PYTEST_ARGS)

check: lint types imports deps ## Run the checks that need no test

lint: setup ## ruff and codespell
	@$(BIN)/ruff check
	@$(BIN)/codespell -L objekt,biuld,filetests,wit,te src tests docs features examples benchmarks tools profiles/*.toml *.md

types: setup ## mypy --strict
	@$(BIN)/mypy

imports: setup ## Directions between the rooms
	@$(BIN)/lint-imports --no-logo

deps: setup ## Every import has its declared dependency, and the other way round
	@$(BIN)/deptry src

golden: setup ## Write the golden files anew (then read the diff)
	@CRANK_TEST_GOLDEN=write $(BIN)/pytest -q -k golden tests

reference: setup ## Write the reference pages from the code
	@$(PY) tools/reference.py

proto: setup ## Write the modules of protobuf messages from their .proto files
	@PY=$(PY) ./tools/proto/write.sh

docs: setup profiles-small ## Run every snippet of the documents
	@$(BIN)/pytest -q tests/test_docs.py

soak: setup profiles-small ## Kill processes 300 times, run 10 000 mixed jobs, and other long tests
	@CRANK_SOAK_KILLS=300 CRANK_SOAK_JOBS=$${CRANK_SOAK_JOBS:-10000} $(BIN)/pytest -m 'soak or endures' --timeout 7200 $(PYTEST_ARGS)

bench: setup profiles-small ## Measure Crank beside its neighbours, in turns, in one run; draws a plot
	@$(PY) benchmarks/peers/install.py .cache/peers
	@CRANK_PROFILES_BUILDS=$(BUILDS) $(PY) -m benchmarks.bench $(BENCH_ARGS)

mcpb: setup ## Build the one-click bundle for Claude Desktop in dist/
	@$(PY) tools/mcpb/build.py

lock: setup ## Resolve the requirements anew, with hashes and without any registry's address
	@$(PY) -m venv .cache/lock
	@.cache/lock/bin/python -m pip install -qq --disable-pip-version-check uv
	@PY=$(PY) ./tools/lock.sh

clean: ## Remove what was built; keeps .venv
	rm -rf .demo .cache dist results .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
