package files_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/files"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// load reads text as a file on stdin.
func load(t *testing.T, text string) *snapshot.Snapshot {
	t.Helper()
	s, err := files.Load(snapshot.Options{}, "", []string{files.Stdin}, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// malformed are the problems of a snapshot, one line each, as a user would see them.
func malformed(s *snapshot.Snapshot) []string {
	var out []string
	for _, m := range s.Malformed {
		line := s.Sources[m.Object].FieldLine(m.Place)
		out = append(out, fmt.Sprintf("%d %s %s: %s", line, m.Object, m.Place, m.Error))
	}
	return out
}

// names are all objects of a snapshot.
func names(s *snapshot.Snapshot) []string {
	var out []string
	add := func(kind, namespace, name string) {
		out = append(out, finding.Object{Kind: kind, Namespace: namespace, Name: name}.String())
	}
	for _, o := range s.VirtualServices {
		add(o.Kind, o.Namespace, o.Name)
	}
	for _, o := range s.Gateways {
		add(o.Kind, o.Namespace, o.Name)
	}
	for _, o := range s.Plugins {
		add(o.Kind, o.Namespace, o.Name)
	}
	for _, o := range s.ClusterPlugins {
		add(o.Kind, o.Namespace, o.Name)
	}
	for _, o := range s.Consumers {
		add(o.Kind, o.Namespace, o.Name)
	}
	for _, o := range s.Secrets {
		add(o.Kind, o.Namespace, o.Name)
	}
	for _, o := range s.ConfigMaps {
		add(o.Kind, o.Namespace, o.Name)
	}
	for _, o := range s.Services {
		add(o.Kind, o.Namespace, o.Name)
	}
	for _, o := range s.ReferenceGrants {
		add(o.Kind, o.Namespace, o.Name)
	}
	for _, o := range s.HTTPRoutes {
		add(o.Kind, o.Namespace, o.Name)
	}
	for _, o := range s.EnvoyFilters {
		add(o.Kind, o.Namespace, o.Name)
	}
	for _, o := range s.WasmPlugins {
		add(o.Kind, o.Namespace, o.Name)
	}
	return out
}

const everyKind = `# A comment before the first object.
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec: {hosts: [a.example.com]}
---
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: b, namespace: shop}
spec: {hosts: [b.example.com]}
---
apiVersion: networking.istio.io/v1alpha3
kind: Gateway
metadata: {name: a}
spec: {servers: [{port: {number: 80, protocol: HTTP, name: http}, hosts: ["*"]}]}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: a}
spec: {builtin: cors}
---
apiVersion: plugins.istio.io/v1alpha1
kind: ClusterPlugin
metadata: {name: a, namespace: ignored}
spec: {builtin: cors}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Consumer
metadata: {name: a}
spec: {username: a}
---
apiVersion: v1
kind: Secret
metadata: {name: a, labels: {plugins.istio.io/credential: key-auth}}
---
apiVersion: v1
kind: Secret
metadata: {name: b, labels: {konghq.com/credential: key-auth}}
---
apiVersion: v1
kind: Secret
metadata: {name: no-credential, labels: {app: shop}}
---
apiVersion: v1
kind: Secret
metadata: {name: not-a-credential}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}
---
apiVersion: v1
kind: Service
metadata: {name: a}
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: a}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: b}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: a}
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: a, labels: {istio-plugins/generated: "true"}}
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: not-generated}
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: a, labels: {istio-plugins/generated: "true"}}
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: not-generated}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: not-istio}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: another-kind}
---
values: of a chart
---
- a list
---
`

func TestLoadReadsEveryKind(t *testing.T) {
	s := load(t, everyKind)
	want := []string{
		"virtualservice/default/a", "virtualservice/shop/b", "gateway/default/a", "plugin/default/a", "clusterplugin/a",
		"consumer/default/a", "secret/default/a", "secret/default/b", "secret/default/no-credential", "secret/default/not-a-credential", "configmap/default/a", "service/default/a",
		"referencegrant/default/a", "referencegrant/default/b", "httproute/default/a", "envoyfilter/default/a", "wasmplugin/default/a",
	}
	if diff := cmp.Diff(want, names(s)); diff != "" {
		t.Error(diff)
	}
	if len(s.Malformed) > 0 {
		t.Error(malformed(s))
	}
	for _, vs := range s.VirtualServices {
		if vs.APIVersion != "networking.istio.io/v1" {
			t.Errorf("%s has version %s", vs.Name, vs.APIVersion)
		}
	}
	if s.Options != (snapshot.Options{}).Defaults() {
		t.Errorf("options without defaults: %+v", s.Options)
	}
}

func TestLoadFillsDefaultsIn(t *testing.T) {
	s := load(t, "apiVersion: plugins.istio.io/v1alpha1\nkind: Plugin\nmetadata: {name: a}\nspec: {builtin: cors, config: {origins: [on, 010]}}\nstatus: {nonsense: 1}\n")
	p := s.Plugins[0].Spec
	if p.FailurePolicy != "FailClosed" || string(p.Config.Raw) != `{"origins":[true,8]}` {
		t.Errorf("got %+v with config %s", p, p.Config.Raw)
	}
}

func TestLoadDecodesCredentials(t *testing.T) {
	s := load(t, `apiVersion: v1
kind: Secret
metadata: {name: a, labels: {plugins.istio.io/credential: basic-auth}}
data: {username: YWxpY2U=, password: b2xk}
stringData: {password: new}
`)
	want := map[string][]byte{"username": []byte("alice"), "password": []byte("new")}
	if diff := cmp.Diff(want, s.Secrets[0].Data); diff != "" || s.Secrets[0].StringData != nil {
		t.Error(diff, s.Secrets[0].StringData)
	}
}

// A Secret that is no credential matters only if a Plugin names it.
func TestLoadPassesOtherSecretsBy(t *testing.T) {
	const broken = "---\n{apiVersion: v1, kind: Secret, metadata: {name: s}, data: {key: no base64}}\n"
	if s := load(t, broken); len(s.Malformed) > 0 || len(s.Unlabelled) != 1 {
		t.Errorf("%v, passed by are %v", malformed(s), s.Unlabelled)
	}
	for _, spec := range []string{
		"{builtin: cors, configFrom: {secretKeyRef: {name: s, key: key}}}",
		"{builtin: cors, config: {origins: [{secretKeyRef: {name: s, key: key}}]}}",
		"{builtin: cors, configPatches: [{path: /max_age, valueFrom: {secretKeyRef: {name: s, key: key}}}]}",
	} {
		s := load(t, broken+"---\n{apiVersion: plugins.istio.io/v1alpha1, kind: Plugin, metadata: {name: p}, spec: "+spec+"}")
		if got := strings.Join(malformed(s), "\n"); !strings.Contains(got, "secret/default/s data.key: is no base64") {
			t.Errorf("%s: %s", spec, got)
		}
	}
}

func TestLoadLists(t *testing.T) {
	s := load(t, `---
# what kubectl get -o yaml prints
apiVersion: v1
kind: List
items:
- apiVersion: networking.istio.io/v1
  kind: VirtualService
  metadata:
    name: a
- apiVersion: plugins.istio.io/v1alpha1
  kind: Plugin
  metadata: {name: a}
  spec:
    builtin: cors
    prority: 1
---
# what the API server sends
apiVersion: plugins.istio.io/v1alpha1
kind: PluginList
items:
- metadata: {name: b}
  spec: {builtin: cors}
`)
	if diff := cmp.Diff([]string{"virtualservice/default/a", "plugin/default/b"}, names(s)); diff != "" {
		t.Error(diff)
	}
	want := []string{`15 plugin/default/a spec.prority: unknown field, did you mean "priority"?`}
	if diff := cmp.Diff(want, malformed(s)); diff != "" {
		t.Error(diff)
	}
	if line := s.Sources[finding.Object{Kind: "Plugin", Namespace: "default", Name: "a"}].Line; line != 10 {
		t.Errorf("the list's second item is on line %d", line)
	}
}

func TestLoadJSON(t *testing.T) {
	s := load(t, "\n{\"apiVersion\": \"plugins.istio.io/v1alpha1\", \"kind\": \"Plugin\", \"metadata\": {\"name\": \"a\"},\n\t\"spec\": {\"lua\": {\"inline\": \"-- \\ud83d\\ude00\"}}}\n"+
		"{\"apiVersion\": \"plugins.istio.io/v1alpha1\",\n \"kind\": \"Plugin\",\n \"metadata\": {\"name\": \"b\"},\n \"spec\": {\"priority\": \"1\", \"builtin\": \"cors\"}}")
	if len(s.Plugins) != 1 || s.Plugins[0].Spec.Lua.Inline != "-- 😀" {
		t.Errorf("got %v", names(s))
	}
	want := []string{`7 plugin/default/b spec.priority: Invalid value: "string": spec.priority in body must be of type integer: "string"`}
	if diff := cmp.Diff(want, malformed(s)); diff != "" {
		t.Error(diff)
	}
}

func TestLoadReportsMalformedObjects(t *testing.T) {
	const head = "apiVersion: plugins.istio.io/v1alpha1\nkind: Plugin\nmetadata: {name: a}\n"
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"two kinds of plugin": {head + "spec: {builtin: cors, lua: {inline: x}}\n",
			[]string{`4 plugin/default/a spec: Invalid value: exactly one of builtin, lua, wasm, envoy, extAuth and extProc must be set`}},
		"several mistakes": {head + "spec:\n  builtin: cors\n  failurePolicy: failOpen\n  desription: x\n",
			[]string{`7 plugin/default/a spec.desription: unknown field, did you mean "description"?`,
				`6 plugin/default/a spec.failurePolicy: Unsupported value: "failOpen": supported values: "FailClosed", "FailOpen"`}},
		"no spec": {head, []string{`1 plugin/default/a spec: Required value`}},
		"a field given twice": {head + "spec:\n  builtin: cors\n  config:\n    a: 1\n    a: 2\n",
			[]string{`1 plugin/default/a : the field "a" is given again on line 8`}},
		"an unknown version": {"apiVersion: plugins.istio.io/v1\nkind: Plugin\nmetadata: {name: a}\nspec: {builtin: cors}\n",
			[]string{`1 plugin/default/a apiVersion: Plugin has no version "v1": write plugins.istio.io/v1alpha1`}},
		"an unknown kind of ours": {"apiVersion: plugins.istio.io/v1alpha1\nkind: Plugn\nmetadata: {name: a}\n",
			[]string{`2 plugn/default/a kind: there is no kind "Plugn" in plugins.istio.io, did you mean "Plugin"?`}},
		"no name": {"apiVersion: plugins.istio.io/v1alpha1\nkind: Plugin\nmetadata: {nam: a}\nspec: {builtin: cors}\n",
			[]string{`3 plugin/default/ metadata: unknown field "nam"`, `3 plugin/default/ metadata.name: is required`}},
		"no metadata":   {"apiVersion: plugins.istio.io/v1alpha1\nkind: Plugin\nspec: {builtin: cors}\n", []string{`1 plugin/default/ metadata: is required, a map with a name`}},
		"a wrong name":  {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: A_b}\n", []string{`3 configmap/default/A_b metadata.name: "A_b" is no name of an object: lower case letters, digits, "-" and "." make one, up to 253`}},
		"a wrong place": {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: b.c}\n", []string{`3 configmap/b.c/a metadata.namespace: "b.c" is no name of a namespace: lower case letters, digits and "-" make one, up to 63`}},
		"an annotation that is a list": {"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: a\n  annotations:\n    istio.io/plugins: [cors]\n",
			[]string{`6 virtualservice/default/a metadata.annotations[istio.io/plugins]: must be a string, not a list: write it as text, with | after the colon`}},
		"an annotation that is a boolean": {"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: a\n  annotations:\n    istio.io/plugins: on\n",
			[]string{`6 virtualservice/default/a metadata.annotations[istio.io/plugins]: must be a string, not a boolean: put it in quotes`}},
		"data that is no base64": {"apiVersion: v1\nkind: Secret\nmetadata:\n  name: a\n  labels: {plugins.istio.io/credential: key-auth}\ndata:\n  key.x: s3cr3t!\n",
			[]string{`7 secret/default/a data.key.x: is no base64: encode it, or write it under stringData`}},
		"a number as a credential": {"apiVersion: v1\nkind: Secret\nmetadata:\n  name: a\n  labels: {plugins.istio.io/credential: key-auth}\nstringData:\n  key: 4711\n",
			[]string{`7 secret/default/a stringData[key]: must be a string, not a number: put it in quotes`}},
		"a wrong type in a Service": {"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - port: http\n",
			[]string{`5 service/default/a spec.ports.port: is of the wrong type, string`}},
	} {
		t.Run(name, func(t *testing.T) {
			good := "\n---\napiVersion: plugins.istio.io/v1alpha1\nkind: Plugin\nmetadata: {name: good}\nspec: {builtin: cors}\n"
			s := load(t, c.text+good)
			if diff := cmp.Diff(c.want, malformed(s)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff([]string{"plugin/default/good"}, names(s)); diff != "" {
				t.Errorf("other objects, -want +got:\n%s", diff)
			}
		})
	}
}

// istiod passes unknown fields by and refuses wrong types; an object that istiod has never seen must not look fine here.
func TestLoadDecodesIstioAsIstiodDoes(t *testing.T) {
	const head = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a, annotations: {istio.io/plugins: cors}}\n"
	if s := load(t, head+"spec: {hosts: [a], fromTheFuture: {a: 1}}\n"); len(s.VirtualServices) != 1 || len(s.Malformed) > 0 {
		t.Errorf("an unknown field: %v %v", names(s), malformed(s))
	}
	for spec, want := range map[string]string{
		"spec: []":                 `4 virtualservice/default/a spec: must be a map, not a list`,
		"spec:\n  hosts: a\n":      `5 virtualservice/default/a spec.hosts: must be a list, not a string`,
		"spec:\n  hosts: [a, 1]\n": `5 virtualservice/default/a spec.hosts[1]: must be of type string, not a number`,
		"spec:\n  http:\n  - name: a\n  - timeout: 5x\n":                  `7 virtualservice/default/a spec.http[1].timeout: 5x is no duration: write it as 1.5s`,
		"spec:\n  http:\n  - route:\n    - weight: many\n":                `7 virtualservice/default/a spec.http[0].route[0].weight: must be of type int32, not a string`,
		"spec:\n  http:\n  - route: {}\n":                                 `6 virtualservice/default/a spec.http[0].route: must be a list, not a map`,
		"spec:\n  http:\n  - match:\n    - uri:\n        prefix: [a]\n":   `8 virtualservice/default/a spec.http[0].match[0].uri.prefix: must be of type string, not a list`,
		"spec:\n  http:\n  - redirect:\n      derivePort: FROM_NOWHERE\n": `7 virtualservice/default/a spec.http[0].redirect.derivePort: FROM_NOWHERE is unknown, known are FROM_PROTOCOL_DEFAULT, FROM_REQUEST_PORT`,
	} {
		s := load(t, head+spec)
		if diff := cmp.Diff([]string{want}, malformed(s)); diff != "" {
			t.Errorf("%q, -want +got:\n%s", spec, diff)
			continue
		}
		if s.Malformed[0].Annotation != "cors" || len(s.VirtualServices) != 0 {
			t.Errorf("%q: got %+v", spec, s.Malformed)
		}
	}
}

func TestFieldLine(t *testing.T) {
	s := load(t, `
---
# a comment
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata:
  name: a
  annotations:
    istio.io/plugins: cors
spec:
  builtin: mocking
  config:
    list:
    - a
    - b: 1
      c.d:
        e: 2
`)
	source := s.Sources[finding.Object{Kind: "Plugin", Namespace: "default", Name: "a"}]
	if source.File != "stdin" || source.Line != 4 {
		t.Errorf("the object is at %s:%d", source.File, source.Line)
	}
	for path, want := range map[string]int{
		"": 4, "kind": 5, "metadata.name": 7, "metadata.annotations[istio.io/plugins]@14": 9, "metadata.annotations[istio.io/plugins][2].routes": 9,
		"spec": 10, "spec.config.list": 13, "spec.config.list[0]": 14, "spec.config.list[1].b": 15, "spec.config.list[1].c.d.e": 17,
		"spec.config.list[7].b": 13, "spec.config.lis": 12, "spec.config.nothing.there": 12, "status": 4,
	} {
		if got := source.FieldLine(path); got != want {
			t.Errorf("%q is on line %d, want %d", path, got, want)
		}
	}
}

func TestLoadErrors(t *testing.T) {
	const plugin = "apiVersion: plugins.istio.io/v1alpha1\nkind: Plugin\nmetadata: {name: a}\nspec: {builtin: cors}\n"
	for name, c := range map[string]struct{ text, want string }{
		"text that is no YAML":       {plugin + "---\n\na: b\n  c: d\n", "stdin:8: this is not valid YAML: mapping values are not allowed in this context"},
		"all of it":                  {"a: [\n---\nb: {\n", "stdin:1: this is not valid YAML: did not find expected node content\nstdin:3: this is not valid YAML: did not find expected node content"},
		"the same object twice":      {plugin + "---\n" + plugin, "stdin:6: plugin/default/a is in stdin:1 already"},
		"in the default namespace":   {plugin + "---\n" + strings.Replace(plugin, "name: a", "name: a, namespace: default", 1), "stdin:6: plugin/default/a is in stdin:1 already"},
		"in another version":         {"apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: a}\n---\napiVersion: networking.istio.io/v1beta1\nkind: Gateway\nmetadata: {name: a}\n", "stdin:5: gateway/default/a is in stdin:1 already"},
		"an object without a kind":   {"apiVersion: plugins.istio.io/v1alpha1\nmetadata: {name: a}\n", "stdin:1: an object of plugins.istio.io/v1alpha1 has no kind"},
		"an object without version":  {"kind: Plugin\nmetadata: {name: a}\n", "stdin:1: an object of kind Plugin has no apiVersion"},
		"JSON that breaks off":       {"\n{\"a\": 1}\n{\"b\": ", "stdin:2: this is not valid YAML: did not find expected <document start>"},
		"an object behind a \"...\"": {plugin + "...\n" + plugin, "stdin:6: plugin/default/a is in stdin:1 already"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := files.Load(snapshot.Options{}, "", []string{files.Stdin}, strings.NewReader(c.text))
			if err == nil || err.Error() != c.want || s != nil {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// A short file must not become a huge value, here of 10^9 strings.
func TestBillionLaughs(t *testing.T) {
	text := "apiVersion: plugins.istio.io/v1alpha1\nkind: Plugin\nmetadata: {name: a}\nspec:\n  config:\n    a: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c <= 'i'; c++ {
		text += fmt.Sprintf("    %c: &%c [%s*%c]\n", c, c, strings.Repeat(fmt.Sprintf("*%c, ", c-1), 9), c-1)
	}
	_, err := files.Load(snapshot.Options{}, "", []string{files.Stdin}, strings.NewReader(text))
	if want := "stdin:1: this is not valid YAML: document contains excessive aliasing"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	s := load(t, "apiVersion: plugins.istio.io/v1alpha1\nkind: Plugin\nmetadata: &m {name: a}\nspec: {builtin: cors, config: {a: &a {b: 1}, c: *a, d: {<<: *a}}}\n")
	if got, want := string(s.Plugins[0].Spec.Config.Raw), `{"a":{"b":1},"c":{"b":1},"d":{"b":1}}`; got != want {
		t.Errorf("aliases as kubectl has them: got %s, want %s", got, want)
	}
}

func TestLoadFolders(t *testing.T) {
	folder := t.TempDir()
	write := func(path, name string) string {
		path = filepath.Join(folder, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "+name+"}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("b.yml", "b")
	write("a/z.yaml", "az")
	write("c.json", "c")
	write("README.md", "no")
	write(".git/a.yaml", "hidden")
	other := write("other.txt", "named")

	s, err := files.Load(snapshot.Options{}, "shop", []string{folder, other, filepath.Join(folder, "b.yml")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"configmap/shop/az", "configmap/shop/b", "configmap/shop/c", "configmap/shop/named"}
	if diff := cmp.Diff(want, names(s)); diff != "" {
		t.Error(diff)
	}

	// A mounted ConfigMap is a folder of links.
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(folder, link); err != nil {
		t.Fatal(err)
	}
	s, err = files.Load(snapshot.Options{}, "", []string{link + "/"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if source := s.Sources[finding.Object{Kind: "ConfigMap", Namespace: "default", Name: "az"}]; source.File != filepath.Join(link, "a", "z.yaml") {
		t.Errorf("the link's file is %q", source.File)
	}

	empty := t.TempDir()
	_, err = files.Load(snapshot.Options{}, "", []string{empty, filepath.Join(folder, "missing.yaml")}, nil)
	if err == nil || !strings.Contains(err.Error(), empty+": there is no *.yaml, *.yml or *.json file in this folder") || !strings.Contains(err.Error(), "missing.yaml: no such file") {
		t.Errorf("got %v", err)
	}
}
