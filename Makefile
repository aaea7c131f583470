# make run and make test need git, make and Python 3.11+; everything else comes from requirements.lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
RUN_ARGS ?= --horizon hour

# The tests start a thousand processes: what they import is compiled once, whatever the shell says.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run test check format lint types bench chaos lock clean

run: $(READY)
	$(BIN)/acp run $(RUN_ARGS)

test: $(READY) lint types
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

check: test

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)
	$(BIN)/python -m benchmarks.governed_vs_raw
	$(BIN)/python -m benchmarks.hot_budget

# Not part of `test`: CHAOS_MINUTES (10) of work and faults on a real fleet, in the order that CHAOS_SEED (1) gives.
chaos: $(READY)
	$(BIN)/python -m tests.chaos

# Needs uv; the only step that does. The lock carries hashes and no registry address.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
		--no-annotate --extra dev --upgrade pyproject.toml -o requirements.lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is %d.%d: try make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .hypothesis .acp
