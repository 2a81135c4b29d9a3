package resolve_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

func plugin(namespace, name string, priority int32, config string) *pluginsv1alpha1.Plugin {
	p := &pluginsv1alpha1.Plugin{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       pluginsv1alpha1.PluginSpec{Builtin: "cors", Priority: priority},
	}
	if config != "" {
		p.Spec.Config = &apiextensionsv1.JSON{Raw: []byte(config)}
	}
	return p
}

// library has Plugins in namespace shop and other, ClusterPlugins, and the built-ins cors and key-auth.
func library() *resolve.Library {
	cluster := func(name string) *pluginsv1alpha1.ClusterPlugin {
		return &pluginsv1alpha1.ClusterPlugin{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: pluginsv1alpha1.PluginSpec{Builtin: "cors"}}
	}
	strict := cluster("strict")
	strict.Spec.Config = &apiextensionsv1.JSON{Raw: []byte(`{"keys": ["a"], "realm": "r"}`)}
	return resolve.NewLibrary(&snapshot.Snapshot{
		Plugins: []*pluginsv1alpha1.Plugin{
			plugin("shop", "limit", 0, `{"minute": 100, "headers": {"a": 1, "b": 2}}`),
			plugin("shop", "first", 10, ""),
			plugin("shop", "last", -10, ""),
			plugin("shop", "everywhere", 0, ""),
			plugin("other", "granted", 0, ""),
			plugin("other", "secret", 0, ""),
			plugin("infra", "edge", 0, `{"minute": 1}`),
		},
		ClusterPlugins: []*pluginsv1alpha1.ClusterPlugin{cluster("everywhere"), cluster("common"), cluster("key-auth"), strict},
		ReferenceGrants: []*gatewayv1.ReferenceGrant{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: "to-shop"},
			Spec: gatewayv1.ReferenceGrantSpec{
				From: []gatewayv1.ReferenceGrantFrom{{Group: "networking.istio.io", Kind: "VirtualService", Namespace: "shop"}},
				To:   []gatewayv1.ReferenceGrantTo{{Group: "plugins.istio.io", Kind: "Plugin", Name: new(gatewayv1.ObjectName)}},
			},
		}},
		Malformed: []snapshot.Malformed{{Object: finding.Object{Kind: "Plugin", Namespace: "shop", Name: "broken"}, Place: "spec", Error: "no kind"}},
		Options:   snapshot.Options{}.Defaults(),
	}, []string{"cors", "key-auth"})
}

var (
	gateway = finding.Object{Kind: "Gateway", Namespace: "infra", Name: "public"}
	service = finding.Object{Kind: "VirtualService", Namespace: "shop", Name: "api"}
)

// show writes a chain as `plugin-id{config}` with its refusals behind it.
func show(c resolve.Chain) string {
	var out []string
	for _, s := range c.Steps {
		text := s.Plugin.ID
		if config := string(s.Config().JSON()); config != "{}" {
			text += config
		}
		out = append(out, text)
	}
	for _, r := range c.Refusals {
		out = append(out, fmt.Sprintf("!%s(%s)", r.Issue.Reason, r.Plugin))
	}
	return strings.Join(out, " ")
}

