package builtin_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/config"
)

var schema = builtin.MustSchema([]byte(`
$schema: https://json-schema.org/draft/2020-12/schema
description: A plugin for tests.
type: object
additionalProperties: false
required: [mode]
x-ignored: [redis_host]
properties:
  mode:
    description: What to do.
    type: string
    enum: [fast, slow]
  count:
    description: How often.
    type: integer
    minimum: 1
    maximum: 100
    default: 10
  share:
    description: How much.
    type: number
    exclusiveMinimum: 0
    maximum: 0.5
    multipleOf: 0.0001
  names:
    description: Whose.
    type: array
    minItems: 1
    maxItems: 2
    uniqueItems: true
    items: {type: string, format: http-header-name, minLength: 2, maxLength: 10}
    x-default: everybody
  secret:
    description: With what.
    oneOf:
    - type: string
      minLength: 3
    - type: object
      additionalProperties: false
      required: [name]
      properties:
        name: {type: string, description: Whose name.}
        key: {type: string, description: Which key., default: key}
  add: {$ref: "#/$defs/change", description: Added first.}
  rules:
    description: A list of maps.
    type: array
    items:
      type: object
      additionalProperties: false
      properties:
        weight: {type: integer, default: 1, description: Its weight.}
  labels:
    description: Free names.
    type: object
    maxProperties: 2
    additionalProperties: {type: integer}
  nothing:
    description: May be null.
    type: [string, "null"]
$defs:
  change:
    type: object
    additionalProperties: false
    properties:
      headers:
        description: The headers.
        type: array
        items: {type: string}
        default: []
`))

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name     string
		config   string
		complete string // empty where it does not matter
		problems []string
	}{
		{"defaults", `{"mode":"fast"}`, `{"count":10,"mode":"fast"}`, nil},
		{"defaults inside of what is there", `{"mode":"fast","add":{},"rules":[{},{"weight":2}]}`, `{"add":{"headers":[]},"count":10,"mode":"fast","rules":[{"weight":1},{"weight":2}]}`, nil},
		{"null is absent", `{"mode":"fast","count":null,"add":{"headers":null},"share":null}`, `{"add":{"headers":[]},"count":10,"mode":"fast"}`, nil},
		{"null where it is a value", `{"mode":"fast","nothing":null}`, `{"count":10,"mode":"fast","nothing":null}`, nil},
		{"integers have one spelling", `{"mode":"fast","count":1e1,"labels":{"a":2.0}}`, `{"count":10,"labels":{"a":2},"mode":"fast"}`, nil},
		{"other numbers keep theirs", `{"mode":"fast","share":0.2500}`, `{"count":10,"mode":"fast","share":0.2500}`, nil},
		{"Kong's fields are ignored", `{"mode":"fast","tags":["a"],"redis_host":"r"}`, `{"count":10,"mode":"fast"}`,
			[]string{"warning redis_host: has no meaning here and is ignored", "warning tags: has no meaning here and is ignored"}},
		{"required", `{}`, "", []string{"mode: is required"}},
		{"misspelt field", `{"mode":"fast","cuont":1}`, "", []string{`cuont: unknown field, did you mean "count"?`}},
		{"misspelt field of a map in a list", `{"mode":"fast","rules":[{"wieght":1}]}`, "", []string{`rules[0].wieght: unknown field, did you mean "weight"?`}},
		{"misspelt field behind a reference", `{"mode":"fast","add":{"header":[]}}`, "", []string{`add.header: unknown field, did you mean "headers"?`}},
		{"unknown field", `{"mode":"fast","certificates":1}`, "", []string{"certificates: unknown field, known ones are add, count, labels, mode, names, nothing, rules, secret, share"}},
		{"wrong type", `{"mode":"fast","count":"ten"}`, "", []string{"count: must be an integer, not a string"}},
		{"a number that is no integer", `{"mode":"fast","count":1.5}`, "", []string{"count: must be an integer, not a number"}},
		{"a boolean for a word", `{"mode":true}`, "", []string{"mode: must be a string, not a boolean"}},
		{"not one of", `{"mode":"<fast>"}`, "", []string{`mode: "<fast>" is not allowed, allowed are "fast", "slow"`}},
		{"limits of integers", `{"mode":"fast","count":0}`, "", []string{"count: 0 is too small, at least 1"}},
		{"limits of integers above", `{"mode":"fast","count":101}`, "", []string{"count: 101 is too large, at most 100"}},
		{"limits of numbers", `{"mode":"fast","share":0.75}`, "", []string{"share: 0.75 is too large, at most 0.5"}},
		{"exclusive limits", `{"mode":"fast","share":0}`, "", []string{"share: 0 is too small, more than 0"}},
		{"too many decimals", `{"mode":"fast","share":0.12345}`, "", []string{"share: 0.12345 is not a multiple of 0.0001"}},
		{"too few items", `{"mode":"fast","names":[]}`, "", []string{"names: has 0 items, at least 1"}},
		{"too many items", `{"mode":"fast","names":["aa","bb","cc"]}`, "", []string{"names: has 3 items, at most 2"}},
		{"equal items", `{"mode":"fast","names":["aa","aa"]}`, "", []string{"names: items 0 and 1 are equal"}},
		{"a wrong item", `{"mode":"fast","names":["a b"]}`, "", []string{`names[0]: "a b" is no valid http header name`}},
		{"a short item", `{"mode":"fast","names":["a"]}`, "", []string{"names[0]: must not be shorter than 2 characters"}},
		{"a long item", `{"mode":"fast","names":["abcdefghijk"]}`, "", []string{"names[0]: must not be longer than 10 characters"}},
		{"too many names", `{"mode":"fast","labels":{"a":1,"b":1,"c":1}}`, "", []string{"labels: has 3 entries, at most 2"}},
		{"no form has the type", `{"mode":"fast","secret":1}`, "", []string{"secret: must be a map or a string, not a number"}},
		{"a mistake in the form of that type", `{"mode":"fast","secret":{"key":"k"}}`, "", []string{"secret.name: is required"}},
		{"a mistake in the other form", `{"mode":"fast","secret":"ab"}`, "", []string{"secret: must not be shorter than 3 characters"}},
		{"a number nobody can calculate with", `{"mode":"fast","count":1e99999999}`, "", []string{"count: the number is out of range"}},
		{"nor when it is small", `{"mode":"fast","share":1e-99999999}`, "", []string{"share: the number is out of range"}},
		{"nor where it is not expected", `{"mode":"fast","names":[1e999,1e999],"other":1e999}`, "", []string{"names[0]: the number is out of range", "names[1]: the number is out of range", "other: the number is out of range"}},
		{"several mistakes", `{"count":0,"names":7}`, "", []string{"count: 0 is too small, at least 1", "mode: is required", "names: must be a list, not a number"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, err := config.Decode([]byte(c.config))
			if err != nil {
				t.Fatal(err)
			}
			before := string(in.JSON())
			complete, problems := schema.Check(in)
			var got []string
			for _, p := range problems {
				line := p.Path + ": " + p.Message
				if p.Warning {
					line = "warning " + line
				}
				got = append(got, line)
			}
			if diff := cmp.Diff(c.problems, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if c.complete != "" {
				if diff := cmp.Diff(c.complete, string(complete.JSON())); diff != "" {
					t.Errorf("complete (-want +got):\n%s", diff)
				}
			}
			if after := string(in.JSON()); after != before {
				t.Errorf("the config was modified: %s, before %s", after, before)
			}
		})
	}
}

