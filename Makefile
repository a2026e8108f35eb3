# Everything that a checkout can do, on a machine with Python 3.11 or newer and nothing else.
#   make demo    start the embedded AlloDoc, check it, write the report, take it down
#   make test    lint, types, and all tests
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest

# Without its compiled files pytest rewrites every module anew in every run, which takes longer than the checks do.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint types unit integration embedded containers faults soak bench clean
.DELETE_ON_ERROR:

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,dev]'
	$(BIN)/python -m demo install
	touch $@

demo: $(STAMP)
	$(PYTEST) checks --target demo

test: lint types unit integration

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy

# On a machine of CI's a neighbour may take the processor for seconds, and a real system or a process that waits for a
# signal is late then: what fails there is tried once more, counted and named.
AGAIN := $(if $(CI),--reruns 1 -rfER)

# What needs no running system: the engine, parsers, reports.
unit: $(STAMP)
	$(PYTEST) tests/allodoc_health tests/fixtures tests/reports tests/deploy --numprocesses=2 $(AGAIN)

# What breaks real ones: the embedded demo (one for each worker), and Docker containers where an Engine answers. The beds
# share nothing, but two cores are not enough for both at once. At last: is there a command that nobody has run, and do
# the snapshots of all faults tell the same when they are replayed?
BROKEN := tests/demo tests/runtimes tests/checks tests/faults tests/acceptance tests/soak
integration:
	rm -rf reports/runs/executed-commands.txt reports/runs/faults
	$(MAKE) embedded
	$(MAKE) containers
	$(BIN)/python -m tests.faults.remedies
	$(BIN)/python -m tests.faults.replays

embedded: $(STAMP)
	$(PYTEST) $(BROKEN) -m "not docker" --numprocesses=2 --dist=worksteal $(AGAIN)

containers: $(STAMP)
	$(PYTEST) $(BROKEN) -m docker $(AGAIN)

# The fault catalogue alone, and its results as a page.
faults: $(STAMP)
	$(PYTEST) tests/faults -m "not docker" --numprocesses=2 --dist=worksteal
	$(PYTEST) tests/faults -m docker
	$(BIN)/python -m tests.faults.results

# 200 healthy runs on each bed while people work on it; in `make test` there are 10.
soak: $(STAMP)
	SOAK_RUNS=200 $(PYTEST) tests/soak -s

bench: $(STAMP)
	$(PYTEST) tests/bench -s -q

clean:
	rm -rf $(VENV) .demo .tox .mypy_cache .ruff_cache .pytest_cache reports/runs demo/backend/node_modules
