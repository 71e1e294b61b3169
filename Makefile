# Needs Python >= 3.11 and make; everything else goes into $(VENV).
VENV ?= .venv
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)

bin := $(VENV)/bin
py := $(bin)/python
# Quiet, and the same whatever a user's pip configuration says about upgrades and prompts.
pip := $(py) -m pip --disable-pip-version-check --no-input install --quiet --require-hashes

.DEFAULT_GOAL := help
.PHONY: help demo up test test-all lint types schemas schemas-check bench peers k8s-check image sbom lock fuzz clean audit examples

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.local ## start everything on this machine, answer a sample question
	@$(bin)/skelgraph demo

up: $(VENV)/.local ## start everything and keep it running
	@$(bin)/skelgraph up

# Files of tests at once: most tests wait for services rather than for a core.
TEST_PROCESSES ?= 2
test: $(VENV)/.dev examples ## all tests but the long ones
	@$(py) -m pytest -m "not long" -n $(TEST_PROCESSES) --dist loadfile

test-all: $(VENV)/.dev examples ## all tests, one at a time
	@$(py) -m pytest

examples: ## what the JavaScript example of docs/integrate.md needs, where there are node and npm
	@docs/examples/install.sh

lint: $(VENV)/.dev ## style and format
	@$(bin)/ruff check
	@$(bin)/ruff format --check

types: $(VENV)/.dev ## strict types
	@$(py) -m mypy

schemas: $(VENV)/.dev ## write what is generated: schemas/, docs/messages.md, docs/configuration.md
	@$(py) -m proto.schemas && $(py) -m docs.generate

schemas-check: $(VENV)/.dev ## fail if what is generated is not what the code says
	@$(py) -m proto.schemas --check && $(py) -m docs.generate --check

bench: $(VENV)/.local ## the benchmark; ARGS="..." for its options
	@$(py) -m bench.questions $(ARGS)

audit: $(VENV)/.dev ## known holes in what is locked; where nobody answers it says so and goes on
	@$(py) requirements/audit.py $(VENV)-audit

peers: $(VENV)-peers/.done ## the environment of `python -m bench.overhead.peers` (about 400 MB)

k8s-check: $(VENV)/.dev ## what deploy/ renders to, and all checks of it
	@$(py) -m pytest tests/k8s -rP -q

# Needs Docker. IMAGE names the result, PYTHON_DIGEST the base: see Dockerfile.
IMAGE ?= skelgraph:dev
DOCKER ?= docker
image: ## the container image; PYTHON_DIGEST=sha256:... IMAGE=name:tag
	@test -n "$(PYTHON_DIGEST)" || { echo "PYTHON_DIGEST=sha256:... is missing: the Dockerfile says how to find it" >&2; exit 1; }
	$(DOCKER) build --build-arg PYTHON_DIGEST=$(PYTHON_DIGEST) \
		--build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) \
		--build-arg REVISION=$$(git rev-parse HEAD) --tag $(IMAGE) .

sbom: $(VENV)-sbom/.done ## build/sbom.json: what is in the image, as CycloneDX
	@mkdir -p build
	@$(VENV)-sbom/bin/cyclonedx-py requirements requirements/runtime.txt --pyproject pyproject.toml \
		--mc-type application --output-reproducible --of JSON -o build/sbom.json
	@echo "build/sbom.json"

lock: $(VENV)/.dev ## write requirements/*.txt anew; UPGRADE=1 for newer versions
	@UV=$(abspath $(bin)/uv) requirements/lock.sh

# Seconds for each target; what is found lies in build/fuzz.
FUZZ_S ?= 60
fuzz: $(VENV)-fuzz/.done ## search for bytes that break what reads bytes from outside; FUZZ_S=60 for each target
	@for target in plan codec bodies events reply credentials subjects; do \
		mkdir -p build/fuzz/$$target && cp -n tests/fuzz/corpus/$$target/* build/fuzz/$$target/; \
		echo "fuzzing $$target for $(FUZZ_S) s"; \
		$(VENV)-fuzz/bin/python -m tests.fuzz $$target build/fuzz/$$target -max_total_time=$(FUZZ_S) \
			-max_len=4096 -print_final_stats=1 -artifact_prefix=build/fuzz/$$target- >build/fuzz/$$target.log 2>&1 \
			|| { tail -n 30 build/fuzz/$$target.log; exit 1; }; \
		grep number_of_executed_units build/fuzz/$$target.log; \
	done

clean: ## remove the environment and caches
	@rm -rf docs/examples/node_modules $(VENV) $(VENV)-fuzz $(VENV)-sbom $(VENV)-peers $(VENV)-audit .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(py):
	@if [ -z "$(PYTHON)" ]; then \
		echo "No Python >= 3.11 found. Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; fi
	@echo "Making $(VENV) with $$($(PYTHON) -V)"
	@$(PYTHON) -m venv $(VENV)

# The lock for running contains less than the one for developing: whoever has .dev has .local.
$(VENV)/.local: requirements/local.txt requirements/build.txt pyproject.toml | $(py)
	@echo "Installing what the local stack needs (about 60 MB, once)"
	@$(pip) -r requirements/local.txt -r requirements/build.txt
	@$(call install_project)
	@touch $@

$(VENV)/.dev: requirements/dev.txt requirements/build.txt pyproject.toml | $(py)
	@echo "Installing what the tests need (about 215 MB, once)"
	@$(pip) -r requirements/dev.txt -r requirements/build.txt
	@$(call install_project)
	@touch $@ $(VENV)/.local

$(VENV)-%/.done: requirements/%.txt | $(py)
	@$(py) -m venv $(VENV)-$*
	@$(VENV)-$*/bin/python -m pip --disable-pip-version-check --no-input install --quiet --require-hashes -r requirements/$*.txt
	@touch $@

define install_project
$(py) -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation --editable .
endef
