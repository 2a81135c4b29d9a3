package annotation

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/istio-plugins/istio-plugins/pkg/config"
)

func TestParseAccepts(t *testing.T) {
	n := func(s string) json.Number { return json.Number(s) }
	for name, c := range map[string]struct {
		text string
		want []Entry
	}{
		"an empty value attaches nothing":              {"", nil},
		"blanks attach nothing":                        {" \n\t", nil},
		"commas alone attach nothing":                  {",, ,", nil},
		"an empty list attaches nothing":               {"[]", []Entry{}},
		"names keep their order and their repetitions": {"b, a, b", []Entry{{Name: "b", Place: "@0"}, {Name: "a", Place: "@3"}, {Name: "b", Place: "@6"}}},
		"blanks and empty items have no meaning":       {" a ,\r\n\tb,, ", []Entry{{Name: "a", Place: "@1"}, {Name: "b", Place: "@7"}}},
		"a leading - without a blank opts out":         {"-a, b", []Entry{{Name: "a", OptOut: true, Place: "@0"}, {Name: "b", Place: "@4"}}},
		"a leading - with a blank is a YAML list":      {"- a\n- -b\n", []Entry{{Name: "a", Place: "[0]"}, {Name: "b", OptOut: true, Place: "[1]"}}},
		"a - at the end of a line is a YAML list":      {"-\n  a\n", []Entry{{Name: "a", Place: "[0]"}}},
		"a name of another namespace":                  {"shop/limit, -shop/a.b", []Entry{{Name: "shop/limit", Place: "@0"}, {Name: "shop/a.b", OptOut: true, Place: "@12"}}},
		"names that look like YAML's other types, in a comma list": {"on, 1.0, null", []Entry{
			{Name: "on", Place: "@0"}, {Name: "1.0", Place: "@4"}, {Name: "null", Place: "@9"}}},
		"the same in quotes, in a YAML list": {`["on", '1.0', "null"]`, []Entry{
			{Name: "on", Place: "[0]"}, {Name: "1.0", Place: "[1]"}, {Name: "null", Place: "[2]"}}},
		"a date is a name": {"[2026-01-01]", []Entry{{Name: "2026-01-01", Place: "[0]"}}},
		"all fields": {"[{name: key-auth, routes: [api, \"on\"], config: {key_names: [apikey]}, override: yes, disabled: false}]", []Entry{
			{Name: "key-auth", Routes: []string{"api", "on"}, Config: config.Value{"key_names": []any{"apikey"}}, Override: true, Place: "[0]"}}},
		"a single map is a list of one":       {"{name: a}", []Entry{{Name: "a", Place: "[0]"}}},
		"a map with -name opts out":           {"[{name: -a, routes: [api]}]", []Entry{{Name: "a", OptOut: true, Routes: []string{"api"}, Place: "[0]"}}},
		"a map with disabled opts out":        {"[{name: a, disabled: true}]", []Entry{{Name: "a", OptOut: true, Place: "[0]"}}},
		"a config that is null is not given":  {"- name: a\n  config:\n", []Entry{{Name: "a", Place: "[0]"}}},
		"a config that is empty is given":     {"[{name: a, config: {}}]", []Entry{{Name: "a", Config: config.Value{}, Place: "[0]"}}},
		"a null inside a config stays":        {"[{name: a, config: {b: null, c: ~}}]", []Entry{{Name: "a", Config: config.Value{"b": nil, "c": nil}, Place: "[0]"}}},
		"numbers of JSON keep their text":     {"[{name: a, config: {b: [1.10, -0, 1e3, 12345678901234567890123]}}]", []Entry{{Name: "a", Config: config.Value{"b": []any{n("1.10"), n("-0"), n("1e3"), n("12345678901234567890123")}}, Place: "[0]"}}},
		"numbers of YAML are what they mean":  {"[{name: a, config: {b: [0x1F, 010, 1_000, .5, +1]}}]", []Entry{{Name: "a", Config: config.Value{"b": []any{n("31"), n("8"), n("1000"), n("0.5"), n("1")}}, Place: "[0]"}}},
		"booleans are those of kubectl":       {"[{name: a, config: {b: [on, Off, y, NO, true, \"on\"]}}]", []Entry{{Name: "a", Config: config.Value{"b": []any{true, false, true, false, true, "on"}}, Place: "[0]"}}},
		"a date in a config is a string":      {"[{name: a, config: {b: 2026-01-01}}]", []Entry{{Name: "a", Config: config.Value{"b": "2026-01-01"}, Place: "[0]"}}},
		"an integer is as good a key as any":  {"[{name: a, config: {401: x}}]", []Entry{{Name: "a", Config: config.Value{"401": "x"}, Place: "[0]"}}},
		"JSON with tabs and surrogate pairs":  {"[\n\t{\"name\":\t\"a\", \"config\": {\"b\": \"\\ud83d\\ude00\", \"<<\": 1}}\n]", []Entry{{Name: "a", Config: config.Value{"b": "😀", "<<": n("1")}, Place: "[0]"}}},
		"comments in YAML":                    {"- a # first\n# - b\n", []Entry{{Name: "a", Place: "[0]"}}},
		"a config of 64 levels":               {deep(64), []Entry{{Name: "a", Config: mustConfig(t, deep(64)), Place: "[0]"}}},
		"64 entries, and empty ones among it": {strings.Repeat("a,,", 64), entriesOfA(64)},
	} {
		t.Run(name, func(t *testing.T) {
			got, problem := Parse(c.text)
			if problem != nil {
				t.Fatal(problem.Message)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("Parse(%q), -want +got:\n%s", c.text, diff)
			}
		})
	}
}

