# Two commands do everything: `make demo` runs the main job, `make test` all tests.
# `make bench` times derivatives and minimisation against other packages; BENCH=--quick makes it short. `make paper`
# repeats the paper's experiments, `make docs` builds the site. `make soak` trains ten thousand times in one process and
# injects faults at more random moments; `make lower` runs the core tests with the oldest versions that pyproject.toml
# allows.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo bench paper soak docs test facts image test-without-image lint types test-python test-julia runtime-wheel lower clean

demo: $(VENV)/.demo
	$(BIN)/pymlpgf demo

bench: $(VENV)/.bench
	$(BIN)/pymlpgf bench $(BENCH)

# The paper's experiments, the quick version of each: CSV files and figures in pymlpgf-paper/.
PAPER := ode_methods optimizers infinite_data fixed_points phase_diagram digits efficiency
paper: $(VENV)/.demo $(VENV)/.bench
	for name in $(PAPER); do $(BIN)/python examples/paper/$$name.py --quick --output pymlpgf-paper || exit 1; done

# `make test T=tests/network/test_net.py` or `make test T=julia/test/flow_tests.jl` runs what T names and nothing else. What needs no
# system image runs while that is compiled; then the Julia tests beside the Python tests, which take two processes, since many
# of them wait, and give way, since the Julia tests, in one process, are what ends last.
ifdef T
test: $(VENV)/.test
	$(if $(filter %.py,$(T)),$(BIN)/python -m pytest $(filter %.py,$(T)))
	$(if $(filter %.jl,$(T)),$(BIN)/pymlpgf julia --startup-file=no julia/test/runtests.jl $(filter %.jl,$(T)))
else
test: $(VENV)/.test
	PYMLPGF_IMAGE=off $(BIN)/pymlpgf install
	$(MAKE) --jobs=2 --output-sync=line image test-without-image
	$(MAKE) --jobs=2 --output-sync=line test-python test-julia
endif

# What Python knows of the core, written by the core.
facts: $(VENV)/.test
	$(BIN)/pymlpgf julia --startup-file=no -e 'using MLPGF; print(MLPGF.facts())' > build.facts && mv build.facts pymlpgf/facts.json
	$(BIN)/python .ci/tables.py

image: $(VENV)/.test
	$(BIN)/pymlpgf install

WITHOUT_IMAGE := $(addprefix tests/,runtime/test_provisioning.py runtime/test_find.py commands/test_cli.py \
	project/test_packaging.py project/test_developers.py)
LONGEST := tests/runtime/test_image.py tests/robustness/test_traps.py
# Julia tests that compile most of what they run themselves.
JULIA_WITHOUT_IMAGE := infinite_tests.jl kink_tests.jl loss_tests.jl
JULIA_TESTS := $(filter-out $(JULIA_WITHOUT_IMAGE),$(notdir $(wildcard julia/test/*_tests.jl)))
test-without-image: lint types
	PYMLPGF_IMAGE=off $(BIN)/python -m pytest $(WITHOUT_IMAGE)
	PYMLPGF_IMAGE=off PYMLPGF_THREADS=2 $(BIN)/pymlpgf julia --startup-file=no julia/test/runtests.jl $(JULIA_WITHOUT_IMAGE)

lint: $(VENV)/.test
	$(BIN)/ruff check pymlpgf tests examples docs .ci
	$(BIN)/ruff format --check pymlpgf tests examples docs/conf.py docs/figures .ci

types: $(VENV)/.test
	$(BIN)/mypy

test-python: $(VENV)/.test
	nice -n 5 $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder $(LONGEST) tests pymlpgf \
		$(addprefix --ignore=,$(WITHOUT_IMAGE))

# What the image does not hold, mostly the tests themselves, is compiled in half the time with -O1.
test-julia: $(VENV)/.test
	PYMLPGF_THREADS=2 $(BIN)/pymlpgf julia -O1 --startup-file=no julia/test/runtests.jl $(JULIA_TESTS)

soak: $(VENV)/.test
	$(BIN)/python tests/robustness/soak.py
	PYMLPGF_TEST_ROUNDS=10 $(BIN)/python -m pytest -m chance

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo 'The site is build/docs/index.html.'

# pymlpgf_julia: a wheel with the private Julia, its libraries and a system image for several processors.
runtime-wheel: $(VENV)/.demo
	$(BIN)/python .ci/runtime_wheel.py dist

lower:
	$(PYTHON) -m venv --without-pip .venv-lower
	$(PYTHON) -m pip --disable-pip-version-check --python .venv-lower/bin/python install --quiet $$($(PYTHON) .ci/lower.py)
	PYTHONPATH=. .venv-lower/bin/python -m pytest $(addprefix tests/,network/test_net.py solve/test_training.py \
		solve/test_callbacks.py test_sklearn.py test_plot.py sweeps/test_sweep.py test_scipy.py)

# `venv --without-pip` and `pip --python` need neither Debian's python3-venv nor root.
$(VENV)/bin/python:
	$(PYTHON) -m venv --without-pip $(VENV)

# The extra of pyproject.toml that has the target's name, with the package itself.
$(VENV)/.%: $(VENV)/bin/python pyproject.toml
	$(PYTHON) -m pip --disable-pip-version-check --python $(VENV)/bin/python install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) .venv-lower build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
