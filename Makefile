# Every target does its own set-up; all that is assumed is make, and a Python 3.10 to 3.13 with venv.
# The environment is in .venv; make installs into it again when one of the files changes that say what is in it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

SUPPORTED := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.10; do \
	"$$python" -c '$(SUPPORTED)' 2>/dev/null && { echo "$$python"; break; }; done)
BIN := .venv/bin
READY := .venv/.ready
TESTS ?= tests
FUZZ ?= dicom bundle png jpeg recipe
FUZZ_SECONDS ?= 3600

.PHONY: help setup test gpu fuzz demo check lint types imports licences format constraints resolve wheelhouse clean

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 22

setup: $(READY) ## Install everything, at the pinned versions, into .venv

$(READY): pyproject.toml setup.py constraints.txt tools/tensorrt_bindings.txt
	@[ -n "$(PYTHON)" ] || { echo "PromptRay needs Python 3.10 to 3.13, and none is on the path;" \
		"say where it is: make setup PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c '$(SUPPORTED)' || { echo "$(PYTHON) is $$("$(PYTHON)" --version 2>&1);" \
		"PromptRay needs Python 3.10 to 3.13" >&2; exit 1; }
	@[ -x $(BIN)/pip ] || "$(PYTHON)" -m venv .venv || { echo "On Debian: apt install python3-venv" >&2; exit 1; }
	@echo "Installing into .venv: some minutes, and torch is large"
	@# Modules are compiled when they are first imported: of twenty thousand, most never are.
	@$(BIN)/python -m pip install --no-input --no-compile --disable-pip-version-check --progress-bar off \
		-c constraints.txt -e '.[calibrate,dev,fuzz]' \
		| sed -un 's/^Collecting \([A-Za-z0-9._-]*\).*/  \1/p; s/^\(Installing collected packages\).*/\1 .../p'
	@$(BIN)/python -m tools.tensorrt_bindings
	@touch $@

test: $(READY) ## Run the tests; TESTS="tests/runtime --data DIR" selects and passes options
	@$(BIN)/pytest -q -rfEs -n 2 --dist loadfile --no-loadscope-reorder $(TESTS)

fuzz: $(READY) ## Fuzz the readers for an hour in all; FUZZ_SECONDS=..., FUZZ="dicom bundle" choose
	@failed=; for target in $(FUZZ); do \
		$(BIN)/python -m tests.fuzz $$target --seconds $$(($(FUZZ_SECONDS) / $(words $(FUZZ)))) \
			|| failed="$$failed $$target"; done; \
	[ -z "$$failed" ] || { echo "findings in build/fuzz:$$failed" >&2; exit 1; }

gpu: $(READY) ## On a machine with a GPU: the tests that need one, then the measurements; MODELS="carzero" chooses
	@$(BIN)/python -m benchmarks.gpu --check
	@$(BIN)/pytest -q -rfEs -m gpu tests/gpu
	@$(BIN)/python -m benchmarks.gpu $(MODELS)

demo: $(READY) ## Build a bundle, verify it and score sample radiographs
	@$(BIN)/python examples/demo.py

check: lint types imports licences ## Static checks: style, types, direction of imports, licences

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY)
	@$(BIN)/python tools/check_types.py

imports: $(READY)
	@$(BIN)/python tools/check_dependency_direction.py

licences: $(READY)
	@$(BIN)/python tools/check_licences.py

format: $(READY) ## Put the code in shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

constraints: $(READY) ## Rewrite constraints.txt from pyproject.toml (for maintainers)
	@$(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check uv
	@PATH="$(CURDIR)/$(BIN):$$PATH" tools/constraints.sh
	@$(BIN)/python -m tools.edge_install.resolve

resolve: $(READY) ## Check that the edge install has wheels for every platform and Python
	@$(BIN)/python -m tools.edge_install.resolve

wheelhouse: $(READY) ## Offline edge install; PLATFORM=linux-x86_64 PYTHON_VERSION=3.12 DIR=... choose
	@$(BIN)/python -m tools.edge_install.wheelhouse "$(PLATFORM)" "$(PYTHON_VERSION)" $(if $(DIR),"$(DIR)")

clean: ## Remove what the targets made, except .venv
	@rm -rf build dist demo-output *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
