# Every target sets up what it needs first: Python 3.11 or later and make are all that has to be there.
#
# A recipe's exit code is the one of ticketbench, pytest or scripts/bootstrap (4: it cannot be set up here), and make
# prints it as "Error 4"; make's own is 2 after any failure. Whoever needs the code itself calls
# .venv/bin/ticketbench after `make install`.

.DEFAULT_GOAL := help
BIN := .venv/bin

# What follows a target: make spike ARGS="--vary cache=on,off", make test ARGS="tests/unit -x"
ARGS ?=

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: install
install: ## set up .venv with what ticketbench needs to run, and .venv/bin/ticketbench
	@scripts/bootstrap run

.PHONY: dev
dev: ## the same and the tools that test it
	@scripts/bootstrap dev

.PHONY: spike
spike: install ## run the spike scenario on a stack of its own; ARGS go to `ticketbench run spike`
	@$(BIN)/ticketbench run spike $(ARGS)

.PHONY: down
down: install ## stop whatever an interrupted run left behind; ARGS go to `ticketbench down`
	@$(BIN)/ticketbench down $(ARGS)

.PHONY: test
test: dev ## run all tests, against real servers; ARGS go to pytest
	@$(BIN)/pytest -n 2 --dist loadgroup $(ARGS)

.PHONY: check
check: lint types layers test ## everything that CI asks for

.PHONY: format
format: dev ## rewrite the Python files in the house format
	@$(BIN)/ruff check --quiet --fix --exit-zero
	@$(BIN)/ruff format

.PHONY: lint
lint: dev ## check format and lint
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check

.PHONY: types
types: dev ## check types
	@$(BIN)/mypy

.PHONY: layers
layers: dev ## check which part imports which
	@$(BIN)/lint-imports

.PHONY: lock
lock: ## resolve pyproject.toml into requirements/; ARGS="--upgrade" renews the versions
	@scripts/bootstrap venv
	@$(BIN)/python scripts/lock.py $(ARGS)

.PHONY: clean
clean: ## remove .venv, caches and builds; reports stay
	@rm -rf .venv build dist .coverage .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find ticketbench target_app tests benchmarks scripts -name __pycache__ -prune -exec rm -rf {} +
