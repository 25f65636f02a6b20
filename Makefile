# `make` alone lists the targets. Everything happens in .venv; nothing is installed outside it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKSPACE ?= $(CURDIR)/workspace-small

.PHONY: help setup run check test bench clean

help:
	@echo "make setup | run | check | test | bench | clean"

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.txt requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

run: setup
	$(BIN)/python -m facviz run docs/examples/small.toml --workspace $(WORKSPACE)
	mkdir -p $(WORKSPACE)/exports
	$(BIN)/python -m facviz export report --workspace $(WORKSPACE) --out $(WORKSPACE)/exports/report.md
	$(BIN)/python -m facviz export samples --workspace $(WORKSPACE) --out $(WORKSPACE)/exports/samples.jsonl

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: check
	HF_HUB_OFFLINE=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest

bench: setup
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) workspace-small .mypy_cache .ruff_cache .pytest_cache .hypothesis
