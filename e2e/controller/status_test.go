package controller_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/e2e/controller"
)

// broken are Plugins each of which is wrong in another way, with routes that name them.
const broken = `
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: limit, namespace: shop}
spec: {builtin: rate-limiting, config: {minute: 100}}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: wrong-config, namespace: shop}
spec: {builtin: rate-limiting, config: {minute: many}}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: wrong-lua, namespace: shop}
spec:
  failurePolicy: FailOpen
  lua: {inline: "return {request = functio() end}"}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: wrong-module, namespace: shop}
spec: {wasm: {url: "file:///nowhere/waf.wasm"}}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: unused, namespace: shop}
spec: {builtin: cors}
`

func brokenRoutes() string {
	text := ""
	for _, name := range []string{"limit", "wrong-config", "wrong-lua", "wrong-module"} {
		text += controller.Route(name, name)
	}
	return text + controller.Route("misspelt", "limits")
}

// TestStatus: what kubectl says of a Plugin that is fine, of three that are wrong, and of one that nobody uses, and which
// Events the owners of the routes get. The transcript is golden.
func TestStatus(t *testing.T) {
	b := newBed(t)
	c := start(t, b)
	apply(t, b, broken)
	apply(t, b, brokenRoutes())
	await(t, b, "limit.test", http.StatusOK)
	await(t, b, "wrong-config.test", http.StatusServiceUnavailable)
	await(t, b, "wrong-lua.test", http.StatusOK)
	await(t, b, "misspelt.test", http.StatusServiceUnavailable)
	awaitConditions(t, b, map[string]string{
		"limit":        "True Accepted, True Programmed",
		"wrong-config": "False InvalidConfig, False NotAccepted",
		"wrong-lua":    "False InvalidLua, False NotAccepted",
		"unused":       "True Accepted, Unknown NotAttached",
		"wrong-module": "True Accepted, False Rejected",
	})

	var transcript strings.Builder
	for _, args := range []string{
		"get plugins -n shop", "describe plugin -n shop limit", "describe plugin -n shop wrong-config",
		"describe plugin -n shop wrong-lua", "describe plugin -n shop wrong-module", "describe virtualservice -n shop misspelt",
	} {
		fmt.Fprintf(&transcript, "$ kubectl %s\n%s\n", args, kubectl(t, b, strings.Fields(args)...))
	}
	got := masked(transcript.String())
	golden := filepath.Join("testdata", "status.txt")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("-%s +now:\n%s", golden, diff)
	}

	// A new controller still knows what was refused, though Envoy acknowledges the same when it is sent again.
	c.Stop()
	start(t, b)
	for _, name := range []string{"after", "after-that"} {
		apply(t, b, "{apiVersion: plugins.istio.io/v1alpha1, kind: Plugin, metadata: {name: "+name+", namespace: shop}, spec: {builtin: cors}}")
		apply(t, b, controller.Route(name, name))
		awaitConditions(t, b, map[string]string{name: "True Accepted, True Programmed"})
	}
	awaitConditions(t, b, map[string]string{"wrong-module": "True Accepted, False Rejected"})

	// What is mended is told once more.
	apply(t, b, strings.Replace(broken, "minute: many", "minute: 10", 1))
	remove(t, b, controller.Route("wrong-module", ""))
	apply(t, b, controller.Route("misspelt", "limit"))
	await(t, b, "wrong-config.test", http.StatusOK)
	await(t, b, "misspelt.test", http.StatusOK)
	awaitConditions(t, b, map[string]string{"wrong-config": "True Accepted, True Programmed", "limit": "True Accepted, True Programmed"})
	awaitText(t, b, "Resolved", "get", "events", "-n", "shop", "--field-selector", "involvedObject.name=misspelt")
}

