package webhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	"sigs.k8s.io/yaml"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/files"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
	"github.com/istio-plugins/istio-plugins/pkg/webhook"
)

// stored is a client.Reader of some objects. All are listed, wherever they are: their readers ask for all.
type stored []runtime.Object

func (s stored) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	kind := strings.TrimSuffix(reflect.TypeOf(list).Elem().Name(), "List")
	var items []runtime.Object
	for _, o := range s {
		if reflect.TypeOf(o).Elem().Name() == kind {
			items = append(items, o)
		}
	}
	return meta.SetList(list, items)
}

func (s stored) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	for _, o := range s {
		if m, ok := o.(*corev1.ConfigMap); ok && client.ObjectKeyFromObject(m) == key {
			m.DeepCopyInto(into.(*corev1.ConfigMap))
			return nil
		}
	}
	return apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps or secrets"}, key.Name) // Secrets are listed
}

// unreadable is a client.Reader that is broken.
type unreadable struct{ client.Reader }

func (unreadable) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return errors.New("the cache is broken")
}

// panicking is a client.Reader with a bug.
type panicking struct{ client.Reader }

func (panicking) List(context.Context, client.ObjectList, ...client.ListOption) error { panic("a bug") }

// review asks a webhook as the API server does.
func review(t *testing.T, reader client.Reader, namespaces []string, request *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	t.Helper()
	path := "/validate/annotations"
	if request.Kind.Group == pluginsv1alpha1.GroupVersion.Group {
		path = "/validate/plugins"
	}
	request.UID = "1"
	raw, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: request,
	})
	if err != nil {
		t.Fatal(err)
	}
	httpRequest := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, bytes.NewReader(raw))
	httpRequest.Header.Set("Content-Type", "application/json")
	recorder := httptest.NewRecorder()
	webhook.Handlers(reader, snapshot.Options{}, namespaces)[path].ServeHTTP(recorder, httpRequest)
	var answer admissionv1.AdmissionReview
	if err := json.Unmarshal(recorder.Body.Bytes(), &answer); err != nil {
		t.Fatalf("%v: %s", err, recorder.Body)
	}
	if answer.Response == nil || answer.Response.UID != request.UID {
		t.Fatalf("not an answer: %s", recorder.Body)
	}
	return answer.Response
}

// requestFor writes an object of YAML, or another one that marshals, into a request. Without an old one it is created.
func requestFor(t *testing.T, object, old any) *admissionv1.AdmissionRequest {
	t.Helper()
	raw := func(object any) []byte {
		var out []byte
		var err error
		if text, ok := object.(string); ok {
			out, err = yaml.YAMLToJSON([]byte(text))
		} else {
			out, err = json.Marshal(object)
		}
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	r := &admissionv1.AdmissionRequest{Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: raw(object)}}
	if old != nil {
		r.Operation, r.OldObject.Raw = admissionv1.Update, raw(old)
	}
	var o metav1.PartialObjectMetadata
	if err := json.Unmarshal(r.Object.Raw, &o); err != nil {
		t.Fatal(err)
	}
	gvk := o.GroupVersionKind()
	r.Kind = metav1.GroupVersionKind(gvk)
	r.Name, r.Namespace = o.Name, o.Namespace
	return r
}

func plugin(spec string) string {
	return "{apiVersion: plugins.istio.io/v1alpha1, kind: Plugin, metadata: {name: a, namespace: demo}, spec: " + spec + "}"
}

func clusterPlugin(spec string) string {
	return "{apiVersion: plugins.istio.io/v1alpha1, kind: ClusterPlugin, metadata: {name: a}, spec: " + spec + "}"
}

func virtualService(text, spec string) string {
	return fmt.Sprintf("{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: shop, namespace: demo, annotations: {istio.io/plugins: %q}}, spec: %s}", text, spec)
}

func gateway(text string) string {
	return fmt.Sprintf("{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: public, namespace: demo, annotations: {istio.io/plugins: %q}}}", text)
}