// deep is an annotation whose config has maps in maps.
func deep(levels int) string {
	return "[{name: a, config: " + strings.Repeat("{a: ", levels-1) + "{}" + strings.Repeat("}", levels-1) + "}]"
}

func mustConfig(t *testing.T, text string) config.Value {
	t.Helper()
	text = strings.NewReplacer("[{name: a, config: ", "", "}]", "", "a:", `"a":`).Replace(text)
	v, err := config.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func entriesOfA(count int) []Entry {
	out := make([]Entry, count)
	for i := range out {
		out[i] = Entry{Name: "a", Place: fmt.Sprintf("@%d", 3*i)}
	}
	return out
}

// Each text has exactly one entry that cannot be honoured; the line behind it is what users read.
func TestParseRefusesEntries(t *testing.T) {
	for _, c := range []struct {
		text, want string
		routes     []string
	}{
		// Names.
		{text: "a, cors key-auth", want: `@3: "cors key-auth" is no plugin name: separate plugins with commas, or write each on a line of its own after "- "`},
		{text: "cors\nkey-auth", want: `@0: "cors\nkey-auth" is no plugin name: separate plugins with commas, or write each on a line of its own after "- "`},
		{text: "Cors", want: `@0: "Cors" is no plugin name: write "cors"`},
		{text: "a,\"b\"", want: `@2: "\"b\"" is no plugin name: leave the quotes out`},
		{text: "a, - b", want: `@3: " b" is no plugin name: write "b" without blanks`},
		{text: "a, -", want: `@3: the name is empty`},
		{text: "--a", want: `@0: "-a" is no plugin name: one "-" opts out`},
		{text: "a/b/c", want: `@0: "a/b/c" is no plugin name: it has more than one "/"`},
		{text: "/b", want: `@0: "/b" is no plugin name: lower case letters, digits, "-" and "." make a name, "namespace/name" one of another namespace`},
		{text: "a.b/c", want: `@0: "a.b/c" is no plugin name: lower case letters, digits, "-" and "." make a name, "namespace/name" one of another namespace`},
		{text: "key_auth", want: `@0: "key_auth" is no plugin name: lower case letters, digits, "-" and "." make a name, "namespace/name" one of another namespace`},
		{text: "name: key-auth", want: `@0: "name: key-auth" is no plugin name: a list that holds maps is written [cors, {name: key-auth, routes: [api]}]`},
		{text: strings.Repeat("a", 254), want: `@0: "` + strings.Repeat("a", 60) + `…" is no plugin name: lower case letters, digits, "-" and "." make a name, "namespace/name" one of another namespace`},
		{text: "- a, b", want: `[0]: "a, b" is no plugin name: separate plugins with commas, or write each on a line of its own after "- "`},
		{text: `[""]`, want: `[0]: the name is empty`},
		// What YAML reads as something else than a string.
		{text: "[on]", want: `[0]: on is a boolean in YAML, not a name: write "on" in quotes`},
		{text: "[a, 1.0]", want: `[1]: 1.0 is a number in YAML, not a name: write "1.0" in quotes`},
		{text: "[0x1F]", want: `[0]: 0x1F is a number in YAML, not a name: write "0x1F" in quotes`},
		{text: "[null]", want: `[0]: null is null in YAML, not a name: write "null" in quotes`},
		{text: "- \n- a", want: `[0]: is empty, which is null in YAML, not a name`},
		{text: "[[a]]", want: `[0]: a list is no entry: write the plugin's name, or a map with a name`},
		{text: "[{name: on}]", want: `[0].name: on is a boolean in YAML, not a name: write "on" in quotes`},
		// Fields.
		{text: "{}", want: `[0].name: is required`},
		{text: "[{name: ''}]", want: `[0].name: the name is empty`},
		{text: "[{name: [a]}]", want: `[0].name: must be a string, not a list`},
		{text: "[{name: a, route: [api]}]", want: `[0]: unknown field "route", did you mean "routes"?`},
		{text: "[{name: a, x: 1}]", want: `[0]: unknown field "x", known ones are name, routes, config, disabled, override`},
		{text: "[{name: a, name: b}]", want: `[0].name: is given more than once`},
		{text: "[{name: a, name: b, name: c}]", want: `[0].name: is given more than once`},
		{text: "[{name: a, routes: [x], routes: [y]}]", want: `[0].routes: is given more than once`},
		{text: "[{name: a, on: b}]", want: `[0]: on is a boolean in YAML, not a field name: write "on" in quotes`},
		{text: "[{name: a, [b]: c}]", want: `[0]: a list is no field name: write a string`},
		{text: "[{name: a, <<: {config: {}}}]", want: `[0]: YAML's merge key << is not supported here: write the fields out`},
		{text: "[{name: a, routes: api}]", want: `[0].routes: must be a list of route names, not a string`},
		{text: "[{name: a, routes: }]", want: `[0].routes: must be a list of route names, not null`},
		{text: "[{name: a, routes: []}]", want: `[0].routes: is empty: name at least one route, or leave routes out for all`},
		{text: "[{name: a, routes: [api, 1]}]", want: `[0].routes[1]: 1 is a number in YAML, not a route's name: write "1" in quotes`},
		{text: "[{name: a, routes: ['']}]", want: `[0].routes[0]: the name is empty`},
		{text: "[{name: a, config: [b]}]", want: `[0].config: must be a map, not a list`},
		{text: "[{name: a, config: b}]", want: `[0].config: must be a map, not a string`},
		{text: "[{name: a, config: {b: {c: 1, c: 2}}}]", want: `[0].config.b: "c" is given more than once`},
		{text: "[{name: a, config: {b: [{1.0: x}]}}]", want: `[0].config.b[0]: 1.0 is a number in YAML, not a field name: write "1.0" in quotes`},
		{text: "[{name: a, config: {b: .inf}}]", want: `[0].config.b: .inf is no number that JSON can hold`},
		{text: "[{name: a, disabled: 'true'}]", want: `[0].disabled: must be true or false, not a string`},
		{text: "[{name: a, override: 1}]", want: `[0].override: must be true or false, not a number`},
		{text: "[{name: a, override: }]", want: `[0].override: must be true or false, not null`},
		{text: "[{name: -a, config: {}}]", want: `[0].config: an opt-out takes no config: leave it out`},
		{text: "[{name: a, disabled: true, override: true}]", want: `[0].override: an opt-out takes no override: leave it out`},
		{text: "[{name: -a, disabled: false}]", want: `[0].disabled: is false, but the "-" of the name opts out: leave one of them out`},
		// What YAML can do and an annotation cannot.
		{text: "[&x a]", want: `[0]: the YAML anchor &x is not supported here: leave it out`},
		{text: "[!!str on]", want: `[0]: the YAML tag !!str is not supported here: leave it out`},
		{text: "[{name: a, config: {b: !secret c}}]", want: `[0]: the YAML tag !secret is not supported here: leave it out`},
		{text: deep(65), want: `[0]: the config is nested more than 64 levels deep`},
		// The routes that a problem covers, where they are known.
		{text: "[{name: a, routes: [api, web], override: 1}]", want: `[0].override: must be true or false, not a number`, routes: []string{"api", "web"}},
		{text: "[{routes: [api]}]", want: `[0].name: is required`, routes: []string{"api"}},
	} {
		t.Run(c.text, func(t *testing.T) {
			entries, problem := Parse(c.text)
			if problem != nil {
				t.Fatalf("the whole annotation is refused: %s", problem.Message)
			}
			var got []string
			for _, e := range entries {
				for _, p := range e.Problems {
					got = append(got, p.Place+": "+p.Message)
					if diff := cmp.Diff(c.routes, p.Routes); diff != "" {
						t.Errorf("routes of the problem, -want +got:\n%s", diff)
					}
				}
			}
			if diff := cmp.Diff([]string{c.want}, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestParseRefusesTheWhole(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"[cors", `this is not valid YAML, as which it is read because it starts with "[": line 1: did not find expected ',' or ']'`},
		{"[cors], key-auth", `this is not valid YAML, as which it is read because it starts with "[": did not find expected <document start>`},
		{"- a\n---\n- b\n", `this is not valid YAML, as which it is read because it starts with "-": line 2: a second YAML document starts, there may be one only`},
		{"- a\nb: c\n", `this is not valid YAML, as which it is read because it starts with "-": line 1: did not find expected '-' indicator`},
		{"[*x]", `this is not valid YAML, as which it is read because it starts with "[": unknown anchor 'x' referenced`},
		{strings.Repeat(",", MaxBytes+1), "the annotation has 65537 bytes, at most 65536 are read"},
		{strings.Repeat("a,", 65), "the annotation has 65 entries, at most 64 are allowed"},
		{"[" + strings.Repeat("a,", 65) + "]", "the annotation has 65 entries, at most 64 are allowed"},
	} {
		t.Run(cut(c.text), func(t *testing.T) {
			entries, problem := Parse(c.text)
			if problem == nil {
				t.Fatalf("accepted as %v", entries)
			}
			if diff := cmp.Diff(Problem{Message: c.want}, *problem); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if entries != nil {
				t.Errorf("there are entries: %v", entries)
			}
		})
	}
}

// A short text must not become a huge value: nine levels of nine aliases are 387,420,489 strings.
func TestBillionLaughs(t *testing.T) {
	text := "- name: a\n  config:\n    a: &a [x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c <= 'i'; c++ {
		text += fmt.Sprintf("    %c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c, ", c-1), 9), ", "))
	}
	entries, problem := Parse(text)
	if problem != nil || len(entries) != 1 || len(entries[0].Problems) != 1 {
		t.Fatalf("got %v, %v", entries, problem)
	}
	if want := "the YAML anchor &a is not supported here: leave it out"; entries[0].Problems[0].Message != want {
		t.Errorf("got %q, want %q", entries[0].Problems[0].Message, want)
	}
}

func TestPrint(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"[]", ""},
		{" b,a ,, -ns/c", "b, a, -ns/c"},
		{"- a\n- name: b\n  disabled: true\n", "a, -b"},
		{`["on", {name: "1.0"}]`, "on, 1.0"},
		{"[\"on\", {config: {z: <&>, x: 1.0}, routes: [api], name: a, override: on}]",
			`["on", {"name":"a","routes":["api"],"config":{"x":1.0,"z":"<&>"},"override":true}]`},
		{"{name: a, config: {}}", `[{"name":"a","config":{}}]`},
		{"{name: a, disabled: true, routes: [api]}", `[{"name":"-a","routes":["api"]}]`},
	} {
		entries, problem := Parse(c.text)
		if problem != nil {
			t.Fatal(problem.Message)
		}
		if got := Print(entries); got != c.want {
			t.Errorf("Print(Parse(%q)) = %s, want %s", c.text, got, c.want)
		}
	}
}

// sameMeaning ignores where an entry stands in the text, which printing may change, and how an absent list is spelled.
var sameMeaning = cmp.Options{cmpopts.IgnoreFields(Entry{}, "Place"), cmpopts.EquateEmpty()}