// awaitConditions returns when Plugins of namespace shop have these conditions.
func awaitConditions(t *testing.T, b *controller.Bed, want map[string]string) {
	t.Helper()
	const path = `jsonpath={range .items[*]}{.metadata.name}: {.status.conditions[?(@.type=="Accepted")].status} {.status.conditions[?(@.type=="Accepted")].reason}, ` +
		`{.status.conditions[?(@.type=="Programmed")].status} {.status.conditions[?(@.type=="Programmed")].reason}{"\n"}{end}`
	ctx, cancel := context.WithTimeout(t.Context(), settleTimeout)
	defer cancel()
	for {
		got := kubectl(t, b, "get", "plugins", "-n", "shop", "-o", path)
		missing := ""
		for name, conditions := range want {
			if line := name + ": " + conditions + "\n"; !strings.Contains(got, line) {
				missing += line
			}
		}
		if missing == "" {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not yet:\n%s\nbut:\n%s", missing, got)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// awaitText returns when kubectl prints a text.
func awaitText(t *testing.T, b *controller.Bed, want string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settleTimeout)
	defer cancel()
	for {
		got := kubectl(t, b, args...)
		if strings.Contains(got, want) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("kubectl %v does not say %q, but:\n%s", args, want, got)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func kubectl(t *testing.T, b *controller.Bed, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("kubectl")
	if err != nil {
		path = "../../.bin/kubectl"
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+b.Stack.Kubeconfig)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kubectl %v: %v: %s", args, err, stderr.Bytes())
	}
	return string(out)
}

// masks are what differs from run to run.
var masks = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`), "2026-11-21T12:00:00Z"},
	{regexp.MustCompile(`(?m)( UID: +).*$`), "${1}0a1b2c3d-0000-4000-8000-000000000000"},
	{regexp.MustCompile(`(Resource Version: +)\d+`), "${1}1000"},
	{regexp.MustCompile(`(?m)(Generation: +)\d+`), "${1}1"},
	{regexp.MustCompile(`(?m) +\d+m?s$`), "   12s"},
	{regexp.MustCompile(`(?m)^(  \w+ +\w+ +)(\d+m?s|<unknown>)( \(x\d+ over \d+s\))?( +\w)`), "${1}12s${4}"},
	{regexp.MustCompile(`(?m) +$`), ""},
}

func masked(text string) string {
	for _, m := range masks {
		text = m.pattern.ReplaceAllString(text, m.by)
	}
	return text
}

// TestWebhooks: with them the API server refuses what is wrong at the moment of writing, in the words that every command
// has for it, and nothing of it reaches a gateway. They never stand in the way of Istio: without the controller
// everything can be written.
func TestWebhooks(t *testing.T) {
	b := newBed(t)
	c, err := b.StartWith(t.Context(), controller.Options{Webhooks: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	apply(t, b, controller.Route("limit", ""))
	const wrong = `
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: wrong, namespace: shop}
spec: {builtin: rate-limiting, config: {minute: many}}
`
	refused(t, b, wrong, "spec.config.minute: must be an integer, not a string")
	refused(t, b, controller.Route("limit", "[{name: cors, rutes: [api]}]"), `unknown field "rutes", did you mean "routes"?`)
	apply(t, b, controller.Route("limit", "key-auth"))
	await(t, b, "limit.test", http.StatusUnauthorized)
	// What is gone cannot refuse.
	c.Kill()
	apply(t, b, wrong)
	apply(t, b, controller.Route("limit", "[{name: cors, rutes: [api]}]"))
	// And what was stored meanwhile is survived, and told.
	c, err = b.StartWith(t.Context(), controller.Options{Webhooks: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	await(t, b, "limit.test", http.StatusServiceUnavailable)
	awaitConditions(t, b, map[string]string{"wrong": "False InvalidConfig, False NotAccepted"})
}

func refused(t *testing.T, b *controller.Bed, text, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settleTimeout)
	defer cancel()
	for {
		// The API server learns of new webhooks a moment after they are there.
		err := b.Apply(ctx, text)
		if err != nil && strings.Contains(err.Error(), want) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the API server says %v, not %q", err, want)
		}
	}
}
