# Two commands need nothing but python3 (3.10 or later) and the package index: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
# More options for pip, for example: make demo PIP_OPTIONS="--index-url https://mirror.example/simple"
PIP_OPTIONS ?=
WORKERS ?= 2

BIN := $(VENV)/bin
READY := $(VENV)/.outpace-installed
PARTS := accel evaluation kernels models pipelines

# One thread a process: tests and timings run several small processes, and threads that wait by spinning slow them all.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-serve parity lint typecheck format links readme docs counts fuzz bench bench-tune bench-attention bench-sparse-errors bench-sparse-attention bench-sparse-dropped bench-linear bench-vision bench-moe bench-bricks bench-schedules bench-lego bench-vdt bench-dit3d bench-ladine bench-int8 bench-serve mutation wheel clean

help: ## this list
	@echo "outpace: make TARGET, where TARGET is"
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 19

install: $(READY) ## the environment in .venv (every other target makes it when it is missing)

# torch goes first and alone: pinned, so that a CPU build is taken where the package index has one, and nothing that is
# installed after it can ask for another.
$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "outpace needs Python 3.10 or later; choose one: make $(or $(MAKECMDGOALS),install) PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' \
	  || { echo "this Python cannot make environments; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "== making the environment in $(VENV): some hundred megabytes, a few minutes, once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_OPTIONS) -c constraints.txt torch
	$(BIN)/python -m pip install $(PIP_OPTIONS) -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY) ## pictures, a summary and out/demo/report.html, from pipelines this repository ships; some minutes
	$(BIN)/outpace generate flux --prompt "a blue circle above a yellow circle on black" \
	  --prompt "a green square left of a red square on white" --seed 1,2 --enlarge 6 --out out/demo/made
	$(BIN)/outpace generate wan --prompt "a white square moves up slowly" --format gif --enlarge 6 --out out/demo/made
	$(BIN)/outpace generate photo --prompt "coffee from near" --prompt "stars from afar" --speedup 2 --steps 28 \
	  --enlarge 3 --out out/demo/made
	$(BIN)/outpace compare flux --methods scheduled,gated,interval,fewer-steps,dpm++ --prompts 8 --steps 28 --out out/demo
	@echo "Pictures are in out/demo/made. Now open out/demo/report.html in a browser."

# Neighbours stay together, so that what a file sets up once is not set up by every worker.
test: $(READY) ## every test except the slow claims
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

test-slow: $(READY) ## the claims that take minutes (accuracy of the shipped pipelines, speed)
	$(BIN)/python -m pytest -m slow

test-serve: $(READY) ## the server with Ray: 200 strangers, a replica killed, bad weather; ten minutes
	$(BIN)/python -m pytest tests/serve

# Their dependencies are not wanted, only their files: of another torch, some of them.
# What some of diffusers' pipelines and their tests import, kept apart.
DIFFUSERS_TESTS ?=
.PHONY: fixtures
fixtures: $(READY) ## pipelines of diffusers' own tests: make fixtures DIFFUSERS_TESTS=CHECKOUT; some minutes
	$(BIN)/python -m pip install -q $(PIP_OPTIONS) --no-deps --upgrade --target build/fixtures \
	  ftfy wcwidth torchsde trampoline boltons parameterized opencv-python-headless torchvision==0.28.0
	PYTHONPATH=build/fixtures DIFFUSERS_TESTS="$(DIFFUSERS_TESTS)" $(BIN)/python -m pytest -m fixtures -rs tests/fixtures

.PHONY: support
support: $(READY) ## what works on which transformer, tried anew: docs/support.json; some minutes
	PYTHONPATH=build/fixtures DIFFUSERS_TESTS="$(DIFFUSERS_TESTS)" $(BIN)/python docs/support.py

.PHONY: solver-table
solver-table: $(READY) ## Solver and presets on every pipeline and transformer, tried anew: docs/solver_table.md; minutes
	$(BIN)/python docs/solver_table.py

parity: $(READY) ## models beside packages that hold them, kept apart in build/parity (clearvoice, timm, pytorch_wavelets)
	$(BIN)/python -m pip install -q $(PIP_OPTIONS) --no-deps --upgrade --target build/parity \
	  clearvoice einops rotary-embedding-torch timm pytorch_wavelets PyWavelets
	PYTHONPATH=build/parity $(BIN)/python -m pytest -rs tests/models/test_timm_parts.py tests/models/test_mossformer.py \
	  tests/kernels/test_wavelets.py

lint: $(READY) ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY) ## let ruff rewrite what `make lint` complains about
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(READY) links ## basedpyright
	$(BIN)/basedpyright --pythonpath $(BIN)/python --level error

