# `make` alone lists the verbs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo run test test-breadth test-faults test-load test-interop bench-cutover bench-me check format clean

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

install: $(STAMP) ## make .venv with the pinned dependencies

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; try make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing pinned dependencies into $(VENV) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[embedded,dev]'
	@touch $@

demo: $(STAMP) ## the whole way: a Better Auth database, the cutover, the server, a provider, the requests
	@$(BIN)/shadow demo

run: $(STAMP) ## as demo, then leave provider and server running and print curl lines
	@$(BIN)/shadow demo --stay

test: $(STAMP) ## the tests
	@$(BIN)/python -m pytest -n 3 --dist worksteal -m "not (breadth or faults or benchmarks)" --ignore tests/interop

test-breadth: $(STAMP) ## the tests of one thing with every finding, obstacle and layout: its remedy, and the way there and back
	@$(BIN)/python -m pytest -n 3 --dist worksteal -m "breadth and not faults" --ignore tests/interop

test-faults: $(STAMP) ## the tests that kill processes and servers, fill disks, and go through poolers
	@$(BIN)/python -m pytest -n 3 --dist worksteal -m faults

test-load: $(STAMP) ## 8,000 first requests, identical and conflicting, 10,000 events three times, all at once; the benchmarks
	@TEST_SCALE=1 $(BIN)/python -m pytest -n 2 --dist load tests/users/test_contention.py tests/users/test_storm.py tests/scripts/test_bench_*.py

test-interop: $(STAMP) ## the tests with real providers, and a real Better Auth as the old app, on Node
	@if ! command -v npm >/dev/null; then echo "Node is missing: the tests with real providers and a real Better Auth are skipped"; \
	else for folder in tests/betterauth tests/providers; do \
	  (cd $$folder && npm install --no-package-lock --no-audit --no-fund --silent) || exit 1; done; fi
	@$(BIN)/python -m pytest -n 2 --dist loadfile tests/interop -rs

bench-cutover: $(STAMP) ## how long readers and writers wait at a million users, beside a plain DROP ... CASCADE
	@$(BIN)/python scripts/bench_cutover.py

bench-me: $(STAMP) ## how fast a warm GET /me is; AGAINST=COMMIT measures that in turn
	@$(BIN)/python scripts/bench_me.py $(if $(AGAINST),--against $(AGAINST))

check: $(STAMP) ## lint, format, types, and alembic check
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python scripts/check_migrations.py

format: $(STAMP) ## put the code in order
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## remove .venv and .data
	rm -rf $(VENV) .data .mypy_cache .pytest_cache .ruff_cache
