// Package istiodstatus holds package pkg/istiod against the real istiod and Envoy: it must not say that a gateway
// accepted anything before Envoy has it.
package istiodstatus

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/istio-plugins/istio-plugins/e2e/gateway"
	"github.com/istio-plugins/istio-plugins/e2e/loopback"
	"github.com/istio-plugins/istio-plugins/e2e/stack"
	"github.com/istio-plugins/istio-plugins/e2e/suite"
	"github.com/istio-plugins/istio-plugins/pkg/istiod"
)

const (
	bin           = "../../.bin"
	rootNamespace = "istio-system"
	// settle bounds the time until a verdict is the expected one; it takes about 0.2 s.
	settle = 30 * time.Second
	// pollEvery is the time between two checks.
	pollEvery = 20 * time.Millisecond
	// looksAtRefusal is how often a refusal is seen until istiod is made to push again.
	looksAtRefusal = 25
)

var ingress = istiod.Workload{Selector: gateway.Ingress().Labels}

// world is a running stack with a client of its istiod.
type world struct {
	*stack.Stack
	client *istiod.Client
	port   int
}

func start(t *testing.T) *world {
	if testing.Short() {
		t.Skip("the whole stack takes a minute: not with -short")
	}
	crds, err := stack.CRDs("../..")
	if err != nil {
		t.Fatal(err)
	}
	s, err := stack.Start(t.Context(), stack.Options{Bin: bin, Dir: t.TempDir(), CRDs: crds})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	w := &world{Stack: s, port: loopback.Port()}
	w.client = istiod.New(istiod.Options{
		Addresses: func(context.Context) ([]istiod.Address, error) {
			return []istiod.Address{{XDS: s.XDS(), Debug: s.Debug()}}, nil
		},
		RootNamespace: rootNamespace,
	})
	t.Cleanup(w.client.Close)
	return w
}

// listener serves HTTP on the gateway, with a filter in front of the router for each name, whose configuration comes by
// ECDS.
func (w *world) listener(t *testing.T, names ...string) {
	var patches strings.Builder
	for _, name := range names {
		fmt.Fprintf(&patches, `
  - applyTo: HTTP_FILTER
    match: {context: GATEWAY, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.router}}}}}
    patch:
      operation: INSERT_BEFORE
      value:
        name: %[1]s
        config_discovery:
          config_source: {ads: {}, initial_fetch_timeout: 5s, resource_api_version: V3}
          type_urls: [type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation, type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua]`, name)
	}
	w.apply(t, fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: %d, name: http, protocol: HTTP}
    bind: 127.0.0.1
    hosts: ["*"]
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: listener, namespace: istio-system}
spec:
  priority: 1
  workloadSelector: {labels: {istio: ingressgateway}}
  configPatches:%s
`, w.port, patches.String()))
}

// table is an EnvoyFilter with the configuration of one filter, which sets a header to a value.
func (w *world) table(t *testing.T, name, value string) {
	w.apply(t, fmt.Sprintf(`
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: %[1]s, namespace: istio-system}
spec:
  priority: 1
  workloadSelector: {labels: {istio: ingressgateway}}
  configPatches:
  - applyTo: EXTENSION_CONFIG
    patch:
      operation: ADD
      value:
        name: %[1]s
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
          mutations: {response_mutations: [{append: {header: {key: x-table, value: %[2]s}}}]}
`, name, value))
}

// refused is an EnvoyFilter whose configuration only Envoy knows to be wrong.
func (w *world) refused(t *testing.T, name string) {
	w.apply(t, fmt.Sprintf(`
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: %[1]s, namespace: istio-system}
spec:
  priority: 1
  workloadSelector: {labels: {istio: ingressgateway}}
  configPatches:
  - applyTo: EXTENSION_CONFIG
    patch:
      operation: ADD
      value:
        name: %[1]s
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
          default_source_code: {inline_string: "this is no Lua"}
