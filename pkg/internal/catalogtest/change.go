package catalogtest

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// Conformance is the environment variable by which the program conformance asks tests for evidence: its value is a
// Change in JSON.
const Conformance = "CONFORMANCE"

// ConfigLine is what stands before a config, a Config in JSON, in the log of a test that is asked for evidence.
const ConfigLine = "conformance config: "

// ChangedLine is in the log of a test that used a changed config.
const ChangedLine = "conformance: another config"

// Config is a config that a test used.
type Config struct {
	Plugin string       `json:"plugin"`
	Config config.Value `json:"config"`
}

// Change is a wrong turn that every use of a plugin is to take: it gets another value of one field than its test says, so
// that a test to which the field matters fails. Without a plugin there is none.
type Change struct {
	Plugin string `json:"plugin"`
	// Field as builtin.Field has it in Path.
	Field string `json:"field"`
	// Values to try after those that can be made from the test's.
	Values []any `json:"values"`
}

// made is compile, for a changed config where one is asked for.
func made(t testing.TB, b *builtin.Builtin, use builtin.Use, v config.Value) ([]part.Part, []builtin.Problem) {
	t.Helper()
	parts, problems := compile(b, use, v)
	asked, ok := os.LookupEnv(Conformance)
	if !ok || slices.ContainsFunc(problems, isError) {
		return parts, problems
	}
	line, err := json.Marshal(Config{b.Name, v})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s%s", ConfigLine, line)
	var change Change
	d := json.NewDecoder(strings.NewReader(asked))
	d.UseNumber()
	if err := d.Decode(&change); err != nil {
		t.Fatal(err)
	}
	if change.Plugin != b.Name {
		return parts, problems
	}
	before, _ := b.Schema.Check(v)
	different := slices.DeleteFunc(change.of(v), func(other config.Value) bool {
		after, _ := b.Schema.Check(other)
		return bytes.Equal(before.JSON(), after.JSON())
	})
	// Some tests take a warning for an error.
	for _, wanted := range []func(builtin.Problem) bool{func(builtin.Problem) bool { return true }, isError} {
		for _, other := range different {
			if parts, problems := compile(b, use, other); !slices.ContainsFunc(problems, wanted) {
				t.Log(ChangedLine)
				return parts, problems
			}
		}
	}
	return parts, problems
}

// of returns changed forms of a config, first the one without the field.
func (c Change) of(v config.Value) []config.Value {
	var all []config.Value
	// Each place of the field takes its n-th alternative.
	for n := 0; ; n++ {
		changed := false
		other := at(map[string]any(v), strings.Split(c.Field, "."), func(old any) any {
			alternatives := slices.Concat([]any{nil}, others(old), c.Values)
			if n >= len(alternatives) {
				return old
			}
			changed = true
			return alternatives[n]
		})
		if !changed {
			return all
		}
		all = append(all, other.(map[string]any))
	}
}

// at returns v with another value at each place that a path leads to; the path is that of a field, in which `[]` stands
// for each item and `*` for each key.
func at(v any, path []string, other func(any) any) any {
	if len(path) == 0 {
		return other(v)
	}
	name, items := strings.CutSuffix(path[0], "[]")
	m, ok := v.(map[string]any)
	if !ok {
		return v // of a field with several forms
	}
	m = maps.Clone(m)
	for key, value := range m {
		if name != "*" && name != key || value == nil {
			continue
		}
		if !items {
			m[key] = at(value, path[1:], other)
		} else if list, ok := value.([]any); ok {
			list = slices.Clone(list)
			for i := range list {
				list[i] = at(list[i], path[1:], other)
			}
			m[key] = list
		}
	}
	return m
}

// ValuesIn returns the values of the field in a config.
func (c Change) ValuesIn(v config.Value) []any {
	var values []any
	at(map[string]any(v), strings.Split(c.Field, "."), func(value any) any {
		values = append(values, value)
		return value
	})
	return values
}

// others are values like v.
func others(v any) []any {
	var out []any
	switch v := v.(type) {
	case bool:
		out = append(out, !v)
	case json.Number:
		f, err := v.Float64()
		if err != nil {
			return nil
		}
		for _, n := range []float64{f + 1, f - 1, 2 * f, f / 2} {
			text, err := json.Marshal(n)
			if err != nil {
				return nil
			}
			out = append(out, json.Number(text))
		}
	case string:
		out = append(out, v+"x", "x"+v)
	case []any:
		if len(v) > 0 {
			out = append(out, v[1:])
			for _, first := range others(v[0]) {
				out = append(out, append([]any{first}, v[1:]...))
			}
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			for _, other := range others(v[key]) {
				m := maps.Clone(v)
				m[key] = other
				out = append(out, m)
			}
		}
	}
	return out
}
