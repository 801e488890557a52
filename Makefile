# Everything people and CI do with Berth. `make` alone tells what there is.
#
#   BERTH_CONTEXT        a context of your kubeconfig: use its cluster, instead of making one with kind
#   BERTH_IMAGE_PREFIX   such as registry.example.com/berth/: images get this prefix and are pushed there, for clusters
#                        whose nodes pull from it, instead of being put onto the nodes of the kind cluster
#   BERTH_TEST_CLIENTS   all: tests for which this machine lacks something fail, instead of saying that they were skipped
#   CONFORMANCE          for `make conformance`: the OCI conformance suite, a program that you have built
#   FUZZ                 arguments for `make fuzz`: seconds for each parser, then, if not all, names: "600 route manifest"
#   BENCH                arguments for `make bench`, such as "--seconds 2 --only berth,nginx"
#   BENCH_REPLICATE      arguments for `make bench-replicate`, such as "--images 10 --peer-target"
#   BENCH_CLUSTER        arguments for `make bench-cluster`, such as "--repositories 200 --changes 20"
#   BENCH_LAG            arguments for `make bench-lag`, such as "--following 200 --from-none 5"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# One thing after the other: the cluster, cargo and Docker each use every core there is.
.NOTPARALLEL:
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

CARGO ?= cargo

##@ Try it
.PHONY: help
help: ## What can be made
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: cluster deploy ## From nothing to pods on every node that pull from a Registry
	@$(CARGO) run --quiet --locked -p e2e --bin demo

##@ Check it
.PHONY: test
test: cluster unit e2e ## Every test there is

.PHONY: unit
unit: rust ## Tests that need no cluster; as root on Debian or Ubuntu installs the clients they push and pull with
	registry/tests/clients.sh $(CARGO) test --workspace --locked

.PHONY: e2e
e2e: cluster deploy ## End-to-end tests in the cluster; failures leave their dumps in e2e/failures
	$(CARGO) test --locked -p e2e --test e2e -- --test-threads=4

.PHONY: conformance
conformance: rust ## The official OCI conformance suite, where you have it: CONFORMANCE=<program> make conformance
	@[ -x "$(CONFORMANCE)" ] || { echo "CONFORMANCE has to name a program: build the folder 'conformance' of github.com/opencontainers/distribution-spec, at v1.1.1 with 'go test -c' or at main with 'go build'" >&2; exit 1; }
	@$(CARGO) build --quiet --locked -p registry
	@target=$${CARGO_TARGET_DIR:-target}; \
	registry/tests/conformance.sh "$$target/debug/berth-registry" "$(CONFORMANCE)" "$$target/conformance"

.PHONY: fuzz
fuzz: rust ## Fuzz the registry's parsers, where there are a nightly compiler and cargo-fuzz
	@fuzz/run.sh $(or $(FUZZ),60)

.PHONY: lint
lint: rust ## Formatting, clippy and, where cargo-deny is installed, licences, advisories and duplicates
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --lib --bins --tests --locked -- -D warnings
	$(CARGO) clippy -p e2e --test e2e --locked -- -D warnings
	@if ! $(CARGO) deny --version >/dev/null 2>&1; then \
	  echo "not checked: licences, advisories and duplicates, because cargo-deny is missing (cargo install --locked cargo-deny)"; \
	else \
	  $(CARGO) deny --workspace check licenses bans sources; \
	  if $(CARGO) deny fetch db >/dev/null 2>&1; then $(CARGO) deny --workspace check advisories; \
	  else echo "not checked: advisories, because their database can't be fetched"; fi; \
	fi

##@ Measure it
.PHONY: bench
bench: rust ## The registry's speed beside others' on this machine; as root on Debian or Ubuntu installs what is missing
	@command -v python3 >/dev/null || { echo "python3 is missing (Debian: apt-get install python3)" >&2; exit 1; }
	$(CARGO) build --release --locked -p registry
	@python3 registry/bench/bench.py $${CARGO_TARGET_DIR:-target}/release/berth-registry $(BENCH)
	$(CARGO) bench --quiet --locked -p registry --bench decision
	$(CARGO) test --release --quiet --locked -p registry --lib costs:: -- --ignored --nocapture --test-threads 1

.PHONY: bench-cluster
bench-cluster: cluster deploy ## How soon a change of one Repository among many is in force, and what the operator asks while nothing changes
	@$(CARGO) run --quiet --locked -p e2e --bin changes -- $(BENCH_CLUSTER)

.PHONY: bench-lag
bench-lag: cluster deploy ## How soon after a push an image is at the target of a Replication
	@$(CARGO) run --quiet --locked -p e2e --bin lag -- $(BENCH_LAG)

.PHONY: bench-replicate
bench-replicate: rust ## Copying images between two registries, beside `skopeo sync` and `crane copy` where they are there
	@command -v python3 >/dev/null || { echo "python3 is missing (Debian: apt-get install python3)" >&2; exit 1; }
	$(CARGO) build --release --locked -p registry
	@registry/tests/clients.sh python3 registry/bench/replicate.py $${CARGO_TARGET_DIR:-target}/release/berth-registry $(BENCH_REPLICATE)

##@ Build it
.PHONY: images
images: ## The two container images, from the sources here
	@images/build.sh

.PHONY: crds
crds: rust ## manifests/crds/ from the types in crds/
	$(CARGO) run --quiet --locked -p crds

.PHONY: clean
clean: ## Remove what was built; the cluster stays
	@images/clean.sh
	$(CARGO) clean

##@ Run it in a cluster
.PHONY: cluster
cluster: ## A Kubernetes cluster to try and test in, or nothing where it is up
	@e2e/cluster/up.sh

.PHONY: cluster-down
cluster-down: ## Remove that cluster
	@e2e/cluster/down.sh

.PHONY: deploy
deploy: images ## Build the images, bring them to the cluster, install or upgrade the operator
	@manifests/deploy.sh

.PHONY: undeploy
undeploy: ## Delete every Registry, then the operator
	@manifests/undeploy.sh

# Prerequisite of whatever compiles.
.PHONY: rust
rust:
	@command -v $(CARGO) >/dev/null || { echo "Rust is missing: install 1.90 or newer, see https://rustup.rs" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "a C compiler is missing: install gcc and the C library's headers (Debian: apt-get install gcc libc6-dev)" >&2; exit 1; }