# Type checkers and editors do not follow the mapping of folders in pyproject.toml; links under one name do it for them.
links: ## the sources under their import name in build/links, for type checkers and editors
	@rm -rf build/links
	@for file in $$(find outpace $(PARTS) -name '*.py'); do \
	  place="build/links/outpace/$${file#outpace/}"; \
	  mkdir -p "$$(dirname "$$place")" && ln -sf "$(CURDIR)/$$file" "$$place"; done

readme: $(READY) ## write the generated tables of README.md again
	$(BIN)/python docs/tables.py

docs: $(READY) ## the pages as a site in build/site, without a warning, and every link of it followed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	$(BIN)/python docs/check_links.py build/site

fuzz: $(READY) ## 1500 bad inputs over all commands: each has to end in one line and leave nothing behind, some minutes
	$(BIN)/python -m pytest -m slow tests/cli/test_bad_inputs.py

counts: $(READY) ## what `outpace flops NAME` looks up, counted again: accel/estimate/counted.json
	$(BIN)/python benchmarks/counts.py

bench: $(READY) ## the committed figures, again, on this machine (an hour or more): benchmarks/results/
	$(BIN)/python benchmarks/run.py

bench-tune: $(READY) ## nine targets tuned and held to fresh prompts, half an hour: docs/results_tuning.md
	$(BIN)/python benchmarks/tune.py

bench-attention: $(READY) ## speed of block-sparse attention on one core, some minutes: benchmarks/results/attention_cpu.md
	$(BIN)/python benchmarks/attention_cpu.py

bench-sparse-errors: $(READY) ## what sparse attention costs, by layer, head and noise level, ten minutes: docs/results_sparse_errors.md
	$(BIN)/python benchmarks/sparse_errors.py

bench-sparse-attention: $(READY) ## sparse attention beside fewer steps and forecasts at equal time, an hour and a quarter on an idle core: docs/results_sparse_attention.md
	$(BIN)/python benchmarks/sparse_attention.py

bench-sparse-dropped: $(READY) ## whether it pays to put back what sparse attention leaves out, three minutes: docs/results_sparse_dropped.md
	$(BIN)/python benchmarks/sparse_dropped.py

bench-linear: $(READY) ## linear attention from 1024 to 32768 tokens on one core, some minutes: benchmarks/results/linear_attention_cpu.md
	$(BIN)/python benchmarks/linear_attention_cpu.py

bench-vision: $(READY) ## kernels of vision models beside plain torch on one core, two minutes: docs/results_vision_kernels.md
	$(BIN)/python benchmarks/vision_kernels.py

bench-moe: $(READY) ## speed of a layer split into experts on a CPU, some minutes: benchmarks/results/moe_cpu.md
	$(BIN)/python benchmarks/moe_cpu.py

bench-dense2moe: $(READY) ## mixtures and pruned models distilled alike, an hour or more: docs/results_dense2moe.md
	$(BIN)/python benchmarks/dense2moe.py

bench-bricks: $(READY) ## calibrated beside uniform and random schedules of bricks, half an hour: docs/results_bricks.md
	$(BIN)/python benchmarks/bricks.py

bench-schedules: $(READY) ## schedules at other numbers of steps, by sample and beside power schedules, an hour: benchmarks/results/schedules.md
	$(BIN)/python benchmarks/schedules.py

bench-lego: $(READY) ## what leaving out bricks of the pocket lego saves and costs, ten minutes: docs/results_lego.md
	$(BIN)/python benchmarks/lego.py

bench-vdt: $(READY) ## what the pocket vdt makes beside plain guesses, some minutes: docs/results_vdt.md
	$(BIN)/python benchmarks/vdt.py

bench-dit3d: $(READY) ## clouds of the pocket dit3d beside the data, some minutes: docs/results_dit3d.md
	$(BIN)/python benchmarks/dit3d.py

bench-ladine: $(READY) ## LaDiNE and its rivals trained three times, ten minutes: docs/results_ladine.md
	$(BIN)/python benchmarks/ladine.py

mutation: $(READY) ## some 270 one-term changes and which of them checks and fast tests notice, half an hour: benchmarks/results/mutation.md
	$(BIN)/python benchmarks/mutation.py --count 110 --seed 4 --save

bench-int8: $(READY) ## what 8-bit codes of two pockets save and cost, some minutes: docs/results_int8.md
	$(BIN)/python benchmarks/int8.py

bench-serve: $(READY) ## what serving strangers together brings and costs, ten minutes: docs/results_serve.md
	$(BIN)/python benchmarks/serve.py

bench-gpu: $(READY) ## everything about this machine's GPU, ten minutes: exactness, attention, hooks, models: benchmarks/results/
	TRITON_INTERPRET=0 $(BIN)/python benchmarks/gpu.py

wheel: $(READY) ## a wheel in dist/
	$(BIN)/python -m pip wheel --no-deps --no-build-isolation -w dist .

clean: ## remove what the targets made, the environment too
	rm -rf $(VENV) out build dist .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
