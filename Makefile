# Two commands: `make quickstart` and `make test`. Both make their own environment first.
PYTHON ?= python3
VENV ?= .venv
PARITY ?= .venv-parity
PLAN ?= .venv-plan
DOCS ?= .venv-docs
INSPECT ?= .venv-inspect
ROOT ?= runs/quickstart
CONFIG ?= configs/quickstart.py
MODEL ?=

.PHONY: quickstart test docs inspect matrix meshes parity plan plans notebooks slow campaign lint types environment help

help:
	@echo "make quickstart [MODEL=path, hub id or .gguf] [ROOT=folder] [CONFIG=file]"
	@echo "make test        the fast tests, the linter and the types"
	@echo "make meshes      sharded programs, and the training step on every mesh of 8 CPU devices"
	@echo "make slow        real processes: every application, kill and resume, several hosts, memory"
	@echo "make parity      against transformers, peft and TRL (installs torch)"
	@echo "make plan        compile for a TPU, with no TPU at hand (installs libtpu, 213 MB)"
	@echo "make plans       whole plans for TPU slices, minutes each; not part of .ci/run"
	@echo "make notebooks   execute the notebooks"
	@echo "make inspect     our models in inspect_ai (installs it, 120 MB); not in .ci/run"
	@echo "make matrix      the oldest and newest Python and JAX that can be had here; not in .ci/run"
	@echo "make docs        the documentation site, links checked, into build/site"
	@echo "make campaign    kills, bad inputs, faulty backends, hostile code: tried, and counted"

environment: $(VENV)/.installed

# The pip that comes with Python 3.11 resolves in 2.5 times the processor time of the current one,
# and compiles what it installs on one core. Some packages hold files for other Pythons, which do
# not compile.
$(VENV)/.installed: setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; say which: make PYTHON=python3.11 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q -c constraints.txt --upgrade pip
	$(VENV)/bin/python -m pip install -q --no-compile -c constraints.txt -e '.[gguf,report,serve,eval,dev]'
	@$(VENV)/bin/python -m compileall -qq -j 0 -x /tests/ $(VENV)/lib || true
	@touch $@

# The two others stand on the main environment, whose packages they see, and hold only what it must
# not: torch and others' loggers; and libtpu, which warns on stderr in every command as soon as JAX
# starts without a TPU.
SITE = -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
define on_the_main_environment
$(PYTHON) -m venv --without-pip $(1)
main=$$($(VENV)/bin/python $(SITE)) && \
  echo "import site; site.addsitedir('$$main')" >"$$($(1)/bin/python $(SITE))/main.pth"
endef

$(PARITY)/.installed: $(VENV)/.installed
	$(call on_the_main_environment,$(PARITY))
	$(PARITY)/bin/python -m pip install -q --no-compile -c constraints.txt torch peft trl wandb trackio
	@touch $@

$(PLAN)/.installed: $(VENV)/.installed
	$(call on_the_main_environment,$(PLAN))
	$(PLAN)/bin/python -m pip install -q -c constraints.txt 'jax[tpu]'
	@touch $@

# It reads the package's sources and imports nothing of them.
$(DOCS)/.installed: constraints.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install -q -c constraints.txt mkdocs-material 'mkdocstrings[python]' ruff
	@touch $@

# inspect_ai holds fsspec and dateutil to versions that constraints.txt is past.
$(INSPECT)/.installed: $(VENV)/.installed
	$(call on_the_main_environment,$(INSPECT))
	$(INSPECT)/bin/python -m pip install -q --no-compile 'inspect-ai>=0.3.250'
	@touch $@

inspect: $(INSPECT)/.installed
	$(INSPECT)/bin/python -m pytest tests/cli/test_inspect_model.py

docs: $(DOCS)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet --strict

# Of its own: each corner has an interpreter and an environment (.venv-oldest, .venv-newest).
matrix:
	$(PYTHON) tests/matrix/corners.py

quickstart: $(VENV)/.installed
	$(VENV)/bin/emergent-alignment quickstart --root $(ROOT) --config $(CONFIG) \
	  $(if $(MODEL),--config.model.path=$(MODEL))

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# Seconds, for the whole public interface: mypy takes minutes to read jax.
types: $(VENV)/.installed
	$(VENV)/bin/pyrefly check --python-interpreter-path $(VENV)/bin/python --summary=none

test: lint types
	$(VENV)/bin/pytest -n 2 --dist worksteal

meshes: $(VENV)/.installed
	$(VENV)/bin/pytest --override-ini addopts=-q -n 2 tests/parallel

slow: $(VENV)/.installed
	$(VENV)/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder -m long
	$(VENV)/bin/pytest --override-ini addopts=-q -n 2 --dist loadfile --no-loadscope-reorder \
	  --durations=15 tests/slow

parity: $(PARITY)/.installed
	$(PARITY)/bin/python -m pytest --override-ini addopts=-q tests/parity

plan: $(PLAN)/.installed
	$(PLAN)/bin/python -m pytest --override-ini addopts=-q tests/slow/test_tpu_compile.py

plans: $(PLAN)/.installed
	$(PLAN)/bin/python -m pytest --override-ini addopts=-q tests/slow/test_plan_tpu.py

notebooks: $(VENV)/.installed
	PYTHONPATH=tests $(VENV)/bin/python notebooks/execute.py

campaign: $(VENV)/.installed
	PYTHONPATH=tests $(VENV)/bin/python -m campaign --page docs/reliability.md
