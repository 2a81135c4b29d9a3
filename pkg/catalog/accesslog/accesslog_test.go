package accesslog

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

func parts(t testing.TB, config string) []part.Part {
	t.Helper()
	return catalogtest.Parts(t, Builtin, builtin.Use{Plugin: "access-log", Instance: "i"}, config)
}

// reader is the first of a chain: its response function is the last, and says in a header what a log would find.
var reader = part.Lua{Plugin: "reader", Source: `return {response = function(handle)
	pdk.set_header(handle, "log", pdk.json.encode(pdk.metadata(handle, "plugins.istio.io", "log") or {}))
end}`}

// refuser answers 403 if the request has the header refuse, and fails if it has the header fail.
var refuser = part.Lua{Plugin: "refuser", Source: `return {request = function(handle)
	if pdk.header(handle, "refuse") then pdk.fail(handle, 403, "no") end
	if pdk.header(handle, "fail") then error("failed") end
end}`}

// login authenticates whom the header user names, of the groups in the header groups.
var login = part.Lua{Plugin: "login", Source: `return {request = function(handle)
	local user = pdk.header(handle, "user")
	if user then
		pdk.authenticate(handle, {id = "id-" .. user, username = user ~= "custom" and user or nil, custom_id = "c", name = "n",
			groups = pdk.headers(handle, "group")}, "key", "login")
	end
end}`}

func logOf(t *testing.T, a *envoytest.Answer) map[string]any {
	t.Helper()
	var log map[string]any
	if err := json.Unmarshal([]byte(a.Header.Get("log")), &log); err != nil {
		t.Fatalf("%v: %q", err, a.Header.Get("log"))
	}
	return log
}

func TestConfig(t *testing.T) {
	const (
		name       = "is no name of a field: up to 64 letters, digits, `_`, `-` and `.`, the first a letter or `_`"
		understood = ` is not understood; there are $(headers.name), $(headers["x-name"]), $(response_headers.name), ` +
			`$(consumer.username) (or id, custom_id, name, groups, credential_id) and $(rejected_by)`
	)
	for _, c := range []struct {
		config string
		want   []string
	}{
		{`{}`, nil},
		{`{fields: {}, sample: 0.5}`, nil},
		{`{fields: {a: text, b_c-d.e: '$(headers.x) and $( headers["x-y"] )', c: "$(response_headers['x'])", d: $(consumer.groups), e: ""}}`, nil},
		{`{fields: {sampled: "yes"}}`, []string{"fields.sampled: is set by sample"}},
		{`{fields: {"a:b": x}}`, []string{"fields.a:b: " + name}},
		{`{fields: {"a b": x}}`, []string{"fields.a b: " + name}},
		{`{fields: {"": x}}`, []string{"fields.: " + name}},
		{`{fields: {a: 5}}`, []string{"fields.a: must be a string, not a number"}},
		{`{fields: {a: {b: c}}}`, []string{"fields.a: must be a string, not a map"}},
		{`{fields: {a: $(headers.x}}`, []string{"fields.a: $(headers.x)" + understood}},
		{`{fields: {a: "$(headers.x-y)"}}`, []string{"fields.a: $(headers.x-y)" + understood}},
		{`{fields: {a: "$(consumer.password)"}}`, []string{"fields.a: $(consumer.password)" + understood}},
		{`{fields: {a: "$(query_params.x)"}}`, []string{"fields.a: $(query_params.x)" + understood}},
		{`{fields: {a: "$(headers.authorization)"}}`, []string{"warning fields.a: puts credentials, those of header authorization, into the log"}},
		{`{fields: {a: '$(response_headers["Set-Cookie"])'}}`, []string{"warning fields.a: puts credentials, those of header Set-Cookie, into the log"}},
		{`{fields: {a: '$(headers["a b"])', b: "$(response_headers['x:y'])", c: '$(headers[":path"])$(headers[":"])'}}`, []string{
			`fields.a: "a b" is no name of a header`, `fields.b: "x:y" is no name of a header`, `fields.c: ":" is no name of a header`,
		}},
		{`{fields: {a: "` + strings.Repeat("x", 1024) + `"}}`, nil},
		{`{fields: {a: "` + strings.Repeat("x", 1025) + `"}}`, []string{"fields.a: must not be longer than 1024 characters"}},
		{`{fields: {` + fieldNames(32) + `}}`, nil},
		{`{fields: {` + fieldNames(33) + `}}`, []string{"fields: has 33 entries, at most 32"}},
		{`{fields: {` + strings.Repeat("a", 64) + `: x}}`, nil},
		{`{fields: {` + strings.Repeat("a", 65) + `: x}}`, []string{"fields." + strings.Repeat("a", 65) + ": " + name}},
		{`{fields: {1a: x, -a: x}}`, []string{"fields.-a: " + name, "fields.1a: " + name}},
		{`{fields: {a: "$(headers.x) $("}}`, []string{"fields.a: $()" + understood}},
		{`{sample: 1e-9}`, nil},
		{`{sample: "5"}`, []string{"sample: must be a number, not a string"}},
		{`{fields: [a]}`, []string{"fields: must be a map, not a list"}},
		{`{sample: 101}`, []string{"sample: 101 is too large, at most 100"}},
		{`{sample: -1}`, []string{"sample: -1 is too small, at least 0"}},
		{`{field: {}}`, []string{`field: unknown field, did you mean "fields"?`}},
	} {
		_, got := catalogtest.Build(t, Builtin, builtin.Use{}, c.config)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.config, diff)
		}
	}
}

