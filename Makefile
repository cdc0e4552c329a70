# Two commands do all: `make demo` measures real claims, `make test` runs every test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# On a machine without a GPU set TORCH_INDEX to the index URL of torch's CPU wheels (see pytorch.org/get-started/locally)
TORCH_INDEX ?=
TORCH := 'torch>=2.11,<=2.13.0' $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
DEMO := exact-permutations/sign-separation exact-permutations/ensemble-klogk exact-permutations/finite-width-agreement \
	s4/hippo-init evopress/ea-generations-scale

.PHONY: demo test install lint clean

$(VENV)/bin/pip:
	$(PYTHON) -c 'import sys; sys.exit("claimbench needs Python 3.11 or later: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/pip
	@echo "Setting up in $(VENV). Downloads: about 0.4 GB with torch's CPU wheel, about 3.5 GB with its default CUDA build on Linux."
	@command -v nvidia-smi >/dev/null || [ -n "$(TORCH_INDEX)" ] || echo "No GPU seen: 'make $(MAKECMDGOALS) TORCH_INDEX=URL', with the URL of torch's CPU wheels from pytorch.org/get-started/locally, saves the larger download."
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[page]'
	@touch $@

$(VENV)/.tested: pyproject.toml | $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

install: $(VENV)/.installed

demo: $(VENV)/.installed
	@echo "Measuring a first set of real claims: about 5 minutes on 2 cores. Ctrl-C loses nothing finished; the same command goes on."
	$(BIN)/claimbench run $(DEMO)
	$(BIN)/claimbench report $(DEMO) --html report.html
	@echo "report.html holds what was measured. Opening the page, with the published results beside yours: Ctrl-C ends it."
	$(BIN)/claimbench serve --open --port 0 --import results/*/*.jsonl

test: $(VENV)/.tested
	$(BIN)/python -m pytest

lint: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
