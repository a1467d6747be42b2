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
# Many tests wait for processes or for time: three processes for each core use that time.
# make test JOBS=0 runs them in one.
JOBS ?= $(shell expr 3 \* $$(nproc))
VENV := .venv
BIN := $(VENV)/bin
BUILDER := build/builder
SETUP := PYTHON="$(PYTHON)" scripts/setup.sh

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
# Compiled files are kept: without them every process of the tests compiles all of it anew.
unexport PYTHONDONTWRITEBYTECODE

PYTEST = $(BIN)/pytest -n $(JOBS) --dist worksteal

.PHONY: help demo try test test-fast test-crashes test-container test-matrix test-pythons check-wheels
.PHONY: simulate simulate-retention simulate-mirror simulate-carry simulate-sign test-mirror fuzz generate soak mutants mutants-tables mutants-simulated lint bench bench-scaling docs wheel
.PHONY: bench-mirror sbom deb check-manifests site screenshots
.PHONY: lock clean
.PHONY: demo-needs test-needs bench-needs

help: ## list these targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/.package demo-needs ## two real Orthancs, real images, the whole job, a table
	$(BIN)/orthanc-bridge demo $(ARGS)

try: $(VENV)/.package ## your own files through the transcoder, each judged: make try FOLDER=/images
	$(BIN)/orthanc-bridge try "$(FOLDER)" $(ARGS)

test: $(VENV)/.dev test-needs ## everything but the benchmarks
	$(PYTEST) --ignore=tests/benchmarks $(ARGS)

test-fast: JOBS = auto
test-fast: $(VENV)/.dev ## the tests that need no server and no patience: a few minutes
	$(PYTEST) tests/unit -m "not slow" $(ARGS)

fuzz: $(VENV)/.dev ## broken files through the transcoder: make fuzz COUNT=10000 SEED=1
	$(BIN)/python -m tests.fuzz.mutate --count $(COUNT) $(SEED:%=--seed %) $(ARGS)

generate: $(VENV)/.dev test-needs ## generated files through the transcoder: make generate COUNT=10000 SEED=1
	$(BIN)/python -m tests.generated --count $(COUNT) $(SEED:%=--seed %) $(ARGS)

soak: $(VENV)/.dev test-needs ## ten minutes of load with random faults: make soak MINUTES=1
	$(BIN)/python -m tests.soak --minutes $(MINUTES) $(ARGS)

simulate: $(VENV)/.dev ## the simulated world, by hand: make simulate SEEDS=1000000 FIRST=0
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --first $(FIRST) $(ARGS)

simulate-retention: $(VENV)/.dev ## two servers that become one, share files, recycle: make simulate-retention SEEDS=1000000
	$(BIN)/python -m tests.simulation.retention --seeds $(SEEDS) --first $(FIRST) $(ARGS)

simulate-mirror: $(VENV)/.dev ## two servers that drift apart, and kills: make simulate-mirror SEEDS=100000
	$(BIN)/python -m tests.simulation.mirror --seeds $(SEEDS) --first $(FIRST) $(ARGS)

simulate-carry: $(VENV)/.dev ## what lies beside the files, users, backups and kills: make simulate-carry SEEDS=10000
	$(BIN)/python -m tests.simulation.carry --seeds $(SEEDS) --first $(FIRST) $(ARGS)

simulate-sign: $(VENV)/.dev ## what says delivered at a source that drifts away, and kills: make simulate-sign SEEDS=10000
	$(BIN)/python -m tests.simulation.sign --seeds $(SEEDS) --first $(FIRST) $(ARGS)

test-mirror: $(VENV)/.dev test-needs ## 10,000 instances between two Orthancs, drifted apart, 20 kills: 10 to 30 minutes
	MIRROR_INSTANCES=10000 MIRROR_KILLS=20 $(BIN)/pytest -q -s tests/integration/mirror -k killed_meanwhile

bench-mirror: $(VENV)/.dev test-needs ## what a verification costs deliveries, as a ratio: minutes, docs/mirror.md
	$(BIN)/python -m tests.mirror_cost $(ARGS)