func TestFields(t *testing.T) {
	var got []string
	for _, f := range schema.Fields() {
		got = append(got, fmt.Sprintf("%s | %s | %s | %v | %s", f.Path, f.Type, f.Default, f.Required, f.Description))
	}
	want := []string{
		"mode | `fast`, `slow` |  | true | What to do.",
		"count | integer 1 to 100 | 10 | false | How often.",
		"share | number above 0, to 0.5 |  | false | How much.",
		"names | list of header names, 1 to 2 | everybody | false | Whose.",
		"secret | string, at least 3 characters or map |  | false | With what.",
		"secret.name | string |  | true | Whose name.",
		`secret.key | string | "key" | false | Which key.`,
		"add | map |  | false | Added first.",
		"add.headers | list of strings | [] | false | The headers.",
		"rules | list of maps |  | false | A list of maps.",
		"rules[].weight | integer | 1 | false | Its weight.",
		"labels | map to integer |  | false | Free names.",
		"nothing | string or null |  | false | May be null.",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"redis_host"}, schema.Ignored()); diff != "" {
		t.Errorf("ignored (-want +got):\n%s", diff)
	}
	if got := schema.Description(); got != "A plugin for tests." {
		t.Errorf("description = %q", got)
	}
}

func TestPath(t *testing.T) {
	if got := builtin.Path("a", "0", "b_c", "1", "2"); got != "a[0].b_c[1][2]" {
		t.Error(got)
	}
}
