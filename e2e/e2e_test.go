// Package e2e runs the cases on the real istiod and Envoy, in two worlds: on istiod's generation inside the test, which
// is fast, and on the whole stack with etcd and kube-apiserver, which is what users have.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"istio.io/istio/pilot/pkg/features"
	"istio.io/istio/pkg/test"

	"github.com/istio-plugins/istio-plugins/e2e/controller"
	"github.com/istio-plugins/istio-plugins/e2e/istiod"
	"github.com/istio-plugins/istio-plugins/e2e/stack"
	"github.com/istio-plugins/istio-plugins/e2e/suite"
)

// The versions under test: that of the oldest supported Istio, and the newest there is. The fast world has both, each of
// the slow ones has one.
const oldest, newest = "1.37.0", "1.40.0"

// bin is where the Makefile puts the programs.
const bin = "../.bin"

// TestDataPlane runs the cases on istiod's own generation, in this process.
func TestDataPlane(t *testing.T) {
	forEachCase(t, func(t *testing.T, c suite.Case, p suite.Programs) {
		t.Parallel()
		suite.Run(t, c, istiod.Start(t), p)
	}, oldest, newest)
}

// TestFilteredClusters runs those cases whose plugins call services on an istiod that leaves out of gateways what no route
// leads to.
func TestFilteredClusters(t *testing.T) {
	test.SetForTest(t, &features.FilterGatewayClusterConfig, true)
	forEachCase(t, func(t *testing.T, c suite.Case, p suite.Programs) {
		if !slices.Contains([]string{"ext-auth", "ext-proc", "http-log", "jwks", "lua-calls", "oidc", "rate-limiting-global"}, c.Name) {
			t.Skip("calls no service")
		}
		for i := range c.Steps {
			c.Steps[i].Meanwhile = nil // what a change must not disturb, this istiod does
		}
		suite.Run(t, c, &filtering{Server: istiod.Start(t)}, p)
	}, oldest, newest)
}

// filtering is an istiod that filters clusters. An edit of a VirtualService alone makes it take those away that only
// EnvoyFilters refer to: its delta CDS overlooks them (deltaFromServiceDiff in pilot/pkg/networking/core/cluster.go calls
// GatewayServices without patches). The next EnvoyFilter brings them back.
type filtering struct {
	*istiod.Server
	edits int
}

// Settled edits an EnvoyFilter.
func (f *filtering) Settled(ctx context.Context) error {
	f.edits++
	objects, err := suite.Parse(fmt.Appendf(nil, `
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: e2e-edit, namespace: istio-system}
spec:
  workloadSelector: {labels: {istio: ingressgateway}}
  configPatches:
  - applyTo: EXTENSION_CONFIG
    patch:
      operation: ADD
      value:
        name: e2e-edit
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
          mutations: {response_mutations: [{append: {header: {key: x-e2e-edit, value: "%d"}}}]}
`, f.edits))
	if err != nil {
		return err
	}
	return f.Apply(ctx, objects)
}

// TestStack runs the same cases on etcd, kube-apiserver, istiod and Envoy, one after another in one stack.
func TestStack(t *testing.T) {
	if testing.Short() {
		t.Skip("the whole stack takes a minute: not with -short")
	}
	s := startStack(t)
	forEachCase(t, func(t *testing.T, c suite.Case, p suite.Programs) { suite.Run(t, c, s, p) }, oldest)
}

// TestController runs the same cases with the controller, which gets nothing but the user's objects and must end where a
// fresh compile of them does.
func TestController(t *testing.T) {
	if testing.Short() {
		t.Skip("the whole stack takes a minute: not with -short")
	}
	s := startStack(t)
	forEachCase(t, func(t *testing.T, c suite.Case, p suite.Programs) {
		if slices.ContainsFunc(c.Steps, func(s suite.Step) bool { return len(s.Unseen) > 0 }) {
			t.Skip("nothing can be kept from the controller")
		}
		running, err := controller.Start(t.Context(), s, controller.Options{Program: string(p.Compiler), Flags: c.Flags, Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			running.Stop()
			if t.Failed() {
				log, err := os.ReadFile(running.LogFile())
				t.Logf("the controller's log, %v:\n%s", err, log)
			}
		})
		suite.Run(t, c, controller.World{Stack: s}, p)
	}, newest)
}

func startStack(t *testing.T) *stack.Stack {
	crds, err := stack.CRDs("..")
	if err != nil {
		t.Fatal(err)
	}
	s, err := stack.Start(t.Context(), stack.Options{Bin: bin, Dir: t.TempDir(), CRDs: crds})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// TestEverySampleIsRun: each is the input of some case, or becomes it in a step.
func TestEverySampleIsRun(t *testing.T) {
	cases, err := suite.Load("cases")
	if err != nil {
		t.Fatal(err)
	}
	run := map[string]bool{}
	for _, c := range cases {
		files := slices.Clone(c.Input)
		for _, step := range c.Steps {
			files = append(files, step.Apply...)
		}
		for _, file := range files {
			run[filepath.Join(c.Dir, file)] = true
		}
	}
	samples, err := filepath.Glob("../samples/*/*.yaml")
	if err != nil || len(samples) == 0 {
		t.Fatalf("there are no samples: %v", err)
	}
	for _, sample := range samples {
		if !run[sample] && !run[filepath.Dir(sample)] {
			t.Errorf("no case runs %s", sample)
		}
	}
}

func forEachCase(t *testing.T, run func(*testing.T, suite.Case, suite.Programs), envoys ...string) {
	cases, err := suite.Load("cases")
	if err != nil {
		t.Fatal(err)
	}
	compiler, wasm := program(t, "istio-plugins"), tagWasm(t)
	for _, version := range envoys {
		programs := suite.Programs{Compiler: suite.Compiler(compiler), Envoy: program(t, "envoy-"+version), TagWasm: wasm}
		for _, c := range cases {
			t.Run(fmt.Sprintf("%s/envoy-%s", c.Name, version), func(t *testing.T) { run(t, c, programs) })
		}
	}
}

// program is the path of a program that the Makefile provides.
func program(t *testing.T, name string) string {
	path, err := filepath.Abs(filepath.Join(bin, name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s is missing: `make .bin/%s` provides it", path, name)
	}
	return path
}

// tagWasm compiles testdata/tag.wat.
func tagWasm(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "tag.wasm")
	if text, err := exec.Command("wat2wasm", "testdata/tag.wat", "-o", path).CombinedOutput(); err != nil {
		t.Fatalf("wat2wasm, of Debian's package wabt: %v: %s", err, text)
	}
	return path
}
