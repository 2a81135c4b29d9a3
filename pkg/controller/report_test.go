package controller

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/client-go/tools/events"

	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/files"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// compiled is the outcome of n VirtualServices of which the first wrong ones name a Plugin that is not there.
func compiled(t *testing.T, n, wrong int) *outcome {
	t.Helper()
	var text strings.Builder
	text.WriteString(`
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
`)
	for i := range n {
		plugins := "cors"
		if i < wrong {
			plugins = "nowhere"
		}
		fmt.Fprintf(&text, `---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: route-%03d, namespace: shop, annotations: {istio.io/plugins: %s}}
spec:
  hosts: [route-%03d.test]
  gateways: [istio-system/public]
  http: [{route: [{destination: {host: shop}}]}]
`, i, plugins, i)
	}
	s, err := files.Load(snapshot.Options{}, "", []string{files.Stdin}, strings.NewReader(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	return &outcome{snapshot: s, result: compile.Compile(s)}
}

// told are the Events that a report makes.
func told(r *reporter, o *outcome) []string {
	recorder := events.NewFakeRecorder(10 * maxEvents)
	r.events = recorder
	r.tell(o)
	close(recorder.Events)
	var out []string
	for e := range recorder.Events {
		out = append(out, e)
	}
	return out
}

func TestAnErrorIsToldOnceAndItsEndOnce(t *testing.T) {
	r := &reporter{log: logr.Discard(), wake: make(chan struct{}, 1)}
	first := told(r, compiled(t, 3, 1))
	if len(first) != 1 || !strings.HasPrefix(first[0], "Warning PluginNotFound metadata.annotations[istio.io/plugins]@0: no Plugin in namespace shop") || !strings.Contains(first[0], "answers 503") {
		t.Errorf("first: %q", first)
	}
	if again := told(r, compiled(t, 3, 1)); len(again) != 0 {
		t.Errorf("again: %q", again)
	}
	if another := told(r, compiled(t, 3, 2)); len(another) != 1 {
		t.Errorf("of another route: %q", another)
	}
	mended := told(r, compiled(t, 3, 1))
	if len(mended) != 1 || !strings.HasPrefix(mended[0], "Normal Resolved no longer: PluginNotFound") {
		t.Errorf("mended: %q", mended)
	}
	if gone := told(r, compiled(t, 0, 0)); len(gone) != 0 {
		t.Errorf("of what is gone: %q", gone)
	}
}

func TestNoEventIsLostWhereThereAreMany(t *testing.T) {
	const n = 2*maxEvents + 50
	r := &reporter{log: logr.Discard(), wake: make(chan struct{}, 1)}
	o := compiled(t, n, n)
	seen := map[string]bool{}
	for report, want := range []int{maxEvents, maxEvents, 50, 0} {
		got := told(r, o)
		if len(got) != want {
			t.Fatalf("report %d makes %d Events, not %d", report+1, len(got), want)
		}
		for _, e := range got {
			seen[e] = true
		}
	}
	if len(seen) != n {
		t.Errorf("%d different Events, not %d", len(seen), n)
	}
	mended := compiled(t, n, 0)
	for report, want := range []int{maxEvents, maxEvents, 50, 0} {
		if got := told(r, mended); len(got) != want {
			t.Fatalf("report %d tells the end of %d, not of %d", report+1, len(got), want)
		}
	}
}
