package lua

import (
	"encoding/json"
	"fmt"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// Literal writes a config value as a Lua expression: printable ASCII only, keys sorted, null absent, a number with its
// own text, a part.Shared as D"name". A value that JSON does not know is a bug and panics.
//
// The runtime evaluates it where only D and J exist (runtime.lua), so the text can do nothing but make tables.
func Literal(v any) string {
	var b strings.Builder
	writeValue(&b, v)
	return b.String()
}

// constantsPerFunction bounds how many values one Lua function makes. LuaJIT refuses a function with more than 65,536
// constants (BCMAX_D in its lj_bc.h), and a value takes at most three: its key, itself, and what it is copied from.
const constantsPerFunction = 16384

func writeValue(b *strings.Builder, v any) {
	switch v := v.(type) {
	case nil:
		b.WriteString("nil")
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case string:
		writeString(b, v)
	case json.Number:
		writeNumber(b, v)
	case float64:
		writeNumber(b, json.Number(strconv.FormatFloat(v, 'g', -1, 64)))
	case int:
		b.WriteString(strconv.Itoa(v))
	case int64:
		b.WriteString(strconv.FormatInt(v, 10))
	case []any:
		writeList(b, v)
	case []string:
		list := make([]any, len(v))
		for i := range v {
			list[i] = v[i]
		}
		writeList(b, list)
	case map[string]any:
		writeMap(b, v)
	case config.Value:
		writeMap(b, v)
	case part.Shared:
		b.WriteString("D")
		writeString(b, v.Name)
	case *part.Shared:
		writeValue(b, *v)
	default:
		panic(fmt.Sprintf("lua: a config holds a %T", v))
	}
}

// field is one entry of a table constructor; a list's entries have no key text.
type field struct {
	key   string
	value any
}

func writeMap(b *strings.Builder, m map[string]any) {
	names := make([]string, 0, len(m))
	for name, v := range m {
		if v != nil {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	fields := make([]field, len(names))
	for i, name := range names {
		fields[i] = field{key: key(name), value: m[name]}
	}
	writeTable(b, fields, nil)
}

// writeList leaves null out: a Lua list with a hole has no length.
func writeList(b *strings.Builder, list []any) {
	fields := make([]field, 0, len(list))
	for _, v := range list {
		if v != nil {
			fields = append(fields, field{value: v})
		}
	}
	writeTable(b, fields, func(i int) string { return "[" + strconv.Itoa(i+1) + "]=" })
}

// writeTable writes a table constructor, or, of a table that one function cannot make, J with a function for each piece
// of it. The pieces of a list say their indices, which index writes.
func writeTable(b *strings.Builder, fields []field, index func(int) string) {
	pieces := split(fields)
	if len(pieces) == 1 {
		writeFields(b, fields, 0, nil)
		return
	}
	b.WriteString("J(")
	from := 0
	for i, piece := range pieces {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("function()return")
		writeFields(b, piece, from, index)
		b.WriteString("end")
		from += len(piece)
	}
	b.WriteByte(')')
}

func writeFields(b *strings.Builder, fields []field, from int, index func(int) string) {
	b.WriteByte('{')
	for i, f := range fields {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(f.key)
		if index != nil {
			b.WriteString(index(from + i))
		}
		writeValue(b, f.value)
	}
	b.WriteByte('}')
}

// split cuts fields into runs of at most constantsPerFunction values each. A field that is larger by itself becomes a
// J of its own (writeTable), and counts as that call does.
func split(fields []field) [][]field {
	var pieces [][]field
	start, sum := 0, 0
	for i, f := range fields {
		size := min(count(f.value), constantsPerFunction)
		if sum+size > constantsPerFunction && i > start {
			pieces = append(pieces, fields[start:i])
			start, sum = i, 0
		}
		sum += size
	}
	return append(pieces, fields[start:])
}

// count is the number of values in v, itself included.
func count(v any) int {
	n := 1
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			n += count(e)
		}
	case []string:
		n += len(v)
	case map[string]any:
		for _, e := range v {
			n += count(e)
		}
	case config.Value:
		return count(map[string]any(v))
	}
	return n
}

var (
	numberText = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)
	nameText   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// writeNumber keeps the text: JSON's numbers are Lua's too. Lua reads the nearest double, so an integer above 2^53
// loses digits there.
func writeNumber(b *strings.Builder, n json.Number) {
	if !numberText.MatchString(n.String()) {
		panic(fmt.Sprintf("lua: a config holds the number %q", n))
	}
	b.WriteString(n.String())
}

// key writes `name=`, or `["name"]=` where name is no Lua name.
func key(name string) string {
	if nameText.MatchString(name) && !reserved[name] {
		return name + "="
	}
	var b strings.Builder
	b.WriteByte('[')
	writeString(&b, name)
	b.WriteString("]=")
	return b.String()
}

// reserved are Lua's keywords, with the one that LuaJIT may be built to have.
var reserved = map[string]bool{
	"and": true, "break": true, "do": true, "else": true, "elseif": true, "end": true, "false": true, "for": true,
	"function": true, "goto": true, "if": true, "in": true, "local": true, "nil": true, "not": true, "or": true,
	"repeat": true, "return": true, "then": true, "true": true, "until": true, "while": true,
}

func writeString(b *strings.Builder, s string) { writeQuoted(b, s, `\010`) }

// writeQuoted quotes s, with newline for each line feed. Three digits always follow a backslash that stands for a byte,
// so that a digit after it is not taken for a part of it.
func writeQuoted(b *strings.Builder, s, newline string) {
	b.WriteByte('"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c == '\n':
			b.WriteString(newline)
		case c < ' ' || c > '~':
			fmt.Fprintf(b, `\%03d`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
}
