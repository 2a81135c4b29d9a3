package schema

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

func decode(t *testing.T, text string) map[string]any {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	object := map[string]any{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &object); err != nil {
		t.Fatal(err)
	}
	return object
}

func TestKinds(t *testing.T) {
	if diff := cmp.Diff([]string{"ClusterPlugin", "Consumer", "Plugin"}, Kinds()); diff != "" {
		t.Error(diff)
	}
	if Of("Plugins") != nil {
		t.Error("there is a schema for a kind that does not exist")
	}
}

func TestCompleteFillsDefaultsIn(t *testing.T) {
	given := decode(t, "{spec: {builtin: cors, config: {a: null, b: 1.5}}}")
	before := fmt.Sprint(given)
	complete, problems := Of("Plugin").Complete(given)
	if len(problems) > 0 {
		t.Error(problems)
	}
	want := decode(t, "{spec: {builtin: cors, config: {a: null, b: 1.5}, priority: 0, failurePolicy: FailClosed}}")
	if diff := cmp.Diff(want, complete); diff != "" {
		t.Error(diff)
	}
	if fmt.Sprint(given) != before {
		t.Error("the argument was changed")
	}
}

func TestCompleteNamesTheNearestField(t *testing.T) {
	for _, c := range []struct{ kind, text, want string }{
		{"Plugin", "{spec: {builtin: cors, prority: 1}}", `spec.prority: unknown field, did you mean "priority"?`},
		{"Plugin", "{spec: {wasm: {url: a, vmConfig: {env: [{name: a, valu: b}]}}}}", `spec.wasm.vmConfig.env[0].valu: unknown field, did you mean "value"?`},
		{"Plugin", "{spec: {envoy: {typedConfig: {anything: goes}, name: x}}}", `spec.envoy.name: unknown field, known ones are typedConfig`},
		{"Consumer", "{spec: {username: a, customID: b}}", `spec.customID: unknown field, did you mean "custom_id"?`},
		{"Consumer", "{spec: {username: a}, credentials: [b]}", `credentials: unknown field, known ones are apiVersion, kind, metadata, spec, status`},
	} {
		complete, problems := Of(c.kind).Complete(decode(t, c.text))
		var got []string
		for _, p := range problems {
			got = append(got, p.Path+": "+p.Message)
		}
		if !slices.Equal(got, []string{c.want}) {
			t.Errorf("%s: got %q, want %q", c.text, got, c.want)
		}
		if raw, _ := json.Marshal(complete); len(raw) == 0 {
			t.Error("nothing is left")
		}
	}
}

func BenchmarkComplete(b *testing.B) {
	s, object := Of("Plugin"), map[string]any{"spec": map[string]any{"builtin": "rate-limiting", "config": map[string]any{"minute": int64(100)}}}
	for b.Loop() {
		s.Complete(object)
	}
}
