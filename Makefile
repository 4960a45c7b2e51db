# Two commands: `make demo` trains and compares four networks in a few minutes, `make test` runs the tests.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --requirement requirements.txt
	touch $@

.PHONY: environment demo test lint
environment: $(VENV)/installed

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

test: lint
	$(RUN) -m pytest --numprocesses auto