func TestCompose(t *testing.T) {
	tests := map[string]struct {
		gateway, service string
		route            string
		want             string
		findings         []finding.Reason
	}{
		"the list's order is the chain's order": {
			service: "limit, cors", want: `plugin/shop/limit{"headers":{"a":1,"b":2},"minute":100} builtin/cors`,
		},
		"a Plugin of the namespace comes before a ClusterPlugin, which comes before a built-in": {
			service: "everywhere, common, key-auth, cors", want: "plugin/shop/everywhere clusterplugin/common clusterplugin/key-auth builtin/cors",
		},
		"priority orders, high first, and equal ones keep their order": {
			service: "last, cors, first, common", want: "plugin/shop/first builtin/cors clusterplugin/common plugin/shop/last",
		},
		"parents come first": {
			gateway: "common", service: "cors", want: "clusterplugin/common builtin/cors",
		},
		"a child's config is merged over the parent's at the parent's place": {
			gateway: "[{name: common, config: {a: 1, b: {c: 1}}}, cors]", service: "[key-auth, {name: common, config: {b: {d: 2}, a: null}}]",
			want: `clusterplugin/common{"b":{"c":1,"d":2}} builtin/cors clusterplugin/key-auth`,
		},
		"override keeps the parent's config on top": {
			gateway: "[{name: common, config: {a: 1}, override: true}]", service: "[{name: common, config: {a: 2, b: 2}}]",
			want: `clusterplugin/common{"a":1,"b":2}`,
		},
		"override keeps the Plugin's own config on top, too": {
			gateway: "[{name: strict, override: true}]", service: "[{name: strict, config: {keys: [], realm: null, more: 1}}]",
			want: `clusterplugin/strict{"keys":["a"],"more":1,"realm":"r"}`,
		},
		"a child's second entry for a parent's Plugin is an instance of its own": {
			gateway: "common", service: "[{name: common, config: {a: 1}}, {name: common, config: {a: 2}}]",
			want: `clusterplugin/common{"a":1} clusterplugin/common{"a":2}`,
		},
		"equal names of different Plugins both run": {
			gateway: "everywhere", service: "[{name: everywhere, config: {a: 1}}]", want: `clusterplugin/everywhere plugin/shop/everywhere{"a":1}`,
		},
		"one Plugin twice with different configs runs twice": {
			service: "[{name: cors, config: {a: 1}}, {name: cors, config: {a: 2}}]", want: `builtin/cors{"a":1} builtin/cors{"a":2}`,
		},
		"an exact duplicate runs once": {
			service: "cors, cors", want: "builtin/cors", findings: []finding.Reason{finding.DuplicateEntry},
		},
		"an opt-out takes out what a parent attached": {
			gateway: "common, cors", service: "-common", want: "builtin/cors",
		},
		"an opt-out finds the Plugin under another spelling": {
			gateway: "common", service: "[{name: common, disabled: true}, key-auth]", want: "clusterplugin/key-auth",
		},
		"an opt-out of what is not attached is a warning": {
			service: "-cors, key-auth", want: "clusterplugin/key-auth", findings: []finding.Reason{finding.OptOutNotAttached},
		},
		"an opt-out of an override does not work": {
			gateway: "[{name: common, override: true}]", service: "-common", want: "clusterplugin/common", findings: []finding.Reason{finding.OverrideNotRemovable},
		},
		"an opt-out and an entry of one name: the entry is the child's own": {
			gateway: "common, cors", service: "[-common, key-auth, {name: common, config: {a: 1}}]", want: `builtin/cors clusterplugin/key-auth clusterplugin/common{"a":1}`,
		},
		"an opt-out reaches a parent's missing plugin, and that one only": {
			gateway: "gone, lost", service: "-gone", want: "!PluginNotFound(lost)",
		},
		"routes limits an entry": {
			service: "[cors, {name: key-auth, routes: [admin]}]", route: "api", want: "builtin/cors",
		},
		"routes covers its route": {
			service: "[cors, {name: key-auth, routes: [admin]}]", route: "admin", want: "builtin/cors clusterplugin/key-auth",
		},
		"an opt-out can be limited to routes": {
			gateway: "common", service: "[{name: common, disabled: true, routes: [admin]}]", route: "api", want: "clusterplugin/common",
		},
		"an unknown route refuses all": {
			service: "[cors, {name: key-auth, routes: [amdin]}]", route: "api", want: "builtin/cors !UnknownRoute(key-auth)",
		},
		"a missing plugin refuses the routes that it would cover": {
			service: "[cors, {name: gone, routes: [admin]}]", route: "admin", want: "builtin/cors !PluginNotFound(gone)",
		},
		"a missing plugin leaves other routes alone": {
			service: "[cors, {name: gone, routes: [admin]}]", route: "api", want: "builtin/cors",
		},
		"routes on a Gateway are refused": {
			gateway: "[{name: cors, routes: [api]}]", want: "!InvalidEntry(cors)",
		},
		"an unknown field refuses": {
			service: "[{name: cors, confg: {}}]", want: "!InvalidEntry(cors)",
		},
		"an unparsable annotation refuses": {
			service: "[cors", want: "!InvalidAnnotation()",
		},
		"a malformed Plugin refuses": {
			service: "broken, cors", want: "builtin/cors !InvalidPlugin(broken)",
		},
		"another namespace needs a grant": {
			service: "other/granted", want: "plugin/other/granted",
		},
		"a grant is for the kind that it names": {
			gateway: "other/granted", want: "!RefNotPermitted(other/granted)",
		},
		"the own namespace may be written out": {
			service: "shop/everywhere", want: "plugin/shop/everywhere",
		},
		"a namespaced name is never a ClusterPlugin": {
			service: "shop/common", want: "!PluginNotFound(shop/common)",
		},
		"names resolve in the namespace of the object that names them": {
			gateway: "edge", service: "limit", want: `plugin/infra/edge{"minute":1} plugin/shop/limit{"headers":{"a":1,"b":2},"minute":100}`,
		},
		"an empty annotation inherits": {
			gateway: "cors", service: " ", want: "builtin/cors",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l, notes := library(), &resolve.Notes{}
			var parents resolve.Chain
			if tt.gateway != "" {
				level := resolve.NewLevel(l, gateway, tt.gateway, nil)
				parents = resolve.Compose(resolve.Chain{}, []resolve.Covered{{Level: level}}, notes)
			}
			level := resolve.NewLevel(l, service, tt.service, []string{"api", "admin", ""})
			chain := resolve.Compose(parents, []resolve.Covered{{Level: level, Route: tt.route}}, notes)
			if got := show(chain); got != tt.want {
				t.Errorf("chain\n got %s\nwant %s", got, tt.want)
			}
			var reasons []finding.Reason
			for _, f := range notes.Findings() {
				reasons = append(reasons, f.Reason)
			}
			if !slices.Equal(reasons, tt.findings) {
				t.Errorf("findings %v, want %v", reasons, tt.findings)
			}
		})
	}
}

