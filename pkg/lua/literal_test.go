package lua_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/lua"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

func TestLiteral(t *testing.T) {
	for _, c := range []struct {
		value any
		want  string
	}{
		{nil, `nil`},
		{true, `true`},
		{"", `""`},
		{"a\"b\\c\n\x001é\xff%", `"a\"b\\c\010\0001\195\169\255%"`},
		{json.Number("1.50"), `1.50`},
		{json.Number("9007199254740993"), `9007199254740993`},
		{json.Number("-1E+5"), `-1E+5`},
		{3, `3`},
		{int64(-3), `-3`},
		{0.1, `0.1`},
		{1e21, `1e+21`},
		{[]any{}, `{}`},
		{[]any{json.Number("1"), nil, "x", []any{nil}}, `{1,"x",{}}`},
		{[]string{"a", "b"}, `{"a","b"}`},
		{map[string]any{"b": false, "a": nil, "c d": "x", "end": "y", "é": "z", "_1": "w", "1": "v", "": "u"},
			`{[""]="u",["1"]="v",_1="w",b=false,["c d"]="x",["end"]="y",["\195\169"]="z"}`},
		{config.Value{"keys": part.Shared{Name: `keys/"shop"`, Table: config.Value{"a": "b"}}}, `{keys=D"keys/\"shop\""}`},
		{[]any{&part.Shared{Name: "t"}}, `{D"t"}`},
	} {
		if got := lua.Literal(c.value); got != c.want {
			t.Errorf("%#v is written as\n\t%s, want\n\t%s", c.value, got, c.want)
		}
	}
}

func TestLiteralRefusesWhatIsNoConfig(t *testing.T) {
	for _, bad := range []any{struct{}{}, json.Number("os.exit()"), json.Number(""), json.Number("0x10"), json.Number("01"), []any{make(chan int)}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%#v was written", bad)
				}
			}()
			lua.Literal(bad)
		}()
	}
}

func TestChain(t *testing.T) {
	source := `return {}`
	id := lua.SourceID(source)
	cfg := config.Value{"a": json.Number("1")}
	for _, c := range []struct {
		parts []part.Lua
		want  string
	}{
		{nil, `l{}`},
		{[]part.Lua{{Plugin: "p", Source: source}}, `l{{"` + id + `","p"}}`},
		{[]part.Lua{{Plugin: "p", Source: source, Config: config.Value{}}}, `l{{"` + id + `","p"}}`},
		{[]part.Lua{{Plugin: "p", Source: source, Config: cfg}}, `l{{"` + id + `","p",{a=1}}}`},
		{[]part.Lua{{Plugin: "p", Source: source, FailOpen: true}}, `l{{"` + id + `","p",nil,true}}`},
		{[]part.Lua{{Plugin: "p", Source: source, Config: cfg, FailOpen: true}, {Plugin: "q/r", Source: source}}, `l{{"` + id + `","p",{a=1},true},{"` + id + `","q/r"}}`},
	} {
		entries := make([]lua.Entry, len(c.parts))
		for i, p := range c.parts {
			entries[i] = lua.EntryOf(p)
		}
		if got := lua.Chain(entries); got != c.want {
			t.Errorf("the chain is %s, want %s", got, c.want)
		}
	}
	if got, want := lua.Refusal("a\"b"), `l{refuse="a\"b"}`; got != want {
		t.Errorf("the refusal is %s, want %s", got, want)
	}
}

func TestSourceID(t *testing.T) {
	if a, b := lua.SourceID("a"), lua.SourceID("b"); a == b || len(a) != 22 || lua.SourceID("a") != a {
		t.Errorf("the IDs are %s and %s", a, b)
	}
}

func TestFilterSourceDependsOnContentAlone(t *testing.T) {
	one := part.Lua{Source: "return {1}", Config: config.Value{"t": part.Shared{Name: "a", Table: config.Value{"x": "1"}}}}
	two := part.Lua{Source: "return {\n2\\010\n}", Config: config.Value{"l": []any{part.Shared{Name: "b"}, part.Shared{Name: "a", Table: config.Value{"x": "1"}}}}}
	want := lua.NewProgram(one, two).FilterSource("slot.1")
	if got := lua.NewProgram(two, one, two).FilterSource("slot.1"); got != want {
		t.Errorf("order and repetition matter:\n%s", cmp.Diff(want, got))
	}
	if lua.NewProgram(one).FilterSource("slot.1") == want || lua.NewProgram(one, two).FilterSource("slot.2") == want {
		t.Error("content does not matter")
	}
	for i := range len(want) {
		if c := want[i]; c != '\n' && (c < ' ' || c > '~') {
			t.Fatalf("byte %d is %q", i, c)
		}
	}
	if err := lua.CheckSyntax(want); err != nil {
		t.Error(err)
	}
}

