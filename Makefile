# Every target does its own set-up: a virtual environment in .venv, the dependencies in it, and the
# extension, built in place. A second run redoes only what a changed file asks for.
#
#   make demo ARGS="--contexts 1024,2048"     ARGS goes to the command behind the target
#   make test PYTHON=python3.12               the Python that .venv is made with
#   make build TORCH=2.14.1                   the torch that is installed into a new .venv

PYTHON ?= python3
TORCH ?= 2.13.0
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
BUILT := build/.built
CPP_FILES := $(shell find csrc -name '*.cpp' -o -name '*.h')
CUDA_FILES := $(shell find csrc/cuda tests/cuda tests/ascend tilelang_kernels/toolchain/hip tilelang_kernels/ascend/stub -name '*.cu' -o -name '*.cuh' -o -name '*.h' -o -name '*.hpp')
PTX_FILES := $(shell find ptx_emulator -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
export MAX_JOBS ?= $(shell getconf _NPROCESSORS_ONLN)

.PHONY: help demo test ptx cuda sass-check kernel-counts gpu-check tilelang-check test-tilelang test-full test-levels test-schedules test-asan test-aarch64 test-ptx bench bench-check bench-peers fuzz lint format build wheel clean distclean
.DELETE_ON_ERROR:

help:
	@echo "make demo       a DeepSeek-V3.2 model through dsa_kernels, next to eager and sdpa"
	@echo "make test       the tests (test-full: the slow ones, and all at every ISA level)"
	@echo "make test-asan  the tests under AddressSanitizer and UBSan"
	@echo "make test-aarch64  the tests of the ops on aarch64, under qemu (on Debian)"
	@echo "make test-ptx   the tests of ptx_emulator (best with nvcc, for its test kernels)"
	@echo "make bench      every op against the machine's limits, torch and peers"
	@echo "make bench-check  the speeds that are promised; fails below any"
	@echo "make bench-peers  other CPU libraries to measure beside, into build/peers"
	@echo "make fuzz       random and hostile inputs, backend against backend"
	@echo "make lint       ruff and clang-format, as CI runs them (format: fix in place)"
	@echo "make cuda       the CUDA kernels for GPUs (ptx: for the emulator; test makes it itself)"
	@echo "make sass-check  their machine code against csrc/cuda/sass.json"
	@echo "make kernel-counts  what they issue and move, beside FlashMLA and DeepGEMM (no GPU)"
	@echo "make gpu-check  all of it on a machine with a Hopper GPU (ARGS=--dry-run: the plan)"
	@echo "make tilelang-check  TileLang kernels: sources, objects, values in the emulator"
	@echo "make test-tilelang  the ops' own tests on them, and their objects for every target"
	@echo "make build      .venv, dependencies, extension (wheel: a wheel in dist/)"
	@echo "make clean      remove what was built (distclean: .venv too)"

demo: $(BUILT)
	$(BIN)/python -m dsa_kernels demo $(ARGS)

test: $(BUILT) ptx
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

# The CUDA kernels: their PTX, which the emulator runs; with fatbins, for GPUs. Without nvcc neither.
ptx: $(VENV)/.dependencies
	@$(BIN)/python -m csrc.cuda.build --ptx-only

cuda: $(VENV)/.dependencies
	@DSA_CUDA=1 $(BIN)/python -m csrc.cuda.build

# nvdisasm's front end comes with Triton where no CUDA toolkit has it.
sass-check: cuda $(VENV)/.ptx
	$(BIN)/python -m csrc.cuda.sass_check $(ARGS)

# Machine code is counted where ptxas and nvdisasm are.
kernel-counts: $(BUILT) ptx $(VENV)/.ptx
	$(BIN)/python -m bench.kernel_counts $(ARGS)

gpu-check: $(BUILT)
	$(BIN)/python -m bench.gpu_check $(ARGS)

# The ops' own tests on the CUDA kernels, with asynchronous work done late or at random times.
test-schedules: $(BUILT) ptx
	@for schedule in late,0 random,1 random,2 random,3 random,4; do \
	  echo "schedule $$schedule"; \
	  PTX_EMULATOR_MODE=$${schedule%,*} PTX_EMULATOR_SEED=$${schedule#*,} \
	    $(BIN)/python -m pytest -m "not slow" -k emulated $(if $(ARGS),$(ARGS),$(OP_TESTS)) || exit 1; \
	done

test-full: test-levels test-schedules test-tilelang cuda
	$(BIN)/python -m pytest -m slow $(ARGS)

# Levels that the machine lacks are left out, each with a line that says so.
test-levels: $(BUILT)
	@for level in scalar avx2 avx512 avx512_bf16; do \
	  if DSA_CPU_ISA=$$level $(BIN)/python -c "import dsa_kernels" 2>/dev/null; then \
	    echo "ISA level $$level"; \
	    DSA_CPU_ISA=$$level $(BIN)/python -m pytest -m "not slow" $(ARGS) || exit 1; \
	  else echo "ISA level $$level is not supported by this machine"; fi; \
	done

TILELANG_OP_TESTS = $(filter-out tests/test_topk_indices_cuda.py,$(wildcard $(OP_TESTS)))
OP_TESTS := $(addprefix tests/test_,$(addsuffix *.py,indexer indices merge mla mqa paged sparse topk))

# In a copy of the tree, so that the extension in place stays the fast one. Python itself is not
# instrumented and leaks by design; torch's own threads need the library loaded first.
ASAN := build/asan
ASAN_FLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
test-asan: $(VENV)/.dependencies
	@mkdir -p $(ASAN)
	cp -r csrc dsa_kernels tests bench setup.py pyproject.toml README.md Makefile docs LICENSE $(ASAN)
	rm -f $(ASAN)/dsa_kernels/_C*.so
	cd $(ASAN) && CFLAGS="$(ASAN_FLAGS) -O1" LDFLAGS="$(ASAN_FLAGS)" \
	  $(CURDIR)/$(BIN)/python setup.py -q build_ext --inplace
	cd $(ASAN) && LD_PRELOAD="$$($${CXX:-g++} -print-file-name=libasan.so) \
	  $$($${CXX:-g++} -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
	  UBSAN_OPTIONS=print_stacktrace=1 $(CURDIR)/$(BIN)/python -m pytest -m "not slow" \
	  $(if $(ARGS),$(ARGS),$(OP_TESTS))

# .venv for its pip and ninja.
test-aarch64: $(VENV)/.dependencies
	PATH="$(CURDIR)/$(BIN):$$PATH" tests/aarch64.sh $(BIN)/python $(TORCH) \
	  $(if $(ARGS),$(ARGS),$(OP_TESTS) tests/test_isa_levels.py tests/test_backend_selection.py)

# The emulator needs nothing of dsa_kernels; the compilers make PTX that no one here wrote.
test-ptx: $(VENV)/.ptx
	$(BIN)/python -m pytest -m "not slow" $(if $(ARGS),$(ARGS),ptx_emulator/tests)

tilelang-check: $(BUILT) $(VENV)/.ptx
	$(BIN)/python -m pytest $(if $(ARGS),$(ARGS),-m "not slow") $(wildcard tests/test_tilelang*.py)

# The ops' own tests on TileLang's kernels, in the emulator; and what the kernels come to everywhere.
test-tilelang: $(BUILT) $(VENV)/.ptx
	@for target in sm_90a sm_80; do \
	  echo "TileLang for $$target"; \
	  DSA_TEST_TILELANG=$$target $(BIN)/python -m pytest -m "not slow" -k emulated \
	    $(if $(ARGS),$(ARGS),$(TILELANG_OP_TESTS)) || exit 1; \
	done
	$(BIN)/python -m tilelang_kernels check

bench: $(BUILT)
	$(BIN)/python -m bench $(ARGS)

bench-check: $(BUILT)
	$(BIN)/python -m bench.check $(ARGS)

bench-peers: $(VENV)/.created
	$(BIN)/python -m bench.install_peers $(ARGS)

fuzz: $(BUILT)
	$(BIN)/python -m dsa_kernels fuzz $(ARGS)

lint: $(VENV)/.dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CPP_FILES) $(CUDA_FILES) $(PTX_FILES)

format: $(VENV)/.dependencies
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_FILES) $(CUDA_FILES) $(PTX_FILES)

