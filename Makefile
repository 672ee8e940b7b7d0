# Everything from nothing but Python >= 3.11 and make. `make` alone lists the targets.
# Another interpreter: make install PYTHON=/path/to/python3.12
# Another folder for the environment, to have two side by side: make test VENV=.venv313 PYTHON=python3.13
# Arguments for pytest: make test ARGS="-k statistics -x"

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.bench-installed
ARGS ?=

# Wheels of torch are large: a slow registry is not a dead one.
export UV_HTTP_TIMEOUT ?= 180

# A download that fails once is tried once more.
twice = $(1) || { echo "That failed; trying once more in 5 s." >&2; sleep 5; $(1); }

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow check format bench lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

install: $(STAMP)  ## build the environment (.venv) with the pinned requirements and Foretaste itself (does nothing if it is up to date)

demo: install  ## audit the embedded digits encoder and write demo/report.html
	$(BIN)/foretaste audit --out demo
	@echo "The report is demo/report.html; the same in text is demo/report.md."

# Two processes of one thread each: threads that outnumber the cores spin.
test: install  ## run the fast tests
	@$(BIN)/python -c 'import os, platform; print("python:", os.path.realpath("$(BIN)/python"), platform.python_version())'
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --timeout 300 $(ARGS)

test-slow: install  ## run the tests that take minutes
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} $(BIN)/python -m pytest -m slow $(ARGS)

check: install  ## lint, format, types and the arrows between the packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install  ## let ruff format and repair what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(BENCH_STAMP)  ## measure the ratios that Foretaste promises (ARGS="--out records/bench.json" keeps them)
	$(BIN)/python -m benchmarks $(ARGS)

lock: $(BIN)/uv  ## pin requirements.txt and requirements-bench.txt again
	@$(call twice,$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade \
		--custom-compile-command "make lock" --quiet --output-file requirements.txt)
	@$(call twice,$(BIN)/uv pip compile requirements-bench.in --constraint requirements.txt --universal \
		--python-version 3.11 --custom-compile-command "make lock" --quiet --output-file requirements-bench.txt)

clean:  ## remove everything that make built: the environment, demo and caches
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -type d -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/uv:
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Foretaste needs Python 3.11 or newer; pass PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@$(call twice,$(BIN)/python -m pip install --quiet --disable-pip-version-check uv)

$(STAMP): requirements.txt pyproject.toml | $(BIN)/uv
	@echo "Installing the pinned requirements; torch brings CUDA, so the first time this downloads some gigabytes."
	@$(call twice,$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement requirements.txt)
	@$(call twice,$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .)
	@touch $@

# What the benches stand beside and nothing else needs: ART.
$(BENCH_STAMP): $(STAMP) requirements-bench.txt
	@$(call twice,$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement requirements-bench.txt)
	@touch $@
