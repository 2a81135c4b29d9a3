package config_test

import (
	"encoding/json"
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/config"
)

func decode(t *testing.T, text string) config.Value {
	v, err := config.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestMerge(t *testing.T) {
	tests := map[string]struct{ base, over, want string }{
		"maps merge deeply":          {`{"a": {"b": 1, "c": 2}}`, `{"a": {"b": 3, "d": 4}}`, `{"a":{"b":3,"c":2,"d":4}}`},
		"lists replace":              {`{"a": [1, 2]}`, `{"a": [3]}`, `{"a":[3]}`},
		"scalars replace":            {`{"a": 1}`, `{"a": "x"}`, `{"a":"x"}`},
		"null deletes":               {`{"a": 1, "b": 2}`, `{"a": null}`, `{"b":2}`},
		"null deletes inside":        {`{"a": {"b": 1, "c": 2}}`, `{"a": {"b": null}}`, `{"a":{"c":2}}`},
		"null of nothing is nothing": {`{}`, `{"a": null, "b": {"c": null}}`, `{"b":{}}`},
		"a map replaces a scalar":    {`{"a": 1}`, `{"a": {"b": 1}}`, `{"a":{"b":1}}`},
		"a scalar replaces a map":    {`{"a": {"b": 1}}`, `{"a": 1}`, `{"a":1}`},
		"nothing over something":     {`{"a": 1}`, ``, `{"a":1}`},
		"something over nothing":     {``, `{"a": 1}`, `{"a":1}`},
		"no digit is lost":           {`{"a": 12345678901234567890}`, `{"b": 1.10}`, `{"a":12345678901234567890,"b":1.10}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			base, over := decode(t, tt.base), decode(t, tt.over)
			before := string(base.JSON()) + string(over.JSON())
			if got := string(config.Merge(base, over).JSON()); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if after := string(base.JSON()) + string(over.JSON()); after != before {
				t.Errorf("the inputs changed from %s to %s", before, after)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`[1]`:     "a map is needed, not a list",
		`"x"`:     "a map is needed, not a string",
		`{} {}`:   "more than one JSON value",
		`{"a": }`: "invalid character '}' looking for beginning of value",
	} {
		if _, err := config.Decode([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

// Whatever is merged, the result is JSON, and what the topmost layer says holds.
func FuzzMerge(f *testing.F) {
	f.Add(`{"a":{"b":1}}`, `{"a":{"b":null,"c":2}}`, `{"a":3}`)
	f.Add(`{"a":1}`, `{"a":{"b":1}}`, `{"a":{"c":1}}`)
	f.Fuzz(func(t *testing.T, a, b, c string) {
		x, errA := config.Decode([]byte(a))
		y, errB := config.Decode([]byte(b))
		z, errC := config.Decode([]byte(c))
		if errA != nil || errB != nil || errC != nil {
			t.Skip()
		}
		merged := config.Merge(config.Merge(x, y), z).JSON()
		if !json.Valid(merged) {
			t.Errorf("%s is no JSON", merged)
		}
		// What the topmost layer says, holds.
		for k, v := range z {
			switch v.(type) {
			case nil, map[string]any:
			default:
				if got, _ := json.Marshal(config.Merge(config.Merge(x, y), z)[k]); string(got) != mustJSON(t, v) {
					t.Errorf("%s: %s, want %s", k, got, mustJSON(t, v))
				}
			}
		}
	})
}

func mustJSON(t *testing.T, v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