var world = stored{
	&pluginsv1alpha1.Plugin{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "greet"}, Spec: pluginsv1alpha1.PluginSpec{Builtin: "cors"}},
	&pluginsv1alpha1.Plugin{ObjectMeta: metav1.ObjectMeta{Namespace: "granted", Name: "x"}, Spec: pluginsv1alpha1.PluginSpec{Builtin: "cors"}},
	&pluginsv1alpha1.ClusterPlugin{ObjectMeta: metav1.ObjectMeta{Name: "everywhere"}, Spec: pluginsv1alpha1.PluginSpec{Builtin: "cors"}},
	&pluginsv1alpha1.Consumer{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "anna"}, Spec: pluginsv1alpha1.ConsumerSpec{Username: "anna"}},
	&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "code"}, Data: map[string]string{"good.lua": "return {}", "bad.lua": "return end"}},
	&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "s"}, Data: map[string][]byte{"good": []byte("minute: 5"), "bad": []byte("minute: c4nary"), "text": []byte("c4nary")}},
	&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: "code"}, Data: map[string]string{"good.lua": "return {}"}},
	&gatewayv1beta1.ReferenceGrant{
		ObjectMeta: metav1.ObjectMeta{Namespace: "granted", Name: "g"},
		Spec: gatewayv1beta1.ReferenceGrantSpec{
			From: []gatewayv1beta1.ReferenceGrantFrom{{Group: "networking.istio.io", Kind: "VirtualService", Namespace: "demo"}},
			To:   []gatewayv1beta1.ReferenceGrantTo{{Group: "plugins.istio.io", Kind: "Plugin"}},
		},
	},
}

const (
	named   = "{http: [{name: api}, {}]}"
	noRoute = "{}"
)

