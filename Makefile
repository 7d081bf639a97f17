# Everything here works in a fresh clone on a machine that has make and python3.11.
# The tools go into .venv, their downloads into .cache; nothing is written outside the clone
# (except that `make test`, run as root, installs the programs the tests call; see scripts/setup-system).

SETUP := scripts/setup-venv
BIN := .venv/bin
ARGS ?=

.PHONY: help demo test bench languages lint format promises docs clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|' 2>/dev/null || cat Makefile

demo: ## put a real data set in one process and read it in others
	@$(SETUP) demo
	@$(BIN)/flightstore demo $(ARGS)

# The recipe's words all go to standard output: see .ci/run.
# Two processes share the tests. ARGS comes last: "-n 0" is one process, as a debugger needs it.
test: ## run every test that this machine can run (ARGS="-k name" for some of them)
	@$(SETUP) demo test 2>&1
	@scripts/setup-system 2>&1
	@$(BIN)/python -m pytest -n 2 --dist worksteal --durations=15 --durations-min=1 $(ARGS) 2>&1

bench: ## measure, each figure beside memcpy, raw LMDB and files (ARGS="--peers all" for other stores)
	@$(SETUP) demo test
	@$(BIN)/python benchmarks/local.py $(ARGS)

languages: ## build the programs in examples/ and print what each was seen to do (ARGS="go rust" for some)
	@$(SETUP) test
	@scripts/setup-system
	@$(BIN)/python examples/languages.py $(ARGS)

lint: ## ruff, mypy --strict, pyright
	@$(SETUP) demo test lint
	@scripts/lint

format: ## let ruff put the files into shape
	@$(SETUP) lint
	@$(BIN)/ruff check --fix-only --quiet . ; $(BIN)/ruff format .

promises: ## write docs/promises.md anew from the test marks
	@$(SETUP)
	@$(BIN)/python scripts/promises.py

docs: ## write docs/reference and the tables of docs/how-to/types.md anew
	@$(SETUP) demo
	@$(BIN)/python scripts/reference.py
	@$(BIN)/python scripts/zero_copy_table.py

clean: ## remove what the other targets made
	rm -rf .venv .cache build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
