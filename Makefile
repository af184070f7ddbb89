# Every target sets up what it needs: a virtual environment in .venv with the pinned versions of constraints.txt.

PYTHON ?= python3
RECIPE ?= sample
RUN ?= $(basename $(notdir $(RECIPE)))
# bf16 where the processor or a GPU computes it, else the fp32 of ds_configs/cpu.json.
DS ?= $(shell if grep -qwE 'avx512_bf16|amx_bf16' /proc/cpuinfo || command -v nvidia-smi >/dev/null; then echo zero1_bf16; else echo cpu; fi)
NPROC ?= 1
DATA ?=
LAUNCHER ?= torchrun
SET ?=
FORCE ?=

BIN := .venv/bin
READY := .venv/.ready
export OMP_NUM_THREADS ?= $(shell expr $$(nproc) / $(NPROC) \| 1)
export TOKENIZERS_PARALLELISM ?= true

.DEFAULT_GOAL := help
.PHONY: help setup plan data pretrain finetune status report layer-drop-study test check format submit submit-finetune clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\n  make pretrain RECIPE=mini DATA=folder DS=zero1_bf16 NPROC=2 RUN=name SET="pretrain.steps=500"\n'
	@printf '    RECIPE  pipeline/recipes/NAME.toml or a path        DATA   folder or file of raw text\n'
	@printf '    DS      ds_configs/NAME.json or a path              NPROC  ranks on this machine\n'
	@printf '    RUN     name of the run folder, runs/NAME           SET    overrides, section.key=value ...\n'
	@printf '    FORCE=1 makes finished stages again\n'

setup: $(READY) ## The virtual environment

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed, $(PYTHON) is older; set PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

plan: $(READY) ## What RECIPE will do, printed and drawn into plan.png: learning rate, layers dropped, FLOPs saved
	@$(BIN)/python -m pipeline plan --recipe $(RECIPE) --ds $(DS) --nproc $(NPROC) $(SET)

data: $(READY) ## Only the corpus of RECIPE
	@$(BIN)/python -m pipeline data --recipe $(RECIPE) $(if $(DATA),--data $(DATA)) $(if $(FORCE),--force) $(SET)

pretrain: $(READY) ## All stages: data, search, draw, pretrain, export, report
	@$(BIN)/python -m pipeline run --recipe $(RECIPE) --run $(RUN) --ds $(DS) --nproc $(NPROC) --launcher $(LAUNCHER) \
		$(if $(DATA),--data $(DATA)) $(if $(FORCE),--force) $(SET)

finetune: $(READY) ## A model on a task: MODEL=folder-or-hub-name (or RUN=name) TASK=MRPC GLUE=folder SEED=0 SET="search.enabled=true"
	@$(BIN)/python -m pipeline finetune --task $(or $(TASK),SST-2) --seed $(or $(SEED),0) \
		$(if $(MODEL),--model $(MODEL) --ds $(DS)$(if $(filter-out file,$(origin RUN)), --run $(RUN)),--run $(RUN)$(if $(filter-out file,$(origin DS)), --ds $(DS))) \
		$(if $(filter-out file,$(origin RECIPE)),--recipe $(RECIPE)) \
		$(if $(or $(GLUE),$(DATA)),--data $(or $(GLUE),$(DATA))) $(if $(FORCE),--force) $(SET)

status: $(READY) ## What every run has done
	@$(BIN)/python -m pipeline status

report: $(READY) ## runs/RUN/report.html, beside the runs in COMPARE
	@$(BIN)/python -m pipeline report --run $(RUN) $(if $(COMPARE),--compare $(COMPARE))

layer-drop-study: $(READY) ## Layer dropping: every schedule, way of skipping and seed, as a resumable queue: SHAPE=micro|full JOBS=1 JSON=rows
	@$(BIN)/python benchmarks/layer_drop_study.py --json $(or $(JSON),benchmarks/results/layer_drop_$(or $(SHAPE),micro).json) \
		--shape $(or $(SHAPE),micro) --jobs $(or $(JOBS),1) --ds $(DS) $(if $(DATA),--data $(DATA))

test: $(READY) ## All tests
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(READY) ## Lint, formatting, types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(READY) ## Format the code
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

submit: ## SLURM job of `make pretrain`, site settings from slurm/site.env
	@slurm/submit pretrain --recipe $(RECIPE) --run $(RUN) --ds $(DS) $(if $(DATA),--data $(DATA)) $(if $(FORCE),--force) $(SET)

submit-finetune: ## SLURM array over TASKS and SEEDS of `make finetune`
	@slurm/submit finetune --run $(RUN) --tasks $(TASKS) --seeds $(SEEDS) $(if $(GLUE),--data $(GLUE)) $(SET)

clean: ## Remove caches (runs/ and corpora/ stay)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