var cases = []struct {
	name, object string
	// refused are the causes, `reason field: message`; without any the object is admitted.
	refused, warned []string
}{
	{name: "a Plugin of a built-in", object: plugin("{builtin: rate-limiting, config: {minute: 5}}")},
	{name: "a Plugin in Lua", object: plugin("{lua: {inline: 'return {}'}}")},
	{name: "a Plugin in Wasm", object: plugin("{wasm: {url: 'oci://registry.test/waf:1'}}")},
	{name: "a Plugin of an Envoy filter",
		object: plugin(`{envoy: {typedConfig: {"@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer}}, config: {max_request_bytes: 1}}`)},
	{name: "a built-in that there is not", object: plugin("{builtin: korrelation-id}"),
		refused: []string{"InvalidPlugin spec.builtin: there is no built-in \"korrelation-id\"; `istio-plugins catalog` lists them"}},
	{name: "an unknown field and a wrong value",
		object: plugin("{builtin: request-termination, config: {status: 200, status_code: 42}}"),
		refused: []string{
			"InvalidConfig spec.config.status: unknown field, known ones are body, content_type, echo, message, redact, status_code, trigger",
			"InvalidConfig spec.config.status_code: 42 is too small, at least 200",
		}},
	{name: "a wrong value in a list", object: plugin("{builtin: key-auth, config: {key_names: [apikey, 'a b']}}"),
		refused: []string{`InvalidConfig spec.config.key_names[1]: "a b" does not match ^[A-Za-z0-9_-]+$`}},
	{name: "FailOpen makes no wrong config right", object: plugin("{builtin: request-termination, failurePolicy: FailOpen, config: {status_code: 42}}"),
		refused: []string{"InvalidConfig spec.config.status_code: 42 is too small, at least 200"}},
	{name: "a ClusterPlugin with a wrong config", object: clusterPlugin("{builtin: request-termination, config: {status_code: 42}}"),
		refused: []string{"InvalidConfig spec.config.status_code: 42 is too small, at least 200"}},
	{name: "Lua that does not parse", object: plugin("{lua: {inline: 'return end'}}"),
		refused: []string{`InvalidLua spec.lua.inline: line 1: unexpected "end"`}},
	{name: "a URL of another scheme", object: plugin("{wasm: {url: 'ftp://a.test/b'}}"),
		refused: []string{`InvalidPlugin spec.wasm.url: scheme "ftp" is not supported; oci, https, http and file are`}},
	{name: "a URL without a host", object: plugin("{wasm: {url: 'https:///b'}}"),
		refused: []string{`InvalidPlugin spec.wasm.url: "https:///b" has no host`}},
	{name: "a relative file", object: plugin("{wasm: {url: 'file://a/b'}}"),
		refused: []string{`InvalidPlugin spec.wasm.url: "file://a/b" must be file:///absolute/path, a file on the gateway`}},
	{name: "a filter that ends the chain",
		object:  plugin(`{envoy: {typedConfig: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}`),
		refused: []string{"InvalidEnvoyConfig spec.envoy.typedConfig: envoy.extensions.filters.http.router.v3.Router cannot be a plugin: it ends the chain; the gateway has its own"}},
	{name: "a config that Envoy refuses",
		object:  plugin(`{envoy: {typedConfig: {"@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_bytes: 0}}}`),
		refused: []string{"InvalidEnvoyConfig spec.envoy.typedConfig: Buffer.MaxRequestBytes: value must be greater than 0"}},
	{name: "a config that changes the filter",
		object:  plugin(`{envoy: {typedConfig: {"@type": type.googleapis.com/envoy.extensions.filters.http.csrf.v3.CsrfPolicy}}, config: {"@type": x}}`),
		refused: []string{"InvalidConfig spec.config.@type: the filter's type cannot be changed by config"}},
	{name: "no kind of plugin", object: plugin("{priority: 1}"),
		refused: []string{"InvalidPlugin spec: exactly one of builtin, lua, wasm, envoy, extAuth and extProc must be set, not none"}},

	{name: "a config that an entry completes", object: plugin("{builtin: rate-limiting}"),
		warned: []string{"InvalidConfig plugin/demo/a:spec.config: needs at least one of second, minute, hour, day, month, year; a route that names it answers 503"}},
	{name: "a config without effect", object: plugin("{builtin: correlation-id, config: {protocols: [http]}}"),
		warned: []string{"ConfigWarning plugin/demo/a:spec.config.protocols: has no meaning here and is ignored"}},
	{name: "a ConfigMap that is there", object: plugin("{lua: {configMapRef: {name: code, key: good.lua}}}")},
	{name: "a ConfigMap in the root namespace", object: clusterPlugin("{lua: {configMapRef: {name: code, key: good.lua}}}")},
	{name: "a ConfigMap that may come", object: plugin("{lua: {configMapRef: {name: later, key: a.lua}}}"),
		warned: []string{"RefNotFound plugin/demo/a:spec.lua.configMapRef: there is no ConfigMap demo/later; a route that names it answers 503"}},
	{name: "a key that may come, under FailOpen", object: plugin("{failurePolicy: FailOpen, lua: {configMapRef: {name: code, key: a.lua}}}"),
		warned: []string{`RefNotFound plugin/demo/a:spec.lua.configMapRef: ConfigMap demo/code has no key "a.lua"; a route that names it runs without it`}},
	{name: "Lua in a ConfigMap that does not parse", object: plugin("{lua: {configMapRef: {name: code, key: bad.lua}}}"),
		warned: []string{`InvalidLua plugin/demo/a:spec.lua.configMapRef: line 1: unexpected "end"; a route that names it answers 503`}},
	{name: "a Consumer that is there", object: plugin("{builtin: key-auth, config: {anonymous: anna}}")},
	{name: "a Consumer that may come", object: plugin("{builtin: key-auth, config: {anonymous: bert}}"),
		warned: []string{"RefNotFound plugin/demo/a:spec.config.anonymous: anonymous consumer bert is configured but doesn't exist; a route that names it answers 503"}},
	{name: "a field that an entry adds", object: plugin("{builtin: fault-injection, config: {delay: {percentage: 10}}}"),
		warned: []string{"InvalidConfig plugin/demo/a:spec.config.delay.fixed_delay: is required; a route that names it answers 503"}},
	{name: "a Consumer of whoever names the ClusterPlugin", object: clusterPlugin("{builtin: key-auth, config: {anonymous: bert}}")},
	{name: "a grant that may come", object: plugin("{builtin: key-auth, config: {consumers_from: [other]}}"),
		warned: []string{"RefNotFound plugin/demo/a:spec.config.consumers_from[0]: namespace other does not grant its Consumers to namespace demo; it needs a ReferenceGrant from plugins.istio.io Plugin in demo to plugins.istio.io Consumer; a route that names it answers 503"}},

	{name: "a config from a Secret", object: plugin("{builtin: rate-limiting, configFrom: {secretKeyRef: {name: s, key: good}}}")},
	{name: "a Secret that may come", object: clusterPlugin("{builtin: rate-limiting, configFrom: {secretKeyRef: {name: s, key: good}}}"),
		warned: []string{"RefNotFound clusterplugin/a:spec.configFrom.secretKeyRef: there is no Secret istio-system/s; a route that names it answers 503"}},
	{name: "a key of a Secret that may come", object: plugin("{builtin: rate-limiting, config: {path: {secretKeyRef: {name: s, key: later}}}}"),
		warned: []string{`RefNotFound plugin/demo/a:spec.config.path.secretKeyRef: Secret demo/s has no key "later"; a route that names it answers 503`}},
	{name: "a Secret that may be corrected", object: plugin("{builtin: rate-limiting, configFrom: {secretKeyRef: {name: s, key: bad}}}"),
		warned: []string{`InvalidConfig plugin/demo/a:spec.configFrom.secretKeyRef: key "bad" of Secret demo/s: minute must be an integer, not a string; a route that names it answers 503`}},
	{name: "a value of a Secret that may be corrected", object: plugin("{builtin: rate-limiting, config: {minute: 5, limit_by: {secretKeyRef: {name: s, key: text}}}}"),
		warned: []string{`InvalidConfig plugin/demo/a:spec.config.limit_by.secretKeyRef: key "text" of Secret demo/s: limit_by is not allowed, allowed are "consumer", "credential", "ip", "service", "header", "path"; a route that names it answers 503`}},
	{name: "a Secret for an Envoy filter that may be corrected",
		object: plugin(`{envoy: {typedConfig: {"@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer}}, configPatches: [{path: /max_request_bytes, valueFrom: {secretKeyRef: {name: s, key: text}}}]}`),
		warned: []string{`InvalidEnvoyConfig plugin/demo/a:spec.configPatches[0].valueFrom.secretKeyRef: key "text" of Secret demo/s: the plugin cannot be used with what it holds; a route that names it answers 503`}},
	{name: "a mistake beside a Secret", object: plugin("{builtin: rate-limiting, config: {minute: -5, error_message: {secretKeyRef: {name: s, key: text}}}}"),
		refused: []string{"InvalidConfig spec.config.minute: -5 is too small, at least 1"}},
	{name: "a reference without a key", object: plugin("{builtin: rate-limiting, config: {minute: 5, error_message: {secretKeyRef: {name: s}}}}"),
		refused: []string{"InvalidConfig spec.config.error_message: secretKeyRef is a map with a name and a key, and nothing stands beside it"}},
	{name: "a patch that leads nowhere", object: plugin("{builtin: rate-limiting, config: {minute: 5}, configPatches: [{path: /minute/a, valueFrom: {secretKeyRef: {name: s, key: text}}}]}"),
		refused: []string{`InvalidPlugin spec.configPatches[0].path: "/minute/a" leads nowhere: what "a" would be in is neither a map nor a list`}},

	{name: "an annotation", object: virtualService("greet, everywhere, cors, granted/x, -nothing", noRoute)},
	{name: "an empty annotation", object: virtualService("", noRoute)},
	{name: "an annotation with routes", object: virtualService("[{name: greet, routes: [api]}]", named)},
	{name: "an annotation of a Gateway", object: gateway("greet, everywhere")},
	{name: "an annotation that cannot be read", object: virtualService("[greet", noRoute),
		refused: []string{`InvalidAnnotation metadata.annotations[istio.io/plugins]: this is not valid YAML, as which it is read because it starts with "[": line 1: did not find expected ',' or ']'`}},
	{name: "an unknown field of an entry", object: virtualService("[{name: greet, route: [api]}]", named),
		refused: []string{`InvalidEntry metadata.annotations[istio.io/plugins][0]: unknown field "route", did you mean "routes"?`}},
	{name: "two entries that cannot be honoured", object: virtualService("greet, Cors, gr eet", noRoute),
		refused: []string{
			`InvalidEntry metadata.annotations[istio.io/plugins]@7: "Cors" is no plugin name: write "cors"`,
			`InvalidEntry metadata.annotations[istio.io/plugins]@13: "gr eet" is no plugin name: separate plugins with commas, or write each on a line of its own after "- "`,
		}},
	{name: "an unknown route", object: virtualService("[{name: greet, routes: [apj]}]", named),
		refused: []string{`UnknownRoute metadata.annotations[istio.io/plugins][0].routes: there is no http route "apj", did you mean "api"?`}},
	{name: "routes of a VirtualService without any", object: virtualService("[{name: greet, routes: [api]}]", noRoute),
		refused: []string{`UnknownRoute metadata.annotations[istio.io/plugins][0].routes: there is no http route "api", none of the routes has a name`}},
	{name: "routes on a Gateway", object: gateway("[{name: greet, routes: [api]}]"),
		refused: []string{"InvalidEntry metadata.annotations[istio.io/plugins][0].routes: routes can be chosen on a VirtualService only; remove routes"}},
	{name: "a name that may come", object: virtualService("greeet", noRoute),
		warned: []string{`PluginNotFound virtualservice/demo/shop:metadata.annotations[istio.io/plugins]@0: no Plugin in namespace demo, no ClusterPlugin and no built-in is called "greeet"; a route that runs greeet answers 503; did you mean "greet"?`}},
	{name: "a name on a Gateway that may come", object: gateway("greeet"),
		warned: []string{`PluginNotFound gateway/demo/public:metadata.annotations[istio.io/plugins]@0: no Plugin in namespace demo, no ClusterPlugin and no built-in is called "greeet"; a route that runs greeet answers 503; did you mean "greet"?`}},
	{name: "a name that may be permitted", object: gateway("granted/x"),
		warned: []string{`RefNotPermitted gateway/demo/public:metadata.annotations[istio.io/plugins]@0: plugin "granted/x" is in another namespace, and no ReferenceGrant there permits a Gateway of namespace demo to use it; a route that runs granted/x answers 503; ask for a ReferenceGrant in granted from networking.istio.io Gateway of demo to plugins.istio.io Plugin`}},
	{name: "a mistake and a name that may come", object: virtualService("[later, on]", noRoute),
		refused: []string{`InvalidEntry metadata.annotations[istio.io/plugins][1]: on is a boolean in YAML, not a name: write "on" in quotes`},
		warned:  []string{`PluginNotFound virtualservice/demo/shop:metadata.annotations[istio.io/plugins][0]: no Plugin in namespace demo, no ClusterPlugin and no built-in is called "later"; a route that runs later answers 503; create the Plugin in namespace demo, or name another one`}},
}