func fieldNames(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("f%d: x", i))
	}
	return strings.Join(list, ", ")
}

func TestFields(t *testing.T) {
	texts := map[string]string{
		"default":  `{}`,
		"nothing":  `{fields: {}, sample: 0}`,
		"literal":  `{fields: {a: text, b: "", c: "50 % $ (x)"}}`,
		"headers":  `{fields: {a: $(headers.x_a), b: '$(headers["X-B"])', both: '<$(headers.x_a)|$(headers.x_b)>'}}`,
		"response": `{fields: {a: $(response_headers.x_a), both: '$(headers.x_a)/$(response_headers.x_a)', type: $(response_headers.content_type)}}`,
		"consumer": `{fields: {id: $(consumer.id), username: $(consumer.username), custom_id: $(consumer.custom_id), name: $(consumer.name), groups: $(consumer.groups), credential_id: $(consumer.credential_id)}}`,
		"pseudo":   `{fields: {line: '$(headers[":method"]) $(headers[":path"])', status: '$(response_headers[":status"])', host: $(headers.host)}}`,
		"control":  `{fields: {a: "a\nb\tc\x00d\x7f", b: "$(headers.x_a)"}}`,
		"mixed":    `{fields: {who: '$(consumer.username)@$(headers.x_a)', by: 'by $(rejected_by)'}}`,
	}
	chains := map[string][]part.Part{}
	for name, text := range texts {
		chains[name] = append(append([]part.Part{reader}, parts(t, text)...), login, refuser)
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct {
			chain  string
			header []string
			want   map[string]any
		}{
			{"default", nil, map[string]any{"sampled": true}},
			{"default", []string{"user: mary"}, map[string]any{"sampled": true, "consumer": "mary"}},
			{"default", []string{"user: custom"}, map[string]any{"sampled": true}},
			{"default", []string{"user: mary", "refuse: yes"}, map[string]any{"sampled": true, "consumer": "mary", "rejected_by": "refuser"}},
			{"default", []string{"fail: yes"}, map[string]any{"sampled": true, "rejected_by": "refuser"}},
			{"default", []string{"echo-status: 403"}, map[string]any{"sampled": true}},
			{"nothing", []string{"user: mary", "refuse: yes"}, map[string]any{"sampled": false}},
			{"literal", nil, map[string]any{"sampled": true, "a": "text", "b": "", "c": "50 % $ (x)"}},
			{"headers", nil, map[string]any{"sampled": true}},
			{"headers", []string{"x-a: 1", "x-a: 2"}, map[string]any{"sampled": true, "a": "1,2"}},
			{"headers", []string{"x-a:", "x-b: é"}, map[string]any{"sampled": true, "a": "", "b": "é", "both": "<|é>"}},
			{"headers", []string{"x-a: 1", "refuse: yes"}, map[string]any{"sampled": true, "a": "1"}},
			{"headers", []string{"x-a: a\xffb\xc3"}, map[string]any{"sampled": true, "a": "a\ufffdb\ufffd"}},
			{"headers", []string{"x-a: " + strings.Repeat("x", 1024)}, map[string]any{"sampled": true, "a": strings.Repeat("x", 1024)}},
			{"headers", []string{"x-a: " + strings.Repeat("x", 5000)}, map[string]any{"sampled": true, "a": strings.Repeat("x", 1024)}},
			{"headers", []string{"x-a: x" + strings.Repeat("é", 1000)}, map[string]any{"sampled": true, "a": "x" + strings.Repeat("é", 511)}},
			{"headers", []string{"x-a: x" + strings.Repeat("😀", 1000)}, map[string]any{"sampled": true, "a": "x" + strings.Repeat("😀", 255)}},
			{"response", []string{"x-a: 1", "echo-header: x-a: 2", "echo-body: b"}, map[string]any{"sampled": true, "a": "2", "both": "1/2", "type": "text/plain"}},
			{"response", []string{"x-a: 1", "refuse: yes"}, map[string]any{"sampled": true, "type": "application/json; charset=utf-8"}},
			{"consumer", nil, map[string]any{"sampled": true}},
			{"consumer", []string{"user: mary"}, map[string]any{"sampled": true, "id": "id-mary", "username": "mary", "custom_id": "c", "name": "n", "credential_id": "key"}},
			{"consumer", []string{"user: custom", "group: a", "group: b"}, map[string]any{"sampled": true, "id": "id-custom", "custom_id": "c", "name": "n", "groups": "a,b", "credential_id": "key"}},
			{"mixed", []string{"user: mary", "x-a: home", "refuse: yes"}, map[string]any{"sampled": true, "who": "mary@home", "by": "by refuser"}},
			{"pseudo", []string{"refuse: yes"}, map[string]any{"sampled": true, "line": "GET /", "status": "403", "host": "shop.test"}},
			{"control", []string{"x-a: 1\t2"}, map[string]any{"sampled": true, "a": "a b c d ", "b": "1 2"}},
			{"headers", []string{"x-a: \"a\\\u2028%{}"}, map[string]any{"sampled": true, "a": "\"a\\\u2028%{}"}},
			{"mixed", []string{"user: mary"}, map[string]any{"sampled": true}},
		} {
			for _, http2 := range []bool{false, true} {
				a := envoy.Gateway(c.chain).Do(t, envoytest.Request{Host: "shop.test", Header: c.header, HTTP2: http2})
				if diff := cmp.Diff(c.want, logOf(t, a)); diff != "" {
					t.Errorf("%s, %.100q, HTTP/2 %v (-want +got):\n%s", c.chain, c.header, http2, diff)
				}
			}
		}
	})
}

