# The two commands that matter: make demo, make test. `make` alone lists all of them.
# Each installs what it needs (scripts/setup.sh) and a second call starts at once.
#
#   make PYTHON=/path/to/python3.12 test    another interpreter (3.11 or newer)
#   make demo ARGS=--keep                   options of orthanc-bridge demo
#   make test ARGS="-k feed"                options of pytest

PYTHON ?= python3
ARGS ?=
MINUTES ?= 10
SEEDS ?= 100000
FIRST ?= 0
COUNT ?= 10000
# The tests run in as many processes as there are cores; make test JOBS=0 runs them in one.
JOBS ?= auto
VENV := .venv
BIN := $(VENV)/bin
SETUP := PYTHON="$(PYTHON)" scripts/setup.sh

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTEST := $(BIN)/pytest -n $(JOBS) --dist worksteal

.PHONY: help demo test test-fast test-crashes test-container test-matrix test-pythons check-wheels
.PHONY: simulate fuzz soak lint bench bench-scaling docs wheel lock clean
.PHONY: demo-needs test-needs bench-needs

help: ## list these targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/.package demo-needs ## two real Orthancs, real images, the whole job, a table
	$(BIN)/orthanc-bridge demo $(ARGS)

test: $(VENV)/.dev test-needs ## everything but the benchmarks
	$(PYTEST) --ignore=tests/benchmarks $(ARGS)

test-fast: $(VENV)/.dev ## the tests that need no server: about a minute
	$(PYTEST) tests/core tests/unit $(ARGS)

fuzz: $(VENV)/.dev ## broken files through the transcoder: make fuzz COUNT=10000 SEED=1
	$(BIN)/python -m tests.fuzz.mutate --count $(COUNT) $(SEED:%=--seed %) $(ARGS)

soak: $(VENV)/.dev test-needs ## ten minutes of load with random faults: make soak MINUTES=1
	$(BIN)/python -m tests.soak --minutes $(MINUTES) $(ARGS)

simulate: $(VENV)/.dev ## the simulated world, by hand: make simulate SEEDS=1000000 FIRST=0
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --first $(FIRST) $(ARGS)

test-crashes: $(VENV)/.dev test-needs ## kill the bridge 200 times at random moments: 5 to 15 minutes
	$(BIN)/python -m tests.crash_campaign --kills 200 $(ARGS)

test-matrix: $(VENV)/.dev test-needs ## other versions of Orthanc, mixed pairs: under 20 minutes
	$(BIN)/python -m scripts.version_matrix $(ARGS)

test-pythons: $(VENV)/.dev test-needs ## other Pythons: make test-pythons PYTHONS="python3.12"
	$(BIN)/python -m scripts.python_versions $(PYTHONS) $(ARGS)

check-wheels: $(VENV)/.dev ## is all that is pinned there as wheels, for each Python and processor
	$(BIN)/python -m scripts.wheel_check $(ARGS)

test-container: $(VENV)/.dev test-needs ## build and run the image without an engine, as root: 2 to 5 minutes
	@$(SETUP) container-tools
	CONTAINER_TESTS=run $(BIN)/pytest tests/container $(ARGS)

lint: $(VENV)/.dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev bench-needs ## speed, side by side with what else there is: docs/benchmarks.md
	$(BIN)/python -m tests.benchmarks $(ARGS)

bench-scaling: $(VENV)/.dev test-needs ## one and two workers on a cluster, and a model: docs/scaling.md
	$(BIN)/python -m tests.benchmarks.scaling $(ARGS)

docs: $(VENV)/.dev ## write what is generated: settings, .env.example, transfer syntaxes
	$(BIN)/python -m scripts.settings_docs
	$(BIN)/python -m scripts.syntax_docs

wheel: $(VENV)/.dev ## build dist/*.whl
	$(BIN)/python -m build --wheel --no-isolation

lock: ## write requirements.lock and requirements-dev.lock from pyproject.toml
	PYTHON="$(PYTHON)" scripts/lock.sh

clean: ## remove what make made here; state/ and .env stay
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find bridge tests -name __pycache__ -type d -prune -exec rm -rf {} +

demo-needs:
	@$(SETUP) orthanc

test-needs:
	@$(SETUP) orthanc test-tools

bench-needs:
	@$(SETUP) orthanc bench-tools

# The stamps lie in the environment itself, so that they go when it goes.
$(VENV)/.locked: requirements.lock
	@$(SETUP) venv
	@touch $@

$(VENV)/.package: pyproject.toml $(VENV)/.locked
	@$(SETUP) package
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.package
	@$(SETUP) dev
	@touch $@
