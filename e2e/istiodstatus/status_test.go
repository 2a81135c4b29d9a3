// Package istiodstatus holds package pkg/istiod against the real istiod and Envoy: it must not say that a gateway
// accepted anything before Envoy has it.
package istiodstatus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

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
	envoy  string
	port   int
	// parts are what the gateway is given.
	parts map[string]string
}

func start(t *testing.T, envoy string) *world {
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
	w := &world{Stack: s, envoy: envoy, port: loopback.Port(), parts: map[string]string{}}
	w.client = w.connect(t, istiod.Address{XDS: s.XDS(), Debug: s.Debug()}, istiod.Options{})
	return w
}

// connect makes a client.
func (w *world) connect(t *testing.T, address istiod.Address, o istiod.Options) *istiod.Client {
	o.Addresses = func(context.Context) ([]istiod.Address, error) {
		if address.Debug != "" {
			// A restart changes it.
			address.Debug = w.Debug()
		}
		address.Metrics = w.Metrics()
		return []istiod.Address{address}, nil
	}
	o.RootNamespace = rootNamespace
	client := istiod.New(o)
	t.Cleanup(client.Close)
	return client
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
	w.expect(t, name, value)
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
	w.expect(t, name, "refused")
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

func (w *world) expect(t *testing.T, name, content string) {
	w.parts[name] = content
	w.client.Expect(t.Context(), istiod.Workload{Selector: ingress.Selector, Parts: w.parts})
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
	w.write(t, m)
	return m
}

func (w *world) write(t *testing.T, m *istiod.Mark) {
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

// istiodName is in the certificate that istiod makes itself.
const istiodName = "istiod.istio-system.svc"

// tls trusts the authority that istiod has made, as it is published in every namespace.
func (w *world) tls(ctx context.Context) (*tls.Config, error) {
	client, err := kubernetes.NewForConfig(w.Config)
	if err != nil {
		return nil, err
	}
	published, err := client.CoreV1().ConfigMaps(rootNamespace).Get(ctx, "istio-ca-root-cert", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(published.Data["root-cert.pem"]))
	return &tls.Config{RootCAs: roots, ServerName: istiodName}, nil
}

// token of a service account, as the kubelet would put it into a pod.
func (w *world) token(ctx context.Context, namespace string) (string, error) {
	client, err := kubernetes.NewForConfig(w.Config)
	if err != nil {
		return "", err
	}
	const name = "istio-plugins"
	accounts := client.CoreV1().ServiceAccounts(namespace)
	if _, err := accounts.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return "", err
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"istio-ca"}}}
	answer, err := accounts.CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return answer.Status.Token, nil
}

// never checks a new mark until all gateways have answered to it, and returns the verdict, which must not be bad.
func (w *world) never(t *testing.T, bad istiod.State) istiod.Verdict {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settle)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for m := w.mark(t); ; {
		v := w.client.Check(ctx, m, ingress)[0]
		if v.State == bad {
			t.Fatalf("the verdict is %+v", v)
		}
		answered := func(g istiod.Gateway) bool { return g.State == istiod.Accepted || g.State == istiod.Rejected }
		if len(v.Gateways) > 0 && !slices.ContainsFunc(v.Gateways, func(g istiod.Gateway) bool { return !answered(g) }) {
			return v
		}
		if v.MarkAgain {
			m = w.mark(t)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the gateways do not answer: %+v", v)
		case <-tick.C:
		}
	}
}

func (w *world) gateway(t *testing.T, pod string) *gateway.Gateway {
	node := gateway.Ingress()
	node.Name = pod
	g, err := gateway.Start(t.Context(), gateway.Options{
		Envoy: filepath.Join(bin, "envoy-"+w.envoy),
		XDS:   w.XDS(),
		Node:  node,
		Dir:   t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Stop)
	return g
}

// holds says whether the text is in Envoy's extension configurations.
func holds(t *testing.T, g *gateway.Gateway, text string) bool {
	t.Helper()
	dump, err := g.ConfigDump(t.Context(), "ecds_filters")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(dump), text)
}

// has fails unless Envoy holds all texts.
func has(t *testing.T, g *gateway.Gateway, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !holds(t, g, text) {
			t.Fatalf("accepted, but Envoy does not hold %q", text)
		}
	}
}

func TestStatus(t *testing.T) {
	for _, envoy := range []string{"1.37.0", "1.40.0"} {
		t.Run(envoy, func(t *testing.T) { run(t, envoy) })
	}
}

