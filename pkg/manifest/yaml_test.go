package manifest

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/structpb"
	networking "istio.io/api/networking/v1alpha3"
	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/istio-plugins/istio-plugins/pkg/emit"
)

// written is what YAML makes of a value in a patch, as kubectl's library reads it. The same library writes and reads, but
// with older rules when it reads: `y` and `no` are booleans then.
func written(t *testing.T, v map[string]any) (any, string) {
	t.Helper()
	o := objects()
	value, err := structpb.NewStruct(v)
	if err != nil {
		t.Skip(err) // no UTF-8, which neither YAML nor JSON can hold
	}
	o[0].EnvoyFilter.Spec.ConfigPatches[0].Patch.Value = value
	var text bytes.Buffer
	if err := YAML(&text, o); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Spec struct {
			ConfigPatches []struct{ Patch struct{ Value any } }
		}
	}
	if err := yaml.Unmarshal(text.Bytes(), &got); err != nil {
		t.Fatalf("%v in\n%s", err, text.String())
	}
	return got.Spec.ConfigPatches[0].Patch.Value, text.String()
}

func FuzzTextIsReadAsItWasWritten(f *testing.F) {
	for _, s := range []string{
		"", "a", "true", "No", "1", "1e3", "0x1F", "2001-01-01", ".inf", "-", "- a", "a: b", "a #b", "#a", "'", `"`, "\\", " a", "a ",
		"~", "null", "=", "<<", "y", "%a", "@a", "`a", "a\nb", "a\nb\n", "a\nb\n\n", "\na\nb", " a\nb", "\ta\nb", "a\n\n  b\n", "a\rb\nc", "\x00", "\x7f\na",
		"a\u2028b\nc", "\u00e4\nb", "\ufeffa\nb", "a\xffb", "a\n \n", "---\na", "a\n---\nb", "...\na", "a\n\tb", "\U0001f600\nb", "\u0085\nb", "1_000", "1:30", "/a/b.c-d_e", strings.Repeat("long", 500),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want := map[string]any{"a": s, "b": []any{s, map[string]any{"c": s}}}
		if !strings.Contains(s, "\n") {
			want[s] = "x" // no key that is generated has several lines
		}
		if got, text := written(t, want); !reflect.DeepEqual(got, want) {
			t.Fatalf("%q is read as %q:\n%s", s, got, text)
		}
	})
}

func TestNumbersAreReadAsTheyWereWritten(t *testing.T) {
	for _, n := range []float64{0, 1, -1, 1e6, 4294967295, 1e15, 0.25, math.Pi, 1e300} {
		want := map[string]any{"n": n}
		got, text := written(t, want)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v is read as %v from\n%s", n, got, text)
		}
		if n == math.Trunc(n) && n < 1e18 && strings.Contains(text, "e+") {
			t.Errorf("%v is written as no integer", n)
		}
	}
}

func objects() []emit.Object {
	value, err := structpb.NewStruct(map[string]any{
		"text": "return {\n  request = function() end,\n}\n", "zero": 0, "big": 1e15, "small": math.Pi, "list": []any{true, nil, map[string]any{}},
	})
	if err != nil {
		panic(err)
	}
	return []emit.Object{{EnvoyFilter: &networkingv1alpha3.EnvoyFilter{
		TypeMeta:   metav1.TypeMeta{APIVersion: "networking.istio.io/v1alpha3", Kind: "EnvoyFilter"},
		ObjectMeta: metav1.ObjectMeta{Name: "x", Namespace: "istio-system", Labels: map[string]string{"a": "true"}, Annotations: map[string]string{"b": "1"}},
		Spec: networking.EnvoyFilter{
			Priority:         10,
			WorkloadSelector: &networking.WorkloadSelector{Labels: map[string]string{"istio": "gateway"}},
			ConfigPatches: []*networking.EnvoyFilter_EnvoyConfigObjectPatch{{
				ApplyTo: networking.EnvoyFilter_EXTENSION_CONFIG,
				Match:   &networking.EnvoyFilter_EnvoyConfigObjectMatch{Context: networking.EnvoyFilter_GATEWAY},
				Patch:   &networking.EnvoyFilter_Patch{Operation: networking.EnvoyFilter_Patch_ADD, Value: value},
			}},
		},
	}}}
}

func TestYAMLHoldsTheObjectThatIstiodReads(t *testing.T) {
	want := objects()[0].EnvoyFilter
	var text bytes.Buffer
	if err := YAML(&text, objects()); err != nil {
		t.Fatal(err)
	}
	var got networkingv1alpha3.EnvoyFilter
	if err := yaml.Unmarshal(text.Bytes(), &got); err != nil {
		t.Fatalf("%v in\n%s", err, text.String())
	}
	if a, b := decode(&got.Spec), decode(&want.Spec); !reflect.DeepEqual(a, b) {
		t.Errorf("the spec is read as %v, written was %v", a, b)
	}
	if !reflect.DeepEqual(got.ObjectMeta, want.ObjectMeta) || got.TypeMeta != want.TypeMeta {
		t.Errorf("metadata is read as %+v %+v", got.TypeMeta, got.ObjectMeta)
	}
	for _, absent := range []string{"creationTimestamp", "status"} {
		if bytes.Contains(text.Bytes(), []byte(absent)) {
			t.Errorf("%s is written:\n%s", absent, text.String())
		}
	}
}

func TestJSONHoldsTheSameAsYAML(t *testing.T) {
	var y, j bytes.Buffer
	if err := YAML(&y, objects()); err != nil {
		t.Fatal(err)
	}
	if err := JSON(&j, objects()); err != nil {
		t.Fatal(err)
	}
	var list struct{ Items []any }
	var one any
	if err := json.Unmarshal(j.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(y.Bytes(), &one); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(list.Items, []any{one}) {
		t.Errorf("YAML has %v, JSON %v", one, list.Items)
	}
}

func TestWritingFailsIfTheOutputDoes(t *testing.T) {
	if err := YAML(full{}, objects()); err == nil {
		t.Error("a full disk is no error")
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestNoObjectsAreNothing(t *testing.T) {
	var out strings.Builder
	if err := YAML(&out, nil); err != nil || out.Len() > 0 {
		t.Errorf("%q, %v", out.String(), err)
	}
}
