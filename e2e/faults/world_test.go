package faults

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/istio-plugins/istio-plugins/e2e/controller"
	"github.com/istio-plugins/istio-plugins/e2e/suite"
)

// key is a client's secret, which must not be found in any log.
const key = "correct-horse-battery-staple"

// secret holds the key.
const secret = `
apiVersion: v1
kind: Secret
metadata: {name: alice-key, namespace: shop, labels: {plugins.istio.io/credential: key-auth}}
stringData: {key: ` + key + `}
`

// configMap holds the source of a plugin that marks answers with the number of the edit.
const configMap = `
apiVersion: v1
kind: ConfigMap
metadata: {name: tag, namespace: shop}
data:
  tag.lua: |
    local config = ...
    return {response = function(handle) handle:headers():replace("x-edit", config.edit) end}
`

// base is what all tests start from, with three routes: one that needs a key, a neighbour without plugins, and one that
// needs a key and is edited.
const base = secret + "---" + configMap + `---
apiVersion: plugins.istio.io/v1alpha1
kind: Consumer
metadata: {name: alice, namespace: shop}
spec: {username: alice, credentials: [alice-key]}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: tag, namespace: shop}
spec:
  lua: {configMapRef: {name: tag, key: tag.lua}}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: odd, namespace: shop}
spec:
  lua: {inline: 'return {response = function(handle) handle:headers():add("x-parity", "odd") end}'}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: even, namespace: shop}
spec:
  lua: {inline: 'return {response = function(handle) handle:headers():add("x-parity", "even") end}'}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: native, namespace: shop}
spec:
  envoy:
    typedConfig:
      '@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
`

// inputs are the kinds that users write.
var inputs = []schema.GroupVersionResource{
	{Version: "v1", Resource: "secrets"},
	{Version: "v1", Resource: "configmaps"},
	{Version: "v1", Resource: "services"},
	{Group: "networking.istio.io", Version: "v1", Resource: "gateways"},
	{Group: "networking.istio.io", Version: "v1", Resource: "virtualservices"},
	{Group: "plugins.istio.io", Version: "v1alpha1", Resource: "plugins"},
	{Group: "plugins.istio.io", Version: "v1alpha1", Resource: "clusterplugins"},
	{Group: "plugins.istio.io", Version: "v1alpha1", Resource: "consumers"},
}

const (
	// timeout bounds what is awaited, as on a busy machine; a change takes about a second.
	timeout = 60 * time.Second
	// mostOthers bounds the writes that come with a small change: marks, statuses, Events. There are 1 or 2.
	mostOthers = 10
	// editPause is between two edits of one who does nothing else.
	editPause = 150 * time.Millisecond
)

// world is a bed with the objects of base.
type world struct {
	*controller.Bed
	compiler suite.Compiler
	// edits is the number of the last edit.
	edits atomic.Int64
	// unrelated counts routes that were made to see what they cost.
	unrelated int
}

func startWorld(t *testing.T) *world {
	bin := filepath.Join("..", "..", ".bin")
	for _, name := range []string{"istio-plugins", "envoy-1.40.0", "pilot-discovery", "kube-apiserver"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			t.Fatalf("%v: `make .bin/%s` provides it", err, name)
		}
	}
	bed, err := controller.NewBed(t.Context(), controller.BedOptions{Bin: bin, Root: filepath.Join("..", ".."), Envoy: "envoy-1.40.0", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bed.Stop)
	w := &world{Bed: bed, compiler: suite.Compiler(filepath.Join(bin, "istio-plugins"))}
	w.apply(t, base+controller.Route("protected", "key-auth")+controller.Route("open", ""))
	w.edit(t)
	return w
}

func (w *world) apply(t *testing.T, text string) {
	t.Helper()
	if err := w.Apply(t.Context(), text); err != nil {
		t.Fatal(err)
	}
}

func (w *world) delete(t *testing.T, text string) {
	t.Helper()
	if err := w.Delete(t.Context(), text); err != nil {
		t.Fatal(err)
	}
}

