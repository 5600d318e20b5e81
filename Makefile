# make demo | test | slow | parity | beam | media | browser | gpu | slurm | docs | results | lint | lock | dist | notebooks
# | venv | help. Needs Python 3.11 to 3.13 and make, nothing else.
# Another interpreter: make venv PYTHON=/usr/bin/python3.12

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo test slow parity beam media browser gpu slurm docs links results lint format notebooks lock dist clean

PYTHON ?=
VENV ?= .venv
BIN := $(VENV)/bin
WORKDIR ?= runs/demo
# The tests of a file run in one process, because they share fixtures.
PARALLEL ?= -n auto --maxprocesses 4 --dist loadfile
# Bytecode is written at first import instead of for every file of every package: a quarter of the install's time.
INSTALL := -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
PIP := $(BIN)/python $(INSTALL)

# On Linux torch's usual wheel brings gigabytes of CUDA. Where pip finds the CPU build (VERSION+cpu) it is taken; PyTorch
# keeps it on an index of its own, whose address can be given: make parity TORCH_INDEX=URL
TORCH := $(shell grep "^torch==" constraints.txt)
TORCH_INDEX ?=

help: ## this list
	@echo "harvest_jax: captioned videos in, a video-language model out. First look: make demo"
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

demo: $(VENV)/.base ## the whole way on generated clips, a few minutes on a CPU; the report is runs/demo/report.html
	$(BIN)/harvest demo --workdir $(WORKDIR)

venv: $(VENV)/.dev ## .venv with the package and everything that the tests and linters need

test: $(VENV)/.dev ## the tests; ARGS="-k shards" passes arguments to pytest
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow" --ignore tests/parity --ignore tests/beam --ignore tests/browser --ignore tests/gpu --ignore tests/slurm --ignore tests/docs $(ARGS)

slow: $(VENV)/.dev ## the tests that take longer than about ten seconds each and repeat what others cover
	$(BIN)/python -m pytest $(PARALLEL) -m slow --ignore tests/parity --ignore tests/beam --ignore tests/browser --ignore tests/gpu --ignore tests/slurm --ignore tests/docs $(ARGS)

parity: $(VENV)/.parity ## compare with PyTorch's CLIPs, in full size: 10 minutes, 16 GB of memory, 10 GB of disk; ARGS="-k B/32" is one size
	$(BIN)/python -m pytest -m parity tests/parity $(ARGS)

beam: $(VENV)/.beam ## harvest shards on Apache Beam's runners, Dask among them, with workers in other processes
	$(BIN)/python -m pytest -m beam tests/beam $(ARGS)

media: $(VENV)/.media ## make 200 kinds of video files, compare each with FFmpeg, write docs/media.md
	JAX_PLATFORMS=cpu $(BIN)/python -m benchmarks.media_collection $(ARGS)

browser: $(VENV)/.browser ## the page of harvest serve in a real Chromium; needs apt-get install chromium
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest -m browser -rP tests/browser $(ARGS)

gpu: $(VENV)-gpu/.gpu ## compile the step for GPUs; needs no GPU, but NVIDIA's libraries (4 GB, in .venv-gpu)
	JAX_PLATFORMS=cpu $(VENV)-gpu/bin/python -m pytest -m gpu tests/gpu $(ARGS)

slurm: $(VENV)/.dev ## Slurm on two nodes that are this machine; needs root and apt-get install slurm-wlm munge
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest -m slurm -rP tests/slurm $(ARGS)

results: $(VENV)/.dev ## tables and plots of docs/results.md, from the committed scores (benchmarks/claims.py makes them)
	$(BIN)/python -m benchmarks.results_page

docs: $(VENV)/.docs ## the pages as a site, in build/site; a warning is an error, and so is a broken link within it
	JAX_PLATFORMS=cpu $(BIN)/sphinx-build --quiet --fail-on-warning --nitpicky --keep-going -c docs . build/site
	$(BIN)/python -m pytest -m docs tests/docs $(ARGS)

