# make demo: the main job on real data, from nothing.  make test: what is checked; make test-sweeps: with
# real schedulers and kills.  make bench: what a step costs, beside what it could cost; WRITE=--write: into
# benchmarks/results too.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.PHONY: demo test test-sweeps bench install lint fast clean

demo: $(READY)
	$(BIN)/python -m kd_lightning.run experiment=demo

test: $(READY) lint
	$(BIN)/python -m pytest -n 2 -m "not sweeps"

test-sweeps: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m sweeps

bench: $(READY)
	for table in speed ssd_cost loading growth startup; do $(BIN)/python -m benchmarks.$$table $(WRITE) || exit; done

fast: $(READY) lint
	$(BIN)/python -m pytest -n 2 -m "not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

install: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kd_lightning needs Python >= 3.11: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "Installing (the first time about 5 GB, a few minutes)"
	$(BIN)/python -m pip install --quiet --progress-bar off -c constraints.txt -e ".[all,bench]"
	touch $(READY)

clean:
	rm -rf $(VENV) outputs build dist .pytest_cache .ruff_cache
