# The whole tool belt. `make setup` is a prerequisite of everything and does nothing when nothing changed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# The first interpreter that really runs, is new enough and can make a virtual environment.
IS_SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	"$$python" -c '$(IS_SUITABLE)' 2>/dev/null && echo "$$python" && break; done)

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
ROS_PACKAGES := $(patsubst %/setup.py,%,$(wildcard ros_ws/src/*/setup.py))
ROS_METADATA := $(wildcard ros_ws/src/*/setup.py ros_ws/src/*/setup.cfg ros_ws/src/*/package.xml)

# A sourced ROS installation belongs to another Python; on x86-64 the wheels in .venv bring their own ROS 2.
ifeq ($(shell uname -m),x86_64)
unexport PYTHONPATH AMENT_PREFIX_PATH COLCON_PREFIX_PATH RMW_IMPLEMENTATION
export LD_LIBRARY_PATH := $(shell echo "$${LD_LIBRARY_PATH-}" | tr ':' '\n' | grep -v '^/opt/ros/' | paste -sd: -)
endif

# pyright runs from its wheel, on the node of its wheel: no download, no question for a newer one.
export PYRIGHT_PYTHON_GLOBAL_NODE := 0
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

# `datasets` has no __init__.py, so that pdoc does not find it through `onestride`.
DOCUMENTED := onestride onestride.datasets onestride_controller onestride_plant onestride_recorder onestride_watchdog \
	onestride_drivers

PYTEST_ARGS ?=
DEMO_ARGS ?=
# Processes that share the tests, up to 2 GB each.
JOBS ?= $(shell nproc | awk '{ print ($$1 < 8) ? $$1 : 8 }')
BENCH_OUT ?= runs/benchmarks

# First the tests that can share the cores, then those that keep time, one by one. The argument restricts both.
# Status 5 is pytest's "none was chosen", as PYTEST_ARGS='-k solver' has it for one of the two.
define pytest
	status=0; \
	$(BIN)/pytest -n $(JOBS) --dist loadfile -m '$(1) not alone' $(PYTEST_ARGS) || [ $$? = 5 ] || status=1; \
	$(BIN)/pytest -m '$(1) alone' $(PYTEST_ARGS) || [ $$? = 5 ] || status=1; \
	exit $$status
endef

.PHONY: help setup demo test test-all bench-data bench-train-step bench-gpu bench-safety bench-latency lint format docs clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12
	@echo
	@echo 'PYTHON=/path/to/python3.11 chooses the interpreter, PYTEST_ARGS and DEMO_ARGS are passed on, JOBS=1 tests on one core.'

setup: $(VENV)/.project ## make .venv and install everything into it (4 GB, a few minutes, once)

demo: setup ## the main job end to end: collect, train, export, check, run through ROS 2, report
	$(BIN)/onestride demo $(DEMO_ARGS)

test: setup ## the tests, without the slow ones
	$(call pytest,not slow and)

test-all: setup ## every test
	$(call pytest,)

bench-data: setup ## the benchmarks of the datasets, one JSON file each in runs/benchmarks (minutes)
	mkdir -p $(BENCH_OUT)
	status=0; for bench in tests/benchmarks/bench_{windows,streaming,convert,recorder}.py; do \
		echo "$$bench"; \
		PYTHONPATH=tests $(BIN)/python "$$bench" | tee "$(BENCH_OUT)/$$(basename "$$bench" .py).json" || status=1; \
	done; exit $$status

bench-train-step: setup ## MVP's gradient step against a plain one, JSON in runs/benchmarks (minutes)
	mkdir -p $(BENCH_OUT)
	PYTHONPATH=tests $(BIN)/python tests/benchmarks/bench_update.py | tee "$(BENCH_OUT)/bench_update.json"

bench-gpu: setup ## MVP at the paper's settings: updates and online iterations per second, JSON in runs/benchmarks
	mkdir -p $(BENCH_OUT)
	PYTHONPATH=tests $(BIN)/python tests/benchmarks/bench_gpu.py --device cuda | tee "$(BENCH_OUT)/bench_gpu.json"

bench-safety: setup ## what a tick of the safety chain costs, JSON in runs/benchmarks (seconds)
	mkdir -p $(BENCH_OUT)
	PYTHONPATH=tests $(BIN)/python tests/benchmarks/bench_safety.py | tee "$(BENCH_OUT)/bench_safety.json"

bench-latency: setup ## inference against the plain products of its matrices, JSON in runs/benchmarks (a minute)
	mkdir -p $(BENCH_OUT)
	PYTHONPATH=tests $(BIN)/python tests/benchmarks/bench_latency.py | tee "$(BENCH_OUT)/bench_latency.json"

lint: setup ## ruff, mypy --strict, pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright

format: setup ## sort imports, format the code
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

docs: setup ## the API reference, into docs/build/index.html
	PDOC_ALLOW_EXEC=1 $(BIN)/pdoc --docformat google -o docs/build $(DOCUMENTED)

clean: ## remove everything that can be made again, except runs/
	rm -rf $(VENV) build dist docs/build ros_ws/build ros_ws/install ros_ws/log
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis ros_ws/src/*/*.egg-info ros_ws/src/*/build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each step leaves a stamp, so that a changed step repeats itself and what follows it, and nothing else.

$(VENV)/.python:
	@$(if $(strip $(PYTHON)),,echo 'error: expected Python 3.11 to 3.13 with venv, found none on PATH;' \
		'install python3.11 and python3.11-venv, or: make setup PYTHON=/path/to/python3.11' >&2; exit 2)
	@"$(PYTHON)" -c '$(IS_SUITABLE)' 2>/dev/null || { echo "error: expected Python 3.11 to 3.13 with venv," \
		"got $(PYTHON): $$("$(PYTHON)" --version 2>&1 | head -1)" >&2; exit 2; }
	"$(PYTHON)" -m venv $(VENV)
	@touch $@

$(VENV)/.stage1: requirements/stage1.txt $(VENV)/.python
	$(PIP) install -r requirements/stage1.txt | sed -u '/^Requirement already satisfied/d'
	@touch $@

$(VENV)/.stage2: requirements/stage2.txt $(VENV)/.stage1
	$(PIP) install --no-deps -r requirements/stage2.txt | sed -u '/^Requirement already satisfied/d'
	@touch $@

# Editable, so that a change in the tree takes effect at once; the build tools are those of stage 1.
$(VENV)/.project: pyproject.toml $(ROS_METADATA) $(VENV)/.stage2
	$(PIP) install --quiet --no-deps --no-build-isolation $(addprefix -e ./,. $(ROS_PACKAGES))
	@touch $@
