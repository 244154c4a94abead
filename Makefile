# make demo          the main job on real data, from nothing
# make test          lint, format and the tests; make fast: without the slow ones
# make test-oldest   the fast tests with the oldest versions that pyproject.toml allows
# make docs          the documents as a website, in build/site
# make torture       kills, faults, a long sweep and random input; on 2 quiet cores about 75 minutes: kills 20, points 25,
#                    faults 3, soak 15, the rest minutes; WRITE=--write: also into benchmarks/results/torture.md.
#                    Its short form is in make test (tests/test_torture.py)
# make audit         vulnerabilities of the pinned versions that the package index knows
# make bench         what a step costs, and what it could cost; WRITE=--write: also into benchmarks/results
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
OLDEST := .venv-oldest
OLDEST_READY := $(OLDEST)/.installed
AUDIT := .venv-audit

.PHONY: demo test test-oldest docs bench torture audit install lint fast clean

demo: $(READY)
	$(BIN)/python -m kd_lightning.run experiment=demo

# Three, also on two cores: tests of schedulers and of kills wait for much of their time
test: $(READY) lint
	$(BIN)/python -m pytest -n 3 --dist worksteal

# A warning is no error here: old versions of libraries warn of each other
test-oldest: $(OLDEST_READY)
	$(OLDEST)/bin/python -m pytest -n 2 -W default --disable-warnings -m "not slow and not gpu"

docs: $(READY)
	$(BIN)/python -m mkdocs build --strict
	@echo "Open build/site/index.html, or with search: $(BIN)/python -m http.server -d build/site"

bench: $(READY)
	for table in speed ssd_cost loading growth startup; do $(BIN)/python -m benchmarks.$$table $(WRITE) || exit; done

# All of them run, also after one that has lost something
torture: $(READY)
	lost=""; for tool in kills points faults soak config_fuzz file_fuzz; do \
		$(BIN)/python -m benchmarks.torture.$$tool $(WRITE) || lost="$$lost $$tool"; done; \
	test -z "$$lost" || { echo "lost something:$$lost"; exit 1; }

# Strict: a version that the index does not know is an error
audit:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet pip-audit
	$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

fast: $(READY) lint
	$(BIN)/python -m pytest -n 2 -m "not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

install: $(READY)

$(READY): EXTRAS := all,bench
$(READY): pyproject.toml constraints.txt
$(OLDEST_READY): EXTRAS := all
$(OLDEST_READY): pyproject.toml constraints-oldest.txt
$(READY) $(OLDEST_READY):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kd_lightning needs Python >= 3.11: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade pip
	@echo "Installing (the first time about 5 GB, a few minutes)"
	$(@D)/bin/python -m pip install --quiet --progress-bar off -c $(filter constraints%,$^) -e ".[$(EXTRAS)]"
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) $(AUDIT) outputs build dist .pytest_cache .ruff_cache
