# Two commands on a fresh machine: `make demo` and `make test`. Everything goes into .venv.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test check format clean

help:
	@echo "make demo    install into .venv and run the whole path on simulated studies"
	@echo "make test    install all extras into .venv and run every test"
	@echo "make check   lint and types"
	@echo "make format  sort imports and format the code"

$(BIN)/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/.installed-train: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet -e ".[train]"
	@touch $@

.venv/.installed-dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet -e ".[train,dev]"
	@touch $@ .venv/.installed-train

demo: .venv/.installed-train
	$(BIN)/petlesion demo

test: .venv/.installed-dev
	$(BIN)/python -m pytest

check: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache demo-output
