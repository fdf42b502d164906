# make help explains itself. Everything installs what it needs, into a cache keyed by version
# (FEDTRAIN_CACHE, by default ~/.cache/fedtrain), and leaves the system's Python alone.

SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
export PYTHONPATH := $(CURDIR)/operator:$(CURDIR)/trainer:$(CURDIR)
export PYTHONDONTWRITEBYTECODE := 1

# The environment's folder, made when a target first needs it.
VENV = $(eval VENV := $$(shell $(PYTHON) .ci/venv || echo .venv-failed))$(VENV)
RUN = PATH="$(VENV)/bin:$$PATH"

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1m%-17s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Cluster, images, chart, the digits example, metrics: the whole thing, for real
	$(RUN) python examples/demo.py

.PHONY: check
check: ## Format, lint, types, layers, generated files, unit tests: two minutes once installed
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy
	$(RUN) lint-imports --no-cache
	$(RUN) pytest -q -n auto -m "not processes and not apiserver and not cluster"

.PHONY: tools
tools:
	$(PYTHON) -c 'from devcluster import packages; packages.ensure()'
	$(PYTHON) -m devcluster binary helm
	$(PYTHON) -c 'from release import tools; tools.program("cyclonedx-py")'

.PHONY: older
older: tools ## The tests that need an API server, on the oldest Kubernetes that is supported
	FEDTRAIN_KUBERNETES=1.34 $(RUN) pytest -q -m apiserver tests/api tests/cluster tests/pods \
		--ignore=tests/api/test_lived.py # which would build all of its controllers

.PHONY: test
test: tools check ## All tests, those on a real API server and a real cluster included
	$(RUN) pytest -q -n auto --dist loadfile -m "processes and not apiserver and not cluster"
	$(RUN) pytest -q -n 2 --dist loadfile -m "apiserver and not cluster"
	$(RUN) pytest -q -m cluster
	$(MAKE) older

.PHONY: faults
faults: tools ## Kill the operator at every write, in every scenario, and mix faults: hours
	$(RUN) python -m tests.faults --doubles 500 --mixes 500
	$(RUN) python -m tests.faults --outages 600
	$(RUN) python -m tests.faults --rivals 300

.PHONY: bench
bench: ## Measure rounds and aggregation; write tables to benchmarks/results/
	$(RUN) python -m benchmarks

.PHONY: fmt
fmt: ## Format the code and mend what the linter can
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

.PHONY: manifests
manifests: ## Generate what is generated: CRDs, dashboards, the install, the pages of reference
	$(RUN) python -m fedoperator.cli.crds
	$(RUN) python -m fedoperator.cli.document
	$(RUN) python charts/fedtrain/dashboards/generate.py
	$(RUN) python -m manifests.metrics
	$(RUN) python -m manifests.values
	$(RUN) python -m docs.generator
	$(RUN) python -m manifests.render

.PHONY: docs
docs: ## The documentation as a site, into site/
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict --quiet

.PHONY: pins
pins: ## Pins and hashes of all that is in the images, from constraints.txt: requirements/
	$(RUN) python -m release.pins

.PHONY: wheel
wheel: ## The wheel, built twice and compared: dist/
	$(RUN) python -m release.wheel

.PHONY: sbom
sbom: ## Bills of materials of the images, CycloneDX: dist/
	$(RUN) python -m release.sbom

.PHONY: chart
chart: ## The chart, linted and packed: dist/
	helm=$$($(PYTHON) -m devcluster binary helm) && mkdir -p dist && \
	$$helm lint --strict charts/fedtrain && $$helm package --destination dist charts/fedtrain

# Where images go, the program that builds them (docker, podman or buildah) and its options.
REGISTRY ?= fedtrain
BUILDER ?= docker
BUILD_OPTIONS ?=
VERSION = $(shell sed -n 's/^VERSION = "\(.*\)"/\1/p' trainer/fedtrain/contract.py)
BUILD = $(BUILDER) build $(BUILD_OPTIONS) --build-arg VERSION=$(VERSION) \
	--build-arg REVISION=$(shell git rev-parse HEAD) --build-arg SOURCE=$(SOURCE) \
	--build-arg CREATED=$(shell TZ=UTC git log -1 --date=iso-strict-local --format=%cd | sed 's/+00:00/Z/')

.PHONY: image-controller image-tracker image-trainer images push
image-controller: ## The controller's image: REGISTRY/controller:VERSION
	$(BUILD) --target controller -t $(REGISTRY)/controller:$(VERSION) .
image-tracker: ## The tracker's: REGISTRY/tracker:VERSION
	$(BUILD) --target tracker -t $(REGISTRY)/tracker:$(VERSION) .
image-trainer: ## The trainer's: REGISTRY/trainer:VERSION (torch: gigabytes)
	$(BUILD) --target trainer -t $(REGISTRY)/trainer:$(VERSION) .
images: image-controller image-tracker image-trainer ## All, with the labels of a release
push: ## Push all to REGISTRY
	$(BUILDER) push $(REGISTRY)/controller:$(VERSION)
	$(BUILDER) push $(REGISTRY)/tracker:$(VERSION)
	$(BUILDER) push $(REGISTRY)/trainer:$(VERSION)

.PHONY: release
release: ## All files of a release, if the changelog agrees with the tag: make release TAG=v1.2.3
	$(RUN) python -m release.changelog --released "$$TAG" > /dev/null
	rm -rf dist
	$(MAKE) wheel sbom chart
	$(RUN) python -m release.changelog --released "$$TAG" > dist/CHANGES.md

.PHONY: publish
publish: release ## The same as a release of the repository, by GitHub's own program
	gh release create "$$TAG" --verify-tag --title "fedtrain $$TAG" --notes-file dist/CHANGES.md \
		dist/*.whl dist/*.tgz dist/*.cdx.json

.PHONY: shell
shell: ## A shell with the environment of this checkout (python, torchrun, fedtrain)
	$(RUN) $$SHELL

.PHONY: down
down: ## Stop the development cluster and remove every trace of it
	$(PYTHON) -m devcluster down

.PHONY: clean
clean: ## Remove caches and results of this checkout (not the shared cache)
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist runs site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
