# Two commands on a fresh machine: `make demo` and `make test`. Everything goes into .venv.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test fuzz check format reproduce-mini box clean

help:
	@echo "make demo    install into .venv and find the lesions of a simulated study"
	@echo "make test    install all extras into .venv and run every test"
	@echo "make check   lint and types"
	@echo "make fuzz    feed 10,000 spoilt files to every reader"
	@echo "make reproduce-mini  run the paper's eight experiments in miniature"
	@echo "make box     train the model in the box anew"
	@echo "make format  sort imports and format the code"

$(BIN)/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/.installed-base: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

.venv/.installed-train: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet -e ".[train]"
	@touch $@ .venv/.installed-base

.venv/.installed-dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet -e ".[train,dev]"
	@touch $@ .venv/.installed-train .venv/.installed-base

# A browser and a DICOM validator, from Debian where it is at hand; the tests that need them skip elsewhere.
.venv/.installed-tools: $(BIN)/python
	@if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		{ apt-get update -qq && apt-get install -y -qq chromium dicom3tools; } >/dev/null 2>&1 || \
		echo "chromium and dicom3tools could not be installed; the tests that need them skip"; \
	fi
	@touch $@

demo: .venv/.installed-base
	$(BIN)/petlesion demo

test: .venv/.installed-dev .venv/.installed-tools
	$(BIN)/python -m pytest

check: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fuzz: .venv/.installed-dev
	$(BIN)/python -m tests.fuzz

# Real studies that are no part of the project, where they are at hand.
PETLESION_DATA ?= ../shared/data
STS := $(wildcard $(PETLESION_DATA)/sts)

reproduce-mini: .venv/.installed-train
	$(BIN)/python benchmarks/reproduce_mini.py --work reproduce-mini -o docs/reproduction \
		$(if $(STS),--studies $(STS))

# The model in the box anew, as box/README.md tells. Takes half a day of two cores; goes on where it stopped.
BOX := box/work

box: .venv/.installed-train
	box/train.sh $(BIN) $(PETLESION_DATA) $(BOX)
	box/export.sh $(BIN) $(PETLESION_DATA) $(BOX)

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache demo-output reproduce-mini
