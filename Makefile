# All that a fresh checkout needs: `make demo` shows it at work, `make test` checks it, `make docs` builds site/.
PYTHON ?= python3
VENV ?= .venv
INSTALLED := $(VENV)/.installed
BIN := $(VENV)/bin

.PHONY: demo test fuzz docs results data-given tools format clean

demo: $(INSTALLED)
	$(BIN)/kdna demo

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile

# Altered folders without end: prints the seed of the first that breaks the law. SEED resumes.
SEED ?= 0
CASES ?= 50000
fuzz: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python tests/support/folder_fuzz.py --seed $(SEED) --cases $(CASES)

docs: $(INSTALLED)
	$(BIN)/python -m mkdocs build --strict

# All results from nothing, about a day: benchmarks/everything.py. A stopped run resumes in the folder RESULTS.
RESULTS ?= runs/results
TOOLS := .venv-tools
results: data-given $(INSTALLED) tools
	$(BIN)/python benchmarks/everything.py '$(DATA)' $(RESULTS) --tools $(TOOLS)/bin/python

data-given:
	@test -d '$(DATA)/checkpoints' || { echo 'say where checkpoints/ and the images are: make results DATA=/path'; exit 2; }

# The tools of kdna compare, in an environment of their own. NNCodec asks for numpy < 2, and works with later ones.
tools: $(TOOLS)/.installed

$(TOOLS)/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(TOOLS) || { \
		$(PYTHON) -m venv --clear --without-pip $(TOOLS) && $(PYTHON) -m pip --python $(TOOLS)/bin/python install --quiet pip; }
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[compare]' h5py opencv-python-headless
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps nncodec
	touch $@

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Debian without python3-venv can make an environment, only not put pip into it; its own pip can.
$(INSTALLED): pyproject.toml
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) || { \
		$(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,docs]'
	touch $@

clean:
	rm -rf $(VENV) $(TOOLS) build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
