# Every target makes .venv by itself. Needed: make and Python >= 3.11 (PYTHON=… picks one).
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
UV := $(BIN)/uv --quiet
COMPILE := $(UV) pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url
# Python keeps what it compiled at a module's first import; without that the start of each process costs twice as much.
unexport PYTHONDONTWRITEBYTECODE
# A test that does not end when its own time is up says where it hangs, and its worker is replaced.
HANGS := -o faulthandler_timeout=1200 -o faulthandler_exit_on_timeout=true
# The programs in .venv name the folder that they were made in.
MOVED := $(shell test ! -s .venv/.uv -o -L .venv || test "$$(cat .venv/.uv)" = "$(CURDIR)" || { rm -rf .venv && echo yes; })
$(if $(MOVED),$(info This folder was moved or copied: .venv is made anew.))
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo reference pictures test test-deploy lint bench soak lock snapshot clean servers

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

install: .venv/.runtime ## the product into .venv, and ./churnguard to call it from this folder
	@ln -sf $(BIN)/churnguard churnguard
	@echo "Installed. ./churnguard --help, or in this terminal: source $(BIN)/activate"

demo: .venv/.runtime ## the whole product on simulated data; ONCE=1: one sync, a summary, exit
	@$(BIN)/churnguard demo $(if $(ONCE),--once)

test: .venv/.dev servers ## every test; PYTEST='-k pump -x' narrows it
	$(BIN)/pytest -n 3 --dist loadgroup --no-loadscope-reorder --ignore tests/deploy $(HANGS) $(PYTEST)

test-deploy: .venv/.dev servers ## the image, compose and the Helm chart, on a real Docker Engine and a real kube-apiserver
	@.ci/deploy_tools.sh
	$(BIN)/pytest tests/deploy $(PYTEST)

lint: .venv/.dev ## format, lint, types (of the tests, too), locks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python .ci/check_locks.py

bench: .venv/.dev ## benchmark tables; ONLY=warehouse|stripe|crm|saas|databases|gateway|scale|pages|streams narrows it
	$(BIN)/python -m tests.bench $(if $(ONLY),--only $(ONLY))

soak: .venv/.dev servers ## the long form of the crash tests and of fuzzing
	CHURNGUARD_SOAK=1 $(BIN)/pytest -m soak $(PYTEST)

reference: .venv/.dev ## rewrite docs/reference.md from the models
	CHURNGUARD_UPDATE_REFERENCE=1 $(BIN)/pytest -q tests/test_reference.py

pictures: .venv/.dev servers ## take the pictures in docs/images anew, of a demo and of the tests' installation
	CHURNGUARD_SCREENSHOTS=docs/images $(BIN)/pytest -q tests/browser/test_demo_in_a_browser.py tests/browser/test_dashboard_in_a_browser.py

snapshot: .venv/.dev ## rewrite the snapshot of all Dagster definitions
	CHURNGUARD_UPDATE_SNAPSHOT=1 $(BIN)/pytest -q tests/orchestration/test_definitions.py

lock: .venv/.uv ## resolve pyproject.toml into the two lock files again
	$(COMPILE) --extra build --extra local --extra otel --extra demo -o requirements.lock
	$(COMPILE) --extra build --extra local --extra otel --extra demo --extra dev -o requirements-dev.lock

clean: ## removes .venv, caches and the demo's data; real data go by `churnguard purge` only
	@test ! -e .churnguard-demo -o ! -x $(BIN)/churnguard || CHURNGUARD_HOME=.churnguard-demo $(BIN)/churnguard purge --yes
	rm -rf .venv churnguard .churnguard-demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# What tests need besides Python: a customer's MariaDB, MySQL and Kafka, and a browser for the dashboard.
servers: .venv/.uv
	@set -- $$(command -v chromium >/dev/null || echo chromium) $$(PATH="$$PATH:/usr/sbin" command -v mariadbd >/dev/null || echo mariadb-server) \
	  $$(command -v java >/dev/null || echo openjdk-17-jre-headless) $$(command -v mvn >/dev/null || echo maven); \
	  test $$# = 0 || { test "$$(id -u)" = 0 && apt-get -qq update && \
	  DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "$$@" >/dev/null; } || \
	  echo "Some tests need these Debian packages: apt-get install $$*"
	@test -e .venv/mysql-server || .ci/mysql_server.sh .venv/mysql-server || \
	  echo "Some tests need MySQL's own server, which .ci/mysql_server.sh could not unpack from Debian's packages."
	@test -e .venv/kafka || .ci/kafka.sh .venv/kafka || \
	  echo "Some tests need Apache Kafka, whose jars .ci/kafka.sh could not get by Maven."

.venv/.uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "Python's venv module is missing (Debian: apt install python3-venv)"; exit 1; }
	@$(BIN)/python -m pip --quiet --disable-pip-version-check install uv==$(UV_VERSION)
	@printf %s "$(CURDIR)" > $@

# Here, because the services of an installation that root starts run as somebody who could not keep what they compile.
COMPILED_NOW := churnguard_pipelines.definitions, dagster._daemon.cli, webhook_gateway.dashboard.app, webhook_gateway.intake.app

.venv/.runtime: .venv/.uv requirements.lock pyproject.toml
	@test -e .venv/.dev || echo "Installing pinned dependencies into .venv …"
	@$(UV) pip install --python $(BIN)/python --require-hashes -r requirements.lock
	@$(UV) pip install --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@$(BIN)/python -c "import $(COMPILED_NOW)"
	@touch $@

.venv/.dev: .venv/.runtime requirements-dev.lock
	@$(UV) pip install --python $(BIN)/python --require-hashes -r requirements-dev.lock
	@touch $@
