PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEV := $(VENV)/.installed-dev

.PHONY: demo test soak lint bench gpu dashboard

demo: $(INSTALLED)  ## trains a Diagonal BiLSTM on handwritten digits and writes its report
	$(BIN)/python train.py task=pixelrnn model=diag_bilstm

test: $(DEV)  ## two at once, each of one thread
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

soak: $(DEV)  ## runs killed at many moments, many runs, long runs: results/soak.md
	$(BIN)/python -m tests.soak

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(DEV)  ## every benchmark, one table each; leave the machine alone meanwhile
	$(BIN)/python -m benchmarks.recurrence
	$(BIN)/python -m benchmarks.step
	$(BIN)/python -m benchmarks.loop
	$(BIN)/python -m benchmarks.sampling
	$(BIN)/python -m benchmarks.beams
	$(BIN)/python -m benchmarks.data
	$(BIN)/python -m benchmarks.text
	$(BIN)/python -m benchmarks.attacks
	$(BIN)/python -m benchmarks.rotated

# With a PYTHON given that one is used as it is: a machine with a GPU has its own torch, and perhaps no network.
GIVEN := $(filter command,$(origin PYTHON))
MINUTES ?= 12

gpu: $(if $(GIVEN),,$(INSTALLED))  ## all that only a GPU can do, within MINUTES: results/gpu.md
	$(if $(GIVEN),$(PYTHON),$(BIN)/python) -m benchmarks.gpu --minutes $(MINUTES)

dashboard: $(INSTALLED)  ## TensorBoard on every run and sweep: http://localhost:6006
	$(BIN)/tensorboard --logdir_spec runs:runs,multiruns:multiruns

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(DEV): $(INSTALLED)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
