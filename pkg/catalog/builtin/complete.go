package builtin

import (
	"cmp"
	"encoding/json"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// completion makes a config ready to be checked and read: defaults are filled in at every level that it has, nulls are
// taken out, and integers have one spelling. It notes the numbers that nothing can calculate with.
type completion struct{ problems []Problem }

// complete returns a completed copy of v, whose schema may be nil where there is none.
func (c *completion) complete(s *jsonschema.Schema, v any, at []string) any {
	s = target(s)
	switch v := v.(type) {
	case map[string]any:
		return c.completeMap(s, v, at)
	case []any:
		var items *jsonschema.Schema
		if s != nil {
			items = s.Items2020
		}
		out := make([]any, len(v))
		for i := range v {
			out[i] = c.complete(items, v[i], step(at, strconv.Itoa(i)))
		}
		return out
	case json.Number:
		return c.completeNumber(s, v, at)
	}
	return v
}

func (c *completion) completeMap(s *jsonschema.Schema, v map[string]any, at []string) map[string]any {
	out := make(map[string]any, len(v))
	for name, value := range v {
		field := fieldSchema(s, name)
		if value == nil && !allowsNull(field) {
			continue
		}
		out[name] = c.complete(field, value, step(at, name))
	}
	if s == nil {
		return out
	}
	for name, field := range s.Properties {
		// A default beside a reference goes before that of what is referred to.
		value := cmp.Or(field.Default, target(field).Default)
		if _, set := out[name]; !set && value != nil {
			out[name] = c.complete(field, *value, step(at, name))
		}
	}
	return out
}

func fieldSchema(s *jsonschema.Schema, name string) *jsonschema.Schema {
	if s == nil {
		return nil
	}
	if field, ok := s.Properties[name]; ok {
		return target(field)
	}
	other, _ := s.AdditionalProperties.(*jsonschema.Schema)
	return target(other)
}

func allowsNull(s *jsonschema.Schema) bool {
	return s != nil && s.Types != nil && slices.Contains(s.Types.ToStrings(), "null")
}

// completeNumber refuses what is out of the range of a float64, which Lua's numbers are, and writes `1e3` and `1000.0`
// as 1000 where an integer is wanted.
func (c *completion) completeNumber(s *jsonschema.Schema, v json.Number, at []string) any {
	f, err := v.Float64()
	if err != nil || math.IsInf(f, 0) || f == 0 && strings.ContainsAny(mantissa(v), "123456789") {
		c.problems = append(c.problems, Problem{Path: Path(at...), Message: "the number is out of range", Veiled: "a number is out of range"})
		return v
	}
	if s == nil || s.Types == nil || !slices.Contains(s.Types.ToStrings(), "integer") {
		return v
	}
	if exact, ok := new(big.Rat).SetString(v.String()); ok && exact.IsInt() {
		return json.Number(exact.Num().String())
	}
	return v
}

func mantissa(v json.Number) string {
	digits, _, _ := strings.Cut(strings.ToLower(v.String()), "e")
	return digits
}

// step is a new path, one level below at.
func step(at []string, name string) []string { return append(slices.Clone(at), name) }
