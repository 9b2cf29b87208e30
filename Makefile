# One task runner; CI calls `make check`. Needs Python 3.11+ and make.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test serve check lint types proto proto-check docs bench bench-load chaos compose-test node-example shell-example clean

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || { echo "→ making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "→ installing the dependencies pinned in constraints.txt (the first time takes a minute or two)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch -e '.[server,dev]'
	@echo "→ compiling the training kernels, once for this machine (about a minute)"
	@$(BIN)/python -m epochd_server.executor.warming & $(BIN)/python -m epochd_server.executor.warming; wait
	@touch $@

demo: $(STAMP) ## a server, two trainings, predictions and activations, in a few seconds
	@$(BIN)/python examples/demo.py

test: $(STAMP) ## every test, shared among the cores; then those that need the machine to themselves
	$(BIN)/python -m pytest -n logical --dist worksteal -m "not alone"
	$(BIN)/python -m pytest -m alone

serve: $(STAMP) ## the server on 127.0.0.1:50051, state under ./.epochd
	$(BIN)/epochd serve

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy

PROTOC = $(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=$(1) --grpc_python_out=$(1) \
	--mypy_out=quiet:$(1) --mypy_grpc_out=quiet:$(1) \
	--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
	protos/epochd/v1/*.proto

proto: $(STAMP) ## generate client/epochd/v1 from protos/
	rm -f client/epochd/v1/*_pb2*.py*
	$(call PROTOC,client)

proto-check: $(STAMP) ## lint the protos; fail when the generated stubs are stale
	$(BIN)/buf lint protos
	@rm -rf build/stubs && mkdir -p build/stubs
	@$(call PROTOC,build/stubs)
	@diff -r -x __init__.py -x __pycache__ build/stubs/epochd/v1 client/epochd/v1 \
		|| { echo "The stubs under client/epochd/v1 are stale: run 'make proto' and commit."; exit 1; }

check: lint types proto-check test

clean:
	rm -rf $(VENV) build dist

docs: $(STAMP) ## generate docs/api.md after a change under protos/
	$(BIN)/python docs/generate_api.py

NODE_STAMP := examples/node/node_modules/.installed

$(NODE_STAMP): examples/node/package.json examples/node/package-lock.json
	@echo "→ installing @grpc/grpc-js and @grpc/proto-loader for the Node example"
	@cd examples/node && npm ci --silent --no-audit --no-fund --ignore-scripts
	@touch $@

node-example: $(STAMP) $(NODE_STAMP) ## train, watch and predict from Node
	@$(BIN)/python examples/with_server.py node examples/node/train.js

shell-example: $(STAMP) ## a session with a generic gRPC client over reflection
	@BUF=$(BIN)/buf $(BIN)/python examples/with_server.py examples/shell/session.sh

compose-test: $(STAMP) ## really build and run the compose stack, and train through it
	tests/compose/run

bench: $(STAMP) ## every benchmark, one table of ratios (minutes)
	$(BIN)/python -m benchmarks

bench-load: $(STAMP) ## what a server does under load: latency, memory, events stored a second (minutes)
	$(BIN)/python -m benchmarks.load

chaos: $(STAMP) ## servers and workers killed at random while clients work; everything accounted for (minutes)
	$(BIN)/python -m benchmarks.chaos
