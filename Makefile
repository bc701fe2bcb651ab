# Two commands matter: `make demo` and `make test`. Each makes .venv itself; nothing else is needed but
# python3 (3.11 or newer) with venv, and make.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
ARGS ?=
WORKERS ?= $(shell nproc)
COMPILED_TESTS := $(addprefix tests/integration/test_,idempotency.py journal.py modes.py proxy_calls.py proxy_direct.py \
	proxy_failures.py proxy_rows.py proxy_streams.py redaction.py) tests/property/test_seen_heads.py tests/security/test_gone.py

.PHONY: demo test test-compiled compiled wheel-compiled quick lint format contract chaos bench soak coverage wheel clean

demo: $(VENV)/.demo
	$(RUN)/answerable demo $(ARGS)

test: $(VENV)/.dev
	$(RUN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not chaos and not contract" $(ARGS)

quick: lint
	$(RUN)/python -m pytest tests/unit tests/property -n $(WORKERS) -q $(ARGS)

lint: $(VENV)/.dev
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports

format: $(VENV)/.dev
	$(RUN)/ruff check --fix-only .
	$(RUN)/ruff format .

contract: $(VENV)/.dev
	$(RUN)/python -m tests.contract.environment
	$(RUN)/python -m pytest tests/contract tests/security -m contract $(ARGS)

chaos: $(VENV)/.dev
	ANSWERABLE_KILLS=300 ANSWERABLE_CUTS=100 ANSWERABLE_FAULT_POINTS=0 ANSWERABLE_AWAY_S=60 ANSWERABLE_SOAK_S=600 $(RUN)/python -m pytest tests/fault --timeout 3600 $(ARGS)
	ANSWERABLE_BUNDLES_FORGED=100000 $(RUN)/python -m pytest tests/integration/test_bundle_verifiers.py tests/integration/test_bundles_by_hand.py --timeout 14400

# what every call goes through, compiled with mypyc into a copy of the tree; needs cc and Python's headers
compiled: $(VENV)/.dev
	rm -rf build/compiled && mkdir -p build/compiled
	tar c --exclude=__pycache__ config explainers gateway load_tests storage tests pyproject.toml setup.py README.md CHANGELOG.md LICENSE constraints.txt Makefile | tar x -C build/compiled
	cd build/compiled && ANSWERABLE_COMPILED=1 "$(CURDIR)/$(RUN)/python" setup.py --quiet build_ext --inplace > build.log 2>&1 || { tail -n 30 build.log >&2; exit 1; }

# the tests of the data plane against the compiled form
test-compiled: compiled
	cd build/compiled && "$(CURDIR)/$(RUN)/python" -m pytest -n $(WORKERS) --dist worksteal -m "not chaos and not contract and not sources" $(COMPILED_TESTS) $(ARGS)

# a wheel for this Python and machine, in dist/
wheel-compiled: compiled
	cd build/compiled && ANSWERABLE_COMPILED=1 "$(CURDIR)/$(RUN)/python" -m build --wheel --no-isolation --outdir "$(CURDIR)/dist"

bench: $(VENV)/.dev
	if command -v cc >/dev/null; then $(MAKE) compiled; else echo "no C compiler: the bench runs the Python sources" >&2; fi
	$(RUN)/python -m load_tests $(ARGS)

soak: $(VENV)/.dev
	$(RUN)/python -m load_tests.soak $(ARGS)

coverage: $(VENV)/.dev
	$(RUN)/python -m pytest tests -n $(WORKERS) -m "not chaos and not contract" --cov --cov-report=term-missing $(ARGS)

wheel: $(VENV)/.dev
	$(RUN)/python -m build --wheel

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Answerable needs Python 3.11 or newer, found " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV) || { echo "python3 lacks venv: install it (Debian: apt-get install python3-venv)" >&2; rm -rf $(VENV); exit 2; }

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