// causes are what an answer refuses, as the cases write it.
func causes(r *admissionv1.AdmissionResponse) []string {
	if r.Allowed {
		return nil
	}
	out := []string{}
	for _, c := range r.Result.Details.Causes {
		out = append(out, fmt.Sprintf("%s %s: %s", c.Type, c.Field, c.Message))
	}
	return out
}

func TestJudgement(t *testing.T) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			request := requestFor(t, c.object, nil)
			r := review(t, world, nil, request)
			if diff := cmp.Diff(c.refused, causes(r)); diff != "" {
				t.Errorf("refused, -want +got:\n%s", diff)
			}
			if diff := cmp.Diff(c.warned, r.Warnings); diff != "" {
				t.Errorf("warned, -want +got:\n%s", diff)
			}
			if r.Allowed {
				return
			}
			if r.Result.Code != 422 || r.Result.Reason != metav1.StatusReasonInvalid || r.Result.Details.Name != request.Name || r.Result.Details.Kind != request.Kind.Kind {
				t.Errorf("refused with %+v", r.Result)
			}
			if got := strings.Count(r.Result.Message, "\n") + 1; got != len(c.refused) {
				t.Errorf("%d lines: %s", got, r.Result.Message)
			}

			// What is stored with the mistake can be changed all the same, and be deleted.
			request = requestFor(t, c.object, c.object)
			if r := review(t, world, nil, request); !r.Allowed || len(r.Warnings) != len(c.refused)+len(c.warned) {
				t.Errorf("an update that brings nothing new: %v, warnings %q", causes(r), r.Warnings)
			}
			request.Operation, request.Object.Raw = admissionv1.Delete, nil
			if r := review(t, world, nil, request); !r.Allowed {
				t.Errorf("deletion: %v", causes(r))
			}
			// An object is admitted that the controller does not look at, or that cannot be judged.
			if r := review(t, world, []string{"elsewhere"}, requestFor(t, c.object, nil)); !r.Allowed && request.Namespace != "" {
				t.Errorf("in a namespace that is not watched: %v", causes(r))
			}
			for _, reader := range []client.Reader{unreadable{}, panicking{}} {
				if r := review(t, reader, nil, requestFor(t, c.object, nil)); !r.Allowed || len(r.Warnings) != 1 {
					t.Errorf("%T: %v, warnings %q", reader, causes(r), r.Warnings)
				}
			}
		})
	}
}

