package compile_test

import (
	"go/build"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/istio-plugins/istio-plugins/"

// arrows are the imports that each package of the core may have within the module. They point one way: from values, to
// what thinks about them, to what puts the thoughts together. A new one is a decision, made here.
var arrows = map[string][]string{
	"pkg/config":          {},
	"pkg/finding":         {},
	"pkg/internal/memo":   {},
	"pkg/part":            {"pkg/config"},
	"pkg/annotation":      {"pkg/config", "pkg/finding"},
	"pkg/snapshot":        {"pkg/apis/plugins/v1alpha1", "pkg/finding"},
	"pkg/envoy":           {"pkg/config", "pkg/finding"},
	"pkg/publickey":       {},
	"pkg/lua":             {"pkg/config", "pkg/part"},
	"pkg/catalog/builtin": {"pkg/config", "pkg/finding", "pkg/part"},
	"pkg/catalog/callout": {"pkg/catalog/builtin", "pkg/config", "pkg/part"},
	"pkg/consumer":        {"pkg/apis/plugins/v1alpha1", "pkg/catalog/builtin", "pkg/finding", "pkg/publickey", "pkg/snapshot"},
	"pkg/registry":        {"pkg/catalog/builtin", "pkg/snapshot"},
	"pkg/topology":        {"pkg/finding", "pkg/snapshot"},
	"pkg/resolve":         {"pkg/annotation", "pkg/apis/plugins/v1alpha1", "pkg/config", "pkg/finding", "pkg/snapshot"},
	"pkg/mechanism":       {"pkg/apis/plugins/v1alpha1", "pkg/catalog/builtin", "pkg/catalog/callout", "pkg/config", "pkg/envoy", "pkg/finding", "pkg/lua", "pkg/part"},
	"pkg/dispatch":        {"pkg/envoy", "pkg/internal/memo", "pkg/lua", "pkg/part"},
	"pkg/emit":            {"pkg/dispatch", "pkg/internal/memo", "pkg/lua", "pkg/snapshot", "pkg/topology"},
	"pkg/compile": {
		"pkg/annotation", "pkg/catalog", "pkg/config", "pkg/consumer", "pkg/dispatch", "pkg/emit", "pkg/finding", "pkg/internal/memo", "pkg/lua",
		"pkg/mechanism", "pkg/part", "pkg/registry", "pkg/resolve", "pkg/snapshot", "pkg/topology",
	},
	"pkg/explain": {"pkg/annotation", "pkg/apis/plugins/v1alpha1", "pkg/catalog", "pkg/catalog/builtin", "pkg/compile", "pkg/config", "pkg/finding", "pkg/mechanism", "pkg/resolve", "pkg/snapshot", "pkg/topology"},
	"pkg/difference": {
		"pkg/apis/plugins/v1alpha1", "pkg/catalog", "pkg/compile", "pkg/consumer", "pkg/emit", "pkg/explain", "pkg/finding", "pkg/lua",
		"pkg/manifest", "pkg/mechanism", "pkg/part", "pkg/registry", "pkg/resolve", "pkg/snapshot", "pkg/topology",
	},
	"pkg/lint": {"pkg/annotation", "pkg/catalog", "pkg/catalog/builtin", "pkg/compile", "pkg/consumer", "pkg/finding", "pkg/mechanism", "pkg/resolve", "pkg/snapshot", "pkg/topology"},
}

// The core is a function of values: it opens nothing, asks nobody and has no clock.
var forbidden = []string{"os", "net", "net/http", "log", "log/slog", "math/rand", "math/rand/v2", "k8s.io/client-go"}

func TestImportsPointOneWay(t *testing.T) {
	for name, allowed := range arrows {
		p, err := build.ImportDir(filepath.Join("../..", name), 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range p.Imports {
			inside, ours := strings.CutPrefix(i, module)
			switch {
			case ours && !slices.Contains(allowed, inside):
				t.Errorf("%s imports %s, which is no arrow of the core", name, inside)
			case slices.ContainsFunc(forbidden, func(f string) bool { return i == f || strings.HasPrefix(i, f+"/") && f != "net" }):
				t.Errorf("%s imports %s, which the core must not", name, i)
			}
		}
	}
}