`, name))
}

func (w *world) apply(t *testing.T, text string) {
	objects, err := suite.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Apply(t.Context(), objects); err != nil {
		t.Fatal(err)
	}
}

// mark writes a new mark.
func (w *world) mark(t *testing.T) *istiod.Mark {
	m, err := w.client.Mark(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	var objects []*unstructured.Unstructured
	for _, o := range []any{m.EnvoyFilter, m.WasmPlugin} {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
		if err != nil {
			t.Fatal(err)
		}
		delete(content, "status")
		unstructured.RemoveNestedField(content, "metadata", "creationTimestamp")
		objects = append(objects, &unstructured.Unstructured{Object: content})
	}
	if err := w.Apply(t.Context(), objects); err != nil {
		t.Fatal(err)
	}
	return m
}

// await checks until the state is the expected one. It marks again where that is asked for and, now and then, where
// something was refused: Envoy gets listeners before extension configurations, so it refuses a listener for the sake of an
// extension configuration that comes mended right behind it, and takes it with the next push.
func (w *world) await(t *testing.T, want istiod.State) istiod.Verdict {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settle)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var last istiod.Verdict
	for m, looks := w.mark(t), 1; ; looks++ {
		v := w.client.Check(ctx, m, ingress)[0]
		if v.State == want {
			return v
		}
		if ctx.Err() == nil {
			last = v
		}
		if v.MarkAgain || v.State == istiod.Rejected && looks%looksAtRefusal == 0 {
			m = w.mark(t)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the verdict is not %s but %+v", want, last)
		case <-tick.C:
		}
	}
}

func (w *world) gateway(t *testing.T) *gateway.Gateway {
	g, err := gateway.Start(t.Context(), gateway.Options{
		Envoy: filepath.Join(bin, "envoy-1.40.0"),
		XDS:   w.XDS(),
		Node:  gateway.Ingress(),
		Dir:   t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Stop)
	return g
}

// has fails unless Envoy holds all texts in its extension configurations.
func has(t *testing.T, g *gateway.Gateway, texts ...string) {
	t.Helper()
	dump, err := g.ConfigDump(t.Context(), "ecds_filters")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range texts {
		if !strings.Contains(string(dump), text) {
			t.Fatalf("accepted, but Envoy does not hold %q: %s", text, dump)
		}
	}
}

func TestStatus(t *testing.T) {
	w, whole := start(t), t

	t.Run("no gateway is connected", func(t *testing.T) { w.await(t, istiod.NoGateway) })

	w.table(t, "one", "one-first")
	w.listener(t, "one")
	g := w.gateway(t)
	t.Run("accepted", func(t *testing.T) {
		v := w.await(t, istiod.Accepted)
		has(t, g, "one-first")
		if len(v.Gateways) != 1 || v.Gateways[0].Name != "istio-system/gateway-1" {
			t.Errorf("gateways: %+v", v.Gateways)
		}
	})

	t.Run("never accepted too early", func(t *testing.T) {
		for i := range 200 {
			value := fmt.Sprintf("one-%d.", i)
			w.table(t, "one", value)
			w.await(t, istiod.Accepted)
			has(t, g, value)
		}
	})

	t.Run("never accepted too early when listeners ask for more", func(t *testing.T) {
		names, values := []string{"one"}, []string{"one-199."}
		for i := range 20 {
			name := fmt.Sprintf("more-%d", i)
			names, values = append(names, name), append(values, name+".")
			w.table(t, name, name+".")
			w.listener(t, names...)
			w.await(t, istiod.Accepted)
			has(t, g, values...)
		}
		w.listener(t, "one")
		w.await(t, istiod.Accepted)
	})

	t.Run("rejected with Envoy's own words", func(t *testing.T) {
		w.refused(t, "one")
		v := w.await(t, istiod.Rejected)
		if got := v.Gateways[0]; got.Type != "ECDS" || !strings.Contains(got.Message, "script load error") {
			t.Errorf("gateway: %+v", got)
		}
		t.Log(v.Message)
	})

	t.Run("a refusal stays known when the gateway starts anew", func(t *testing.T) {
		w.table(t, "two", "two-first")
		w.listener(t, "one", "two")
		g.Stop()
		// It is to outlive this part of the test.
		g = w.gateway(whole)
		w.await(t, istiod.Rejected)
	})

	t.Run("accepted again", func(t *testing.T) {
		w.table(t, "one", "one-mended")
		w.await(t, istiod.Accepted)
		has(t, g, "one-mended", "two-first")
	})

	t.Run("istiod starts anew", func(t *testing.T) {
		if err := w.RestartIstiod(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.table(t, "one", "one-after")
		w.await(t, istiod.Accepted)
		has(t, g, "one-after")
	})

	t.Run("a gateway that ended is not counted", func(t *testing.T) {
		g.Stop()
		w.await(t, istiod.NoGateway)
	})
}