// edited is the route that is edited, at an edit. Each one changes everything that an edit can change: what a plugin is
// told, which plugins run, and a filter of Envoy.
func edited(n int64) string {
	return controller.Route("edited", fmt.Sprintf(`[key-auth, {name: tag, config: {edit: "%d"}}, %s, `+
		`{name: native, config: {mutations: {response_mutations: [{append: {header: {key: x-native, value: "%d"}}}]}}}]`, n, parity(n), n))
}

func parity(n int64) string { return [...]string{"even", "odd"}[n%2] }

func (w *world) edit(t *testing.T) { w.apply(t, edited(w.edits.Add(1))) }

// keepEditing edits until the function that it returns is called. patient says that an API server that is not there is
// no mistake.
func (w *world) keepEditing(t *testing.T, patient bool) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		tick := time.NewTicker(editPause)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				done <- nil
				return
			case <-tick.C:
			}
			if err := w.Apply(t.Context(), edited(w.edits.Add(1))); err != nil && !patient {
				done <- err
				return
			}
		}
	}()
	first := w.edits.Load()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		t.Logf("%d edits", w.edits.Load()-first)
		if patient {
			w.edit(t) // the last one may have failed
		}
	}
}

// clients are those of every test: nobody without a key gets through, everybody else does. The route that is edited may
// answer with other statuses, too, where a test says so.
func (w *world) clients(edited ...int) []client {
	return []client{
		{name: "protected, no key", host: "protected.test", may: []int{401}},
		{name: "protected, key", host: "protected.test", key: key, may: []int{200}},
		{name: "neighbour", host: "open.test", may: []int{200}},
		{name: "edited, no key", host: "edited.test", may: append([]int{401}, edited...)},
		{name: "edited, key", host: "edited.test", key: key, may: append([]int{200}, edited...), problem: w.wasEdit},
	}
}

// wasEdit says that an answer is that of one edit. Filters of Envoy may be a step ahead: they keep their state through an
// edit, so they are changed in place.
func (w *world) wasEdit(h http.Header) error {
	last := w.edits.Load()
	n, err := strconv.ParseInt(h.Get("x-edit"), 10, 64)
	if err != nil || n < 1 || n > last {
		return fmt.Errorf("x-edit is %v, the last one is %d", h.Values("x-edit"), last)
	}
	if native, err := strconv.ParseInt(h.Get("x-native"), 10, 64); err != nil || native < 1 || native > last {
		return fmt.Errorf("Envoy's filter is that of edit %v, the last one is %d", h.Values("x-native"), last)
	}
	if ran := h.Values("x-parity"); !slices.Equal(ran, []string{parity(n)}) {
		return fmt.Errorf("plugin %v ran, not that of edit %d", ran, n)
	}
	return nil
}

// running is a controller and the proxy between it and the API server.
type running struct {
	*controller.Controller
	*proxy
}

// start starts a controller that ends with the test, and checks its log then.
func (w *world) start(t *testing.T, flags ...string) *running {
	t.Helper()
	return w.startBehind(t, startProxy(t, w.Stack), flags...)
}

func (w *world) startBehind(t *testing.T, p *proxy, flags ...string) *running {
	t.Helper()
	c, err := w.StartWith(t.Context(), controller.Options{Flags: flags, Kubeconfig: p.Kubeconfig})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Stop()
		checkLog(t, c)
	})
	return &running{c, p}
}

// checkLog fails the test for what must never be in a log.
func checkLog(t *testing.T, c *controller.Controller) {
	log, err := os.ReadFile(c.LogFile())
	if err != nil {
		t.Error(err)
	}
	for _, never := range []string{key, base64.StdEncoding.EncodeToString([]byte(key)), "panic", "goroutine "} {
		if bytes.Contains(log, []byte(never)) {
			t.Errorf("the log holds %q", never)
		}
	}
	if !t.Failed() {
		return
	}
	dir, err := os.MkdirTemp("", "istio-plugins-faults-")
	if err != nil {
		t.Error(err)
		return
	}
	file := filepath.Join(dir, filepath.Base(c.LogFile()))
	t.Logf("the controller's log is %s, %v", file, os.WriteFile(file, log, 0o644))
}

