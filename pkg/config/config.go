// Package config holds the configuration values of plugins: JSON objects that are merged, compared and hashed.
package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Value is a JSON object as encoding/json decodes it, with numbers as json.Number so that no digit is lost.
// A Value is never modified after it was made; Merge returns a new one that may share parts with its inputs.
type Value map[string]any

// Decode reads a JSON object. Nothing, and null, is the empty object.
func Decode(raw []byte) (Value, error) {
	if len(bytes.TrimSpace(raw)) == 0 {
		return Value{}, nil
	}
	v, err := DecodeAny(raw)
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case nil:
		return Value{}, nil
	case map[string]any:
		return v, nil
	}
	return nil, fmt.Errorf("a map is needed, not %s", Kind(v))
}

// DecodeAny reads a JSON value of any kind.
func DecodeAny(raw []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON value")
	}
	return v, nil
}

// Merge lays over on base: maps deeply, lists and scalars replace, null deletes.
func Merge(base, over Value) Value {
	if len(over) == 0 {
		return base
	}
	out := make(Value, len(base)+len(over))
	for k, v := range base {
		out[k] = v
	}
	for k, v := range over {
		switch v := v.(type) {
		case nil:
			delete(out, k)
		case map[string]any:
			under, _ := out[k].(map[string]any)
			out[k] = map[string]any(Merge(under, v))
		default:
			out[k] = v
		}
	}
	return out
}

// JSON is the canonical text of v: keys in order, no blanks. Equal values have equal text.
func (v Value) JSON() []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(map[string]any(v)); err != nil {
		panic(err) // a decoded JSON value encodes
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

// Kind names the JSON type of v for messages.
func Kind(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case json.Number, float64, int64, int:
		return "a number"
	case string:
		return "a string"
	case []any:
		return "a list"
	}
	return "a map"
}