test-crashes: $(VENV)/.dev test-needs ## kill the bridge 200 times at random moments: 5 to 15 minutes
	$(BIN)/python -m tests.crash_campaign --kills 200 $(ARGS)

test-matrix: $(VENV)/.dev test-needs ## other versions of Orthanc, mixed pairs: under 20 minutes
	$(BIN)/python -m scripts.version_matrix $(ARGS)

test-pythons: $(VENV)/.dev test-needs ## other Pythons: make test-pythons PYTHONS="python3.12"
	$(BIN)/python -m scripts.python_versions $(PYTHONS) $(ARGS)

check-wheels: $(VENV)/.dev ## is all that is pinned there as wheels, for each Python and processor
	$(BIN)/python -m scripts.wheel_check $(ARGS)

test-container: $(VENV)/.dev test-needs ## build and run image and Debian packages without an engine, as root: minutes
	@$(SETUP) container-tools
	CONTAINER_TESTS=run $(BIN)/pytest tests/container $(ARGS)

mutants: $(VENV)/.dev ## do the tests notice planted bugs: make mutants PARTS="policy audit" SINCE=HEAD~1
	$(BIN)/python -m tests.mutants $(PARTS) $(SINCE:%=--since %) $(ARGS)

mutants-tables: $(VENV)/.dev ## do the tests notice a wrong row of a table: make mutants-tables PARTS=orthanc
	$(BIN)/python -m tests.mutants.tables $(PARTS) $(ARGS)

mutants-simulated: $(VENV)/.dev ## of a sample of planted bugs, what the simulation alone notices
	$(BIN)/python -m tests.mutants.simulated $(ARGS)

lint: $(VENV)/.dev ## ruff, mypy, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

bench: $(VENV)/.dev bench-needs ## speed, side by side with what else there is: docs/reference/benchmarks.md
	$(BIN)/python -m tests.benchmarks $(ARGS)

bench-scaling: $(VENV)/.dev test-needs ## one and two workers on a cluster, and a model: docs/scaling.md
	$(BIN)/python -m tests.benchmarks.scaling $(ARGS)

docs: $(VENV)/.dev ## write what is generated: settings, .env.example, transfer syntaxes, rooms, the picture
	$(BIN)/python -m scripts.settings_docs
	$(BIN)/python -m scripts.syntax_docs
	$(BIN)/python -m scripts.architecture_docs
	$(BIN)/python -m scripts.man_page

sbom: $(VENV)/.dev ## write what is generated from requirements.lock: bill of materials, licences
	$(BIN)/python -m scripts.sbom

wheel: $(BUILDER)/.ready ## build dist/*.whl and dist/*.tar.gz, the same bytes each time
	$(BUILDER)/bin/python -m build --no-isolation

site: $(VENV)/.dev ## the documentation as a site with a search, dead links are errors: build/site
	$(BIN)/python -m scripts.site $(ARGS)

screenshots: $(VENV)/.dev test-needs ## photograph the demo's table and the status page: docs/images
	$(BIN)/python -m scripts.screenshots

check-manifests: $(VENV)/.dev ## Kubernetes manifests and Helm chart against the schemas of the API
	$(BIN)/python -m scripts.manifests

deb: $(BUILDER)/.ready ## build dist/*.deb for Debian 12 and 13: make deb DEBIANS=12
	$(BUILDER)/bin/python -m scripts.deb $(DEBIANS) $(ARGS)

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
$(VENV)/.locked: requirements.lock requirements.hashes
	@$(SETUP) venv
	@touch $@

$(VENV)/.package: pyproject.toml $(VENV)/.locked
	@$(SETUP) package
	@touch $@

$(BUILDER)/.ready: requirements-dev.hashes
	@$(SETUP) builder
	@touch $@

$(VENV)/.dev: requirements-dev.lock requirements-dev.hashes $(VENV)/.package
	@$(SETUP) dev
	@touch $@
