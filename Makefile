# Two commands: `make demo` trains and compares four networks in a few minutes, `make test` runs the tests.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= runs/demo
RUN := $(VENV)/bin/python
NETWORKS := tsn_r18 tsm_r18 msnet_tsm_r18 selfynet_tsm_r18

# XLA on a CPU asks for its whole working memory at each step; kept by the allocator, it costs nothing.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=34359738368

.PHONY: environment demo test lint
environment: $(VENV)/installed

$(VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --requirement requirements.txt
	touch $@

demo: export JAX_COMPILATION_CACHE_DIR = $(DEMO)/compile_cache
demo: $(VENV)/installed
	set -e; for network in $(NETWORKS); do \
		$(RUN) train.py --config=configs/moving_shapes.py:$$network,8 --config.data.dir=$(DEMO)/data --workdir=$(DEMO)/$$network; \
		$(RUN) eval.py --workdir=$(DEMO)/$$network; \
	done
	$(RUN) -m motion_jax.tools.evaluate_motion --checkpoint=$(DEMO)/msnet_tsm_r18
	$(RUN) -m motion_jax.tools.visualize --checkpoint=$(DEMO)/msnet_tsm_r18 --output=$(DEMO)/displacement.png
	$(RUN) -m motion_jax.tools.report $(NETWORKS:%=$(DEMO)/%)
	@echo "The displacement field beside the truth: $(DEMO)/displacement.png"

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# Eight virtual devices share one thread pool; more test processes than cores only queue.
test: lint
	$(RUN) -m pytest --numprocesses auto --dist loadgroup
