# Two commands: `make quickstart` and `make test`. Both make their own environment first.
PYTHON ?= python3
VENV ?= .venv
PARITY ?= .venv-parity
PLAN ?= .venv-plan
ROOT ?= runs/quickstart
CONFIG ?= configs/quickstart.py
MODEL ?=

.PHONY: quickstart test meshes parity plan plans notebooks slow lint environment help

help:
	@echo "make quickstart [MODEL=path, hub id or .gguf] [ROOT=folder] [CONFIG=file]"
	@echo "make test        the fast tests, and the linter"
	@echo "make meshes      the training step on every mesh of 8 CPU devices"
	@echo "make slow        real processes: kill and resume, several hosts, the command line, memory"
	@echo "make parity      against transformers and peft (installs torch)"
	@echo "make plan        compile for a TPU, with no TPU at hand (installs libtpu, 213 MB)"
	@echo "make plans       whole plans for TPU slices, minutes each; not part of .ci/run"
	@echo "make notebooks   execute the notebooks"

environment: $(VENV)/.installed

$(VENV)/.installed: setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; say which: make PYTHON=python3.11 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q -c constraints.txt -e '.[gguf,report,serve,eval,dev]'
	@touch $@

$(PARITY)/.installed: setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv $(PARITY)
	$(PARITY)/bin/pip install -q torch==2.13.0
	$(PARITY)/bin/pip install -q -c constraints.txt peft -e '.[gguf,report,eval,dev]'
	@touch $@

# In an environment of its own: where libtpu is installed and no TPU is, it warns on stderr as soon
# as JAX starts, in every command.
$(PLAN)/.installed: setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv $(PLAN)
	$(PLAN)/bin/pip install -q -c constraints.txt -e '.[gguf,report,eval,dev,plan]'
	@touch $@

quickstart: $(VENV)/.installed
	$(VENV)/bin/emergent-alignment quickstart --root $(ROOT) --config $(CONFIG) \
	  $(if $(MODEL),--config.model.path=$(MODEL))

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

test: lint
	$(VENV)/bin/pytest -n 2 --dist worksteal
	$(VENV)/bin/pytest --override-ini addopts=-q -n 2 -m "not grid" tests/parallel

meshes: $(VENV)/.installed
	$(VENV)/bin/pytest --override-ini addopts=-q -n 2 -m grid tests/parallel

slow: $(VENV)/.installed
	$(VENV)/bin/pytest --override-ini addopts=-q tests/slow

parity: $(PARITY)/.installed
	$(PARITY)/bin/pytest --override-ini addopts=-q tests/parity

plan: $(PLAN)/.installed
	$(PLAN)/bin/pytest --override-ini addopts=-q tests/slow/test_tpu_compile.py

plans: $(PLAN)/.installed
	$(PLAN)/bin/pytest --override-ini addopts=-q tests/slow/test_plan_tpu.py

notebooks: $(VENV)/.installed
	$(VENV)/bin/python notebooks/execute.py
