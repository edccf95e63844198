# Everything a developer or an operator of one machine runs; `make` alone lists it.
# Needs Python 3.11 or newer with pip, Go (or a way out to the official releases), git and make.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.NOTPARALLEL:
.DEFAULT_GOAL := help

# The newest Python would do, but the lock is resolved and tested with this one.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
UV ?= $(shell command -v uv || echo .uv/bin/uv)
UV_VERSION := 0.13.9
# The interpreter is the machine's own; uv must not fetch another one.
export UV_PYTHON_DOWNLOADS := never

BIN := .venv/bin
COMPILE := $(UV) pip compile pyproject.toml --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-annotate --no-header

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: .venv/.synced ## Make .venv from the hash-pinned lock; does nothing when it is up to date

# Debian's python3 may lack the parts that venv needs; pip alone is enough then.
.uv/bin/uv:
	@echo "Installing uv $(UV_VERSION) into .uv"
	rm -rf .uv
	{ $(PYTHON) -m venv .uv && .uv/bin/python -m pip install --quiet uv==$(UV_VERSION); } || \
		$(PYTHON) -m pip install --quiet --upgrade --target .uv uv==$(UV_VERSION)

.venv/.synced: requirements.lock pyproject.toml $(filter .uv/bin/uv,$(UV))
	@echo "Installing the locked packages into .venv"
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=/path/to/it")'
	[ -x $(BIN)/python ] || $(UV) venv --quiet --python $(PYTHON) .venv
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

# The images' locks are constrained by the large one: they get the versions that were tested.
.PHONY: lock
lock: $(filter .uv/bin/uv,$(UV)) ## Resolve the locks again; newer versions with UPGRADE=--upgrade
	$(COMPILE) $(UPGRADE) --all-extras --output-file requirements.lock
	$(COMPILE) --upgrade --constraint requirements.lock --output-file requirements-api.lock
	$(COMPILE) --upgrade --constraint requirements.lock --extra worker \
		--output-file requirements-worker.lock

.PHONY: programs
programs: setup ## Find, build or download the pinned Kubernetes and etcd programs
	$(BIN)/python -m infra.tools

# For targets that need them and have something else to print; progress is on standard error.
.PHONY: made-programs
made-programs: setup
	@$(BIN)/python -m infra.tools control-plane client node platform stacks deployment >/dev/null

.PHONY: server-image
server-image: setup ## Make the image of local servers; without root it says why not, and ends well
	$(BIN)/python -m infra.local_cloud image

.PHONY: host-packages
host-packages: setup server-image ## Install what servers that join need on this machine, where it may
	$(BIN)/python -m infra.gateway

.PHONY: up
up: setup ## Start the stack on this machine, or bring it to the newest state
	$(BIN)/python -m infra.embedded up

.PHONY: clouds
clouds: setup ## Start the stack with three clouds on this machine to play with; takes root on Debian or Ubuntu
	BULKHEAD_LOCAL_CLOUDS=1 BULKHEAD_NODE_ADDRESS="$${BULKHEAD_NODE_ADDRESS:-local}" $(BIN)/python -m infra.embedded up

.PHONY: down
down: setup ## Stop the stack; everything is kept
	$(BIN)/python -m infra.embedded down

.PHONY: purge
purge: setup ## Stop the stack and remove all its state; asks first, but for YES=1
	$(BIN)/python -m infra.embedded purge $(if $(filter 1,$(YES)),--yes)

.PHONY: status
status: setup ## Say what runs, and where
	$(BIN)/python -m infra.embedded status || [ $$? = 3 ]

.PHONY: backup
backup: setup ## Save the running stack: TO=FILE, once also SEAL_KEY_TO=FILE (kept elsewhere)
	$(BIN)/python -m infra.embedded backup $(if $(TO),"$(TO)",$(error Say where to: make backup TO=FILE)) \
		$(if $(SEAL_KEY_TO),--seal-key-to "$(SEAL_KEY_TO)")

.PHONY: restore
restore: setup ## Replace the stack by a backup: FROM=FILE, elsewhere also SEAL_KEY=FILE; YES=1
	$(BIN)/python -m infra.embedded restore $(if $(FROM),"$(FROM)",$(error Say what: make restore FROM=FILE)) \
		$(if $(SEAL_KEY),--seal-key "$(SEAL_KEY)") $(if $(filter 1,$(YES)),--yes)

.PHONY: rotate-seal-key
rotate-seal-key: setup ## Replace the key that seals the secret store, or finish doing that
	$(BIN)/python -m infra.embedded rotate-seal-key

.PHONY: user
user: setup ## Make a user and print their token: NAME=, WORKSPACE=SLUG, ROLE=owner|admin|member; TO=FILE, EXISTING=1
	@$(BIN)/python -m infra.embedded user $(if $(NAME),"$(NAME)",$(error Say who: make user NAME=ada WORKSPACE=default ROLE=owner)) \
		$(if $(WORKSPACE),--workspace "$(WORKSPACE)") $(if $(ROLE),--role "$(ROLE)") \
		$(if $(TO),--to "$(TO)") $(if $(filter 1,$(EXISTING)),--existing)

.PHONY: demo
demo: setup ## Create a Kubernetes cluster by the public API, let servers join, use it, and roll a product out
	$(BIN)/python -m cli.demo $(ARGS)

.PHONY: check
check: setup ## Lint, format, types, layers and shell scripts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck .ci/run infra/node_setup/bulkhead-node.sh

# Tests wait more than they compute. Each process has servers of its own, and a file stays in one.
# Which files come first is decided in tests/conftest.py, not by how many tests they have.
PARALLEL ?= --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: test
test: made-programs ## Run the tests against real servers, with a sample of the slow matrices
	$(BIN)/pytest -m "not full" $(PARALLEL) $(ARGS)

.PHONY: test-full
test-full: made-programs ## Run all the tests
	$(BIN)/pytest $(PARALLEL) $(ARGS)

.PHONY: data-list
data-list: setup ## Write docs/data.md, the list of what the database stores
	$(BIN)/python -m infra.database.data_classes > docs/data.md

.PHONY: bench
bench: made-programs ## Measure, ours and bare interleaved; prints JSON
	@$(BIN)/python -m tests.bench $(ARGS)

.PHONY: compose-test
compose-test: setup ## Build and start docker-compose.yml, create a cluster in it, end it
	infra/compose/test

.PHONY: clean
clean: ## Remove environments and caches of this checkout, but not the stack's state (see purge)
	rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
