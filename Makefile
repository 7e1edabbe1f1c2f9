# Two commands do everything: `make demo` and `make test`. Both do all set-up first.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# Tests run beside each other, one worker a core and four at most; tests/lanes.py says what never runs beside what.
WORKERS ?= logical
LANES = -n $(WORKERS) --maxprocesses 4 --dist loadscope --no-loadscope-reorder

.PHONY: help setup setup-test demo test lint types faults interrupts laws clean

help: ## what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: ## everything the product needs, idempotent
	@test -n "$(PYTHON)" || { echo "Python >= 3.11 with venv is needed; install it and try again" >&2; exit 1; }
	@$(PYTHON) tools/setup.py

setup-test: ## the same, and what only the tests need (Chromium)
	@test -n "$(PYTHON)" || { echo "Python >= 3.11 with venv is needed; install it and try again" >&2; exit 1; }
	@$(PYTHON) tools/setup.py --with-tests

demo: setup ## the main job in the sandbox, with a live view
	@$(BIN)/shardwright demo

lint: setup-test ## ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup-test ## mypy --strict
	@$(BIN)/mypy

test: lint types ## lint, types and every test, on WORKERS processes (one per core, four at most)
	@$(BIN)/pytest $(LANES)

faults: setup-test ## every fault in every state of a real move: RUNS of them (108) from SEED (1), from the FIRST on (0)
	@$(BIN)/python -m tests.faults.campaign --runs $${RUNS:-108} --seed $${SEED:-1} --first $${FIRST:-0}

interrupts: setup-test ## kill control planes at many moments: all fault tests, ten interrupts over the whole demo
	@SHARDWRIGHT_INTERRUPTS=10 SHARDWRIGHT_INTERRUPTS_WITHIN=100 $(BIN)/pytest tests/faults

laws: setup-test ## look for counterexamples: the laws on new random examples, ROUNDS times (10)
	@for round in $$(seq $${ROUNDS:-10}); do SHARDWRIGHT_LAWS=search $(BIN)/pytest -q tests/properties || exit 1; done

clean: ## remove what the demo and the tests leave in the checkout (never a state directory)
	@rm -rf .shardwright/demo.jsonl .shardwright/demo-bill.focus.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
