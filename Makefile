# make demo | page | test | parity | check | bench | chaos | fuzz | train-bundled | calibrate-bundled |
# train-pack | learning-curve: each sets up what it needs, once.

# The first that runs and fits: a command of pyenv or conda may be there and start nothing.
FITS   := import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
IMAGES ?=
BENCH  ?= --table
LANGUAGE ?= de
SCENES ?= 10000
STEPS ?= 600

# Bytecode is kept, whatever the shell says: the tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

# Threads of torch that wait by spinning starve each other where processes share cores.
export OMP_WAIT_POLICY ?= passive

.DEFAULT_GOAL := help
.PHONY: help setup demo page test parity check format bench chaos fuzz train-bundled calibrate-bundled pack train-pack \
	learning-curve clean

help: ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

setup: $(READY) ## Make .venv and install captionq into it

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/pip || test -n "$(PYTHON)" || \
		{ echo "captionq needs Python 3.11 or 3.12: none is on the PATH" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "torch$$(sed -n 's/^torch//p' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(READY) ## The main job end to end on this machine (IMAGES="a.jpg https://..." for your own)
	$(BIN)/captionq-worker demo $(IMAGES)

page: $(READY) ## The same, and then a page to drop pictures on, until Ctrl-C
	$(BIN)/captionq-worker demo --serve $(IMAGES)

# Five processes on two cores: tests of real processes wait as long as they compute.
test: $(READY) ## All tests (FULL=1: as often as is promised, where a share is enough every day)
	$(BIN)/python -m pytest -n 5 --no-loadscope-reorder

parity: $(READY) ## Every way of decoding against transformers, at published sizes (long)
	$(BIN)/python -m pytest -m parity --durations=0 tests/unit/blip

check: $(READY) ## Format, lint, types, import contracts; what is deployed, by hadolint, Compose and schemas
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint --failure-threshold style docker/*.Dockerfile
	$(BIN)/python -m pytest -q -n 0 tests/unit/deploy

format: $(READY) ## Rewrite the code in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## The engine against transformers, side by side (BENCH="--size bundled ...")
	$(BIN)/captionq-worker bench engine $(BENCH)

chaos: $(READY) ## Faults of all kinds for 20 minutes, and an account (SHORT=1, SEED=, JOBS=, MINUTES=, WORKERS=)
	$(BIN)/python -m tests.chaos run $(if $(SHORT),--short) $(if $(SEED),--seed $(SEED)) \
		$(if $(JOBS),--jobs $(JOBS)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(WORKERS),--workers $(WORKERS))

fuzz: $(READY) ## Damaged images through the decoder for five minutes (SECONDS=, SEED=, TARGET=in_a_sandbox)
	$(BIN)/python -m tests.fuzz $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) \
		$(if $(TARGET),--target $(TARGET))
	HYPOTHESIS_PROFILE=default FUZZ_EXAMPLES=$(or $(EXAMPLES),3000) $(BIN)/python -m pytest -q -n 0 $(if $(SEED),--hypothesis-seed=$(SEED)) \
		tests/fuzz/test_parsers.py

train-bundled: $(READY) ## Train the bundled checkpoint anew (an hour on two cores)
	$(BIN)/python -m worker.training.pretrain -o worker/checkpoints/scenes
	$(MAKE) calibrate-bundled

calibrate-bundled: $(READY) ## Fit the bundled checkpoint's calibration anew, on clean scenes of its own seed
	$(BIN)/python -m worker.training.degraded --clean --scenes 8000 --seed calibration -o .make/pairs
	$(BIN)/captionq-worker calibrate .make/pairs/pairs.csv --precision 0.98 \
		-o worker/checkpoints/scenes/calibration.json

PACK = .make/packs/$(LANGUAGE)-$(SCENES)
pack: $(READY)
	rm -rf $(PACK)
	$(BIN)/python -m worker.training.languages.manifest --language $(LANGUAGE) --scenes $(SCENES) -o $(PACK)
	$(BIN)/captionq-worker train-tokenizer $(PACK)/manifest.jsonl --language $(LANGUAGE) -o $(PACK)/tokenizer
	$(BIN)/captionq-worker finetune $(PACK)/manifest.jsonl --language $(LANGUAGE) \
		--tokenizer $(PACK)/tokenizer --steps $(STEPS) --batch 64 --rate 2e-3 \
		--name scenes-$(LANGUAGE) -o $(PACK)/scenes-$(LANGUAGE)
	$(BIN)/captionq-worker evaluate --language $(LANGUAGE) $(PACK)/scenes-$(LANGUAGE) --save

train-pack: pack ## Train a bundled language pack anew (LANGUAGE=de; five minutes on two cores)
	rm -rf worker/checkpoints/packs/$(LANGUAGE)
	mkdir -p worker/checkpoints/packs
	cp -r $(PACK)/scenes-$(LANGUAGE) worker/checkpoints/packs/$(LANGUAGE)

learning-curve: ## What a language pack is worth after 100, 1,000 and 10,000 pairs (LANGUAGE=de)
	$(MAKE) pack SCENES=100 STEPS=150
	$(MAKE) pack SCENES=1000 STEPS=300
	$(MAKE) pack SCENES=10000 STEPS=600

clean: ## Remove what the other targets made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