// Requests of all kinds have fields, and other plugins may have written what is no log, and authenticate as they like.
func TestRequests(t *testing.T) {
	writes := part.Lua{Plugin: "writes", Source: `return {request = function(handle) pdk.set_metadata(handle, "plugins.istio.io", "log", "text") end}`}
	chains := map[string][]part.Part{
		"default": append(append([]part.Part{reader}, parts(t, `{fields: {a: $(headers.x), who: $(consumer.username)}}`)...), login),
		"written": append([]part.Part{reader, writes}, parts(t, `{fields: {a: $(headers.x)}}`)...),
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		grpc := []string{"content-type: application/grpc", "te: trailers", "x: 1"}
		for _, c := range []struct {
			chain   string
			request envoytest.Request
			want    map[string]any
		}{
			{"default", envoytest.Request{Method: "HEAD", Header: []string{"x: 1"}}, map[string]any{"sampled": true, "a": "1"}},
			{"default", envoytest.Request{Method: "OPTIONS", Header: []string{"x: 1", "user: "}}, map[string]any{"sampled": true, "a": "1"}},
			{"default", envoytest.Request{Method: "POST", Body: "b", UnknownLength: true, Header: []string{"x: 1", "user: a b"}}, map[string]any{"sampled": true, "a": "1", "who": "a b"}},
			{"default", envoytest.Request{Method: "POST", HTTP2: true, Header: grpc}, map[string]any{"sampled": true, "a": "1"}},
			{"default", envoytest.Request{Header: []string{"x: 1", envoytest.EchoStatus + ": 204"}}, map[string]any{"sampled": true, "a": "1"}},
			{"written", envoytest.Request{Header: []string{"x: 1"}}, map[string]any{"sampled": true, "a": "1"}},
		} {
			a := envoy.Gateway(c.chain).Do(t, c.request)
			if diff := cmp.Diff(c.want, logOf(t, a)); diff != "" {
				t.Errorf("%s, %+v: status %d (-want +got):\n%s", c.chain, c.request, a.Status, diff)
			}
		}
	})
}