func run(whole *testing.T, envoy string) {
	t, w := whole, start(whole, envoy)

	t.Run("no gateway is connected", func(t *testing.T) { w.await(t, istiod.NoGateway) })

	w.table(t, "one", "one-first")
	w.listener(t, "one")
	g := w.gateway(t, "gateway-1")
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

	t.Run("pending until the mark is written", func(t *testing.T) {
		m, err := w.client.Mark(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		w.table(t, "one", "one-unmarked.")
		ctx, cancel := context.WithTimeout(t.Context(), settle)
		defer cancel()
		tick := time.NewTicker(pollEvery)
		defer tick.Stop()
		for ; !holds(t, g, "one-unmarked."); <-tick.C {
			if v := w.client.Check(ctx, m, ingress)[0]; v.State != istiod.Pending {
				t.Fatalf("before Envoy has it: %+v", v)
			}
		}
		// Envoy has it, but nobody can know.
		if v := w.client.Check(ctx, m, ingress)[0]; v.State != istiod.Pending {
			t.Fatalf("without a mark: %+v", v)
		}
		w.write(t, m)
		for ; w.client.Check(ctx, m, ingress)[0].State != istiod.Accepted; <-tick.C {
			if ctx.Err() != nil {
				t.Fatal(ctx.Err())
			}
		}
	})

	t.Run("never accepted too early when listeners ask for more", func(t *testing.T) {
		names, values := []string{"one"}, []string{"one-unmarked."}
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

	t.Run("a refusal stays known when the same is pushed again", func(t *testing.T) {
		for range 5 {
			w.never(t, istiod.Accepted)
		}
	})

	t.Run("a refusal stays known when the gateway starts anew", func(t *testing.T) {
		w.table(t, "two", "two-first")
		w.listener(t, "one", "two")
		g.Stop()
		// It is to outlive this part of the test.
		g = w.gateway(whole, "gateway-2")
		w.never(t, istiod.Accepted)
	})

	t.Run("accepted again", func(t *testing.T) {
		w.table(t, "one", "one-mended")
		// Nobody knows whether the new gateway refused both.
		w.await(t, istiod.Unknown)
		g.Stop()
		g = w.gateway(whole, "gateway-3")
		w.await(t, istiod.Accepted)
		has(t, g, "one-mended", "two-first")
	})

	t.Run("a refusal is noticed among many acknowledgements", func(t *testing.T) {
		names := []string{"one", "two"}
		for i := range 30 {
			name := fmt.Sprintf("first-%d", i)
			names = append(names, name)
			if i == 7 {
				w.refused(t, name)
			} else {
				w.table(t, name, name+".")
			}
		}
		w.listener(t, names...)
		for range 3 {
			if v := w.never(t, istiod.Accepted); len(v.Blamed) != 30 {
				t.Errorf("blamed are %v", v.Blamed)
			}
		}
		for i := range 30 {
			w.table(t, fmt.Sprintf("first-%d", i), "mended.")
		}
		w.await(t, istiod.Accepted)
		for i := range 30 {
			delete(w.parts, fmt.Sprintf("first-%d", i))
		}
		w.listener(t, "one", "two")
	})

	t.Run("the selector of every gateway does not select other clients", func(t *testing.T) {
		m := w.mark(t)
		other := w.connect(t, istiod.Address{XDS: w.XDS(), Debug: w.Debug()}, istiod.Options{})
		if v := other.Check(t.Context(), m, istiod.Workload{})[0]; len(v.Gateways) != 1 {
			t.Errorf("the verdict is %+v", v)
		}
	})

	t.Run("by TLS with a token", func(t *testing.T) {
		w := &world{Stack: w.Stack, parts: map[string]string{}, client: w.connect(t, istiod.Address{XDS: w.TLSXDS()}, istiod.Options{
			TLS:   w.tls,
			Token: func(ctx context.Context) (string, error) { return w.token(ctx, rootNamespace) },
		})}
		w.table(t, "one", "one-tls")
		w.await(t, istiod.Accepted)
		has(t, g, "one-tls")
	})

	for name, c := range map[string]struct {
		address istiod.Address
		options istiod.Options
		want    string
	}{
		"nobody listens": {
			istiod.Address{XDS: loopback.Address(loopback.Port())}, istiod.Options{},
			"connection refused",
		},
		"neither TLS nor debug interface": {
			istiod.Address{XDS: w.XDS()}, istiod.Options{},
			"authentication required; connect by TLS with a token of a service account, or give the URL of its debug interface",
		},
		"a token of another namespace": {
			istiod.Address{XDS: w.TLSXDS()},
			istiod.Options{TLS: w.tls, Namespace: "default", Token: func(ctx context.Context) (string, error) { return w.token(ctx, "default") }},
			"the service account must be in istiod's own namespace",
		},
		"a token that is none": {
			istiod.Address{XDS: w.TLSXDS()},
			istiod.Options{TLS: w.tls, Token: func(context.Context) (string, error) { return "no token", nil }},
			"authentication failure",
		},
		"another's certificate": {
			istiod.Address{XDS: w.TLSXDS()},
			istiod.Options{TLS: func(context.Context) (*tls.Config, error) { return &tls.Config{ServerName: istiodName}, nil }},
			"certificate signed by unknown authority",
		},
	} {
		t.Run("unknown: "+name, func(t *testing.T) {
			w := &world{Stack: w.Stack, parts: map[string]string{}, client: w.connect(t, c.address, c.options)}
			if v := w.await(t, istiod.Unknown); !strings.Contains(v.Message, c.want) {
				t.Errorf("the message is %q, it should contain %q", v.Message, c.want)
			}
		})
	}

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

	t.Run("unknown: istiod has ended", func(t *testing.T) {
		m := w.mark(t)
		w.Stop()
		v := w.client.Check(t.Context(), m, ingress)[0]
		if v.State != istiod.Unknown {
			t.Errorf("the verdict is not Unknown but %+v", v)
		}
		t.Log(v.Message)
	})
}