// alive fails the test if the controller has ended.
func (r *running) alive(t *testing.T) {
	t.Helper()
	select {
	case <-r.Ended():
		t.Fatal("the controller has ended")
	default:
	}
}

// writesSoFar are those of generated objects, whatever the API server said.
func (r *running) writesSoFar(t *testing.T) int {
	t.Helper()
	n, err := r.Writes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// fresh is what a compile from nothing makes of the stored objects, by kind and name.
func (w *world) fresh(ctx context.Context) (map[string]*unstructured.Unstructured, error) {
	api, err := dynamic.NewForConfig(w.Stack.Config)
	if err != nil {
		return nil, err
	}
	var stored []*unstructured.Unstructured
	for _, r := range inputs {
		list, err := api.Resource(r).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		for i := range list.Items {
			list.Items[i].SetManagedFields(nil)
			stored = append(stored, &list.Items[i])
		}
	}
	objects, _, err := w.compiler.Compile(ctx, nil, stored)
	if err != nil {
		return nil, err
	}
	out := map[string]*unstructured.Unstructured{}
	for _, o := range objects {
		out[o.GetKind()+"/"+o.GetName()] = o
	}
	return out, nil
}

// convergence returns when the generated objects are those of a fresh compile and the gateway serves the last edit.
func (w *world) convergence(ctx context.Context) error {
	objects, err := w.fresh(ctx)
	if err != nil {
		return err
	}
	if err := (controller.World{Stack: w.Stack}).AwaitGenerated(ctx, slices.Collect(maps.Values(objects))); err != nil {
		return err
	}
	want := strconv.FormatInt(w.edits.Load(), 10)
	return retry(ctx, func(ctx context.Context) error {
		answer, err := w.Ask(ctx, "edited.test", "apikey", key)
		if err != nil {
			return err
		}
		if got := answer.Header.Get("x-edit"); got != want {
			return fmt.Errorf("the gateway answers %s with edit %q, the last one is %s", answer.Status, got, want)
		}
		return nil
	})
}

func (w *world) converged(t *testing.T) {
	t.Helper()
	if err := w.convergence(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// settled returns when everything has come to rest at what a fresh compile makes. Then a change that has to do with nothing
// before must cost as many writes as it changes objects: were something written over and over, there would be more.
func (w *world) settled(t *testing.T, r *running) {
	t.Helper()
	r.alive(t)
	w.converged(t)
	w.unrelated++
	name := "unrelated-" + strconv.Itoa(w.unrelated)
	route := controller.Route(name, "key-auth")
	for _, step := range []struct {
		change func(*testing.T, string)
		status int
	}{{w.apply, http.StatusOK}, {w.delete, http.StatusNotFound}} {
		before, err := w.fresh(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		wrote, asked := r.writesSoFar(t), r.writtenInAll()
		step.change(t, route)
		after, err := w.fresh(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		needed := 0
		for key, o := range after {
			if is := before[key]; is == nil || !reflect.DeepEqual(is.Object["spec"], o.Object["spec"]) {
				needed++
			}
		}
		w.converged(t)
		w.awaitAnswer(t, name+".test", step.status)
		if n := r.writesSoFar(t) - wrote; n != needed {
			t.Errorf("an unrelated change of %d objects took %d writes", needed, n)
		}
		if n := r.writtenInAll() - asked - needed; n > mostOthers {
			t.Errorf("an unrelated change took %d writes besides those of generated objects", n)
		}
	}
	r.alive(t)
}

// awaitAnswer returns when the host answers a request that has the key with this status.
func (w *world) awaitAnswer(t *testing.T, host string, status int) {
	t.Helper()
	err := retry(t.Context(), func(ctx context.Context) error {
		answer, err := w.Ask(ctx, host, "apikey", key)
		if err != nil {
			return err
		}
		if answer.StatusCode != status {
			return fmt.Errorf("%s answers %s, not %d", host, answer.Status, status)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// retry calls done until it returns nil.
func retry(ctx context.Context, done func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := done(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// within waits for what a channel tells.
func within(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(timeout):
		t.Fatalf("%s did not happen within %s", what, timeout)
	}
}
