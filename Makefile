# gpufleet: `make demo` shows what it does, `make test` runs every test. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

$(STAMP): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.11"
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements.lock
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --no-deps -e .
	@touch $@

.PHONY: install
install: $(STAMP)  ## Install everything into .venv (pinned by requirements.lock)

.PHONY: demo
demo: $(STAMP)  ## Tell the story: a broker, four services, simulated clusters, every step checked
	@$(BIN)/gpufleet demo

# Three workers, though on two cores: tests with sockets wait more than they work, but each worker collects anew.
.PHONY: test
test: $(STAMP)  ## Run every test that needs nothing but this machine
	@PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: e2e
e2e: $(STAMP)  ## The same story on Apache Kafka and real Kubernetes control planes (first build: some 10 minutes)
	@GPUFLEET_E2E=1 $(BIN)/pytest -m e2e -n 2 --dist loadfile tests/e2e tests/conformance

.PHONY: lint
lint: $(STAMP)  ## ruff, mypy strict, import-linter
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: format
format: $(STAMP)  ## Format the code and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: bench
bench: $(STAMP)  ## Measure the figures of benchmarks/README.md
	@$(BIN)/python -m benchmarks

.PHONY: docs
docs: $(STAMP)  ## Generate the pages that are made from the code
	@$(BIN)/python -m gpufleet.cli.reference docs

# requirements.lock: everything, for a checkout. runtime: what the image holds. build: what makes the image's wheel.
COMPILE = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate

.PHONY: lock
lock: $(STAMP)  ## Pin the newest versions that pyproject.toml allows
	@$(COMPILE) --upgrade --all-extras --group dev pyproject.toml -o requirements.lock
	@$(COMPILE) -c requirements.lock pyproject.toml -o requirements-runtime.lock
	@printf 'hatchling>=1.27\nuv>=0.11\n' | $(COMPILE) --upgrade -c requirements.lock - -o requirements-build.lock

.PHONY: clean
clean:  ## Remove what was installed and built here
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .import_linter_cache .hypothesis

.PHONY: help
help:  ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
