// Package webhook has a real API server ask the webhooks: what it refuses and in which words, what it never asks about,
// and that a server which is down, or renews its certificates, stops nobody.
package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/yaml"

	"github.com/istio-plugins/istio-plugins/e2e/loopback"
	"github.com/istio-plugins/istio-plugins/e2e/stack"
	"github.com/istio-plugins/istio-plugins/pkg/cluster"
	"github.com/istio-plugins/istio-plugins/pkg/webhook"
)

func TestWebhook(t *testing.T) {
	if testing.Short() {
		t.Skip("starts an API server: not with -short")
	}
	bin, err := filepath.Abs("../../.bin")
	if err != nil {
		t.Fatal(err)
	}
	definitions, err := stack.CRDs("../..")
	if err != nil {
		t.Fatal(err)
	}
	s, err := stack.Start(t.Context(), stack.Options{Bin: bin, Dir: t.TempDir(), CRDs: definitions, WithoutIstiod: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	w := newWorld(t, s)
	w.kubectlProgram = filepath.Join(bin, "kubectl")
	for _, name := range []string{namespace, "demo"} {
		if err := w.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			t.Fatal(err)
		}
	}
	log.SetLogger(logr.Discard()) // What is wrong shows in the answers.
	// The order matters for what is left behind: nothing.
	t.Run("judges", func(t *testing.T) { testJudges(t, w) })
	t.Run("down", func(t *testing.T) { testDown(t, w) })
	t.Run("rotation", func(t *testing.T) { testRotation(t, w) })
	t.Run("by a Service", func(t *testing.T) { testService(t, w) })
}

// world is the API server as a user sees it.
type world struct {
	client.Client
	config         *rest.Config
	kubeconfig     string
	kubectlProgram string
	warnings       *warnings
}

// warnings collects what the API server warns of.
type warnings struct {
	mu   sync.Mutex
	said []string
}

func (w *warnings) HandleWarningHeader(_ int, _ string, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, text)
}

// take returns what was said since it was last asked.
func (w *warnings) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	said := w.said
	w.said = nil
	return said
}

func newWorld(t *testing.T, s *stack.Stack) *world {
	t.Helper()
	w := &world{config: s.Config, kubeconfig: s.Kubeconfig, warnings: &warnings{}}
	config := rest.CopyConfig(s.Config)
	config.WarningHandler = w.warnings
	var err error
	if w.Client, err = client.New(config, client.Options{Scheme: cluster.NewScheme()}); err != nil {
		t.Fatal(err)
	}
	return w
}

// kubectl returns what kubectl writes, to both outputs.
func (w *world) kubectl(t *testing.T, input string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), w.kubectlProgram, append([]string{"--kubeconfig", w.kubeconfig}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	out, _ := cmd.CombinedOutput() // What it refuses, it says.
	return string(out)
}

func (w *world) configuration(ctx context.Context) (*admissionregistrationv1.ValidatingWebhookConfiguration, error) {
	c := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	return c, w.Get(ctx, client.ObjectKey{Name: webhook.ConfigurationName("")}, c)
}

func (w *world) secret(ctx context.Context) (*corev1.Secret, error) {
	s := &corev1.Secret{}
	return s, w.Get(ctx, client.ObjectKey{Namespace: namespace, Name: webhook.DefaultName}, s)
}

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatal(err)
	}
	return o
}

func plugin(name, spec string) string {
	return fmt.Sprintf("{apiVersion: plugins.istio.io/v1alpha1, kind: Plugin, metadata: {name: %s, namespace: demo}, spec: %s}", name, spec)
}

func virtualService(version, name, annotations, routes string) string {
	return fmt.Sprintf("{apiVersion: networking.istio.io/%s, kind: VirtualService, metadata: {name: %s, namespace: demo, annotations: {%s}}, spec: {hosts: [a.test], http: %s}}",
		version, name, annotations, routes)
}

const (
	bad    = "{builtin: request-termination, config: {status_code: 42}}"
	good   = "{builtin: request-termination, config: {status_code: 418}}"
	routes = "[{name: api, redirect: {uri: /}}]"
)

// dryRun asks the webhooks about a new object, and stores nothing.
func (w *world) dryRun(ctx context.Context, o *unstructured.Unstructured) error {
	return w.Create(ctx, o.DeepCopy(), client.DryRunAll)
}

