# `make demo` and `make test` set everything up by themselves: a .venv beside this file, with Python >= 3.11 and make only.
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11 python,$(shell $(p) -c 'import sys; print("$(p)" if sys.version_info >= (3, 11) else "")' 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install dev demo test test-all lint docs clean

help: ## Say what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# torch first and by itself: another package that asks for any torch would pull a build of several gigabytes
$(VENV)/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: no Python >= 3.11 found; install one or say make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(sed -nE 's/^ *"(torch[^"]*)",/\1/p' pyproject.toml)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@

install: $(VENV)/.installed ## Make .venv and install unrolled into it

dev: $(VENV)/.dev ## The same, with what tests, lint and docs need

demo: install ## Train the default model for about two minutes; print validation bits per character and a sample
	@rm -rf runs/demo
	$(BIN)/unrolled build --optional
	$(BIN)/unrolled train --out runs/demo

test: dev ## The test suite
	$(BIN)/unrolled build --optional
	$(BIN)/python -m pytest -n $(JOBS)

test-all: dev ## The test suite with the slow tests
	$(BIN)/unrolled build --optional
	$(BIN)/python -m pytest -n $(JOBS) -m "slow or not slow"

lint: dev ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: dev ## The documentation, warnings are errors
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

clean: ## Remove what make made
	rm -rf $(VENV) docs/_build build dist .pytest_cache .ruff_cache
