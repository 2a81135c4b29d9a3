package catalogtest

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/config"
)

func TestChanges(t *testing.T) {
	for field, c := range map[string]struct {
		config string
		values int
		want   []string
	}{
		"a":      {`{"a":true,"b":1}`, 1, []string{`{"a":null,"b":1}`, `{"a":false,"b":1}`, `{"a":"x","b":1}`}},
		"c":      {`{"a":true}`, 0, nil},
		"a.b":    {`{"a":{"b":"c"}}`, 1, []string{`{"a":{"b":null}}`, `{"a":{"b":"cx"}}`, `{"a":{"b":"xc"}}`, `{"a":{"b":"x"}}`}},
		"a[].b":  {`{"a":[{"b":true},{},{"b":true}]}`, 2, []string{`{"a":[{"b":null},{},{"b":null}]}`, `{"a":[{"b":false},{},{"b":false}]}`, `{"a":[{"b":"x"},{},{"b":"x"}]}`}},
		"a.*.b":  {`{"a":{"k":{"b":true}}}`, 1, []string{`{"a":{"k":{"b":null}}}`, `{"a":{"k":{"b":false}}}`, `{"a":{"k":{"b":"x"}}}`}},
		"list":   {`{"list":[true,1]}`, 1, []string{`{"list":null}`, `{"list":[1]}`, `{"list":[false,1]}`, `{"list":"x"}`}},
		"form.x": {`{"form":"text"}`, 0, nil},
	} {
		v, err := config.Decode([]byte(c.config))
		if err != nil {
			t.Fatal(err)
		}
		change := Change{Field: field, Values: []any{"x"}}
		var got []string
		for _, other := range change.of(v) {
			got = append(got, string(other.JSON()))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s of %s (-want +got):\n%s", field, c.config, diff)
		}
		if got := len(change.ValuesIn(v)); got != c.values {
			t.Errorf("%s of %s: %d values, want %d", field, c.config, got, c.values)
		}
		if string(v.JSON()) != c.config {
			t.Errorf("%s of %s: the config became %s", field, c.config, v.JSON())
		}
	}
}
