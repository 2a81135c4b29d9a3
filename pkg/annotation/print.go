package annotation

import (
	"bytes"
	"encoding/json"
	"strings"
)

// Print writes entries as one text that Parse reads as the same entries. It is canonical: equal entries have equal
// text, a comma list where names say it all and JSON otherwise. Entries with problems cannot be printed faithfully;
// they show what is known of them.
func Print(entries []Entry) string {
	texts := make([]string, len(entries))
	plain := true
	for i, e := range entries {
		plain = plain && e.plain()
		texts[i] = e.String()
	}
	if plain {
		return strings.Join(texts, ", ")
	}
	for i, e := range entries {
		if e.plain() {
			texts[i] = string(marshal(texts[i]))
		}
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

// String is the entry's name, or a JSON map where there is more to say.
func (e Entry) String() string {
	if e.plain() {
		return e.written()
	}
	fields := struct {
		Name     string          `json:"name"`
		Routes   []string        `json:"routes,omitempty"`
		Config   json.RawMessage `json:"config,omitempty"`
		Override bool            `json:"override,omitempty"`
	}{Name: e.written(), Routes: e.Routes, Override: e.Override}
	if e.Config != nil {
		fields.Config = e.Config.JSON()
	}
	return string(marshal(fields))
}

// plain says whether the name says it all.
func (e Entry) plain() bool { return e.Routes == nil && e.Config == nil && !e.Override }

func (e Entry) written() string {
	if e.OptOut {
		return "-" + e.Name
	}
	return e.Name
}

// marshal is JSON without the escapes that only HTML needs.
func marshal(v any) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		panic(err) // strings, lists of them and a config encode
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}
