package emit_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/emit"
	"github.com/istio-plugins/istio-plugins/pkg/lua"
)

// changed are the changes of all objects, without the workload's and the tables' names, as `+entry`, `-entry` or `~entry`.
func changed(before, after map[string]emit.Object) []string {
	var out []string
	for name := range after {
		for _, c := range emit.Changes(before[name], after[name]) {
			sign := map[[2]bool]string{{true, true}: "~", {true, false}: "-", {false, true}: "+"}[[2]bool{c.Before, c.After}]
			kind := ""
			if parts := strings.Split(c.Resource, "."); len(parts) > 2 {
				kind = parts[2]
			}
			out = append(out, strings.TrimSpace(sign+kind+" "+strings.TrimPrefix(c.Key, "/apis/networking.istio.io/v1/namespaces/shop/virtual-service/")))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func TestChangesNameEntries(t *testing.T) {
	source := func(text string) string { return lua.SourceID(text) }
	const one, two = "return {} -- one", "return {} -- two"
	for name, c := range map[string]struct {
		before, after string
		want          []string
	}{
		"nothing":        {gateway + route("a", limit), gateway + route("a", limit), nil},
		"a new binding":  {gateway + route("a", "cors"), gateway + route("a", "cors") + route("b", "cors"), []string{"+bindings b"}},
		"a binding less": {gateway + route("a", "cors") + route("b", "cors"), gateway + route("a", "cors"), []string{"-bindings b"}},
		"another source": {gateway + route("a", "mine") + luaPlugin(one), gateway + route("a", "mine") + luaPlugin(two), []string{"~bindings a", "+lua " + source(two), "-lua " + source(one)}},
	} {
		t.Run(name, func(t *testing.T) {
			before, after := objects(t, c.before), objects(t, c.after)
			slices.Sort(c.want)
			if diff := cmp.Diff(c.want, changed(before, after)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