// A change is refused for what it brings.
func TestUpdates(t *testing.T) {
	const oneMistake, twoMistakes = "{builtin: request-termination, config: {status_code: 42}}", "{builtin: request-termination, config: {status_code: 42, status: 1}}"
	for _, c := range []struct {
		name, old, object string
		refused           []string
	}{
		{"a mistake is added", plugin(oneMistake), plugin(twoMistakes),
			[]string{"InvalidConfig spec.config.status: unknown field, known ones are body, content_type, echo, message, redact, status_code, trigger"}},
		{"a mistake is mended", plugin(twoMistakes), plugin(oneMistake), nil},
		{"a mistake changes", plugin(oneMistake), plugin("{builtin: request-termination, config: {status_code: 43}}"),
			[]string{"InvalidConfig spec.config.status_code: 43 is too small, at least 200"}},
		{"a route that an entry names is renamed", virtualService("[{name: greet, routes: [api]}]", named), virtualService("[{name: greet, routes: [api]}]", "{http: [{name: apis}]}"),
			[]string{`UnknownRoute metadata.annotations[istio.io/plugins][0].routes: there is no http route "api", did you mean "apis"?`}},
		{"an annotation is added", strings.Replace(virtualService("", named), "annotations", "labels", 1), virtualService("[", named),
			[]string{`InvalidAnnotation metadata.annotations[istio.io/plugins]: this is not valid YAML, as which it is read because it starts with "[": line 1: did not find expected node content`}},
		{"an annotation is removed", virtualService("[", named), strings.Replace(virtualService("", named), "annotations", "labels", 1), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := review(t, world, nil, requestFor(t, c.object, c.old))
			if diff := cmp.Diff(c.refused, causes(r)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestGolden: on all golden inputs the webhook and the compilation agree. What the webhook refuses, the compilation
// reports in the same words; what the compilation says of an annotation's text, the webhook refuses.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("../cli/testdata/golden/*/input.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no inputs: %v", err)
	}
	refusals := 0
	for _, input := range inputs {
		t.Run(filepath.Base(filepath.Dir(input)), func(t *testing.T) {
			s, err := files.Load(snapshot.Options{}, "default", []string{input}, os.Stdin)
			if err != nil {
				t.Fatal(err)
			}
			result := compile.Compile(s)
			reported := slices.Clone(result.Findings)
			for _, p := range result.Plugins {
				reported = append(reported, p.Findings...)
			}
			refused := map[finding.Object]bool{}
			for _, o := range objects(s) {
				request := requestFor(t, o, nil)
				r := review(t, everything(s), nil, request)
				object := finding.Object{Kind: request.Kind.Kind, Namespace: request.Namespace, Name: request.Name}
				refused[object] = !r.Allowed
				if r.Allowed {
					continue
				}
				for _, c := range r.Result.Details.Causes {
					refusals++
					if !slices.ContainsFunc(reported, func(f finding.Finding) bool {
						return f.Object == object && f.Reason == finding.Reason(c.Type) && f.Place == c.Field && strings.HasPrefix(c.Message, f.Problem)
					}) {
						t.Errorf("%s is refused for %s: %s, which is not reported", object, c.Field, c.Message)
					}
				}
			}
			for _, f := range reported {
				switch f.Reason {
				case finding.InvalidAnnotation, finding.InvalidEntry, finding.UnknownRoute:
					if !refused[f.Object] {
						t.Errorf("admitted: %s", f)
					}
				}
			}
		})
	}
	if refusals < 8 {
		t.Errorf("%d refusals: the inputs show too little", refusals)
	}
}

// objects are those of a snapshot that webhooks judge.
func objects(s *snapshot.Snapshot) []runtime.Object {
	return slices.Concat(as(s.Plugins), as(s.ClusterPlugins), as(s.VirtualServices), as(s.Gateways))
}

// everything is a reader of a snapshot.
func everything(s *snapshot.Snapshot) client.Reader {
	out := stored(slices.Concat(objects(s), as(s.Consumers), as(s.Secrets), as(s.ConfigMaps), as(s.Services), as(s.ServiceEntries)))
	for _, g := range s.ReferenceGrants {
		grant := gatewayv1beta1.ReferenceGrant(*g)
		out = append(out, &grant)
	}
	return out
}

func as[T runtime.Object](list []T) []runtime.Object {
	out := make([]runtime.Object, len(list))
	for i, o := range list {
		out[i] = o
	}
	return out
}
