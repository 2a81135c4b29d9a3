package compile_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	networking "istio.io/api/networking/v1alpha3"
	extensionsv1alpha1 "istio.io/client-go/pkg/apis/extensions/v1alpha1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/istio-plugins/istio-plugins/pkg/annotation"
	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/emit"
	"github.com/istio-plugins/istio-plugins/pkg/files"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/manifest"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// An edit is a number: what it does is drawn from a source of randomness that it seeds, and depends on nothing else but
// what is there. So any part of a sequence of edits is a sequence of edits.
type edit uint16

// A world is the objects of a cluster, with the versions that an API server gives them.
type world struct {
	options   snapshot.Options
	objects   map[finding.Object]object
	malformed map[finding.Object]snapshot.Malformed
	version   int
	// last is what was compiled last.
	compiler compile.Compiler
	last     *compile.Result
}

type object interface {
	metav1.Object
	runtime.Object
}

func newWorld(o snapshot.Options) *world {
	return &world{options: o, objects: map[finding.Object]object{}, malformed: map[finding.Object]snapshot.Malformed{}}
}

func (w *world) put(kind string, o object) {
	key := finding.Object{Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName()}
	w.version++
	o.SetUID(types.UID(fmt.Sprintf("uid-%d", w.version)))
	if was := w.objects[key]; was != nil {
		o.SetUID(was.GetUID())
	}
	o.SetResourceVersion(fmt.Sprint(w.version))
	w.objects[key] = o
	delete(w.malformed, key)
}

