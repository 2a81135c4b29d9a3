package dispatch

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	buffer "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/envoy"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

func native(bytes uint32, state part.State, owner string) Placed {
	n := part.Native{Config: &buffer.Buffer{MaxRequestBytes: wrapperspb.UInt32(bytes)}, State: state}
	return Placed{Part: n, Name: Instance(n, owner)}
}

func caller(source string) Placed {
	p := luaPart(source)
	l := p.Part.(part.Lua)
	l.Services = map[string]part.Service{"a": {Host: "a.test", Port: 80}}
	p.Part = l
	return p
}

func luaPart(source string) Placed {
	return Placed{Part: part.Lua{Plugin: "p", Source: source, SourceID: source, Config: config.Value{}}, Name: source, Key: source}
}

func kinds(slots []value) string {
	var out []string
	for i, v := range slots {
		if v.text != "" {
			out = append(out, fmt.Sprintf("%d%c", i, v.text[0]))
		}
	}
	return strings.Join(out, " ")
}

func TestPlace(t *testing.T) {
	n, s := native(1, part.Stateless, ""), native(1, part.PerAttachment, "a")
	l := luaPart("return {}")
	tests := map[string]struct {
		parts []Placed
		want  string
	}{
		"nothing":                               {nil, ""},
		"adjacent Lua parts share a slot":       {[]Placed{l, l, n, l}, "1l 2n 3l"},
		"state is a kind of its own":            {[]Placed{n, s}, "1n 2s"},
		"a long chain goes on behind the last":  {[]Placed{n, l, n, l}, "1n 2l 3m 4n 5l"},
		"a body after a call needs a slot more": {[]Placed{caller("pdk.call"), luaPart("body"), n}, "1l 2l 3n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			run := Run{Parts: tt.parts}
			slots, err := place(run.values(nil, map[string][]value{}))
			if err != nil {
				t.Fatal(err)
			}
			if got := kinds(slots); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestTheLongestChainFitsAndALongerOneIsSeen(t *testing.T) {
	var r Run
	for i := range MaxSlots {
		r.Parts = append(r.Parts, native(1, part.Stateless, fmt.Sprint(i)))
	}
	if n := r.SlotsNeeded(); n > MaxSlots {
		t.Fatalf("%d slots needed", n)
	}
	slots, err := place(r.values(nil, map[string][]value{}))
	if err != nil || len(slots) != directSlots+longSlots+1 {
		t.Fatalf("%d slots, %v", len(slots), err)
	}
	r.Parts = append(r.Parts, native(99, part.Stateless, ""))
	if n := r.SlotsNeeded(); n <= MaxSlots {
		t.Errorf("a chain of %d parts needs %d slots", len(r.Parts), n)
	}
	// Many Lua parts need one.
	r.Parts = nil
	for range 60 {
		r.Parts = append(r.Parts, luaPart("return {}"))
	}
	if n := r.SlotsNeeded(); n != 1 {
		t.Errorf("60 adjacent Lua parts need %d slots", n)
	}
}

func TestInstanceNamesTheOwnerNotTheContent(t *testing.T) {
	if native(1, part.Stateless, "a").Name != native(2, part.Stateless, "a").Name {
		t.Error("an edit of a config changes the name, so a request may meet it before its filter has arrived")
	}
	names := []string{
		native(1, part.Stateless, "a").Name, native(1, part.Stateless, "b").Name,
		native(1, part.PerAttachment, "a").Name, native(1, part.PerAttachment, "b").Name,
	}
	slices.Sort(names)
	if len(slices.Compact(names)) != 4 {
		t.Errorf("names are not different: %v", names)
	}
}

func secretName(object string) string { return "secret/" + object }

func TestPool(t *testing.T) {
	open, secret := part.Wasm{URL: "oci://a"}, part.Wasm{URL: "oci://a", ImagePullSecret: "s"}
	tests := map[string]struct {
		plugins map[string]part.Wasm
		earlier Numbers
		want    map[string]string
		size    int
	}{
		"nobody":                               {nil, Numbers{}, map[string]string{}, 4},
		"sorted":                               {map[string]part.Wasm{"b": open, "a": open}, Numbers{}, map[string]string{"a": "w0.", "b": "w1."}, 4},
		"the two pools do not share":           {map[string]part.Wasm{"b": open, "a": secret}, Numbers{}, map[string]string{"a": "p0.", "b": "w0."}, 4},
		"an earlier number stays":              {map[string]part.Wasm{"b": open, "a": open}, Numbers{Open: map[string]int{"b": 0}}, map[string]string{"a": "w1.", "b": "w0."}, 4},
		"a number that was used is not reused": {map[string]part.Wasm{"a": open}, Numbers{Open: map[string]int{"gone": 0}}, map[string]string{"a": "w1."}, 4},
		"it grows by steps":                    {map[string]part.Wasm{"a": open, "b": open, "c": open, "d": open, "e": open}, Numbers{}, map[string]string{"a": "w0.", "e": "w4."}, 8},
		"one number for two":                   {map[string]part.Wasm{"a": open, "b": open}, Numbers{Open: map[string]int{"a": 2, "b": 2}}, map[string]string{"a": "w2.", "b": "w0."}, 4},
		"it does not become smaller":           {map[string]part.Wasm{"a": open}, Numbers{OpenPlaces: 12}, map[string]string{"a": "w0."}, 12},
		"nor larger than it can be":            {map[string]part.Wasm{"a": open}, Numbers{OpenPlaces: 1 << 20}, map[string]string{"a": "w0."}, MaxWasm},
		"nonsense in an annotation":            {map[string]part.Wasm{"a": open}, Numbers{Open: map[string]int{"a": -3, "b": 9999}}, map[string]string{"a": "w0."}, 4},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, left := NewPool(tt.plugins, tt.earlier, secretName)
			if len(left) > 0 {
				t.Errorf("no number for %v", left)
			}
			for id, want := range tt.want {
				if got := p.value(id); got != want {
					t.Errorf("%s is %s, want %s", id, got, want)
				}
			}
			if p.open.size != tt.size {
				t.Errorf("size %d, want %d", p.open.size, tt.size)
			}
			names := map[string]bool{}
			for _, r := range p.Resources("w") {
				if names[r.Name] {
					t.Errorf("%s twice", r.Name)
				}
				names[r.Name] = true
			}
		})
	}
}

func TestPoolIsFull(t *testing.T) {
	plugins := map[string]part.Wasm{}
	for i := range MaxWasm + 2 {
		plugins[fmt.Sprintf("%03d", i)] = part.Wasm{URL: "oci://a"}
	}
	_, left := NewPool(plugins, Numbers{}, secretName)
	if !slices.Equal(left, []string{"064", "065"}) {
		t.Errorf("left are %v", left)
	}
}

func unit() Unit {
	pool, _ := NewPool(map[string]part.Wasm{"tag": {URL: "file:///tag"}}, Numbers{}, secretName)
	u := Unit{Workload: "w", Pool: pool}
	shared := []Placed{native(1, part.Stateless, "0"), native(1, part.Stateless, "1"), native(1, part.Stateless, "2")}
	for i := range 40 {
		u.Bindings = append(u.Bindings, &Binding{
			Key: fmt.Sprintf("/apis/%d", i),
			Routes: Routes{
				Default: Run{Parts: shared[i%3 : i%3+1]},
				Named: map[string]Run{
					"wasm":    {Parts: []Placed{{Part: part.Wasm{URL: "file:///tag"}, Name: "tag"}, luaPart("return {}")}},
					"refused": {Refused: true, Plugin: "100%"},
					"nothing": {},
				},
			},
			ByPort: map[string]Routes{"8080": {Default: Run{Parts: []Placed{native(1, part.PerAttachment, fmt.Sprint(i))}}}},
			Once:   i%2 == 0,
		})
	}
	return u
}

// Envoy never subscribes to a name that first appears in an ECDS update.
func TestEveryNameIsThereFromTheStart(t *testing.T) {
	u := unit()
	full := names(u.Compile())
	u.Bindings = nil
	empty := names(u.Compile())
	if !slices.Equal(full, empty) {
		t.Errorf("the names depend on the content:\n%v\n%v", full, empty)
	}
}

func names(c Compiled) []string {
	var out []string
	for r := range c.Resources() {
		out = append(out, r.Name)
	}
	return out
}

func TestFiltersDoNotDependOnTheContent(t *testing.T) {
	u := unit()
	full := u.Compile().Filters
	u.Bindings = u.Bindings[:1]
	few := u.Compile().Filters
	for i := range full {
		if a, b := fmt.Sprint(full[i].Config), fmt.Sprint(few[i].Config); a != b {
			t.Errorf("filter %s changed, which would drain connections", full[i].Name)
		}
	}
}

// Filters of Envoy keep state of their own under the name of the filter that they run in.
func TestNoStateIsCalledAsAFilter(t *testing.T) {
	u := unit()
	states := map[string]bool{stateVirtualService: true, stateRoute: true, stateBound: true}
	for _, slot := range allSlots() {
		states[slotState(u.Workload, slot)] = true
	}
	for _, f := range u.filters() {
		if states[f.Name] {
			t.Errorf("%s is a filter and a filter state", f.Name)
		}
	}
}

func TestEverythingPassesEnvoysRules(t *testing.T) {
	for _, deny := range []bool{false, true} {
		for _, name := range []string{"", "tls-1"} {
			u := unit()
			u.DenyUnknown, u.Name = deny, name
			c := u.Compile()
			for _, f := range c.Filters {
				if err := envoy.Check(f.Config); err != nil {
					t.Errorf("%s: %v", f.Name, err)
				}
			}
			for r := range c.Resources() {
				if err := envoy.Check(r.Config); err != nil {
					t.Errorf("%s: %v", r.Name, err)
				}
			}
		}
	}
}

func TestEveryBindingIsInTheTableOfItsHash(t *testing.T) {
	u := unit()
	c := u.Compile()
	found := 0
	for i, r := range c.Bindings {
		for _, key := range r.Keys {
			if u.BindingsTable(key) != i {
				t.Errorf("%s is in table %d", key, i)
			}
			found++
		}
	}
	if found != len(u.Bindings) {
		t.Errorf("%d of %d bindings found", found, len(u.Bindings))
	}
}

func TestAClosedTableHoldsNothing(t *testing.T) {
	u := unit()
	before := u.Compile().Bindings
	u.Close(before[3].Name)
	after := u.Compile().Bindings
	for i := range before {
		if i != 3 && len(after[i].Keys) != len(before[i].Keys) {
			t.Errorf("table %d changed", i)
		}
	}
	if len(after[3].Keys) != 0 || !strings.Contains(fmt.Sprint(after[3].Config), "http.fault") {
		t.Errorf("the closed table: %v", after[3].Config)
	}
}
