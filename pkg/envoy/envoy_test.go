package envoy_test

import (
	"strings"
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/envoy"
)

func TestDecode(t *testing.T) {
	const http = `"@type": "type.googleapis.com/envoy.extensions.filters.http.`
	tests := map[string]struct {
		text string
		want string // in the error; empty for none
	}{
		"a filter":                  {`{` + http + `buffer.v3.Buffer", "max_request_bytes": 10}`, ""},
		"camel case, as protojson":  {`{` + http + `buffer.v3.Buffer", "maxRequestBytes": 10}`, ""},
		"no type":                   {`{"max_request_bytes": 10}`, `"@type" is missing`},
		"a misspelt type":           {`{` + http + `bufer.v3.Buffer"}`, "did you mean envoy.extensions.filters.http.buffer.v3.Buffer?"},
		"a type that is no filter":  {`{"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"}`, "is no HTTP filter"},
		"a filter Istio lacks":      {`{` + http + `geoip.v3.Geoip"}`, "is no HTTP filter of Istio's proxy"},
		"the router":                {`{` + http + `router.v3.Router"}`, "it ends the chain"},
		"Lua source":                {`{` + http + `lua.v3.Lua", "default_source_code": {"inline_string": "x("}}`, "use spec.lua"},
		"cors":                      {`{` + http + `cors.v3.Cors"}`, "spec.builtin: cors"},
		"an unknown field":          {`{` + http + `buffer.v3.Buffer", "max_request_byte": 10}`, `did you mean "max_request_bytes"?`},
		"a wrong type of a field":   {`{` + http + `buffer.v3.Buffer", "max_request_bytes": "ten"}`, "invalid value"},
		"a proto rule":              {`{` + http + `buffer.v3.Buffer"}`, "MaxRequestBytes"},
		"a nested proto rule":       {`{` + http + `header_mutation.v3.HeaderMutation", "mutations": {"request_mutations": [{"append": {"header": {"key": ""}}}]}}`, "Key"},
		"a regular expression":      {`{` + http + `rbac.v3.RBAC", "rules": {"policies": {"a": {"permissions": [{"any": true}], "principals": [{"header": {"name": "x", "string_match": {"safe_regex": {"regex": "a(?=b)"}}}}]}}}}`, "regular expression"},
		"an unknown type inside":    {`{` + http + `compressor.v3.Compressor", "compressor_library": {"name": "x", "typed_config": {"@type": "type.googleapis.com/no.such.Type"}}}`, "no.such.Type"},
		"a rule inside an Any":      {`{` + http + `compressor.v3.Compressor", "compressor_library": {"name": "x", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip", "memory_level": 99}}}`, "MemoryLevel"},
		"a format string":           {`{` + http + `header_mutation.v3.HeaderMutation", "mutations": {"response_mutations": [{"append": {"header": {"key": "x", "value": "%ROUTE_NAM%"}}}]}}`, "did you mean ROUTE_NAME?"},
		"a lone percent sign":       {`{` + http + `local_ratelimit.v3.LocalRateLimit", "stat_prefix": "x", "response_headers_to_add": [{"header": {"key": "x", "value": "100%"}}]}`, "is written %%"},
		"a refill that is too fast": {`{` + http + `local_ratelimit.v3.LocalRateLimit", "stat_prefix": "x", "token_bucket": {"max_tokens": 5, "fill_interval": "0.01s"}}`, "at least 50ms, not 10ms"},
		"one of a descriptor":       {`{` + http + `local_ratelimit.v3.LocalRateLimit", "stat_prefix": "x", "descriptors": [{"entries": [{"key": "a", "value": "b"}], "token_bucket": {"max_tokens": 5, "fill_interval": "0.01s"}}]}`, "at least 50ms, not 10ms"},
		"a pseudo header":           {`{` + http + `header_mutation.v3.HeaderMutation", "mutations": {"request_mutations": [{"append": {"header": {"key": ":path", "value": "/"}}}]}}`, `header ":path" cannot be set`},
		"host":                      {`{` + http + `header_mutation.v3.HeaderMutation", "mutations": {"response_mutations": [{"append": {"header": {"key": "Host", "value": "a"}}}]}}`, `header "Host" cannot be set`},
		"a descriptor twice":        {`{` + http + `local_ratelimit.v3.LocalRateLimit", "stat_prefix": "a", "token_bucket": {"max_tokens": 1, "fill_interval": "60s"}, "descriptors": [{"entries": [{"key": "a", "value": "b"}], "token_bucket": {"max_tokens": 1, "fill_interval": "60s"}}, {"entries": [{"key": "a", "value": "b"}], "token_bucket": {"max_tokens": 2, "fill_interval": "60s"}}]}`, "descriptors[1] has the same entries"},
		"the state of the dispatch": {`{` + http + `set_filter_state.v3.Config", "on_request_headers": [{"object_key": "istio-plugins.w.slot.1", "factory_key": "envoy.string", "format_string": {"text_format_source": {"inline_string": "x"}}}]}`, "reserved"},
		"other state":               {`{` + http + `set_filter_state.v3.Config", "on_request_headers": [{"object_key": "mine", "factory_key": "envoy.string", "format_string": {"text_format_source": {"inline_string": "x"}}}]}`, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			typed, err := config.Decode([]byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			m, err := envoy.Decode(typed)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want == "" && m == nil:
				t.Error("no message")
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want %q in it", err, tt.want)
			case err != nil && strings.Contains(err.Error(), "\u00a0"):
				t.Errorf("%q has protojson's random blanks", err)
			}
		})
	}
}

func TestStateful(t *testing.T) {
	for text, want := range map[string]bool{
		`{"@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit", "stat_prefix": "a"}`:       true,
		`{"@type": "type.googleapis.com/envoy.extensions.filters.http.csrf.v3.CsrfPolicy", "filter_enabled": {"default_value": {}}}`: false,
	} {
		typed, _ := config.Decode([]byte(text))
		m, err := envoy.Decode(typed)
		if err != nil {
			t.Fatal(err)
		}
		if got := envoy.Stateful(m); got != want {
			t.Errorf("%s: stateful %v", envoy.FilterName(m), got)
		}
	}
}