// awaitJudging returns when the API server asks the webhooks: when a bad Plugin is refused.
func (w *world) awaitJudging(t *testing.T) {
	t.Helper()
	o := object(t, plugin("probe", bad))
	await(t, func(ctx context.Context) error {
		if err := w.dryRun(ctx, o); !apierrors.IsInvalid(err) {
			return fmt.Errorf("a bad Plugin is not refused: %w", err)
		}
		return nil
	})
	w.warnings.take()
}

// said is the API server's refusal, a line for each cause.
func said(err error) []string {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		if err != nil {
			return []string{err.Error()}
		}
		return nil
	}
	var out []string
	for _, c := range status.Status().Details.Causes {
		out = append(out, fmt.Sprintf("%s %s: %s", c.Type, c.Field, c.Message))
	}
	return out
}

// asked counts how often a webhook was asked.
func asked(t *testing.T, path string) int {
	t.Helper()
	families, err := metrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, f := range families {
		if f.GetName() != "controller_runtime_webhook_requests_total" {
			continue
		}
		for _, m := range f.Metric {
			if label(m, "webhook") == path {
				total += int(m.GetCounter().GetValue())
			}
		}
	}
	return total
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.Label {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

func startAlone(t *testing.T, w *world) *replica {
	t.Helper()
	b, serve := startBalancer(t)
	r := startReplica(t, w.config, b.url, nil, nil)
	serve(r)
	w.awaitJudging(t)
	return r
}

func testJudges(t *testing.T, w *world) {
	r := startAlone(t, w)
	for _, c := range []struct {
		name, object    string
		refused, warned []string
	}{
		{name: "a Plugin", object: plugin("a", good)},
		{name: "a bad config", object: plugin("a", "{builtin: request-termination, config: {status_code: 42, status: 1}}"),
			refused: []string{
				"InvalidConfig spec.config.status: unknown field, known ones are body, content_type, echo, message, redact, status_code, trigger",
				"InvalidConfig spec.config.status_code: 42 is too small, at least 200",
			}},
		{name: "bad Lua", object: plugin("a", "{lua: {inline: 'return end'}}"), refused: []string{`InvalidLua spec.lua.inline: line 1: unexpected "end"`}},
		{name: "a bad URL", object: plugin("a", "{wasm: {url: 'ftp://a.test/b'}}"),
			refused: []string{`InvalidPlugin spec.wasm.url: scheme "ftp" is not supported; oci, https, http and file are`}},
		{name: "a bad Envoy config",
			object:  plugin("a", `{envoy: {typedConfig: {"@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_bytes: 0}}}`),
			refused: []string{"InvalidEnvoyConfig spec.envoy.typedConfig: Buffer.MaxRequestBytes: value must be greater than 0"}},
		{name: "a bad ClusterPlugin", object: "{apiVersion: plugins.istio.io/v1alpha1, kind: ClusterPlugin, metadata: {name: a}, spec: " + bad + "}",
			refused: []string{"InvalidConfig spec.config.status_code: 42 is too small, at least 200"}},
		{name: "a ConfigMap that may come", object: plugin("a", "{lua: {configMapRef: {name: later, key: a.lua}}}"),
			warned: []string{"RefNotFound plugin/demo/a:spec.lua.configMapRef: there is no ConfigMap demo/later; a route that names it answers 503"}},
		{name: "a generated name", object: "{apiVersion: plugins.istio.io/v1alpha1, kind: Plugin, metadata: {generateName: a-, namespace: demo}, spec: " + bad + "}",
			refused: []string{"InvalidConfig spec.config.status_code: 42 is too small, at least 200"}},
		{name: "an annotation", object: virtualService("v1", "shop", "istio.io/plugins: '[{name: cors, routes: [api]}]'", routes)},
		{name: "a bad annotation", object: virtualService("v1", "shop", "istio.io/plugins: '[cors'", routes),
			refused: []string{`InvalidAnnotation metadata.annotations[istio.io/plugins]: this is not valid YAML, as which it is read because it starts with "[": line 1: did not find expected ',' or ']'`}},
		{name: "an unknown field, in an old version", object: virtualService("v1alpha3", "shop", "istio.io/plugins: '[{name: cors, route: [api]}]'", routes),
			refused: []string{`InvalidEntry metadata.annotations[istio.io/plugins][0]: unknown field "route", did you mean "routes"?`}},
		{name: "an unknown route", object: virtualService("v1", "shop", "istio.io/plugins: '[{name: cors, routes: [apj]}]'", routes),
			refused: []string{`UnknownRoute metadata.annotations[istio.io/plugins][0].routes: there is no http route "apj", did you mean "api"?`}},
		{name: "a name that may come", object: virtualService("v1beta1", "shop", "istio.io/plugins: later", routes),
			warned: []string{`PluginNotFound virtualservice/demo/shop:metadata.annotations[istio.io/plugins]@0: no Plugin in namespace demo, no ClusterPlugin and no built-in is called "later"; a route that runs later answers 503; create the Plugin in namespace demo, or name another one`}},
		{name: "routes on a Gateway",
			object: `{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: a, namespace: demo, annotations: {istio.io/plugins: "[{name: cors, routes: [api]}]"}},
				spec: {selector: {istio: a}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}}`,
			refused: []string{"InvalidEntry metadata.annotations[istio.io/plugins][0].routes: routes can be chosen on a VirtualService only; remove routes"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := w.dryRun(t.Context(), object(t, c.object))
			if diff := cmp.Diff(c.refused, said(err)); diff != "" {
				t.Errorf("refused, -want +got:\n%s", diff)
			}
			if diff := cmp.Diff(c.warned, w.warnings.take()); diff != "" {
				t.Errorf("warned, -want +got:\n%s", diff)
			}
		})
	}
	t.Run("kubectl", func(t *testing.T) { testKubectl(t, w) })
	t.Run("asks only about changes", func(t *testing.T) { testConditions(t, w) })
	t.Run("bundle is repaired", func(t *testing.T) { testRepair(t, w, r) })
	r.stop(t)
	if _, err := w.configuration(t.Context()); !apierrors.IsNotFound(err) {
		t.Errorf("after the stop the configuration is still there: %v", err)
	}
}

// testKubectl is what people see.
func testKubectl(t *testing.T, w *world) {
	for _, c := range []struct{ name, object, want string }{
		{"one mistake", plugin("stop", bad), `The Plugin "stop" is invalid: spec.config.status_code: 42 is too small, at least 200
`},
		{"two mistakes", plugin("stop", "{builtin: request-termination, config: {status_code: 42, status: 1}}"), `The Plugin "stop" is invalid: 
* spec.config.status: unknown field, known ones are body, content_type, echo, message, redact, status_code, trigger
* spec.config.status_code: 42 is too small, at least 200
`},
		{"a warning", plugin("stop", "{builtin: rate-limiting}"), `Warning: InvalidConfig plugin/demo/stop:spec.config: needs at least one of second, minute, hour, day, month, year; a route that names it answers 503
plugin.plugins.istio.io/stop created (server dry run)
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, w.kubectl(t, c.object, "apply", "--dry-run=server", "-f", "-")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// testConditions: what cannot be refused never reaches the webhook.
func testConditions(t *testing.T, w *world) {
	const path = "/validate/annotations"
	large := &strings.Builder{}
	large.WriteString("[")
	for i := range 2000 {
		fmt.Fprintf(large, "{name: r%d, redirect: {uri: /}}, ", i)
	}
	large.WriteString("]")
	for _, spec := range []struct{ name, routes string }{{"small", routes}, {"large", large.String()}} {
		step := func(what string, times int, change func() error) {
			t.Helper()
			before := asked(t, path)
			if err := change(); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if got := asked(t, path) - before; got != times {
				t.Errorf("%s %s: asked %d times, want %d", spec.name, what, got, times)
			}
		}
		o := object(t, virtualService("v1", spec.name, "", spec.routes))
		annotate := func(text string) func() error {
			return func() error {
				o.SetAnnotations(map[string]string{"istio.io/plugins": text})
				return w.Update(t.Context(), o)
			}
		}
		rename := func(name string) func() error {
			return func() error {
				http, _, _ := unstructured.NestedSlice(o.Object, "spec", "http")
				http[0].(map[string]any)["name"] = name
				if err := unstructured.SetNestedSlice(o.Object, http, "spec", "http"); err != nil {
					t.Fatal(err)
				}
				return w.Update(t.Context(), o)
			}
		}
		step("is created without an annotation", 0, func() error { return w.Create(t.Context(), o) })
		step("gets another host", 0, func() error {
			if err := unstructured.SetNestedStringSlice(o.Object, []string{"b.test"}, "spec", "hosts"); err != nil {
				t.Fatal(err)
			}
			return w.Update(t.Context(), o)
		})
		step("is annotated", 1, annotate("cors"))
		step("is annotated anew", 1, annotate("cors, key-auth"))
		step("gets another route name that no annotation speaks of", 0, rename("another"))
		step("is annotated for some routes", 1, annotate("[{name: cors, routes: [another]}, key-auth]"))
		step("gets a label", 0, func() error { o.SetLabels(map[string]string{"a": "b"}); return w.Update(t.Context(), o) })
		step("gets another route name", 1, func() error {
			err := rename("other")()
			if !apierrors.IsInvalid(err) {
				t.Errorf("an annotation speaks of the old name: %v", err)
			}
			return nil
		})
		step("loses its annotation, too", 0, func() error { o.SetAnnotations(nil); return w.Update(t.Context(), o) })
		step("is annotated for its end", 1, annotate("cors"))
		step("is deleted", 0, func() error { return w.Delete(t.Context(), o) })
	}

	p := object(t, plugin("labelled", good))
	if err := w.Create(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	before := asked(t, "/validate/plugins")
	p.SetLabels(map[string]string{"a": "b"})
	if err := w.Update(t.Context(), p); err != nil {
		t.Error(err)
	}
	if err := w.Delete(t.Context(), p); err != nil {
		t.Error(err)
	}
	if got := asked(t, "/validate/plugins") - before; got != 0 {
		t.Errorf("a Plugin's label and deletion: asked %d times", got)
	}
}

// testRepair: what somebody does to the configuration or the Secret does not last.
func testRepair(t *testing.T, w *world, r *replica) {
	c, err := w.configuration(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wanted := c.DeepCopy()
	c.Webhooks[0].ClientConfig.CABundle = nil
	c.Webhooks = c.Webhooks[:2]
	if err := w.Update(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	await(t, func(ctx context.Context) error {
		c, err := w.configuration(ctx)
		if err == nil && !equality.Semantic.DeepEqual(c.Webhooks, wanted.Webhooks) {
			err = errors.New("the configuration is not repaired")
		}
		return err
	})

	s, err := w.secret(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Delete(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	await(t, func(ctx context.Context) error {
		now, err := w.secret(ctx)
		if err != nil {
			return err
		}
		c, err := w.configuration(ctx)
		if err != nil {
			return err
		}
		if now.UID == s.UID || !bytes.Equal(c.Webhooks[0].ClientConfig.CABundle, now.Data["ca.crt"]) {
			return errors.New("the bundle is not that of a new Secret")
		}
		_, err = r.handshake(ctx, now.Data["ca.crt"], "127.0.0.1")
		return err
	})
	w.awaitJudging(t)
}

// testDown: a server that has died stops nobody, and judges again when it is back.
func testDown(t *testing.T, w *world) {
	r := startAlone(t, w)
	c, err := w.configuration(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.stop(t)
	// A server that is killed leaves its configuration behind.
	c.ObjectMeta = metav1.ObjectMeta{Name: c.Name}
	for i := range c.Webhooks {
		c.Webhooks[i].ClientConfig.URL = new("https://" + loopback.Address(loopback.Port()) + "/gone")
	}
	if err := w.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{plugin("down", bad), virtualService("v1", "down", "istio.io/plugins: '[cors'", routes)} {
		o := object(t, text)
		if err := w.Create(t.Context(), o); err != nil {
			t.Errorf("%s: %v", o.GetKind(), err)
		}
		o.SetLabels(map[string]string{"a": "b"})
		if err := w.Update(t.Context(), o); err != nil {
			t.Errorf("%s: %v", o.GetKind(), err)
		}
	}

	startAlone(t, w)
	// What was stored in the meantime can be changed, mended and deleted.
	p := object(t, plugin("down", bad))
	if err := w.Get(t.Context(), client.ObjectKeyFromObject(p), p); err != nil {
		t.Fatal(err)
	}
	w.warnings.take()
	p.Object["spec"].(map[string]any)["priority"] = int64(7)
	if err := w.Update(t.Context(), p); err != nil {
		t.Errorf("an update that brings nothing new: %v", err)
	}
	if diff := cmp.Diff([]string{"InvalidConfig plugin/demo/down:spec.config.status_code: 42 is too small, at least 200"}, w.warnings.take()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for _, text := range []string{plugin("down", bad), virtualService("v1", "down", "", routes)} {
		if err := w.Delete(t.Context(), object(t, text)); err != nil {
			t.Error(err)
		}
	}
}

const day = 24 * time.Hour

// testRotation lets two replicas with clocks of their own renew all their certificates, while one client after another
// connects to each of them and the API server asks. The clocks end where the real one is, by which the API server goes.
func testRotation(t *testing.T, w *world) {
	now := time.Now()
	clocks := []*clocktesting.FakeClock{clocktesting.NewFakeClock(now.Add(-340 * day)), clocktesting.NewFakeClock(now.Add(-340 * day))}
	// A Secret of other tests is one of today, which is yet to come.
	old := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: webhook.DefaultName}}
	if err := client.IgnoreNotFound(w.Delete(t.Context(), old)); err != nil {
		t.Fatal(err)
	}
	b, serve := startBalancer(t)
	replicas := []*replica{startReplica(t, w.config, b.url, clocks[0], nil), startReplica(t, w.config, b.url, clocks[1], nil)}
	serve(replicas...)
	w.awaitJudging(t)
	// awaitServed lets a clock go on, a minute at a time, until the Secret is as wanted, and returns when it is published
	// and served.
	minutes := 0
	awaitServed := func(clock *clocktesting.FakeClock, wanted func(s *corev1.Secret) bool) *corev1.Secret {
		t.Helper()
		var secret *corev1.Secret
		await(t, func(ctx context.Context) error {
			s, err := w.secret(ctx)
			if err != nil {
				return err
			}
			if !wanted(s) {
				clock.Step(time.Minute)
				minutes++
				return errors.New("the Secret is not as wanted")
			}
			c, err := w.configuration(ctx)
			if err != nil {
				return err
			}
			if !bytes.Equal(c.Webhooks[0].ClientConfig.CABundle, s.Data["ca.crt"]) {
				return errors.New("the bundle is not published")
			}
			for _, r := range replicas {
				leaf, err := r.handshake(ctx, s.Data["ca.crt"], "127.0.0.1")
				if err != nil {
					return err
				}
				if !bytes.Contains(s.Data["tls.crt"], pemOf(leaf.Raw)) {
					return errors.New("a replica serves another certificate")
				}
			}
			secret = s
			return nil
		})
		return secret
	}
	authorities := func(s *corev1.Secret) int { return bytes.Count(s.Data["ca.crt"], []byte("BEGIN CERTIFICATE")) }
	first := awaitServed(clocks[0], func(s *corev1.Secret) bool { return authorities(s) == 1 })

	enough, stop := hammer(t, w, replicas)
	enough()
	// One replica's clock is a day ahead: the successor is made, and nothing is served with it.
	clocks[0].Step(244 * day)
	clocks[1].Step(243 * day)
	second := awaitServed(clocks[0], func(s *corev1.Secret) bool { return authorities(s) == 2 })
	if !bytes.Equal(second.Data["tls.crt"], first.Data["tls.crt"]) {
		t.Error("a certificate is served whose authority is new")
	}
	enough()
	// The other one is the first to see that it has been published for long enough.
	minutes = 0
	third := awaitServed(clocks[1], func(s *corev1.Secret) bool { return !bytes.Equal(s.Data["tls.crt"], first.Data["tls.crt"]) })
	if minutes < 10 || !bytes.Equal(third.Data["ca.crt"], second.Data["ca.crt"]) {
		t.Errorf("it took %d minutes, %d authorities", minutes, authorities(third))
	}
	enough()
	// The first authority expires.
	for _, c := range clocks {
		c.Step(122 * day)
	}
	last := awaitServed(clocks[0], func(s *corev1.Secret) bool { return authorities(s) == 1 })
	enough()
	if !bytes.Equal(last.Data["tls.crt"], third.Data["tls.crt"]) {
		t.Error("the certificate changes once more")
	}
	stop()
}

// hammer writes and connects until it is stopped. A bad Plugin that is admitted shows that the API server could not ask.
// enough returns when there has been some of both since it was called.
func hammer(t *testing.T, w *world, replicas []*replica) (enough, stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var handshakes, writes atomic.Int64
	refused, admitted := object(t, plugin("bad", bad)), object(t, plugin("good", good))
	wg.Go(func() {
		for ; ctx.Err() == nil; writes.Add(1) {
			if err := w.dryRun(ctx, refused); ctx.Err() == nil && !apierrors.IsInvalid(err) {
				t.Errorf("a bad Plugin is not refused: %v", err)
			}
			if err := w.dryRun(ctx, admitted); ctx.Err() == nil && err != nil {
				t.Errorf("a good Plugin is refused: %v", err)
			}
		}
	})
	wg.Go(func() {
		for ; ctx.Err() == nil; handshakes.Add(1) {
			c, err := w.configuration(ctx)
			for _, r := range replicas {
				if err == nil {
					_, err = r.handshake(ctx, c.Webhooks[0].ClientConfig.CABundle, "127.0.0.1")
				}
			}
			if ctx.Err() == nil && err != nil {
				t.Errorf("a client that connects now: %v", err)
			}
		}
	})
	enough = func() {
		t.Helper()
		const some = 5
		w, h := writes.Load()+some, handshakes.Load()+some
		await(t, func(context.Context) error {
			if writes.Load() < w || handshakes.Load() < h {
				return errors.New("nobody writes or connects")
			}
			return nil
		})
	}
	return enough, func() {
		cancel()
		wg.Wait()
		t.Logf("%d pairs of writes, %d of handshakes", writes.Load(), handshakes.Load())
	}
}

// controller is somebody who may do what the webhooks' RBAC markers say, and nothing else.
func (w *world) controller(t *testing.T) *rest.Config {
	t.Helper()
	const name = "istio-plugins"
	meta := metav1.ObjectMeta{Name: name, Namespace: namespace}
	user := []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: name}}
	for _, o := range []client.Object{
		&rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{webhook.DefaultName}, Verbs: []string{"list", "watch", "update"}},
		}},
		&rbacv1.RoleBinding{ObjectMeta: meta, Subjects: user, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name}},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{admissionregistrationv1.GroupName}, Resources: []string{"validatingwebhookconfigurations"},
			ResourceNames: []string{webhook.ConfigurationName("")}, Verbs: []string{"list", "watch", "patch"},
		}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: user, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}},
	} {
		if err := w.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	config := rest.CopyConfig(w.config)
	config.Impersonate.UserName = name
	return config
}

// testService: in a cluster the configuration and an empty Secret are installed by others, and only what is in them is ours.
func testService(t *testing.T, w *world) {
	at := admissionregistrationv1.WebhookClientConfig{Service: &admissionregistrationv1.ServiceReference{Namespace: namespace, Name: webhook.DefaultName}}
	install := func() *admissionregistrationv1.ValidatingWebhookConfiguration {
		c := webhook.Configuration("", at)
		c.Webhooks[0].TimeoutSeconds = new(int32(2)) // somebody's own
		if err := w.Create(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	filled := func(installed *admissionregistrationv1.ValidatingWebhookConfiguration) {
		t.Helper()
		await(t, func(ctx context.Context) error {
			s, err := w.secret(ctx)
			if err != nil {
				return err
			}
			if len(s.Data["ca.crt"]) == 0 {
				return errors.New("the Secret is empty")
			}
			c, err := w.configuration(ctx)
			if err != nil {
				return err
			}
			wanted := installed.DeepCopy()
			for i := range wanted.Webhooks {
				wanted.Webhooks[i].ClientConfig.CABundle = s.Data["ca.crt"]
			}
			if diff := cmp.Diff(wanted.Webhooks, c.Webhooks); diff != "" {
				return errors.New(diff)
			}
			return nil
		})
	}
	// The Secret that other tests have left is not this one's.
	empty := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: webhook.DefaultName}}
	if err := client.IgnoreNotFound(w.Delete(t.Context(), empty)); err != nil {
		t.Fatal(err)
	}
	if err := w.Create(t.Context(), empty); err != nil {
		t.Fatal(err)
	}
	installed := install()
	r := startReplica(t, w.controller(t), "", nil, w)
	filled(installed)

	// The certificate is one for the Service.
	s, err := w.secret(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	await(t, func(ctx context.Context) error {
		_, err := r.handshake(ctx, s.Data["ca.crt"], "istio-plugins-webhook.istio-system.svc")
		return err
	})

	// A configuration that is removed is not brought back: that is how one uninstalls.
	if err := w.Delete(t.Context(), installed); err != nil {
		t.Fatal(err)
	}
	s.Data["ca.crt"] = nil
	if err := w.Update(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	await(t, func(ctx context.Context) error {
		now, err := w.secret(ctx)
		if err == nil && len(now.Data["ca.crt"]) == 0 {
			err = errors.New("the Secret is not repaired")
		}
		return err
	})
	if _, err := w.configuration(t.Context()); !apierrors.IsNotFound(err) {
		t.Errorf("the configuration is back: %v", err)
	}
	installed = install()
	filled(installed)

	r.stop(t)
	if _, err := w.configuration(t.Context()); err != nil {
		t.Errorf("after the stop: %v", err)
	}
}
