# Everything a developer needs, on a machine that has make and Python 3.11 or newer. Nothing is installed outside $(VENV).

VENV    ?= .venv
PYTHON  ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN     := $(VENV)/bin
HOST    ?= 127.0.0.1
PORT    ?= 8000
ROUNDS  ?= 20
SECONDS ?= 1
KILLS   ?= 10
WORKERS ?= 4
DB      ?= sqlite
ARGS    ?=
PATHS   := src tests benchmarks examples

.DEFAULT_GOAL := help
.PHONY: help demo test chaos lint format bench docs build clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## Run the example shop on http://127.0.0.1:8000 (HOST=, PORT=)
	HOST=$(HOST) PORT=$(PORT) $(BIN)/python -m examples.shop

test: $(VENV)/.dev ## Run the tests with branch coverage (ARGS="-k name" for some of them)
	$(BIN)/python -m pytest $(if $(ARGS),$(ARGS),--cov --cov-report=term-missing)

chaos: SECONDS = 1200
chaos: $(VENV)/.dev ## Kill a service under load, and check each accepted task (KILLS=, WORKERS=, DB=, SECONDS=)
	$(BIN)/python -m tests.chaos --kills $(KILLS) --workers $(WORKERS) --db $(DB) --seconds $(SECONDS) $(ARGS)

lint: $(VENV)/.dev ## Check style, format, types and the direction of imports
	$(BIN)/ruff check $(PATHS)
	$(BIN)/ruff format --check $(PATHS)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## Format the code and apply the safe fixes
	$(BIN)/ruff check --fix $(PATHS)
	$(BIN)/ruff format $(PATHS)

bench: $(VENV)/.demo ## Compare with bare BackgroundTasks and the other package (ROUNDS=, SECONDS=)
	$(BIN)/python -m benchmarks.throughput --rounds $(ROUNDS) --seconds $(SECONDS) $(ARGS)
	$(BIN)/python -m benchmarks.memory

docs: $(VENV)/.docs ## Build the manual into site/, every warning an error
	$(BIN)/zensical build --strict

build: $(VENV)/.dev ## Build the wheel and the source archive into dist/
	$(BIN)/python -m build

clean: ## Remove what the targets made, the virtual environment included
	rm -rf $(VENV) dist build site .mypy_cache .ruff_cache .pytest_cache .coverage .coverage.*

# One stamp per purpose: a target installs what it needs and no more, again when pyproject.toml has changed.

$(VENV)/.venv:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found; set PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@touch $@

$(VENV)/.demo: $(VENV)/.venv pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[demo,otlp]"
	@touch $@

$(VENV)/.dev: $(VENV)/.venv pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[demo,otlp,postgres,pickle]" --group dev
	@touch $@

$(VENV)/.docs: $(VENV)/.venv pyproject.toml
	$(BIN)/python -m pip install --quiet --group docs
	@touch $@
