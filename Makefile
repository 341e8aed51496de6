# Every target is one thing a person does; `make help` lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DEMO   ?= demo
READY  := $(VENV)/.ready

NUMERIC := $(patsubst %,tests/test_%.py,data_codec model control evaluation stepping) \
  tests/test_data_demo.py::test_latents_are_the_clip_and_actions_led_into_them
# SkylakeX only where the processor has its instructions.
CORES := Haswell Haswell $(if $(shell grep -m 1 -o avx512f /proc/cpuinfo),SkylakeX SkylakeX)
PARALLEL := -n 2 --dist worksteal

# The tests start hundreds of processes, and each would compile the packages again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long test-nightly test-cluster test-fast test-fuzz test-faults test-inputs numeric check house format docs bench clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY) ## Make a virtual environment in .venv with the tested versions

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt \
	  --editable '.[dev]'
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib > /dev/null || true  # on every core, which pip does not
	@touch $@

demo: $(READY) ## The main job on real video: data, sweep, confirmation, promotion, report
	$(BIN)/lam data demo $(DEMO)/data --size 64 --episodes 48 --length 96
	$(BIN)/lam sweep launch configs/sweeps/demo.yaml --storage $(DEMO)/runs
	$(BIN)/lam sweep confirm $(DEMO)/runs/demo --top 1 --seeds 3
	$(BIN)/lam promote $(DEMO)/runs/demo -o $(DEMO)/production.yaml
	$(BIN)/lam report $(DEMO)/runs/demo -o $(DEMO)/report.html -o $(DEMO)/report.md

test: $(READY) ## The tests, some six minutes; those that start much or train long are in test-long and test-nightly
	$(BIN)/python -m pytest -m 'not long and not nightly and not cluster' -n 3 --dist worksteal --durations=10

test-long: $(READY) ## What takes long for what it asks, a few minutes more: a whole sweep killed, resumed and promoted; part of CI
	$(BIN)/python -m pytest -m 'long and not nightly and not cluster' $(PARALLEL) --durations=10

test-nightly: $(READY) ## More sweeps, servers and faults in real processes, README's commands, kills at random; most of an hour
	$(BIN)/python -m pytest -m 'nightly and not cluster' $(PARALLEL) --durations=10

test-cluster: $(READY) ## The tests on several Ray nodes of this machine: nodes that die, drain, join, or lack something
	$(BIN)/python -m pytest -m cluster

test-fast: $(READY) ## The tests that take less than five seconds each
	$(BIN)/python -m pytest -m 'not slow and not long and not nightly and not cluster' $(PARALLEL)

test-fuzz: $(READY) ## Every reader against files damaged by chance, new ones each time; CASES=5000 for each reader
	FUZZ_CASES=$(or $(CASES),5000) $(BIN)/python -m pytest $(PARALLEL) -m hypothesis --hypothesis-profile=fuzz \
	  --hypothesis-show-statistics tests/test_fuzz.py tests/test_hostile_yaml.py

test-faults: $(READY) ## The fault matrix with real processes, 50 rounds of kills, stock Ray Tune beside it; writes docs/reliability.md
	$(BIN)/python benchmarks/bench_faults.py --rounds $(or $(ROUNDS),50)

test-inputs: $(READY) ## Every hostile, broken or surprising input, counted by kind
	$(BIN)/python tests/tally_inputs.py

numeric: $(READY) ## The numeric tests with the arithmetic of two processors, with one and with two threads
	printf '%s 1\n%s 2\n' $(CORES) | xargs -P 2 -L 1 sh -c 'OPENBLAS_CORETYPE=$$0 \
	  OMP_NUM_THREADS=$$1 $(BIN)/python -m pytest -q -m "not slow and not long and not nightly" -k "not killed" $(NUMERIC)'

check: $(READY) ## Lint, types, import contracts, generated pages
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m lam.docs --check

house: ## The shape of the code: files side by side, import cycles, public names defined twice
	$(PYTHON) tests/house.py

format: $(READY) ## Sort imports and mend what the linter can
	$(BIN)/ruff check --fix .

docs: $(READY) ## Write the generated pages and the list of modules in ARCHITECTURE.md
	$(BIN)/python -m lam.docs

bench: $(READY) ## Run the benchmarks; each prints ratios within one run
	for file in benchmarks/bench_*.py; do $(BIN)/python $$file; done

clean: ## Delete the environment and what the demonstration made
	rm -rf $(VENV) $(DEMO) build *.egg-info