// A plugin that answers before this one leaves it without the request; of several, the later has the last word.
func TestPlace(t *testing.T) {
	log := func(text string) []part.Part { return parts(t, text) }
	config := `{fields: {a: $(headers.x), b: text, by: $(rejected_by), both: '$(headers.x)$(rejected_by)'}}`
	chains := map[string][]part.Part{
		"broken": append(append([]part.Part{reader}, log(config)...), part.Lua{Plugin: "broken", Source: "no Lua"}),
		"behind": append([]part.Part{reader, refuser}, log(config)...),
		"two": append(append([]part.Part{reader}, log(`{fields: {a: first, b: first, c: '$(response_headers.x)', d: '$(response_headers.x)'}, sample: 0}`)...),
			log(`{fields: {a: second, c: 'second $(response_headers.x)', e: second}}`)...),
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct {
			chain  string
			header []string
			want   map[string]any
		}{
			{"behind", []string{"x: 1"}, map[string]any{"sampled": true, "a": "1", "b": "text"}},
			{"behind", []string{"x: 1", "refuse: yes"}, map[string]any{"sampled": true, "b": "text", "by": "refuser"}},
			{"broken", []string{"x: 1"}, map[string]any{"sampled": true, "a": "1", "b": "text", "by": "broken", "both": "1broken"}},
			{"two", []string{"echo-header: x: 1"}, map[string]any{"sampled": true, "a": "second", "b": "first", "c": "second 1", "d": "1", "e": "second"}},
		} {
			if diff := cmp.Diff(c.want, logOf(t, envoy.Gateway(c.chain).Get(t, "/", c.header...))); diff != "" {
				t.Errorf("%s, %q (-want +got):\n%s", c.chain, c.header, diff)
			}
		}
	})
}

func TestShares(t *testing.T) {
	chains := map[string][]part.Part{}
	for _, share := range []string{"0", "50", "100"} {
		chains[share] = append([]part.Part{reader}, parts(t, "{sample: "+share+"}")...)
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		const all = 400
		// Ten standard deviations to each side of a half.
		for share, bounds := range map[string][2]int{"0": {0, 0}, "50": {100, 300}, "100": {all, all}} {
			marked := 0
			for range all {
				if logOf(t, envoy.Gateway(share).Get(t, "/"))["sampled"] == true {
					marked++
				}
			}
			if marked < bounds[0] || marked > bounds[1] {
				t.Errorf("%d of %d requests are marked at %s %%", marked, all, share)
			}
		}
	})
}

// What a log format of Envoy makes of the fields.
func TestLogFormat(t *testing.T) {
	chain := append(parts(t, `{fields: {consumer: $(consumer.username), rejected_by: $(rejected_by), agent: $(headers.user_agent)}}`), login, refuser)
	for _, version := range envoytest.Versions {
		envoy := envoytest.Start(t, version, envoytest.Config{
			Chains: map[string][]part.Part{"chain": chain},
			AccessLog: "%RESPONSE_CODE% %DYNAMIC_METADATA(plugins.istio.io:log:consumer)% %DYNAMIC_METADATA(plugins.istio.io:log:rejected_by)% " +
				"%DYNAMIC_METADATA(plugins.istio.io:log:sampled)% %DYNAMIC_METADATA(plugins.istio.io:log)%",
		})
		gateway := envoy.Gateway("chain")
		gateway.Get(t, "/", "user: mary", "user-agent: one")
		envoy.WaitLog(t, `200 mary - true {"agent":"one","consumer":"mary","sampled":true}`)
		gateway.Get(t, "/", "refuse: yes", "user-agent: two")
		envoy.WaitLog(t, `403 - refuser true {"agent":"two","rejected_by":"refuser","sampled":true}`)
		gateway.Get(t, "/", "fail: yes", "user-agent: three")
		envoy.WaitLog(t, `500 - refuser true {"agent":"three","rejected_by":"refuser","sampled":true}`)
	}
}

// The expression of schema.yaml.
func TestLogFilter(t *testing.T) {
	const expression = "metadata.filter_metadata['plugins.istio.io']['log']['sampled'] == true"
	if !strings.Contains(string(schema), "`"+expression+"`") {
		t.Errorf("schema.yaml does not have %s", expression)
	}
	chains := map[string][]part.Part{"all": parts(t, `{sample: 100}`), "none": parts(t, `{sample: 0}`), "without": {login}}
	for _, version := range envoytest.Versions {
		envoy := envoytest.Start(t, version, envoytest.Config{Chains: chains, AccessLog: "logged %REQ(:PATH)%", AccessLogIf: expression})
		envoy.Gateway("none").Get(t, "/none")
		envoy.Gateway("without").Get(t, "/without")
		envoy.Gateway("all").Get(t, "/all")
		envoy.WaitLog(t, "logged /all")
		if log := envoy.Log(); strings.Contains(log, "logged /none") || strings.Contains(log, "logged /without") {
			t.Errorf("too much is logged:\n%s", log)
		}
	}
}
