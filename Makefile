# Everything is run through these targets. `make demo` and `make test` work as the first command on a machine
# that has Python 3.11 or newer with venv, make and a package index.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TOOLS := .venv-proto
TOOLS_READY := $(TOOLS)/.ready
INTEROP := .venv-interop
INTEROP_READY := $(INTEROP)/.ready
# What is locked is installed, and nothing else is looked for (--no-deps); what is locked must be all.
PIP := -m pip --disable-pip-version-check --quiet --no-input

# Each plugin runs on the files that have something for it.
PROTOS := $(sort $(wildcard protos/rpc_async/v1/*.proto protos/rpc_async/demo/v1/*.proto))
SERVICES := $(shell grep -l '^service ' $(PROTOS))
TEST_PROTOS := tests/peers/interop.proto

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-peers test-all matrix soak lint types layers proto proto-check build bench lock clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): requirements/dev.txt pyproject.toml rpc_async/_version.py
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "making $(VENV) with $(PYTHON) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(PIP) install --require-hashes --no-deps -r requirements/dev.txt
	@$(BIN)/python $(PIP) install --no-build-isolation --no-deps --editable .
	@$(BIN)/python $(PIP) check
	@$(BIN)/python requirements/check.py requirements/dev.txt
	@touch $@

$(TOOLS_READY): requirements/proto.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "making $(TOOLS) with $(PYTHON) ..."
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python $(PIP) install --require-hashes --no-deps -r requirements/proto.txt
	@$(TOOLS)/bin/python $(PIP) check
	@$(TOOLS)/bin/python requirements/check.py requirements/proto.txt
	@touch $@

$(INTEROP_READY): requirements/interop.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "making $(INTEROP) with $(PYTHON) ..."
	@$(PYTHON) -m venv $(INTEROP)
	@$(INTEROP)/bin/python $(PIP) install --require-hashes --no-deps -r requirements/interop.txt
	@$(INTEROP)/bin/python $(PIP) check
	@$(INTEROP)/bin/python requirements/check.py requirements/interop.txt
	@touch $@

demo: $(READY) ## Start a server and show what an asynchronous call is
	@$(BIN)/python -m client.demo

test: $(READY) ## Run the tests, but for those that take long or need other people's programs
	@$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

test-slow: $(READY) ## Run the tests that take long
	@$(BIN)/python -m pytest -m slow $(PYTEST_ARGS) || test $$? = 5 # which is pytest's word for none

test-peers: $(READY) $(INTEROP_READY) ## Run the tests against grpc-go, grpcurl, nginx, OpenTelemetry and others
	@$(INTEROP)/bin/python -m tests.peers.programs
	@$(INTEROP)/bin/python -m pytest tests/peers $(PYTEST_ARGS)

test-all: test test-slow test-peers matrix ## Run all tests there are

matrix: $(READY) ## Run tests on the wheel with its oldest and newest dependencies, on each Python that is here
	@$(BIN)/python -m tests.matrix

soak: $(READY) ## Cut, kill, stop and race for ten minutes (SOAK_ARGS="--minutes N --only NAME,... --json FILE")
	@$(BIN)/python -m tests.soak $(SOAK_ARGS)

lint: $(READY) layers ## Check style, formatting and the layers
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

layers: $(READY)
	@$(BIN)/lint-imports --no-cache

types: $(READY) ## Check types with mypy and pyright
	@$(BIN)/mypy
	@$(BIN)/pyright

define generate
	@mkdir -p $(1)
	@PATH="$(TOOLS)/bin:$$PATH" $(TOOLS)/bin/python -m grpc_tools.protoc -I protos \
		--python_out=$(1) --mypy_out=quiet:$(1) $(PROTOS)
	@PATH="$(TOOLS)/bin:$$PATH" $(TOOLS)/bin/python -m grpc_tools.protoc -I protos \
		--grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) $(SERVICES)
	@PATH="$(TOOLS)/bin:$$PATH" $(TOOLS)/bin/python -m grpc_tools.protoc -I . --python_out=$(1) --mypy_out=quiet:$(1) \
		--grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) $(TEST_PROTOS)
endef

proto: $(TOOLS_READY) ## Make the generated code from protos/
	@rm -f $(wildcard rpc_async/v1/*_pb2* rpc_async/demo/v1/*_pb2* tests/peers/*_pb2*)
	$(call generate,.)

proto-check: $(TOOLS_READY) ## Check that the generated code is what the protos give, and the protos themselves
	@$(TOOLS)/bin/buf lint
	@if git rev-parse --quiet --verify HEAD~1 >/dev/null; then $(TOOLS)/bin/buf breaking --against '.git#ref=HEAD~1'; fi
	@rm -rf .generated
	$(call generate,.generated)
	@for f in $$(cd .generated && find . -name '*_pb2*'); do cmp .generated/$$f $$f || exit 1; done
	@test "$$(cd .generated && find . -name '*_pb2*' | wc -l)" = "$$(git ls-files '*_pb2*' | wc -l)" \
		|| { echo "generated files that no proto gives, or that are not committed" >&2; exit 1; }
	@rm -rf .generated

build: $(READY) ## Make the sdist and the wheel in dist/
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation --outdir dist . >/dev/null
	@ls dist

bench: $(READY) ## Measure, side by side with raw grpc.aio (BENCH_ARGS="--quick --json FILE --svg FILE")
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

PEERS := .venv-peers
PEERS_READY := $(PEERS)/.ready

$(PEERS_READY): requirements/peers.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "making $(PEERS) with $(PYTHON) ..."
	@$(PYTHON) -m venv $(PEERS)
	@echo '*' >$(PEERS)/.gitignore
	@$(PEERS)/bin/python $(PIP) install --require-hashes --no-deps -r requirements/peers.txt
	@$(PEERS)/bin/python $(PIP) check
	@$(PEERS)/bin/python requirements/check.py requirements/peers.txt
	@touch $@

.PHONY: bench-peers lock-peers clean-peers
bench-peers: $(READY) $(PEERS_READY) ## Measure the same echo by other means, into the same report (BENCH_ARGS as above)
	@$(BIN)/python -m benchmarks.peers $(BENCH_ARGS)

lock-peers: $(READY)
	@$(BIN)/uv pip compile --quiet --upgrade --universal --no-strip-extras --python-version 3.11 --generate-hashes \
		--no-emit-index-url --custom-compile-command "make lock" requirements/peers.in -o requirements/peers.txt

lock: lock-peers

clean-peers:
	rm -rf $(PEERS) benchmarks/peers/go/build

clean: clean-peers

lock: $(READY) ## Write requirements/*.txt anew from requirements/*.in and pyproject.toml
	@$(BIN)/uv pip compile --quiet --upgrade --universal --no-strip-extras --python-version 3.11 --generate-hashes --extra demo \
		--no-emit-index-url --custom-compile-command "make lock" pyproject.toml requirements/dev.in -o requirements/dev.txt
	@$(BIN)/uv pip compile --quiet --upgrade --universal --no-strip-extras --python-version 3.11 --generate-hashes \
		--no-emit-index-url --custom-compile-command "make lock" requirements/proto.in -o requirements/proto.txt
	@$(BIN)/uv pip compile --quiet --upgrade --universal --no-strip-extras --python-version 3.11 --generate-hashes --extra demo \
		--no-emit-index-url --custom-compile-command "make lock" --constraint requirements/dev.txt \
		pyproject.toml requirements/interop.in -o requirements/interop.txt

clean: ## Remove everything that was made
	rm -rf $(VENV) $(TOOLS) $(INTEROP) tests/peers/go/build tests/peers/js/node_modules .generated dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