func TestComposeLeavesParentsAlone(t *testing.T) {
	l, notes := library(), &resolve.Notes{}
	level := resolve.NewLevel(l, gateway, "common, cors", nil)
	parents := resolve.Compose(resolve.Chain{}, []resolve.Covered{{Level: level}}, notes)
	before := show(parents)
	for _, text := range []string{"[{name: common, config: {a: 1}}]", "-common, -cors", "gone", "[first]"} {
		resolve.Compose(parents, []resolve.Covered{{Level: resolve.NewLevel(l, service, text, []string{})}}, notes)
		if got := show(parents); got != before {
			t.Fatalf("%s changed the parents: %s", text, got)
		}
	}
}

func TestUnion(t *testing.T) {
	l, notes := library(), &resolve.Notes{}
	chain := func(text string) resolve.Chain {
		return resolve.Compose(resolve.Chain{}, []resolve.Covered{{Level: resolve.NewLevel(l, service, text, []string{})}}, notes)
	}
	tests := map[string]struct{ a, b, want string }{
		"what is equal runs once":          {"cors, key-auth", "key-auth, common", "builtin/cors clusterplugin/key-auth clusterplugin/common"},
		"what differs in config runs both": {"[{name: cors, config: {a: 1}}]", "cors", `builtin/cors{"a":1} builtin/cors`},
		"priority still orders":            {"cors", "first", "plugin/shop/first builtin/cors"},
		"a refusal of either stays":        {"cors", "gone", "builtin/cors !PluginNotFound(gone)"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := show(chain(tt.a).Union(chain(tt.b))); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestMisspeltNames(t *testing.T) {
	l := library()
	_, issue := l.Find("limti", "VirtualService", "shop")
	if issue == nil || issue.Remedy != `did you mean "limit"?` {
		t.Errorf("got %+v", issue)
	}
	// A namespace's Plugins are not told to others.
	_, issue = l.Find("other/secre", "Gateway", "shop")
	if issue == nil || issue.Reason != finding.RefNotPermitted || strings.Contains(issue.Remedy, "secret") {
		t.Errorf("got %+v", issue)
	}
}
