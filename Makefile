# Everything starts here; needs a CPython 3.11 to 3.13 and make, the rest it brings. `make help` lists it.
#
#   PYTHON  interpreter for .venv (default: the newest of python3.13, python3.12, python3.11, python3 that fits)
#   VENV    where it goes (default .venv)
#   ARGS    more arguments for what is run: make up ARGS="--port 8081", make test-api ARGS="-k stream -x"

.POSIX:
.SUFFIXES:
SHELL = /bin/sh
VENV = .venv
RUN = $(VENV)/bin
ARGS =

# Modules of benchmarks/ that take --quick and --ours, in the order they run.
BENCHMARKS = ingest sustained
# Those that start what they need themselves.
BENCHMARKS_ALONE = failover reads verbs recovery bloom silences response limits ten_days
BENCH_PORT = 18080
BENCH_DATA = var/bench
# Not benchmarks/results/, which holds what is claimed: quick runs are for oneself.
BENCH_RESULTS = var/bench-results

# uv writes the locks. No registry's address may be in them, and they must read the same wherever they are made.
LOCK = $(RUN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

help:
	@echo "make up      start on this machine and return when it is ready (http://127.0.0.1:8080, data in ./var)"
	@echo "make down    stop it, and leave no process; data stays"
	@echo "make test    all lanes: everything but the long tests, 20 minutes on two cores"
	@echo "make check   the lane to run while you work: lint, tests without processes or stores, layers, documents"
	@echo "make test-stores  the lane of the stores, on real servers"
	@echo "make test-api     the lane of HTTP"
	@echo "make test-cli     the lane of the command line"
	@echo "make test-browser the lane of the web page, in a real browser"
	@echo "make test-sim     the lane of the simulation"
	@echo "make test-ray     the lane of real Ray clusters"
	@echo "make soak    the long tests: kills and store outages"
	@echo "make bench   quick runs of the benchmarks, compared with Alertmanager"
	@echo "make lint    style, types, import rules"
	@echo "make docs    write the settings reference from the code"
	@echo "make proto   write services/proto/incident_pb2*.py from the .proto file beside them"
	@echo "make lock    write requirements/*.txt from pyproject.toml (ARGS=--upgrade for newer versions)"
	@echo ""
	@echo 'ARGS="..." is added to the command; PYTHON=/path/to/python3.12 chooses the interpreter.'

up: install
	@$(RUN)/llm-im up $(ARGS)

down:
	@if [ -x $(RUN)/llm-im ]; then $(RUN)/llm-im down $(ARGS); else echo "nothing runs: there is no $(VENV)"; fi

# tests/lanes.py says what is in a lane and how long it may take. With ARGS, `make test` is one pytest over all folders, without
# workers: for what a few words select.
test: install-dev peers
	@$(RUN)/python -m tests.lanes -- $(ARGS)

check: install-dev
	@$(RUN)/python -m tests.lanes check -- $(ARGS)

test-stores test-api test-cli test-browser test-sim test-ray: install-dev peers
	@lane=$@; $(RUN)/python -m tests.lanes "$${lane#test-}" -- $(ARGS)

soak: install-dev peers
	@$(RUN)/python -m pytest -m soak $(ARGS)

bench: install-dev peers
	@rm -rf $(BENCH_DATA) && mkdir -p $(BENCH_RESULTS)
	@$(RUN)/llm-im up --data $(BENCH_DATA) --port $(BENCH_PORT)
	@status=0; \
	for name in $(BENCHMARKS); do \
	    $(RUN)/python -m benchmarks.$$name --quick --ours http://127.0.0.1:$(BENCH_PORT) \
	        --results $(BENCH_RESULTS) $(ARGS) || status=1; \
	done; \
	$(RUN)/llm-im down --data $(BENCH_DATA) || status=1; \
	for name in $(BENCHMARKS_ALONE); do \
	    $(RUN)/python -m benchmarks.$$name --quick --results $(BENCH_RESULTS) || status=1; \
	done; \
	exit $$status

lint: install-dev
	@status=0; \
	$(RUN)/python -m ruff check . || status=1; \
	$(RUN)/python -m ruff format --check . || status=1; \
	$(RUN)/python -m mypy || status=1; \
	$(RUN)/lint-imports || status=1; \
	exit $$status

# The reference of the settings, from models/settings/; a test says when it is stale.
docs: install
	@$(RUN)/python -m services.settings.reference docs/configuration.md
	@$(RUN)/python -m services.actions.samples docs/channels.md

proto: install-dev
	@sh scripts/proto.sh $(RUN)/python

lock: install-dev
	$(LOCK) $(ARGS) -o requirements/runtime.txt
	$(LOCK) --group dev $(ARGS) -o requirements/dev.txt

# How it gets there: scripts/venv.sh costs a few milliseconds when nothing changed.

install:
	@GOAL=up PYTHON="$(PYTHON)" VENV="$(VENV)" sh scripts/venv.sh runtime

install-dev:
	@GOAL=test PYTHON="$(PYTHON)" VENV="$(VENV)" sh scripts/venv.sh dev

peers:
	@sh scripts/peers.sh

.PHONY: help up down test check test-stores test-api test-cli test-browser test-sim test-ray soak bench lint docs proto lock install install-dev peers
