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

.PHONY: demo test lint types unit integration embedded containers bench clean
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

# What needs no running system: the engine, parsers, reports.
unit: $(STAMP)
	$(PYTEST) tests/allodoc_health tests/fixtures tests/reports

# What breaks real ones: the embedded demo, and Docker containers where an Engine answers. The two beds share nothing.
BROKEN := tests/demo tests/runtimes tests/checks tests/acceptance
integration:
	$(MAKE) --jobs=2 --output-sync=target embedded containers

embedded: $(STAMP)
	$(PYTEST) $(BROKEN) -m "not docker"

containers: $(STAMP)
	$(PYTEST) $(BROKEN) -m docker

bench: $(STAMP)
	$(BIN)/python -m tests.bench

clean:
	rm -rf $(VENV) .demo .tox .mypy_cache .ruff_cache .pytest_cache reports/runs demo/backend/node_modules
