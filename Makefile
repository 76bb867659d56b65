# Two commands: `make demo` runs the main job, `make test` runs the tests. Both set up .venv first.
PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3))
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
export PYTHONUNBUFFERED := 1
# Many processes of the tests import the same modules: their bytecode is kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all lint install doctor clean

demo: install
	$(BIN)/robot-rl demo

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m "not slow and not browser and not alone"

# Control loops in real time and the browser are tried one by one: beside another test they would be late.
test-all: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m "not browser and not alone"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs -m "browser or alone"

# mypy does not see through the folder mapping of pyproject.toml, so it is shown the installed layout as a tree of links.
lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/links && mkdir -p build/links/robot_rl
	ln -s $(CURDIR)/robot_rl/* build/links/robot_rl/
	for folder in datasets policies sim hardware; do ln -s $(CURDIR)/$$folder build/links/robot_rl/$$folder; done
	cd build/links && MYPYPATH=. ../../$(BIN)/mypy --config-file ../../pyproject.toml -p robot_rl

install: $(VENV)/.installed

doctor: install
	$(BIN)/robot-rl doctor

# robosuite's metadata asks for NumPy 1, though it runs on NumPy 2: it goes in without its dependencies, which are ours.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
		{ echo "robot_rl needs Python 3.11 or 3.12; $(PYTHON) is `$(PYTHON) --version`. Name one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[convert,export,feetech,multigpu,px4,ros,test,web]"
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps robosuite
	touch $@

clean:
	rm -rf build dist *.egg-info $(VENV)
