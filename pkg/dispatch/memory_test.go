package dispatch

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// changed are the resources of b that are not those of a, by identity. What they say must be what a fresh compilation says.
func changed(t *testing.T, u Unit, a, b Compiled) []string {
	t.Helper()
	before := map[string]proto.Message{}
	for r := range a.Resources() {
		before[r.Name] = r.Config
	}
	fresh := map[string]Resource{}
	for r := range u.Compile().Resources() {
		fresh[r.Name] = r
	}
	var out []string
	for r := range b.Resources() {
		if r.Config != before[r.Name] {
			out = append(out, r.Name)
		}
		if !proto.Equal(r.Config, fresh[r.Name].Config) || !slices.Equal(r.Keys, fresh[r.Name].Keys) {
			t.Errorf("%s is not as if it were compiled afresh", r.Name)
		}
	}
	return out
}

func TestMemoryKeepsWhatIsTheSame(t *testing.T) {
	u := unit()
	m := &Memory{}
	compile := func() Compiled {
		m.Next()
		return m.Compile(u)
	}
	was := compile()
	step := func(name string, want ...string) {
		t.Helper()
		is := compile()
		if got := changed(t, u, was, is); !slices.Equal(got, want) {
			t.Errorf("%s changes %q, not %q", name, got, want)
		}
		was = is
	}
	step("nothing")
	if first := was.Filters[0]; compile().Filters[0] != first {
		t.Error("the fixed filters are made anew")
	}

	again := *u.Bindings[0]
	u.Bindings[0] = &again
	step("an equal binding")

	other := again
	other.Routes.Default = Run{Parts: []Placed{native(1, part.Stateless, "other")}}
	table := fmt.Sprintf("istio-plugins.w.bindings.%d", u.BindingsTable(other.Key))
	slot := u.slotTableName("n", 1, u.slotTable(1, other.Routes.Default.Parts[0].Name))
	u.Bindings[0] = &other
	step("a binding that runs something new", table, slot)

	u.Bindings[0] = &again
	step("the way back", table, slot)

	fewer := u.Bindings
	u.Bindings = u.Bindings[1:]
	step("a binding that is gone", table, u.slotTableName("s", 1, u.slotTable(1, again.ByPort["8080"].Default.Parts[0].Name)))
	u.Bindings = fewer

	compile()
	was = compile()
	refusal := again
	refusal.Routes.Default = Run{Parts: []Placed{luaPart("return 1"), native(1, part.Stateless, "0")}}
	u.Bindings[0] = &refusal
	if got := changed(t, u, was, compile()); !slices.Contains(got, u.luaName(1)) {
		t.Errorf("a new source changes %q", got)
	}
}

// The numbers of Wasm plugins are no part of a binding.
func TestMemoryFollowsTheNumbersOfThePool(t *testing.T) {
	u := unit()
	m := &Memory{}
	was := m.Compile(u)
	plugins := map[string]part.Wasm{"tag": {URL: "file:///other"}}
	u.Pool, _ = NewPool(plugins, Numbers{}, secretName)
	m.Next()
	is := m.Compile(u)
	if got := changed(t, u, was, is); len(got) > 0 {
		t.Errorf("another module under a number changes %q", got)
	}
	u.Pool, _ = NewPool(plugins, Numbers{Open: map[string]int{"tag": 2}}, secretName)
	m.Next()
	var want []string
	for _, r := range is.Bindings {
		if len(r.Keys) > 0 {
			want = append(want, r.Name)
		}
	}
	if got := changed(t, u, is, m.Compile(u)); !slices.Equal(got, want) {
		t.Errorf("another number changes %q, not all bindings", got)
	}
}
