# Everything one can do here. `make` alone lists it.

UV_VERSION := 0.13.8
# uv from the PATH, else fetched from PyPI into .tools/: the system is not touched.
UV ?= $(shell command -v uv || echo .tools/uv/bin/uv)
RUN := $(UV) run --locked --quiet
KIT := $(RUN) python -m testkit
# Several processes at once; a folder's tests stay with one of them, in the order of names.
PYTEST := $(RUN) pytest --numprocesses=auto --maxprocesses=4 --dist=loadscope --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup demo stop cluster node test e2e soak faults bench image check format manifests clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(UV) ## Install what the project needs into .venv, build Kubernetes' binaries once; as root also what a node needs
	$(UV) sync --locked
	$(KIT).binaries
	$(KIT).node --prepare

demo: $(UV) ## The whole way, from an annotated ServiceAccount to a blob (KEEP=1: leave it running, ALONE=1: without a node)
	@$(KIT).demo $(if $(KEEP),--keep) $(if $(ALONE),--alone)

stop: $(UV) ## End what `make demo KEEP=1` left running
	@$(KIT).demo --stop

cluster: $(UV) ## Keep a control plane running until Ctrl-C and print its KUBECONFIG
	@$(KIT).cluster

node: $(UV) ## Keep a node running, on which pods run, until Ctrl-C and print its KUBECONFIG (needs root)
	@$(KIT).node

test: $(UV) check ## Check and test everything (ARGS="-k word" for some of it)
	$(KIT).binaries
	$(KIT).azurite
	$(KIT).node --prepare
	$(PYTEST) $(ARGS)

e2e: $(UV) ## Test with pods that run (needs root; TIMES=10: so often, each time on a new node; ARGS as above)
	$(KIT).binaries
	$(KIT).azurite
	$(if $(TESTKIT_KUBECONFIG),,$(KIT).node --prepare --wanted)
	@for number in $$(seq $(or $(TIMES),1)); do \
		echo "e2e, run $$number of $(or $(TIMES),1)"; $(PYTEST) tests/node $(ARGS) || exit 1; \
	done; echo "e2e passed $(or $(TIMES),1) of $(or $(TIMES),1) times"

soak: $(UV) ## Show the great claims at their whole size: 1,000 pods, 10,000 cases, 100,000 hostile reviews (an hour)
	$(KIT).binaries
	$(RUN) pytest -m soak --full $(ARGS)

faults: $(UV) ## Make every fault in turn under 50 pods a second (ARGS=--rate=20: fewer), print what came of it
	$(KIT).binaries
	$(RUN) pytest tests/faults -m soak --full $(ARGS)

bench: $(UV) ## Measure beside what we replace (PEER_WEBHOOK=its webhook's binary, QUICK=1: a minute, LARGE=1: more)
	@$(RUN) --group bench python -m testkit.bench $(if $(QUICK),--quick) $(if $(LARGE),--large)

image: $(UV) ## Build the operator's image without Docker into dist/ (IMAGES=names, REGISTRY=what they start with)
	@$(KIT).images $(IMAGES) $(if $(REGISTRY),--registry $(REGISTRY))

check: $(UV) ## Lint, types, layers
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(RUN) lint-imports

format: $(UV) ## Write the house's format
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

manifests: $(UV) ## Make anew what is kept of the chart and of azure-identity: manifests/, tables in docs
	$(KIT).manifests
	$(KIT).migration

clean: ## Remove the environment and what tools left (not the cached binaries)
	rm -rf .venv .tools .run .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.tools/uv/bin/uv:
	@echo "uv is not on the PATH: fetching uv $(UV_VERSION) into .tools/"
	@python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target .tools/uv uv==$(UV_VERSION)