func TestSlots(t *testing.T) {
	run := func(sources ...string) []part.Lua {
		out := make([]part.Lua, len(sources))
		for i, s := range sources {
			out[i] = part.Lua{Source: s, Services: map[string]part.Service{"a": {}}}
		}
		return out
	}
	for _, c := range []struct{ run, want string }{
		{"", ""},
		{"a", "a"},
		{"a b c", "a b c"},
		{"pdk.call", "pdk.call"},
		{"a pdk.call b c", "a pdk.call|b c"},
		{"pdk.call pdk.call", "pdk.call|pdk.call"},
		{"a importPublicKey b importPublicKey c", "a importPublicKey b|importPublicKey c"},
		{"importPublicKey pdk.call importPublicKey", "importPublicKey pdk.call|importPublicKey"},
		{"importPublicKey importPublicKey+pdk.call a", "importPublicKey|importPublicKey+pdk.call|a"},
	} {
		var got []string
		for _, slot := range lua.Slots(run(strings.Fields(c.run)...)) {
			var sources []string
			for _, l := range slot {
				sources = append(sources, l.Source)
			}
			got = append(got, strings.Join(sources, " "))
		}
		if strings.Join(got, "|") != c.want {
			t.Errorf("%q is cut into %q, want %q", c.run, got, c.want)
		}
	}
}

// evaluate runs a literal in LuaJIT, in the way that the runtime does, and returns it as JSON.
func evaluate(t testing.TB, literal string) string {
	t.Helper()
	command := exec.Command("luajit", "testdata/evaluate.lua")
	command.Stdin = strings.NewReader(literal)
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, literal)
	}
	return string(out)
}

func TestLiteralOfManyValues(t *testing.T) {
	list := make([]any, 100000)
	table := make(map[string]any)
	for i := range list {
		list[i] = map[string]any{"n": i}
		table[fmt.Sprint("k", i)] = []any{"v", fmt.Sprint(i)}
	}
	want := map[string]any{"list": list, "table": table, "small": []any{"x"}}
	raw, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := config.Decode([]byte(evaluate(t, lua.Literal(want))))
	if err != nil {
		t.Fatal(err)
	}
	again, err := config.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	if string(got.JSON()) != string(again.JSON()) {
		t.Error("another table came back")
	}
}

// FuzzLiteral: what LuaJIT makes of a literal is the value, apart from null, from empty lists, which Lua cannot tell from
// empty maps, and from digits beyond a double's.
func FuzzLiteral(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a":1}`, `{"a":[1,2.5,-3e2,true,false,null,"x"],"b":{"c":[[]]}}`, `{"\u0000\u001f\"\\\n":"\u007f\u00e9\ud83d\ude00"}`,
		`{"end":0.1,"a b":-0.5,"1":{"2":[{}]}}`, `{"x":"\u00001","y":"%d%%"}`, `{"n":12345678901234567890}`, `{"a":"]]--[["}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := config.Decode([]byte(text))
		if err != nil {
			return
		}
		literal := lua.Literal(v)
		for i := range len(literal) {
			if c := literal[i]; c < ' ' || c > '~' {
				t.Fatalf("byte %d of %q is %q", i, literal, c)
			}
		}
		if deepest(v) > 60 || beyondDouble(map[string]any(v)) {
			return // the JSON that the comparison goes through cannot say it
		}
		got, err := config.Decode([]byte(evaluate(t, literal)))
		if err != nil {
			t.Fatalf("%v of %s", err, literal)
		}
		if diff := cmp.Diff(asLua(map[string]any(v)), asLua(map[string]any(got))); diff != "" {
			t.Errorf("%s\n%s", literal, diff)
		}
	})
}

func deepest(v any) int {
	most := 0
	switch v := v.(type) {
	case config.Value:
		return deepest(map[string]any(v))
	case map[string]any:
		for _, e := range v {
			most = max(most, deepest(e))
		}
	case []any:
		for _, e := range v {
			most = max(most, deepest(e))
		}
	default:
		return 0
	}
	return most + 1
}

func beyondDouble(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for _, e := range v {
			if beyondDouble(e) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, beyondDouble)
	case json.Number:
		_, err := v.Float64()
		return err != nil
	}
	return false
}

// asLua drops what Lua does not keep.
func asLua(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any)
		for name, e := range v {
			if e != nil {
				out[name] = asLua(e)
			}
		}
		return out
	case []any:
		out := make([]any, 0, len(v))
		for _, e := range v {
			if e != nil {
				out = append(out, asLua(e))
			}
		}
		if len(out) == 0 {
			return map[string]any{}
		}
		return out
	case json.Number:
		n, err := v.Float64()
		if err != nil {
			panic(err) // beyondDouble
		}
		return n
	}
	return v
}
