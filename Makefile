# Every chore has one short command; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Installing is done once for each change of the files that say what to install.
RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help study test lint format chaos models bench bench-quick gpu-bench gpu-check

help: ## list the commands
	@grep -hE '^[a-z.-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-11s %s\n", $$1, $$2}'

study: $(RUNTIME) ## search vitbn on MNIST: 20 trials, then a summary
	$(BIN)/bnvit-study run --model vitbn --trials 20

# A hundred processes start: they find our modules compiled, also where Python is told to keep none.
test: $(DEV) ## run the whole test suite
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest

lint: $(DEV) ## check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV) ## format the code and sort its imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

KILLS ?= 0
chaos: $(DEV) ## break everything around a study until KILLS workers were killed (0: one round)
	$(BIN)/python -m tests.chaos --kills $(KILLS)

models: $(DEV) ## measure all models on this CPU and write docs/models.md (half an hour)
	$(BIN)/python bench/zoo.py --output docs/models.md

bench: $(RUNTIME) ## measure one trial against the article's loop and write docs/performance.md (half an hour)
	$(BIN)/python bench/performance.py --output docs/performance.md --json docs/results/performance.json

bench-quick: $(RUNTIME) ## the same for one model in few turns, printed (under 5 minutes)
	$(BIN)/python bench/performance.py --quick

gpu-bench: ## measure training steps on a CUDA machine, and workers that share it; needs what gpu-check needs
	@for bench in gpu_speed gpu_sharing; do \
		if [ -x $(BIN)/python ]; then $(BIN)/python bench/$$bench.py; else $(PYTHON) bench/$$bench.py; fi || exit 1; done

gpu-check: ## check training on a CUDA machine; needs only torch, torchvision, einops, timm, numpy
	@if [ -x $(BIN)/python ]; then $(BIN)/python bench/gpu_check.py; else $(PYTHON) bench/gpu_check.py; fi

.env: ## make passwords for docker-compose.yml
	@umask 077; $(PYTHON) -c "import secrets, sys; sys.stdout.writelines(l.replace('PASSWORD=', 'PASSWORD=' + secrets.token_hex(24)) for l in open('.env.example'))" > .env.part && mv .env.part .env
	@echo "wrote .env; the pages' login is bnvit with BNVIT_LOGIN_PASSWORD in it"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(RUNTIME): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV), a few minutes the first time"
	$(INSTALL) --editable .
	@touch $@

$(DEV): $(RUNTIME)
	$(INSTALL) --editable '.[dev,onnx,ray]'
	@touch $@