// apply reads objects as files have them.
func (w *world) apply(t testing.TB, text string) {
	s, err := files.Load(w.options, "a", []string{"-"}, strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	for _, m := range s.Malformed {
		delete(w.objects, m.Object)
		w.malformed[m.Object] = m
	}
	putAll(w, "VirtualService", s.VirtualServices)
	putAll(w, "Gateway", s.Gateways)
	putAll(w, "Plugin", s.Plugins)
	putAll(w, "ClusterPlugin", s.ClusterPlugins)
	putAll(w, "Consumer", s.Consumers)
	putAll(w, "Secret", s.Secrets)
	putAll(w, "ConfigMap", s.ConfigMaps)
	putAll(w, "Service", s.Services)
	putAll(w, "ServiceEntry", s.ServiceEntries)
	putAll(w, "ReferenceGrant", s.ReferenceGrants)
	putAll(w, "HTTPRoute", s.HTTPRoutes)
}

func putAll[T object](w *world, kind string, objects []T) {
	for _, o := range objects {
		w.put(kind, o)
	}
}

// sorted are the names of what is there.
func (w *world) sorted() []finding.Object {
	return slices.SortedFunc(maps.Keys(w.objects), func(a, b finding.Object) int { return strings.Compare(a.String(), b.String()) })
}

// snapshot lists what is there in a random order, as informers do: some kinds as they are, some as copies.
func (w *world) snapshot(random *rand.Rand) *snapshot.Snapshot {
	s := &snapshot.Snapshot{Options: w.options}
	keys := w.sorted()
	shuffle(random, &keys)
	for _, key := range keys {
		o := w.objects[key]
		switch o := o.(type) {
		case *networkingv1.VirtualService:
			s.VirtualServices = append(s.VirtualServices, o)
			continue
		case *networkingv1.Gateway:
			s.Gateways = append(s.Gateways, o)
			continue
		case *networkingv1.ServiceEntry:
			s.ServiceEntries = append(s.ServiceEntries, o)
			continue
		case *networkingv1alpha3.EnvoyFilter:
			s.EnvoyFilters = append(s.EnvoyFilters, o)
			continue
		}
		switch o := o.DeepCopyObject().(type) {
		case *pluginsv1alpha1.Plugin:
			s.Plugins = append(s.Plugins, o)
		case *pluginsv1alpha1.ClusterPlugin:
			s.ClusterPlugins = append(s.ClusterPlugins, o)
		case *pluginsv1alpha1.Consumer:
			s.Consumers = append(s.Consumers, o)
		case *corev1.Secret:
			s.Secrets = append(s.Secrets, o)
		case *corev1.ConfigMap:
			s.ConfigMaps = append(s.ConfigMaps, o)
		case *corev1.Service:
			s.Services = append(s.Services, o)
		case *gatewayv1.ReferenceGrant:
			s.ReferenceGrants = append(s.ReferenceGrants, o)
		case *gatewayv1.HTTPRoute:
			s.HTTPRoutes = append(s.HTTPRoutes, o)
		case *extensionsv1alpha1.WasmPlugin:
			s.WasmPlugins = append(s.WasmPlugins, o)
		}
	}
	for _, m := range w.malformed {
		s.Malformed = append(s.Malformed, m)
	}
	return s
}

// draw chooses one.
func draw[T any](random *rand.Rand, from ...T) T { return from[random.IntN(len(from))] }

// some chooses any number of a few, each once.
func some[T any](random *rand.Rand, most int, from ...T) []T {
	shuffle(random, &from)
	return from[:random.IntN(min(most, len(from))+1)]
}

func list(items []string) string { return "[" + strings.Join(items, ", ") + "]" }

// do makes an edit and says what it was.
func (w *world) do(t testing.TB, e edit) string {
	random := rand.New(rand.NewPCG(uint64(e), 7))
	text := ""
	switch n := random.IntN(100); {
	case n < 15:
		return w.tweak(random)
	case n < 37:
		text = virtualServiceText(random)
	case n < 44:
		text = gatewayText(random)
	case n < 64:
		text = pluginText(random)
	case n < 80:
		text = otherText(random)
	case n < 88:
		return w.remove(random)
	case n < 92:
		return w.touch(random)
	case n < 95:
		return w.relist()
	default:
		return w.store()
	}
	w.apply(t, text)
	return text
}

func (w *world) remove(random *rand.Rand) string {
	keys := w.sorted()
	if len(keys) == 0 {
		return "delete nothing"
	}
	key := draw(random, keys...)
	delete(w.objects, key)
	clear(w.malformed)
	return "delete " + key.String()
}

// touch changes what a compilation does not read, and the version.
func (w *world) touch(random *rand.Rand) string {
	keys := w.sorted()
	if len(keys) == 0 {
		return "touch nothing"
	}
	key := draw(random, keys...)
	o := w.objects[key].DeepCopyObject().(object)
	o.SetLabels(maps.Collect(maps.All(o.GetLabels())))
	if o.GetLabels() == nil {
		o.SetLabels(map[string]string{})
	}
	o.GetLabels()["touched"] = fmt.Sprint(w.version)
	if p, ok := o.(*pluginsv1alpha1.Plugin); ok {
		p.Status.Attached++
	}
	w.put(key.Kind, o)
	return "touch " + key.String()
}

// tweak changes one thing of an object.
func (w *world) tweak(random *rand.Rand) string {
	kinds := []string{"VirtualService", "VirtualService", "VirtualService", "Gateway", "Plugin", "ClusterPlugin", "Secret"}
	kind := draw(random, kinds...)
	keys := slices.DeleteFunc(w.sorted(), func(o finding.Object) bool { return o.Kind != kind })
	if len(keys) == 0 {
		return "tweak nothing"
	}
	key := draw(random, keys...)
	o := w.objects[key].DeepCopyObject().(object)
	what := ""
	switch o := o.(type) {
	case *networkingv1.VirtualService:
		route := draw(random, o.Spec.Http...)
		switch random.IntN(6) {
		case 0:
			route.Match = []*networking.HTTPMatchRequest{{Gateways: draw(random, nil, []string{"istio-system/edge"}, []string{"istio-system/public"}, []string{"mesh"})}}
			what = fmt.Sprintf("a match on the gateways %v", route.Match[0].Gateways)
		case 1:
			route.Name = draw(random, "", "api", "pages")
			what = fmt.Sprintf("a route %q", route.Name)
		case 2:
			o.Spec.Gateways = draw(random, []string{"istio-system/public"}, []string{"istio-system/public", "istio-system/edge"}, []string{"istio-system/edge", "a/inner"})
			what = fmt.Sprintf("the gateways %v", o.Spec.Gateways)
		case 3:
			o.Spec.ExportTo = draw(random, nil, []string{"."})
			what = fmt.Sprintf("exported to %v", o.Spec.ExportTo)
		default:
			what = annotate(random, o)
		}
	case *networkingv1.Gateway:
		switch random.IntN(4) {
		case 0:
			o.Spec.Selector = draw(random, map[string]string{"istio": "ingress"}, map[string]string{"istio": "ingress", "tier": "edge"}, map[string]string{"tier": "edge"}, nil)
			what = fmt.Sprintf("the selector %v", o.Spec.Selector)
		case 1:
			o.Spec.Servers[0].Hosts = draw(random, []string{"*"}, []string{"v0.test"}, []string{"nowhere.test"})
			what = fmt.Sprintf("the hosts %v", o.Spec.Servers[0].Hosts)
		default:
			what = annotate(random, o)
		}
	case *pluginsv1alpha1.Plugin:
		what = respecify(random, &o.Spec)
	case *pluginsv1alpha1.ClusterPlugin:
		what = respecify(random, &o.Spec)
	case *corev1.Secret:
		key := draw(random, slices.Sorted(maps.Keys(o.Data))...)
		o.Data[key] = []byte(bump(random, draw(random, string(o.Data[key]), "3")))
		what = fmt.Sprintf("%s: %s", key, o.Data[key])
	}
	w.put(key.Kind, o)
	return fmt.Sprintf("%s gets %s", key, what)
}

// bump writes another number into a text that has some.
func bump(random *rand.Rand, text string) string {
	return regexp.MustCompile(`\b[0-9]\b`).ReplaceAllStringFunc(text, func(string) string { return fmt.Sprint(1 + random.IntN(4)) })
}

func respecify(random *rand.Rand, spec *pluginsv1alpha1.PluginSpec) string {
	switch {
	case random.IntN(5) == 0:
		spec.FailurePolicy = draw(random, pluginsv1alpha1.FailOpen, pluginsv1alpha1.FailClosed)
	case random.IntN(5) == 0:
		spec.Priority = int32(random.IntN(3))
	case spec.Config != nil:
		spec.Config.Raw = []byte(bump(random, string(spec.Config.Raw)))
	case spec.Lua != nil:
		spec.Lua.Inline = bump(random, spec.Lua.Inline)
	case spec.Wasm != nil:
		spec.Wasm.URL = bump(random, spec.Wasm.URL)
	case spec.Envoy != nil:
		spec.Envoy.TypedConfig.Raw = []byte(bump(random, string(spec.Envoy.TypedConfig.Raw)))
	}
	text, _ := json.Marshal(spec)
	return string(text)
}

func annotate(random *rand.Rand, o object) string {
	text := o.GetAnnotations()[annotation.Key]
	if bumped := bump(random, text); bumped != text && random.IntN(2) == 0 {
		text = bumped
	} else {
		text = annotationText(random)
	}
	o.SetAnnotations(map[string]string{annotation.Key: text})
	if text == "" && random.IntN(2) == 0 {
		o.SetAnnotations(nil)
	}
	return fmt.Sprintf("the annotations %v", o.GetAnnotations())
}

// relist makes everything a copy, as after a watch that broke.
func (w *world) relist() string {
	for key, o := range w.objects {
		w.objects[key] = o.DeepCopyObject().(object)
	}
	return "list everything again"
}

// store writes what was compiled, from which the numbers of Wasm plugins are read back.
func (w *world) store() string {
	if w.last == nil {
		return "store nothing"
	}
	maps.DeleteFunc(w.objects, func(key finding.Object, _ object) bool { return key.Kind == "EnvoyFilter" || key.Kind == "WasmPlugin" })
	for _, o := range w.last.Objects {
		if o.EnvoyFilter != nil {
			w.put("EnvoyFilter", withMeta(o.EnvoyFilter))
		} else {
			w.put("WasmPlugin", o.WasmPlugin.DeepCopy())
		}
	}
	return "store what was compiled"
}

// withMeta is a copy of what is read of a generated object: its labels and annotations.
func withMeta(o *networkingv1alpha3.EnvoyFilter) *networkingv1alpha3.EnvoyFilter {
	return &networkingv1alpha3.EnvoyFilter{TypeMeta: o.TypeMeta, ObjectMeta: *o.ObjectMeta.DeepCopy()}
}

func annotationText(random *rand.Rand) string {
	names := []string{"p0", "p1", "p2", "p3", "p0", "p1", "c0", "cors", "key-auth", "rate-limiting", "correlation-id", "ip-restriction"}
	if random.IntN(4) == 0 {
		names = append(names, "acl", "missing", "a/p0", "b/p1", "-p0", "-cors", "-c0")
	}
	switch n := random.IntN(20); {
	case n < 3:
		return ""
	case n < 10:
		return strings.Join(some(random, 4, names...), ", ")
	case n < 11:
		return draw(random, "[{", "- 7", "p0 p1", "{name: p0, nme: x}")
	}
	var entries []string
	for _, name := range some(random, 3, names...) {
		fields := []string{"name: " + name}
		fields = append(fields, some(random, 2,
			configText(random, name), configText(random, name), "routes: [api]", "routes: [api, pages]", "override: true", "disabled: true")...)
		slices.Sort(fields)
		fields = slices.CompactFunc(fields, func(a, b string) bool { return a[:6] == b[:6] })
		entries = append(entries, "{"+strings.Join(fields, ", ")+"}")
	}
	return list(entries)
}

// configText is a config that the plugin of that name most often takes.
func configText(random *rand.Rand, name string) string {
	n := 1 + random.IntN(3)
	switch {
	case random.IntN(8) == 0:
		return "config: {x: 1}"
	case name == "key-auth":
		return fmt.Sprintf("config: {key_names: [k%d]}", n)
	case name == "acl":
		return fmt.Sprintf("config: {allow: [g%d]}", n-1)
	case name == "correlation-id":
		return fmt.Sprintf("config: {header_name: x-%d}", n)
	case name == "c0" || name == "ip-restriction":
		return fmt.Sprintf("config: {deny: [192.0.2.%d]}", n)
	case name == "cors":
		return fmt.Sprintf("config: {max_age: %d}", n)
	}
	return fmt.Sprintf("config: {minute: %d}", n)
}

func metadataText(random *rand.Rand, namespace, name string) string {
	annotations := ""
	if text := annotationText(random); text != "" {
		quoted, _ := json.Marshal(text)
		annotations = ", annotations: {istio.io/plugins: " + string(quoted) + "}"
	}
	return fmt.Sprintf("metadata: {namespace: %s, name: %s%s}\n", namespace, name, annotations)
}

func virtualServiceText(random *rand.Rand) string {
	name := draw(random, "v0", "v1", "v2", "v3", "d0", "d1")
	text := "apiVersion: networking.istio.io/v1\nkind: VirtualService\n" + metadataText(random, draw(random, "a", "b"), name) + "spec:\n"
	if name[0] == 'v' {
		text += "  hosts: " + draw(random, "["+name+".test]", "['*']", "['*.test', other.example]") + "\n"
		text += "  gateways: " + list(append(some(random, 3, "istio-system/public", "istio-system/edge", "a/inner", "inner", "mesh", "gone"), "istio-system/public")) + "\n"
	}
	if random.IntN(8) == 0 {
		text += "  exportTo: " + draw(random, "['.']", "[b]", "[istio-system]") + "\n"
	}
	text += "  http:\n"
	for range 1 + random.IntN(3) {
		fields := []string{}
		if random.IntN(3) > 0 {
			fields = append(fields, "name: "+draw(random, "api", "pages", "'100%'"))
		}
		if random.IntN(3) == 0 {
			fields = append(fields, "match: "+draw(random, "[{uri: {prefix: /x}}]", "[{name: m, uri: {prefix: /x}}, {uri: {prefix: /y}}]",
				"[{uri: {prefix: /z}, gateways: [istio-system/edge]}, {uri: {prefix: /x}, gateways: [istio-system/public]}]", "[{gateways: [mesh], uri: {prefix: /m}}]"))
		}
		if name[0] == 'v' && random.IntN(4) == 0 {
			fields = append(fields, "delegate: "+draw(random, "{name: d0}", "{name: d1, namespace: a}", "{name: d1, namespace: b}"))
		} else {
			fields = append(fields, "route: [{destination: {host: x}}]")
		}
		text += "  - {" + strings.Join(fields, ", ") + "}\n"
	}
	return text
}

func gatewayText(random *rand.Rand) string {
	name := draw(random, "istio-system/public", "istio-system/edge", "a/inner")
	namespace, bare, _ := strings.Cut(name, "/")
	text := "apiVersion: networking.istio.io/v1\nkind: Gateway\n" + metadataText(random, namespace, bare) + "spec:\n"
	text += "  selector: " + draw(random, "{istio: ingress}", "{istio: ingress}", "{istio: ingress, tier: edge}", "{tier: edge}", "{}") + "\n  servers:\n"
	for _, server := range append(some(random, 2, "{port: {number: 8080, name: b, protocol: HTTP}, hosts: ['*.test']}", "{port: {number: 7, name: t, protocol: TCP}, hosts: ['*']}"),
		"{port: {number: 80, name: a, protocol: HTTP}, hosts: "+draw(random, "['*']", "['*']", "[v0.test]", "[a/*, b/v1.test]")+"}") {
		text += "  - " + server + "\n"
	}
	if random.IntN(4) == 0 {
		for i := range 9 {
			text += fmt.Sprintf("  - {port: {number: 443, name: s%d, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: c}, hosts: [%s]}\n", i, draw(random, fmt.Sprintf("v%d.test", i), "other.example"))
		}
	}
	return text
}

func pluginText(random *rand.Rand) string {
	text := "apiVersion: plugins.istio.io/v1alpha1\n"
	if random.IntN(4) == 0 {
		text += fmt.Sprintf("kind: ClusterPlugin\nmetadata: {name: %s}\n", draw(random, "p0", "c0", "cors"))
	} else {
		text += fmt.Sprintf("kind: Plugin\nmetadata: {namespace: %s, name: %s}\n", draw(random, "a", "b"), draw(random, "p0", "p1", "p2", "p3", "cors"))
	}
	n := random.IntN(3)
	text += "spec:\n" + draw(random,
		fmt.Sprintf("  builtin: rate-limiting\n  config: {minute: %d}\n", 1+n),
		fmt.Sprintf("  builtin: rate-limiting\n  config: {minute: %d, limit_by: ip}\n", 1+n),
		fmt.Sprintf("  builtin: rate-limiting-global\n  config: {service: {host: limits.example, port: 9000}, minute: %d}\n", 1+n),
		fmt.Sprintf("  builtin: ip-restriction\n  config: {deny: [192.0.2.%d]}\n", 1+n),
		fmt.Sprintf("  builtin: request-termination\n  config: {status_code: %d}\n", 410+n),
		"  builtin: rate-limiting\n  config: {minut: 1}\n",
		"  builtin: key-auth\n  config: {consumers_from: [b]}\n",
		"  builtin: key-auth\n",
		"  builtin: basic-auth\n",
		"  builtin: acl\n  config: {allow: [g0]}\n",
		fmt.Sprintf("  builtin: correlation-id\n  config: {header_name: x-%d}\n", n),
		"  builtin: nonsense\n",
		"  extAuth: {service: {host: authz.a, port: 9000}}\n",
		"  builtin: ext-auth\n  config: {service: {host: authz, port: 9000}}\n",
		"  extProc: {service: {host: authz.example, port: 9000}}\n",
		fmt.Sprintf("  lua: {inline: 'return {request = function() end} -- %d'}\n", n),
		"  lua: {inline: 'return {request = function(h) pdk.call(h, 1) end}', services: [{name: a, host: authz.a, port: 9000}]}\n",
		"  lua: {inline: 'return {}', services: [{name: a, host: authz, port: 9000}, {name: b, host: authz.example, port: 9000}]}\n",
		"  lua: {inline: 'local a = pdk.authenticate return {}'}\n",
		"  lua: {inline: 'return {'}\n",
		fmt.Sprintf("  lua: {configMapRef: {name: m%d, key: k0}}\n", random.IntN(2)),
		fmt.Sprintf("  wasm: {url: 'oci://example/%d'}\n", n),
		fmt.Sprintf("  wasm: {url: 'oci://example/%d', imagePullSecret: s}\n", n),
		fmt.Sprintf("  envoy: {typedConfig: {'@type': type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_bytes: %d}}\n", 1+n),
		"  envoy: {typedConfig: {'@type': type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_bytes: x}}\n",
		"  builtin: cors\n  lua: {inline: 'return {}'}\n",
		"  builtin: [cors]\n", // malformed
		"  builtin: rate-limiting\n  configFrom: {secretKeyRef: {name: c0, key: config}}\n",
		"  builtin: rate-limiting\n  config: {limit_by: ip}\n  configPatches: [{path: /minute, valueFrom: {secretKeyRef: {name: c1, key: number}}}]\n",
		"  builtin: correlation-id\n  config: {header_name: {secretKeyRef: {name: c1, key: text}}}\n",
		"  lua: {inline: 'return {}'}\n  config: {keys: [{secretKeyRef: {name: s0, key: key}}]}\n  configPatches: [{path: /keys/-, valueFrom: {secretKeyRef: {name: c0, key: number}}}]\n",
		"  wasm: {url: 'oci://example/1'}\n  configFrom: {secretKeyRef: {name: c0, key: config}}\n",
		"  envoy: {typedConfig: {'@type': type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer}}\n  configPatches: [{path: /max_request_bytes, valueFrom: {secretKeyRef: {name: c1, key: number}}}]\n",
	)
	for _, field := range some(random, 1, "  failurePolicy: FailOpen\n", "  priority: 5\n") {
		text += field
	}
	return text
}

func otherText(random *rand.Rand) string {
	namespace, n := draw(random, "a", "b"), random.IntN(2)
	return draw(random,
		fmt.Sprintf("apiVersion: plugins.istio.io/v1alpha1\nkind: Consumer\nmetadata: {namespace: %s, name: u%d}\nspec: {username: u%d, credentials: [s0, %s], groups: [%s]}\n", namespace, n, random.IntN(2), draw(random, "s1", "s2"), draw(random, "g0", "g1")),
		fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {namespace: %s, name: s%d, labels: {plugins.istio.io/credential: %s}}\nstringData: {key: %s}\n", namespace, n, draw(random, "key-auth", "key-auth", "nonsense"), draw(random, "one", "two", "''")),
		fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {namespace: %s, name: c%d}\nstringData: {config: '%s', number: '%s', text: x-%d}\n", draw(random, "a", "b", "istio-system"), n, draw(random, "minute: 1", "minute: 2", "minut: 1", "x"), draw(random, "1", "2", "x"), random.IntN(3)),
		fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {namespace: %s, name: m%d}\ndata: {%s: 'return {} -- %d'}\n", draw(random, "a", "b", "istio-system"), n, draw(random, "k0", "k0", "k1"), random.IntN(3)),
		fmt.Sprintf("apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {namespace: %s, name: plugins}\nspec: {from: [{group: networking.istio.io, kind: %s, namespace: %s}], to: [{group: plugins.istio.io, kind: Plugin}]}\n", namespace, draw(random, "VirtualService", "Gateway"), draw(random, "a", "b", "istio-system")),
		fmt.Sprintf("apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {namespace: b, name: consumers}\nspec: {from: [{group: plugins.istio.io, kind: Plugin, namespace: %s}], to: [{group: plugins.istio.io, kind: Consumer}]}\n", draw(random, "a", "istio-system")),
		fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {namespace: istio-system, name: gateway}\nspec: {selector: {istio: ingress}, ports: [{port: 80, targetPort: %s}]}\n", draw(random, "8080", "web", "80")),
		fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {namespace: a, name: authz}\nspec: {ports: [{port: %s, name: %s}]}\n", draw(random, "9000", "9000", "9001"), draw(random, "grpc", "http")),
		fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {namespace: b, name: authz}\nspec: {hosts: [%s], exportTo: ['%s'], ports: [{number: 9000, name: p, protocol: %s}]}\n", draw(random, "authz.example", "authz"), draw(random, "*", "."), draw(random, "GRPC", "HTTP")),
		"apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n"+metadataText(random, namespace, "h")+"spec: {}\n",
	)
}

// bases are worlds to begin with, in which a gateway's limits are near.
var bases = []func() string{
	func() string { return baseGateway },
	func() string { return populated },
	func() string { return populated },
	func() string { return populated },
	func() string { // more Wasm plugins than a gateway has places for
		text := baseGateway + "---\napiVersion: plugins.istio.io/v1alpha1\nkind: Plugin\nmetadata: {namespace: a, name: p0}\nspec: {wasm: {url: 'oci://example/0'}}\n"
		for i := range 66 {
			text += service(fmt.Sprintf("w%d", i), fmt.Sprintf("[{name: p0, config: {x: %d}}]", i))
		}
		return text
	},
	func() string { // more Lua than an object holds
		text := baseGateway
		var names []string
		for i := range 11 {
			name := fmt.Sprintf("large-%d", i)
			names = append(names, name)
			text += fmt.Sprintf("---\napiVersion: plugins.istio.io/v1alpha1\nkind: Plugin\nmetadata: {namespace: a, name: %s}\nspec: {lua: {inline: 'return {} -- %s'}}\n", name, strings.Repeat(name, 13_000))
			text += service(fmt.Sprintf("l%d", i), strings.Join(names[max(0, i-1):], ", "))
		}
		return text
	},
}

const baseGateway = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {namespace: istio-system, name: public}
spec:
  selector: {istio: ingress}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
`

// populated has one of everything that edits change.
const populated = baseGateway + `
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {namespace: a, name: v0, annotations: {istio.io/plugins: "cors, key-auth, p0, p1, p2"}}
spec: {hosts: [v0.test], gateways: [istio-system/public], http: [{name: api, route: [{destination: {host: x}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {namespace: b, name: v1, annotations: {istio.io/plugins: "[p0, key-auth, {name: rate-limiting, config: {minute: 3}}, {name: c0, config: {deny: [192.0.2.7]}}, acl]"}}
spec: {hosts: [v1.test], gateways: [istio-system/public, istio-system/edge], http: [{name: api, delegate: {name: d0, namespace: a}}, {route: [{destination: {host: x}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {namespace: a, name: d0, annotations: {istio.io/plugins: "c0, p2, p3"}}
spec: {http: [{name: pages, route: [{destination: {host: x}}]}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {namespace: istio-system, name: edge, annotations: {istio.io/plugins: "[{name: c0, override: true}]"}}
spec:
  selector: {istio: ingress, tier: edge}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {namespace: a, name: p0}
spec: {builtin: rate-limiting, config: {minute: 9}}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {namespace: b, name: p0}
spec: {builtin: key-auth, config: {consumers_from: [a]}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {namespace: b, name: limits}
spec: {hosts: [limits.example], ports: [{number: 9000, name: grpc, protocol: GRPC}]}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {namespace: a, name: p1}
spec: {lua: {configMapRef: {name: m0, key: k0}}}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {namespace: a, name: p2}
spec: {wasm: {url: 'oci://example/9'}}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {namespace: a, name: p3}
spec: {lua: {inline: 'return {}'}, config: {text: {secretKeyRef: {name: c0, key: text}}}, configPatches: [{path: /number, valueFrom: {secretKeyRef: {name: c0, key: number}}}]}
---
apiVersion: v1
kind: Secret
metadata: {namespace: a, name: c0}
stringData: {config: 'minute: 9', number: '9', text: nine}
---
apiVersion: plugins.istio.io/v1alpha1
kind: ClusterPlugin
metadata: {name: c0}
spec: {builtin: ip-restriction, config: {deny: [192.0.2.1]}}
---
apiVersion: v1
kind: ConfigMap
metadata: {namespace: a, name: m0}
data: {k0: 'return {} -- 9'}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Consumer
metadata: {namespace: a, name: u0}
spec: {username: u0, credentials: [s0, s1], groups: [g0]}
---
apiVersion: v1
kind: Secret
metadata: {namespace: a, name: s0, labels: {plugins.istio.io/credential: key-auth}}
stringData: {key: nine}
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {namespace: a, name: consumers}
spec: {from: [{group: plugins.istio.io, kind: Plugin, namespace: b}], to: [{group: plugins.istio.io, kind: Consumer}]}
`

func service(name, annotation string) string {
	return fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {namespace: a, name: %s, annotations: {istio.io/plugins: "%s"}}
spec: {hosts: [%s.test], gateways: [istio-system/public], http: [{route: [{destination: {host: x}}]}]}
`, name, annotation, name)
}

// describe is all that a result says, its objects aside, in lines.
func describe(r *compile.Result) []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, o := range r.Objects {
		add("object %s %v %d", o.Name(), o.Resources, o.Size)
	}
	for _, f := range r.Findings {
		add("finding %#v", f)
	}
	for _, s := range r.Services {
		add("service %s on %s", s.VirtualService.Ref(), s.Workload.ID)
		for _, g := range s.Groups {
			var gateways []string
			for _, gateway := range g.Gateways {
				gateways = append(gateways, fmt.Sprint(gateway.Ref(), gateway.Object.ResourceVersion, gateway.Ports, gateway.AnyPort, gateway.Workload.ID, len(gateway.Bound)))
			}
			add("  ports %v of %q", g.Ports, gateways)
			for _, route := range append([]compile.RouteChain{g.Default}, g.Named...) {
				add("    route %q: %s; skips %s; refused %s", route.Name, stepsText(route.Chain.Steps), stepsText(route.Skipped), issueText(route.Refused))
				for _, refusal := range route.Chain.Refusals {
					add("      refusal %q %v %s", refusal.Plugin, refusal.Override, issueText(refusal.Issue))
				}
			}
		}
	}
	for _, p := range r.Plugins {
		add("plugin %#v", p)
	}
	for _, o := range r.Origins() {
		add("origin %#v", o)
	}
	for _, v := range r.Topology.VirtualServices {
		add("virtual service %s at version %s: mesh %v, missing %v", v.Key, v.Object.ResourceVersion, v.Mesh, v.Missing)
		for _, route := range v.Routes {
			version := ""
			if route.Delegate != nil {
				version = route.Delegate.Name + " at version " + route.Delegate.ResourceVersion
			}
			add("  route %q %q %d %s %q %d %v", route.Name, route.Root, route.Index, version, route.DelegateRoute, route.DelegateIndex, route.Gateways)
		}
	}
	add("delegates %v, attached routes %d", r.Topology.Delegates, r.AttachedRoutes())
	return out
}

func stepsText(steps []resolve.Step) string {
	var out []string
	for _, s := range steps {
		text := s.Plugin.ID + " " + string(s.Config().JSON())
		for _, e := range s.Layers() {
			text += " " + e.Level.Object.String() + e.Place
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func issueText(i *resolve.Issue) string {
	if i == nil {
		return "no"
	}
	return fmt.Sprintf("%#v", *i)
}

// check compiles what is there, and returns how that differs from what a fresh Compiler makes of it.
func (w *world) check(random *rand.Rand) string {
	s := w.snapshot(random)
	got, want := w.compiler.Compile(s), compile.Compile(s)
	w.last = got
	return diffLines(describe(want), describe(got)) + diffObjects(want, got)
}

func diffObjects(want, got *compile.Result) string {
	if len(want.Objects) != len(got.Objects) {
		return fmt.Sprintf("%d objects, not %d\n", len(got.Objects), len(want.Objects))
	}
	for i, o := range got.Objects {
		if w := want.Objects[i]; !emit.Equal(w, o) || !emit.Equal(o, w) {
			text := cmp.Diff(manifest.Of(w), manifest.Of(o))
			return o.Name() + ":\n" + text[:min(len(text), 5_000)]
		}
	}
	return ""
}

// text is everything that a result says, with its objects as they are printed.
func text(t testing.TB, r *compile.Result) []string {
	return append(describe(r), printed(t, r))
}

func diffLines(want, got []string) string {
	if slices.Equal(want, got) {
		return ""
	}
	text := cmp.Diff(want, got)
	return text[:min(len(text), 5_000)]
}

// run makes edits, the first of which chooses the world, and compiles after most of them. It returns what was wrong, and
// what was done until then.
func run(t testing.TB, edits []edit) (wrong string, done []string) {
	if len(edits) == 0 {
		return "", nil
	}
	first := rand.New(rand.NewPCG(uint64(edits[0]), 8))
	o := snapshot.Options{RootNamespace: "istio-system", UnknownRoutes: draw(first, snapshot.AllowUnknown, snapshot.AllowUnknown, snapshot.DenyUnknown)}
	w := newWorld(o.Defaults())
	base := first.IntN(len(bases))
	w.apply(t, bases[base]())
	done = append(done, fmt.Sprintf("begin with base %d, unknown routes: %s", base, o.UnknownRoutes))
	var early, copied *compile.Result
	var said []string
	for i, e := range edits[1:] {
		done = append(done, fmt.Sprintf("%d: %s", e, w.do(t, e)))
		random := rand.New(rand.NewPCG(uint64(e), 9))
		if random.IntN(4) == 0 && i < len(edits)-2 {
			continue // several edits at once
		}
		if wrong := w.check(random); wrong != "" {
			return wrong, done
		}
		if i == len(edits)/2 {
			early, copied, said = w.last, &compile.Result{}, describe(w.last)
			for _, o := range early.Objects {
				copied.Objects = append(copied.Objects, emit.Object{EnvoyFilter: o.EnvoyFilter.DeepCopy(), WasmPlugin: o.WasmPlugin.DeepCopy()})
			}
		}
	}
	if early != nil {
		changed := diffLines(said, describe(early)) + diffObjects(copied, early)
		if changed != "" {
			return "an earlier result has changed:\n" + changed, done
		}
	}
	if w.last != nil {
		fresh := compile.Compile(w.snapshot(rand.New(rand.NewPCG(1, 2))))
		return diffLines(text(t, fresh), text(t, w.last)), done
	}
	return "", done
}

// shrink leaves edits out for as long as something is wrong.
func shrink(t testing.TB, edits []edit) []edit {
	for size := len(edits) / 2; size > 0; {
		shorter := false
		for at := 1; at+size <= len(edits); {
			less := slices.Delete(slices.Clone(edits), at, at+size)
			if wrong, _ := run(t, less); wrong != "" {
				edits, shorter = less, true
			} else {
				at += size
			}
		}
		if !shorter {
			size /= 2
		}
	}
	return edits
}

func prove(t testing.TB, edits []edit) {
	t.Helper()
	if wrong, _ := run(t, edits); wrong == "" {
		return
	}
	edits = shrink(t, edits)
	wrong, done := run(t, edits)
	t.Fatalf("what is compiled after these edits (%v) is not what a full compile makes:\n%s\n(-full +incremental):\n%s", edits, strings.Join(done, "\n"), wrong)
}

// TestEditsEndAsAFullCompile makes random edits. However they came about, the same objects compile to the same result.
func TestEditsEndAsAFullCompile(t *testing.T) {
	seeds := 12
	if testing.Short() {
		seeds = 4
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(uint64(seed), 6))
			edits := make([]edit, 40)
			for i := range edits {
				edits[i] = edit(random.Uint32())
			}
			prove(t, edits)
		})
	}
}

// FuzzEdits lets the fuzzer choose the edits, two bytes for each.
func FuzzEdits(f *testing.F) {
	f.Add([]byte("any sequence of edits"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var edits []edit
		for ; len(text) >= 2 && len(edits) < 60; text = text[2:] {
			edits = append(edits, edit(text[0])<<8|edit(text[1]))
		}
		prove(t, edits)
	})
}

// TestUnchangedObjectsAreTheSame is what the controller relies on to see at once what it need not write.
func TestUnchangedObjectsAreTheSame(t *testing.T) {
	s := mesh(100, true)
	var c compile.Compiler
	was := c.Compile(s)
	vs := s.VirtualServices[7].DeepCopy()
	s.VirtualServices[7] = vs
	if n := len(changedObjects(was, c.Compile(s))); n > 0 {
		t.Errorf("an equal VirtualService changes %d objects", n)
	}
	vs = vs.DeepCopy()
	s.VirtualServices[7] = vs
	vs.Annotations["istio.io/plugins"] = "[{name: limit, config: {minute: 8}}]"
	is := c.Compile(s)
	// Its binding, and the filter of its rate limit, which moves from the third slot to the first.
	if got := changedObjects(was, is); len(got) == 0 || len(got) > 3 {
		t.Errorf("an edit changes %q", got)
	}
}

func changedObjects(was, is *compile.Result) []string {
	var out []string
	for _, o := range is.Objects {
		if !slices.ContainsFunc(was.Objects, func(p emit.Object) bool { return p.EnvoyFilter == o.EnvoyFilter }) {
			out = append(out, o.Name())
		}
	}
	return out
}