build: $(BUILT)

wheel: $(VENV)/.dependencies
	$(PIP) wheel --no-build-isolation --no-deps --wheel-dir dist .

# Directories are prerequisites too: their times change when a file is added or removed.
$(BUILT): $(VENV)/.dependencies setup.py $(CPP_FILES) $(shell find csrc -type d)
	@command -v $${CXX:-g++} >/dev/null || { \
	  echo "A C++20 compiler is needed. On Debian or Ubuntu: apt install g++"; exit 1; }
	@echo "Building the CPU extension (a minute or two the first time)"
	$(BIN)/python setup.py -q build_ext --inplace
	@mkdir -p $(@D) && touch $@

# torch first, and its CPU build where the package index has one: the default build for Linux
# brings gigabytes of CUDA libraries that nothing here uses yet. The package itself goes in without
# its extension (DSA_CPU=0), which is built by the rule above.
$(VENV)/.dependencies: $(VENV)/.created pyproject.toml
	@echo "Installing torch $(TORCH) into $(VENV)"
	@$(PIP) install -q "torch==$(TORCH)+cpu" || { \
	  echo "No CPU build of torch $(TORCH) was found; taking the index's default build."; \
	  $(PIP) install "torch==$(TORCH)"; }
	$(PIP) install -q "setuptools>=77" wheel ninja
	DSA_CPU=0 $(PIP) install -q --no-build-isolation -e ".[dev,transformers,bench]"
	@touch $@

$(VENV)/.ptx: $(VENV)/.dependencies
	DSA_CPU=0 $(PIP) install -q --no-build-isolation -e ".[ptx]"
	@touch $@

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "Python 3.10 or newer is needed as '$(PYTHON)'. Name another: make PYTHON=python3.12"; \
	  exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
	  echo "'$(PYTHON) -m venv' failed. On Debian or Ubuntu: apt install python3-venv"; exit 1; }
	@touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .benchmarks
	rm -rf dsa_kernels/_C*.so dsa_kernels/cuda
	find dsa_kernels tests bench ptx_emulator -name __pycache__ -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
