# make demo   train on the embedded digits and say where the report is
# make test   the tests; make test-all adds the slow ones
# make bench-peers   fastai, Keras, torchvision and timm into .venv-peers, for the benchmarks that compare with them: 6 GB
# TORCH_INDEX=https://download.pytorch.org/whl/cpu takes PyTorch's CPU build where PyPI would bring the CUDA one

PYTHON ?= python3
VENV ?= .venv
PEERS ?= .venv-peers
TORCH_INDEX ?=
BIN := $(VENV)/bin
PYTEST = OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest --numprocesses 2 --dist worksteal
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt

.PHONY: demo test test-all check bench bench-peers docs clean

demo: $(VENV)/.installed
	$(BIN)/gridsight train digits

test: $(VENV)/.installed-dev
	$(PYTEST)

test-all: $(VENV)/.installed-dev
	$(PYTEST) -m "slow or not slow" --timeout 3600 --durations 15

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -x

bench: $(VENV)/.installed-dev
	for file in benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

# torchvision imports with a CUDA build of torch alone, which "===" in the constraints asks for; it runs on the CPU
bench-peers: $(PEERS)/.installed

docs: $(VENV)/.installed-dev
	$(PYTEST) tests/docs

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Gridsight needs Python 3.11 or newer; make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(PEERS)/.installed: benchmarks/peers/constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c $< \
		fastai keras torchvision timm simplejpeg torch
	touch $@

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) build dist src/*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
