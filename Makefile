# Two commands do everything: `make demo` runs the main job, `make test` all tests.
# `make bench` times derivatives against PyTorch and JAX; BENCH=--quick makes it short.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo bench test lint types test-python test-julia clean

demo: $(VENV)/.demo
	$(BIN)/pymlpgf demo

bench: $(VENV)/.bench
	$(BIN)/pymlpgf bench $(BENCH)

# The two suites side by side: each of them mostly keeps one core busy.
test: lint types
	$(MAKE) --jobs=2 --output-sync=line test-python test-julia

lint: $(VENV)/.test
	$(BIN)/ruff check pymlpgf tests examples
	$(BIN)/ruff format --check pymlpgf tests examples

types: $(VENV)/.test
	$(BIN)/mypy

test-python: $(VENV)/.test
	$(BIN)/python -m pytest

test-julia: $(VENV)/.test
	PYMLPGF_THREADS=2 $(BIN)/pymlpgf julia --startup-file=no julia/test/runtests.jl

# `venv --without-pip` and `pip --python` need neither Debian's python3-venv nor root.
$(VENV)/bin/python:
	$(PYTHON) -m venv --without-pip $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml
	$(PYTHON) -m pip --disable-pip-version-check --python $(VENV)/bin/python install --quiet --editable '.[demo]'
	touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml
	$(PYTHON) -m pip --disable-pip-version-check --python $(VENV)/bin/python install --quiet --editable '.[test]'
	touch $@

$(VENV)/.bench: $(VENV)/bin/python pyproject.toml
	$(PYTHON) -m pip --disable-pip-version-check --python $(VENV)/bin/python install --quiet --editable '.[bench]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
