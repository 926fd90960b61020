# make demo: install and show everything at work.  make test: install and the fast tests.  Both can be run twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ONEDL := .venv-onedl
RUN := $(BIN)/python

.PHONY: demo test test-all test-slow lint docs gallery gpu smoke-onedl clean

demo: $(VENV)/.installed
	$(RUN) tools/demo.py

test: $(VENV)/.done
	$(RUN) -m pytest -n 2 -m "not slow"

# everything, before a release; CI runs `test` and `test-slow` one after the other
test-all: $(VENV)/.s3
	$(RUN) -m pytest -n 2

test-slow: $(VENV)/.s3
	$(RUN) -m pytest -n 2 -m "slow and not long"

lint: $(VENV)/.done
	$(BIN)/ruff check .
	$(BIN)/lint-imports

# the documentation site, into build/site; a warning, such as a broken link, is an error
docs: $(VENV)/.done
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# the pictures of docs/gallery.md
gallery: $(VENV)/.done
	$(RUN) docs/site/gallery.py

# what needs a GPU: tests, kernels, training steps beside the stock stack, short trainings; nine minutes, one table last.
# Without .venv (a machine without network) it runs in PYTHON's own environment.
gpu:
	$(or $(wildcard $(RUN)),$(PYTHON)) tests/gpu_check.py

# the same package on the maintained forks, which own the same import names and so need an environment of their own
smoke-onedl: $(ONEDL)/.done
	$(ONEDL)/bin/python -m pytest -n 2 -m "not slow" tests/mm tests/tools tests/optim

# without compiling: python compiles what is imported, a fraction of what is installed
$(VENV)/.installed: setup.py pyproject.toml
	@echo "installing torch and the MM packages into $(VENV): a few minutes, depending on the network"
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --no-input --no-compile -e '.[openmmlab]'
	touch $@

$(VENV)/.done: setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --no-input --no-compile -e '.[openmmlab,test,docs]'
	touch $(VENV)/.installed $@

$(VENV)/.s3: $(VENV)/.done
	$(RUN) -m pip install --no-input --no-compile -e '.[test-s3]'
	touch $@

# starts as hard links to what $(VENV) has, so torch and its CUDA packages are downloaded once and lie on the disk once
$(ONEDL)/.done: $(VENV)/.done
	$(PYTHON) -m venv --clear --without-pip $(ONEDL)
	cp -alf $(VENV)/lib $(ONEDL)/
	$(ONEDL)/bin/python -m pip uninstall -q -y convnext-dense mmengine mmcv-lite mmdet mmsegmentation
	$(ONEDL)/bin/python -m pip install -q --no-compile -e '.[onedl,test]'
	touch $@

clean:
	rm -rf $(VENV) $(ONEDL) work_dirs build *.egg-info
