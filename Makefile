# What a machine with Python 3.11 to 3.13, pip and make can do:
#
#   make demo        set up, train stage 1 on the embedded digits, sample, print where the pictures are
#   make test        set up with the developers' tools, run the fast tests
#   make test-slow   the tests marked slow
#   make lint        ruff: lint and format check
#   make format      ruff: mend both
#   make setup       only set up, with the developers' tools
#
# PYTHON=python3.12 chooses the interpreter. SETUP=poetry installs exactly what poetry.lock names.

# The first that fits. python3 leads: it is the one a person means.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
    $$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)
FITS = import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
SETUP ?= pip
BIN = .venv/bin
MAKEFLAGS += --no-print-directory

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: .venv/.ready
	$(BIN)/task1-train --config task1_unconditional/configs/demo.yaml
	$(BIN)/task1-sample --run latest

# A file's tests stay in one process, as they share what they have trained; one thread each, or processes would wait
# for each other's cores.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist loadfile

test: .venv/.ready-dev
	$(PYTEST)

test-slow: .venv/.ready-dev
	$(PYTEST) -m slow

lint: .venv/.ready-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: .venv/.ready-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

setup: .venv/.ready-dev

# Stamps, written last: an interrupted set-up goes on where it stopped.
.venv/.ready: pyproject.toml poetry.lock
	@$(MAKE) install-$(SETUP)
	@touch $@

.venv/.ready-dev: pyproject.toml poetry.lock
	@$(MAKE) install-$(SETUP)-dev
	@touch $@ .venv/.ready

# On Linux torch brings CUDA along: about 3 GB to download, unless pip is told of an index or a file with the CPU build.
install-pip: venv
	$(BIN)/python -m pip install --editable .

install-pip-dev: venv
	$(BIN)/python -m pip install --editable '.[dev,sweep,text]'

install-poetry:
	poetry install

install-poetry-dev:
	poetry install --extras 'dev sweep text'

# Debian's Python makes no environment with pip inside until python3-venv is installed; its pip can put one there.
venv:
	@if $(BIN)/python -m pip --version >/dev/null 2>&1; then exit 0; fi; \
	python='$(PYTHON)'; \
	if [ -z "$$python" ]; then \
	    echo 'Python 3.11, 3.12 or 3.13 is needed, and none was found. Install one, or name it: make PYTHON=python3.12' >&2; exit 1; \
	elif ! $$python -c '$(FITS)'; then \
	    echo "Python 3.11, 3.12 or 3.13 is needed, and $$python is not: $$($$python --version 2>&1)" >&2; exit 1; \
	elif $$python -c 'import ensurepip' 2>/dev/null; then \
	    $$python -m venv .venv; \
	elif ! { $$python -m venv --without-pip .venv && $$python -m pip --python $(BIN)/python install pip; }; then \
	    echo 'No environment could be made in .venv. On Debian and Ubuntu: apt install python3-venv' >&2; exit 1; \
	fi

.PHONY: help demo test test-slow lint format setup install-pip install-pip-dev install-poetry install-poetry-dev venv
