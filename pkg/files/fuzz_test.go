package files_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/files"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// FuzzLoad holds what every text must satisfy: an object is usable or malformed, never both and never neither; each has
// a source; each line is one of the text. It does
// not check that the right objects are refused.
func FuzzLoad(f *testing.F) {
	f.Add(everyKind)
	f.Add("{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{\"kind\": \"Plugin\"}, 1]}")
	f.Add("%YAML 1.1\n---\napiVersion: plugins.istio.io/v1alpha1\nkind: Plugin\nmetadata: {name: a}\nspec: {wasm: {url: a}, config: {a: &x [1], b: *x, b: 2}}\n...\n")
	f.Add("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a, annotations: {istio.io/plugins: [a]}}\nspec: {http: [{timeout: 5x}]}\n")
	f.Add("apiVersion: v1\nkind: Secret\nmetadata: {name: a, labels: {plugins.istio.io/credential: x}}\ndata: {a: '!'}\n--- {a: b}\n--- |\n  x\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := files.Load(snapshot.Options{}, "", []string{files.Stdin}, strings.NewReader(text))
		if err != nil {
			if s != nil || !strings.HasPrefix(err.Error(), "stdin:") {
				t.Errorf("an error without file and line, or with a snapshot: %v", err)
			}
			return
		}
		lines := strings.Count(text, "\n") + 1
		for object, source := range s.Sources {
			if source.Line < 1 || source.Line > lines {
				t.Errorf("%s is on line %d of %d", object, source.Line, lines)
			}
		}
		usable := names(s)
		for _, m := range s.Malformed {
			source, ok := s.Sources[m.Object]
			if !ok || m.Error == "" || m.Object.Kind == "" && m.Place != "kind" {
				t.Errorf("malformed without object, source or reason: %+v", m)
				continue
			}
			if line := source.FieldLine(m.Place); line < 1 || line > lines {
				t.Errorf("%s of %s is on line %d of %d", m.Place, m.Object, line, lines)
			}
			if slices.Contains(usable, m.Object.String()) {
				t.Errorf("%s is usable and malformed", m.Object)
			}
		}
		refused := map[finding.Object]bool{}
		for _, m := range s.Malformed {
			refused[m.Object] = true
		}
		if len(usable)+len(refused) != len(s.Sources) {
			t.Errorf("%d usable and %d malformed of %d objects", len(usable), len(refused), len(s.Sources))
		}
	})
}
