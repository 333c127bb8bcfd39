# `make` prints the targets. Every target that needs Python sets up .venv first, from setup.cfg.

PYTHON ?= python3
VENV   ?= .venv
OUT    ?= out
CONFIG ?= configs/moco_v2_demo.yaml
PART   ?= 1/1

# Recipes read these from the environment, "$$OUT": blanks, quotes and dollars in a path are its own.
override PYTHON := $(value PYTHON)
override VENV := $(value VENV)
override OUT := $(value OUT)
override CONFIG := $(value CONFIG)
override PART := $(value PART)
override DATA := $(value DATA)
override MASKS := $(value MASKS)
override TILES := $(value TILES)
override DETECTOR := $(value DETECTOR)
override WEIGHTS := $(value WEIGHTS)
override WORKERS := $(value WORKERS)
override SHARDS := $(or $(value SHARDS),$(OUT)/demo/shards)
export PYTHON VENV OUT CONFIG PART DATA MASKS TILES DETECTOR WEIGHTS WORKERS SHARDS

BLANK := $(subst ,, )
RUN := "$$VENV/bin/python"
READY := $(subst $(BLANK),\ ,$(VENV))/.ready
SCALE := $(if $(WORKERS),--workers "$$WORKERS") --part "$$PART"

.DEFAULT_GOAL := help
.PHONY: help setup demo masks tiles shards inspect train views bench plan experiment test lint docs gpu-check clean

# $(call need,NAME,what it is): stop with a clear message if the variable is empty
need = @test -n "$${$(1)}" || { echo "error: $(1)= is needed: $(2), e.g. make $@ $(1)=/path" >&2; exit 2; }

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  variables: DATA MASKS TILES DETECTOR WEIGHTS OUT SHARDS CONFIG WORKERS PART=i/n PYTHON, ARGS (further arguments of the tool;"
	@echo "  with blanks quoted twice: ARGS='\"data.shards=/a b\"')"

setup: $(READY)  ## make .venv and install everything from setup.cfg

$(READY): setup.cfg pyproject.toml
	@"$$PYTHON" -c 'import sys; v = sys.version_info; sys.exit(not (3, 10) <= v < (3, 14) and \
	  f"CPython 3.10 to 3.13 is needed, {sys.executable} is {v.major}.{v.minor}; use make PYTHON=python3.12")'
	@$(RUN) -m pip --version >/dev/null 2>&1 || "$$PYTHON" -m venv --clear "$$VENV"
	@echo "installing into $$VENV (torch and DALI are large: some minutes the first time)"
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch "$$VENV/.ready"

demo: $(READY)  ## photos -> masks -> tiles -> shards -> MoCo-v2 + BG_Swaps -> out/demo (DATA=, MASKS= for photos of yours)
	@$(RUN) -m tools.demo --out "$$OUT/demo" $(if $(WORKERS),--workers "$$WORKERS") $(if $(DATA),--data "$$DATA") $(if $(MASKS),--masks "$$MASKS") $(ARGS)

masks: $(READY)  ## DATA= [MASKS=tree | DETECTOR= WEIGHTS=]: masks into a store, OUT/masks
	$(call need,DATA,the folder of photos)
	@$(RUN) -m tools.masks --photos "$$DATA" $(if $(MASKS),--masks "$$MASKS") $(if $(DETECTOR),--detector "$$DETECTOR") \
	  $(if $(WEIGHTS),--weights "$$WEIGHTS") --out "$$OUT/masks" $(SCALE) $(ARGS)

tiles: $(READY)  ## [TILES=tree of backgrounds made elsewhere]: tiled backgrounds of OUT/masks into a store, OUT/tiles
	@$(RUN) -m tools.tiles --masks "$$OUT/masks" $(if $(TILES),--import "$$TILES") $(if $(DATA),--photos "$$DATA") \
	  --out "$$OUT/tiles" $(SCALE) $(ARGS)

shards: $(READY)  ## DATA=: pack photos, masks and tiles into OUT/shards
	$(call need,DATA,the folder of photos)
	@$(RUN) -m tools.shards --photos "$$DATA" --masks "$$OUT/masks" --tiles "$$OUT/tiles" --out "$$OUT/shards" $(SCALE) $(ARGS)

train: $(READY)  ## CONFIG=: pre-train in one process (several GPUs: see README); ARGS="--resume key=value"
	@$(RUN) -m train --config "$$CONFIG" $(ARGS)

inspect: $(READY)  ## what is in OUT: counts, sizes, checks (ARGS=--verify), contact sheets
	@$(RUN) -m tools.inspect "$$OUT" $(ARGS)

views: $(READY)  ## CONFIG=: contact sheet of what the loader makes, OUT/views.png
	@$(RUN) -m tools.views --config "$$CONFIG" --out "$$OUT/views.png" $(ARGS)

bench: $(READY)  ## images/s of every stage of the loader and of others, on SHARDS (ARGS=--profile, --sweep, --train, ...)
	@$(RUN) -m tools.bench --shards "$$SHARDS" --json "$$OUT/bench.json" $(ARGS)

plan: $(READY)  ## ARGS="--gpus 64 --images-per-second 2500": what a cluster needs, from what bench measured
	@$(RUN) -m tools.plan --measured "$$OUT/bench.json" $(ARGS)

experiment: $(READY)  ## does it work? trains with and without backgrounds, measures the gap; DATA=, MASKS=, … as masks: your photos
	@$(RUN) -m tools.experiment --out "$$OUT/experiment" $(if $(DATA),--data "$$DATA") $(if $(MASKS),--masks "$$MASKS") \
	  $(if $(DETECTOR),--detector "$$DETECTOR") $(if $(WEIGHTS),--weights "$$WEIGHTS") $(if $(WORKERS),--workers "$$WORKERS") $(ARGS)

test: $(READY)  ## run the tests
	@OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(RUN) -m pytest -n 2 --dist worksteal $(ARGS)

lint: $(READY)  ## check format, style and types
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy

docs: $(READY)  ## the documentation, with the API of the docstrings, as a site: build/site
	@$(RUN) -c 'import material, mkdocstrings' 2>/dev/null || \
	  $(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet --strict

gpu-check: $(READY)  ## on a machine with a GPU: its tests, the benchmark, a training, within 5 minutes
	@$(RUN) -m tools.gpu_check --shards "$$SHARDS" --json "$$OUT/gpu.json" $(ARGS)

clean:  ## delete OUT and .venv
	@"$$PYTHON" -m tools.clean "$$OUT" "$$VENV"