links: $(VENV)/.docs ## visit the addresses that the pages name; needs the network, and other people's servers
	JAX_PLATFORMS=cpu $(BIN)/sphinx-build --quiet --keep-going -b linkcheck -c docs . build/links

lint: $(VENV)/.dev ## ruff (rules and format), mypy and codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

format: $(VENV)/.dev ## fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: $(VENV)/.dev ## launch/colab/NAME.ipynb from NAME.py and install_cell.py
	$(BIN)/python launch/colab/make_notebooks.py

# uv writes hashes, but no address of an index unless it is asked to. PyPI's hashes are wanted: no index of one's own.
lock: | $(BIN)/python ## requirements.lock: what the package needs, at the versions of constraints.txt, with hashes
	$(PIP) uv
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --constraints constraints.txt \
	  --generate-hashes --upgrade --quiet --custom-compile-command "make lock" --output-file requirements.lock

dist: | $(BIN)/python ## dist/: the sdist and the wheel made from it, and a demo with the wheel alone (some minutes)
	$(PIP) build
	rm -rf dist
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m build
	.ci/try_wheel dist/*.whl $(BIN)/python

clean: ## remove .venv, caches and builds; runs and data stay
	rm -rf $(VENV) $(VENV)-gpu .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

# Stamps in one environment: what the demo needs, what all tests and linters need, what the parity tests compare with.
$(VENV)/.base: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing harvest_jax into $(VENV) (about a minute)"
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing harvest_jax and its development tools into $(VENV) (about a minute)"
	$(PIP) -e '.[dev]'
	@touch $(VENV)/.base $@

# OpenCLIP and timm without their dependencies (torchvision): the tests load their model files alone.
$(VENV)/.parity: $(VENV)/.dev
	@echo "installing CPU torch and the reference implementations into $(VENV) (about a minute)"
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) '$(TORCH)+cpu' 2>/dev/null || $(PIP) $(TORCH)
	$(PIP) -e '.[parity]'
	$(PIP) --no-deps open_clip_torch timm
	@touch $@

$(VENV)/.docs: $(VENV)/.dev
	@echo "installing Sphinx into $(VENV) (some seconds)"
	$(PIP) -e '.[docs]'
	@touch $@

$(VENV)/.beam: $(VENV)/.dev
	@echo "installing Apache Beam and Dask into $(VENV) (about a minute)"
	$(PIP) -e '.[beam]'
	@touch $@

$(VENV)/.media: $(VENV)/.dev
	@echo "installing FFmpeg into $(VENV) (some seconds)"
	$(PIP) -e '.[media]'
	@touch $@

$(VENV)/.browser: $(VENV)/.dev
	@echo "installing Playwright into $(VENV) (some seconds)"
	$(PIP) -e '.[browser]'
	@touch $@

# In its own environment: with the plugin installed JAX looks for a GPU at every start.
$(VENV)-gpu/.gpu: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing JAX's CUDA plugin into $(VENV)-gpu (some minutes)"
	$(BIN)/python -m venv $(VENV)-gpu
	$(VENV)-gpu/bin/python $(INSTALL) -e '.[dev,gpu-cuda13]'
	@touch $@

# The first interpreter that runs and has a fitting version; a name on PATH may be a stub that does not run.
$(BIN)/python:
	@for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	  if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then \
	    "$$python" -m venv $(VENV) || { rm -rf $(VENV); \
	      echo "make: $$python cannot make a virtual environment: install its venv module (Debian, Ubuntu: apt-get install python3-venv)" >&2; \
	      exit 1; }; \
	    exit 0; \
	  fi; \
	done; \
	echo "make: harvest_jax needs Python 3.11, 3.12 or 3.13; found $$($(or $(PYTHON),python3) --version 2>&1 || true). Install one, or name it: make $(or $(MAKECMDGOALS),venv) PYTHON=/path/to/python3.12" >&2; \
	exit 1
