package emit_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"

	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/emit"
	"github.com/istio-plugins/istio-plugins/pkg/files"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

const gateway = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
`

// route is a VirtualService with these plugins.
func route(name, plugins string) string {
	return `
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ` + name + `, namespace: shop, annotations: {istio.io/plugins: "` + plugins + `"}}
spec:
  hosts: [` + name + `.test]
  gateways: [istio-system/public]
  http: [{route: [{destination: {host: shop}}]}]
`
}

func luaPlugin(source string) string {
	return `
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: mine, namespace: shop}
spec: {lua: {inline: "` + source + `"}}
`
}

const (
	limit = "[{name: rate-limiting, config: {minute: 7}}]"
	// A line that ends in a backslash looks like one that goes on.
	before = `local BEFORE -- \\\nreturn {request = function() end}`
	after  = `return {response = function() end} -- AFTER`
)

func objects(t *testing.T, text string) map[string]emit.Object {
	t.Helper()
	s, err := files.Load(snapshot.Options{}, "", []string{files.Stdin}, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]emit.Object{}
	r := compile.Compile(s)
	for _, f := range r.Findings {
		t.Fatal(f)
	}
	for _, o := range r.Objects {
		out[o.Name()] = o
	}
	return out
}

// at is what objects should be at a stage, when others are there.
func at(t *testing.T, stage emit.Stage, wanted, there map[string]emit.Object) map[string]emit.Object {
	t.Helper()
	var list []*networkingv1alpha3.EnvoyFilter
	for _, o := range there {
		if o.EnvoyFilter != nil {
			list = append(list, o.EnvoyFilter)
		}
	}
	live := emit.NewLive(list)
	out := map[string]emit.Object{}
	for name, o := range wanted {
		if o, due := live.At(stage, o); due {
			out[name] = o
		}
	}
	return out
}

func text(objects map[string]emit.Object, part string) string {
	var b strings.Builder
	for name, o := range objects {
		if strings.Contains(name, part) {
			b.WriteString(o.EnvoyFilter.Spec.String())
		}
	}
	return b.String()
}

func TestTablesHaveTheNewBeforeBindingsAskForIt(t *testing.T) {
	there := objects(t, gateway+route("a", "cors")+luaPlugin(before))
	wanted := objects(t, gateway+route("a", limit)+luaPlugin(after)+route("b", "mine"))
	prepared := at(t, emit.Prepare, wanted, there)
	switched := at(t, emit.Switch, wanted, there)

	for name, o := range prepared {
		if strings.Contains(name, ".bindings.") && !emit.Equal(there[name], o) {
			t.Errorf("%s is changed before the tables are there", name)
		}
		if strings.Contains(name, ".slot") || strings.Contains(name, ".lua") {
			if !emit.Equal(o, switched[name]) {
				t.Errorf("%s changes again with the bindings", name)
			}
		}
	}
	if !strings.Contains(text(prepared, ".slot"), "local_ratelimit") || !strings.Contains(text(prepared, ".lua"), "AFTER") {
		t.Error("tables lack what the bindings will ask for")
	}
	for name, o := range switched {
		if strings.Contains(name, ".bindings.") && !emit.Equal(wanted[name], o) {
			t.Errorf("%s is not as wanted after the switch", name)
		}
	}
}

func TestTablesKeepTheOldUntilNobodyAsksForIt(t *testing.T) {
	there := objects(t, gateway+route("a", limit)+luaPlugin(before)+route("b", "mine"))
	wanted := objects(t, gateway+route("a", "cors"))
	for _, stage := range []emit.Stage{emit.Prepare, emit.Switch} {
		got := at(t, stage, wanted, there)
		if !strings.Contains(text(got, ".slot"), "local_ratelimit") {
			t.Errorf("%s: the rate limit is gone", stage)
		}
		if !strings.Contains(text(got, ".lua"), "BEFORE") {
			t.Errorf("%s: the old source is gone", stage)
		}
	}
	got := at(t, emit.Clean, wanted, there)
	if s := text(got, ".slot") + text(got, ".lua"); strings.Contains(s, "local_ratelimit") || strings.Contains(s, "BEFORE") {
		t.Error("something stays for ever")
	}
}

func TestANewGatewayGetsItsFiltersLast(t *testing.T) {
	wanted := objects(t, gateway+route("a", limit))
	for name := range at(t, emit.Prepare, wanted, nil) {
		if strings.Contains(name, "skeleton") || strings.Contains(name, "bindings") {
			t.Errorf("%s comes before the tables", name)
		}
	}
	if got := at(t, emit.Switch, wanted, nil); len(got) != len(wanted) {
		t.Errorf("%d of %d objects", len(got), len(wanted))
	}
}

func TestNothingToDoIsNothingToDo(t *testing.T) {
	wanted := objects(t, gateway+route("a", limit)+luaPlugin(before)+route("b", "mine"))
	again := objects(t, gateway+route("a", limit)+luaPlugin(before)+route("b", "mine"))
	for _, stage := range []emit.Stage{emit.Prepare, emit.Switch, emit.Clean} {
		for name, o := range at(t, stage, again, wanted) {
			if !emit.Equal(o, wanted[name]) {
				t.Errorf("%s: %s would be written", stage, name)
			}
		}
	}
}

// Equal is what proto.Equal says.
func TestEqualIsProtoEqual(t *testing.T) {
	a := objects(t, gateway+route("a", limit)+luaPlugin(before)+route("b", "mine"))
	b := objects(t, gateway+route("a", limit)+luaPlugin(after)+route("c", "mine"))
	differ := 0
	for name := range a {
		want := proto.Equal(&a[name].EnvoyFilter.Spec, &b[name].EnvoyFilter.Spec)
		if got := emit.Equal(a[name], b[name]); got != want {
			t.Errorf("%s: %v, and proto.Equal says %v", name, got, want)
		}
		if !want {
			differ++
		}
		raw, err := proto.Marshal(&a[name].EnvoyFilter.Spec)
		if err != nil {
			t.Fatal(err)
		}
		copied := &networkingv1alpha3.EnvoyFilter{ObjectMeta: a[name].EnvoyFilter.ObjectMeta}
		if err := proto.Unmarshal(raw, &copied.Spec); err != nil {
			t.Fatal(err)
		}
		if !emit.Equal(a[name], emit.Object{EnvoyFilter: copied}) {
			t.Errorf("%s differs from its copy", name)
		}
	}
	if differ == 0 || differ == len(a) {
		t.Errorf("%d of %d differ", differ, len(a))
	}
}
