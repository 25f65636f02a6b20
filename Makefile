# `make` alone lists the targets. Everything happens in .venv; nothing is installed outside it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKSPACE ?=
PORT ?= 8501
WORKERS ?= 2

.PHONY: help setup run check test bench bench-peers clean

help:
	@echo "make setup | run | check | test | bench | bench-peers | clean"

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.txt requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m compileall -q facviz
	touch $@

# The dashboard on the demo, or on WORKSPACE=folder. The model is fetched here so that every page can run its stage; without
# a network the pages still open.
run: setup
	-$(BIN)/python -c "from facviz.backbone import load_tokenizer; load_tokenizer()"
	$(BIN)/python -m facviz app --port $(PORT) $(if $(WORKSPACE),--workspace $(WORKSPACE))

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Two workers at a time, a file of tests to each: every test keeps to one thread.
test: check
	HF_HUB_OFFLINE=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

bench: setup
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks

# SAE training against other libraries. Fetches each into an environment of its own (2 GB) and takes three quarters of an hour and more.
bench-peers: setup
	$(BIN)/python -m benchmarks.peers

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
