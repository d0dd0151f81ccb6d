# One environment for everything: .venv, made from pyproject.toml and constraints.txt and kept until they change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TREE := .types
PIP := $(BIN)/pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help run test test-all bench lint format type setup clean

help:  ## show the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

run: $(VENV)/.run  ## set up, and solve the demo problems with the embedded model
	@$(BIN)/nr-agent solve --demo

test: $(VENV)/.dev lint type  ## set up, and run lint, types and tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-all: $(VENV)/.dev lint type  ## as test, and the slow tests on a real model, which is pulled once (93 MB)
	@SMOLLM2="$$($(BIN)/nr-agent models pull smollm2)" && export SMOLLM2 && $(BIN)/python -m pytest -m ""

bench: $(VENV)/.dev  ## run the benchmarks
	@$(BIN)/python -m benchmarks

lint: $(VENV)/.dev tree  ## check style, and that imports go one way
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@cd $(TREE) && ../$(BIN)/lint-imports --no-cache --config ../pyproject.toml

type: $(VENV)/.dev tree  ## check types, and that somebody else's code has them
	@MYPYPATH=$(TREE) $(BIN)/mypy -p nr_agent
	@MYPYPATH=$(TREE) $(BIN)/mypy tests/typed/user.py

format: $(VENV)/.dev  ## bring the code into shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# The checkers know nothing of setuptools' package-dir: they get a copy of the package as it is installed.
.PHONY: tree
tree:
	@rm -rf $(TREE) && mkdir -p $(TREE)
	@cp -R nr_agent $(TREE)/ && cp -R graphs policies $(TREE)/nr_agent/

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
	@command -v cc >/dev/null || { echo "a C compiler is needed: pycosat, of reasoning-gym, has no wheel (on Debian:" \
		"apt-get install build-essential python3-dev)"; exit 1; }
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@$(PIP) install --no-deps 'langchain-tests>=1.1,<1.2'
	@touch $@ $(VENV)/.run
