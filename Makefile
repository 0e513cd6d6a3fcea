# make demo | test | parity | check | bench | train-bundled: each sets up what it needs, once.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
IMAGES ?=

# Threads of torch that wait by spinning starve each other where processes share cores.
export OMP_WAIT_POLICY ?= passive

.DEFAULT_GOAL := help
.PHONY: help setup demo test parity check format bench train-bundled clean

help: ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

setup: $(READY) ## Make .venv and install captionq into it

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "torch$$(sed -n 's/^torch//p' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(READY) ## The main job end to end on this machine (IMAGES="a.jpg https://..." for your own)
	$(BIN)/captionq-worker demo $(IMAGES)

test: $(READY) ## All tests
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder

parity: $(READY) ## Every way of decoding against transformers, at published sizes (long)
	$(BIN)/python -m pytest -m parity --durations=0 tests/unit/blip

check: $(READY) ## Format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## Rewrite the code in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## The engine against transformers, side by side
	$(BIN)/python -m worker.blip.bench

train-bundled: $(READY) ## Train the bundled checkpoint anew (an hour on two cores)
	$(BIN)/python -m worker.training.pretrain -o worker/checkpoints/scenes

clean: ## Remove what the other targets made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
