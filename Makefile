# Everything that a checkout can do, on a machine with Python 3.11 or newer and nothing else.
#   make demo    start the embedded AlloDoc, check it, write the report, take it down
#   make test    lint, types, and all tests
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest

.PHONY: demo test lint types unit integration bench clean
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

# What breaks real ones: the embedded demo, and Docker containers where an Engine answers.
integration: $(STAMP)
	$(PYTEST) tests/demo tests/runtimes tests/checks tests/acceptance

bench: $(STAMP)
	$(BIN)/python -m tests.bench

clean:
	rm -rf $(VENV) .demo .tox .mypy_cache .ruff_cache .pytest_cache reports/runs demo/backend/node_modules
