# One environment for everything: .venv, made from pyproject.toml and constraints.txt and kept until they change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help run test test-all bench lint format type setup clean

help:  ## show the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

run: $(VENV)/.run  ## set up, and solve the demo problems with the embedded model
	@$(BIN)/nr-agent solve --demo

test: $(VENV)/.dev lint type  ## set up, and run lint, types and tests
	@$(BIN)/python -m pytest

test-all: $(VENV)/.dev lint type  ## the same with the slow tests
	@$(BIN)/python -m pytest -m ''

bench: $(VENV)/.dev  ## run the benchmarks
	@$(BIN)/python -m benchmarks

lint: $(VENV)/.dev  ## check style, and that imports go one way
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

type: $(VENV)/.dev  ## check types
	@$(BIN)/mypy

format: $(VENV)/.dev  ## bring the code into shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

setup: $(VENV)/.dev  ## make the environment for development

clean:  ## remove the environment and what was built
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/bin/pip:
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/pip
	@echo "installing (once)"
	@$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/pip
	@echo "installing (once)"
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.run
