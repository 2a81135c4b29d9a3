// Package crds applies good and bad objects to a real API server that has the generated CustomResourceDefinitions. It
// also holds the API server's verdicts against those of pkg/apis/schema, which judges files: both must say the same.
package crds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/istio-plugins/istio-plugins/crds"
	"github.com/istio-plugins/istio-plugins/e2e/stack"
	apischema "github.com/istio-plugins/istio-plugins/pkg/apis/schema"
)

var version = schema.GroupVersion{Group: "plugins.istio.io", Version: "v1alpha1"}

func TestCRDs(t *testing.T) {
	if testing.Short() {
		t.Skip("starts an API server: not with -short")
	}
	bin, err := filepath.Abs("../../.bin")
	if err != nil {
		t.Fatal(err)
	}
	s, err := stack.Start(t.Context(), stack.Options{Bin: bin, Dir: t.TempDir(), CRDs: []string{"../../crds"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	client, err := dynamic.NewForConfig(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("accepts", func(t *testing.T) { testAccepts(t, client) })
	t.Run("refuses", func(t *testing.T) { testRefuses(t, client) })
	t.Run("fills defaults in", func(t *testing.T) { testDefaults(t, client) })
	t.Run("names", func(t *testing.T) { testNames(t, s.Config) })
	t.Run("prints", func(t *testing.T) { testPrints(t, client, s.Config) })
}

func testAccepts(t *testing.T, client dynamic.Interface) {
	for _, c := range accepted {
		t.Run(c.name, func(t *testing.T) {
			o := object(t, c.kind, c.spec)
			if _, err := dryRun(t.Context(), client, o); err != nil {
				t.Error(err)
			}
			if _, problems := apischema.Of(c.kind).Complete(o.Object); len(problems) > 0 {
				t.Errorf("the API server accepts it, files do not: %v", problems)
			}
		})
	}
}

func testRefuses(t *testing.T, client dynamic.Interface) {
	said := ""
	for _, c := range refused {
		t.Run(c.name, func(t *testing.T) {
			o := object(t, c.kind, c.spec)
			_, err := dryRun(t.Context(), client, o)
			if err == nil {
				t.Fatal("the API server accepts it")
			}
			got := causes(t, err)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("the API server, -want +got:\n%s", diff)
			}
			said += strings.Join(got, "\n") + "\n"

			var files []string
			_, problems := apischema.Of(c.kind).Complete(o.Object)
			for _, p := range problems {
				message := p.Message
				if unknown, _, ok := strings.Cut(message, ","); ok && unknown == "unknown field" {
					message = unknown // the API server names no other
				}
				files = append(files, p.Path+": "+message)
			}
			sort.Strings(files)
			if diff := cmp.Diff(got, files); diff != "" {
				t.Errorf("files are judged otherwise, -API server +files:\n%s", diff)
			}
		})
	}
	for _, message := range rules(t) {
		if !strings.Contains(said, message) {
			t.Errorf("no case breaks the rule %q", message)
		}
	}
}

// dryRun creates an object without storing it, as strictly as kubectl apply does.
func dryRun(ctx context.Context, client dynamic.Interface, o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	options := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict}
	return resource(client, o.GetKind()).Create(ctx, o, options)
}

func resource(client dynamic.Interface, kind string) dynamic.ResourceInterface {
	r := client.Resource(version.WithResource(strings.ToLower(kind) + "s"))
	if kind == "ClusterPlugin" {
		return r
	}
	return r.Namespace("default")
}

func object(t *testing.T, kind, spec string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	text := fmt.Sprintf("{apiVersion: %s, kind: %s, metadata: {name: a}, spec: %s}", version, kind, spec)
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := o.UnmarshalJSON(raw); err != nil {
		t.Fatal(err)
	}
	return o
}

// causes are what the API server says of each field, sorted.
func causes(t *testing.T, err error) []string {
	t.Helper()
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		t.Fatal(err)
	}
	var out []string
	if _, unknown, ok := strings.Cut(err.Error(), "strict decoding error: "); ok {
		for _, field := range strings.Split(unknown, ", ") {
			name := strings.Trim(strings.TrimPrefix(field, "unknown field "), `"`)
			out = append(out, name+": unknown field")
		}
		return out
	}
	for _, cause := range status.Status().Details.Causes {
		if strings.Contains(cause.Message, "some validation rules were not checked") {
			continue
		}
		field := strings.TrimPrefix(cause.Field, "<nil>") // so it calls the whole object
		out = append(out, field+": "+cause.Message)
	}
	sort.Strings(out)
	return out
}

// rules are the messages of all rules that the definitions have in CEL.
func rules(t *testing.T) []string {
	t.Helper()
	var messages []string
	entries, err := crds.Files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		raw, err := crds.Files.ReadFile(entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		var definition any
		if err := yaml.Unmarshal(raw, &definition); err != nil {
			t.Fatal(err)
		}
		messages = append(messages, messagesIn(definition)...)
	}
	if len(messages) == 0 {
		t.Fatal("the definitions have no rules")
	}
	slices.Sort(messages)
	return slices.Compact(messages)
}

func messagesIn(v any) []string {
	var out []string
	switch v := v.(type) {
	case map[string]any:
		list, _ := v["x-kubernetes-validations"].([]any)
		for _, rule := range list {
			out = append(out, rule.(map[string]any)["message"].(string))
		}
		for _, child := range v {
			out = append(out, messagesIn(child)...)
		}
	case []any:
		for _, child := range v {
			out = append(out, messagesIn(child)...)
		}
	}
	return out
}

func testDefaults(t *testing.T, client dynamic.Interface) {
	o := object(t, "Plugin", "{builtin: cors, config: {a: null}}")
	complete, _ := apischema.Of("Plugin").Complete(o.Object)
	stored, err := dryRun(t.Context(), client, o)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(stored.Object["spec"], complete["spec"]); diff != "" {
		t.Errorf("-API server +files:\n%s", diff)
	}
	want := map[string]any{"builtin": "cors", "config": map[string]any{"a": nil}, "priority": int64(0), "failurePolicy": "FailClosed"}
	if diff := cmp.Diff(want, stored.Object["spec"]); diff != "" {
		t.Errorf("-want +API server:\n%s", diff)
	}
}

// testNames: `kubectl get plg` and `kubectl get istio-plugins` are what users type.
func testNames(t *testing.T, config *rest.Config) {
	client, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	list, err := client.ServerResourcesForGroupVersion(version.String())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, r := range list.APIResources {
		got[r.Name] = fmt.Sprintf("%s %v %v %v", r.Kind, r.ShortNames, r.Categories, r.Namespaced)
	}
	want := map[string]string{
		"plugins":               "Plugin [plg] [istio-plugins istio-io] true",
		"plugins/status":        "Plugin [] [] true",
		"clusterplugins":        "ClusterPlugin [cplg] [istio-plugins istio-io] false",
		"clusterplugins/status": "ClusterPlugin [] [] false",
		"consumers":             "Consumer [] [istio-plugins istio-io] true",
		"consumers/status":      "Consumer [] [] true",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// testPrints: what kubectl get shows of an object with a status.
func testPrints(t *testing.T, client dynamic.Interface, config *rest.Config) {
	for _, c := range []struct {
		kind, spec, status string
		want               []string
	}{
		{"Plugin", "{builtin: cors, priority: 7}", `{type: cors, attached: 3, conditions: [{type: Accepted, status: "True"}, {type: Programmed, status: "False"}]}`,
			[]string{"Name=a", "Type=cors", "Priority=7", "Attached=3", "Accepted=True", "Programmed=False", "Age"}},
		{"ClusterPlugin", "{lua: {inline: x}}", "{type: Lua, attached: 0}",
			[]string{"Name=a", "Type=Lua", "Priority=0", "Attached=0", "Accepted=<nil>", "Programmed=<nil>", "Age"}},
		{"Consumer", "{username: alice}", `{conditions: [{type: Accepted, status: "True"}]}`,
			[]string{"Name=a", "Username=alice", "Accepted=True", "Age"}},
	} {
		t.Run(c.kind, func(t *testing.T) {
			o := object(t, c.kind, c.spec)
			o.Object["status"] = status(t, c.status)
			created, err := resource(client, c.kind).Create(t.Context(), o, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if created.Object["status"] != nil {
				t.Errorf("the status can be written with the spec: %v", created.Object["status"])
			}
			created.Object["status"] = o.Object["status"]
			if _, err := resource(client, c.kind).UpdateStatus(t.Context(), created, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, table(t, config, c.kind)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func status(t *testing.T, text string) map[string]any {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON([]byte(`{"apiVersion":"v1","kind":"X","status":` + string(raw) + `}`)); err != nil {
		t.Fatal(err)
	}
	out := o.Object["status"].(map[string]any)
	list, _ := out["conditions"].([]any)
	for _, condition := range list {
		for field, value := range map[string]any{"reason": "Tested", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"} {
			condition.(map[string]any)[field] = value
		}
	}
	return out
}

// table is the one row of `kubectl get <kind>s`. The age is not looked at.
func table(t *testing.T, config *rest.Config, kind string) []string {
	t.Helper()
	c := rest.CopyConfig(config)
	c.GroupVersion, c.APIPath, c.NegotiatedSerializer = &version, "/apis", scheme.Codecs.WithoutConversion()
	client, err := rest.RESTClientFor(c)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := client.Get().Resource(strings.ToLower(kind)+"s").
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got metav1.Table
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Rows) != 1 {
		t.Fatalf("%d rows", len(got.Rows))
	}
	var row []string
	for i, column := range got.ColumnDefinitions {
		if column.Name == "Age" {
			row = append(row, column.Name)
			continue
		}
		row = append(row, fmt.Sprintf("%s=%v", column.Name, got.Rows[0].Cells[i]))
	}
	return row
}
