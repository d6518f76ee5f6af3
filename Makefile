# make demo         a whole system on this machine; nothing to install
# make test         the unit tests                     (TESTS=tests.test_x for some)
# make integration  the tests on real servers, which are fetched first
# make lint         ruff and mypy
# make bench        measure on this machine
# make clean        remove what the targets made, except the fetched servers
#
# ARGS is handed on: make demo ARGS="--calls 20 --rate 5"

PYTHON = python3
VENV = .venv
ARGS =
TESTS = $(shell find tests -name 'test_*.py' -not -path 'tests/integration/*')

BIN = $(VENV)/bin
READY = $(VENV)/.ready
LINT_READY = $(VENV)/.ready-lint
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check \
    --use-pep517

# The checkout goes before what is installed: a package of PyPI (pykafka) brings a
# folder "tests" of its own.
export PYTHONPATH = $(CURDIR)

.PHONY: demo test integration services lint bench clean

demo: $(READY)
	@$(BIN)/ari-proxy demo $(ARGS)

test: $(READY)
	@$(BIN)/trial $(ARGS) $(TESTS)

# Servers that cannot be fetched are named, and their tests skipped; a fetch that
# fails is an error all the same.
integration: $(READY)
	@status=0; \
	$(BIN)/python -m tests.integration.install || status=1; \
	$(BIN)/trial $(ARGS) tests.integration || status=1; \
	exit $$status

services: $(READY)
	@$(BIN)/python -m tests.integration.install

lint: $(LINT_READY)
	@status=0; \
	$(BIN)/ruff check --quiet . || status=1; \
	$(BIN)/ruff format --check . || status=1; \
	$(BIN)/mypy || status=1; \
	exit $$status

bench: $(READY)
	@$(BIN)/python -m benchmarks $(ARGS)

clean:
	@rm -rf $(VENV) build dist *.egg-info _trial_temp* .mypy_cache .ruff_cache \
	    .hypothesis twisted/plugins/dropin.cache
	@find . -name __pycache__ -not -path './.services/*' -prune -exec rm -rf {} +

# The virtual environment sees the checkout itself, so a change of the code needs no
# new installation. Only in this mode of setuptools does twistd find the plugin.
$(READY): setup.py pyproject.toml
	@echo "Setting up $(VENV), once ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$(PYTHON) is older than Python 3.11: make PYTHON=python3.12 ..."; exit 1; }
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(PIP_INSTALL) --config-settings editable_mode=compat --editable '.[test]'
	@touch $@

$(LINT_READY): $(READY)
	@$(PIP_INSTALL) --config-settings editable_mode=compat --editable '.[test,lint]'
	@touch $@
