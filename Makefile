# One environment, .venv, for the demo and the tests. Everything here also works by hand; see README.md.
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
PHOTO ?=
OUT ?=
JOBS ?= 2
# A package that appears or goes needs a new install; edits inside one do not (the install is editable).
INSTALL_INPUTS := setup.py pyproject.toml constraints.txt \
	$(wildcard tasks/lyra_tasks/__init__.py exts/lyra_worlds/lyra_worlds/__init__.py configs/__init__.py)
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test test-slow lint check-python env-physx env-depth-anything-3 env-open3d system-deps clean

demo: $(VENV)/.demo
	$(BIN)/python -m lyra_core.demo $(if $(PHOTO),"$(PHOTO)") $(if $(OUT),--output "$(OUT)")

test: $(VENV)/.test lint
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -m "slow or not slow"

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

check-python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name it: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); Python 3.11 or newer is needed: make PYTHON=... " >&2; exit 1; }

$(BIN)/python: | check-python
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(INSTALL_INPUTS) | $(BIN)/python
	$(PIP) --editable ".[standalone]"
	@touch $@

$(VENV)/.test: $(INSTALL_INPUTS) | $(BIN)/python
	$(PIP) --editable ".[standalone,newton,mujoco,validate,lyra2,exr,dev]"
	@touch $(VENV)/.demo $@

# NVIDIA's PhysX has its own pins and licence, so it gets its own environment and is spoken to as a process.
env-physx: .venv-physx/.ready
.venv-physx/.ready: requirements/physx.txt | check-python
	test -x .venv-physx/bin/python || $(PYTHON) -m venv .venv-physx
	.venv-physx/bin/python -m pip --disable-pip-version-check install --quiet --requirement requirements/physx.txt
	@touch $@

# Depth Anything 3 needs numpy < 2.
env-depth-anything-3: .venv-depth-anything-3/.ready
.venv-depth-anything-3/.ready: requirements/depth-anything-3.txt | check-python
	test -x .venv-depth-anything-3/bin/python || $(PYTHON) -m venv .venv-depth-anything-3
	.venv-depth-anything-3/bin/python -m pip --disable-pip-version-check install --quiet --requirement requirements/depth-anything-3.txt
	@touch $@

# Open3D is what tests.benchmarks.surface measures us against.
env-open3d: .venv-open3d/.ready
.venv-open3d/.ready: requirements/open3d.txt | check-python
	test -x .venv-open3d/bin/python || $(PYTHON) -m venv .venv-open3d
	.venv-open3d/bin/python -m pip --disable-pip-version-check install --quiet --requirement requirements/open3d.txt
	@touch $@

# Needed by neither demo nor test.
system-deps:
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium libusb-1.0-0 python3-openvdb

clean:
	rm -rf $(VENV) .venv-physx .venv-depth-anything-3 .venv-open3d build dist *.egg-info .pytest_cache .ruff_cache
