# The two commands: `make demo` shows the software at work, `make test` checks it. `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
TABLE ?= demo
JOBS ?= 2
DATA ?= stream=open4
PIP_OPTIONS := --quiet --disable-pip-version-check
.PHONY: help install lock prerelease demo test test-fast test-all check check-data bench reproduce-table dashboard docs soak rehearsal clean clean-cache

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

install: $(VENV)/installed  ## make .venv and install the package with its development tools: the versions of requirements.lock, by SHA-256

$(VENV)/installed: pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_OPTIONS) --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install $(PIP_OPTIONS) --no-deps --no-build-isolation --editable .
	touch $@

lock:  ## write requirements.lock anew after a change of pyproject.toml (UPGRADE=--upgrade: with the newest releases)
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install $(PIP_OPTIONS) uv
	.venv-lock/bin/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-annotate --quiet $(UPGRADE) --custom-compile-command 'make lock' --output-file requirements.lock
	rm -r .venv-lock

prerelease:  ## the fast tests against pre-releases of what the package needs, beyond its bounds too, in an environment of its own
	$(PYTHON) -m venv .venv-prerelease
	.venv-prerelease/bin/python -m pip install $(PIP_OPTIONS) --pre --upgrade --editable '.[dev]'
	.venv-prerelease/bin/python -m pip install $(PIP_OPTIONS) --pre --upgrade hydra-core omegaconf pytorch-lightning open_clip_torch
	OMP_NUM_THREADS=1 .venv-prerelease/bin/python -m pytest --numprocesses $(WORKERS) -m 'not slow and not exhaustive'

demo: install  ## learn four tasks of the embedded stream one after another (about two minutes; synthetic targets)
	$(BIN)/python -m iqa_lightning.train experiment=demo

test: install  ## every promise, for one method or preset of each kind
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal -m 'not exhaustive' --durations=40 --durations-min=5

test-all: install  ## every promise for every method and preset (more than an hour on two cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

test-fast: install  ## the inner loop: no test that starts a process or a real training
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) -m 'not slow and not exhaustive'

check: install  ## ruff, mypy (strict), import-linter, and a report of what is beyond the guides of size
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.house

check-data: install  ## what is missing, unreadable, leaking or twice on disk: make check-data DATA='stream=open4 paths.data=<folder>' (with cache=verify: its decoded images)
	$(BIN)/python -m iqa_lightning.check $(DATA)

reproduce-table: install  ## make missing runs of experiments/TABLE, JOBS at a time, and write its table (TABLE=demo JOBS=2)
	$(BIN)/python -m iqa_lightning.reproduce table=$(TABLE) jobs=$(JOBS)

dashboard: install  ## one HTML page of the results of experiments/TABLE (PUSH=<entity>/<project>: in wandb too)
	$(BIN)/python -m iqa_lightning.reproduce table=$(TABLE) dashboard=true $(if $(PUSH),push=$(PUSH))

bench: install  ## measure what the package promises about speed and memory; writes experiments/benchmarks/results
	@for script in experiments/benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

soak: install  ## kill runs at random instants and compare bytes (hours; KILLS=60 goes on after experiments/reliability/results/kills.csv)
	$(BIN)/python experiments/reliability/soak.py --kills $(or $(KILLS),60)

docs: install  ## the documentation site in build/docs, without a network
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -d build/doctrees docs build/docs
	@echo build/docs/index.html

rehearsal: install  ## every preset of every paper from end to end on generated pictures (takes long on a CPU; PRESETS='zhang2022/lwf ...' for some)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.rehearsal $(PRESETS)

clean:  ## remove the environment and all caches; outputs/ stays
	rm -rf $(VENV) .venv-prerelease .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

clean-cache: install  ## remove the decoded images that runs keep in the user's cache folder (other folders: conf/check.yaml)
	$(BIN)/python -m iqa_lightning.check cache=remove
