package responsetransformer

import (
	"compress/gzip"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/compression"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// use builds the parts of one use of the plugin.
func use(t testing.TB, text string) ([]part.Part, []string) {
	t.Helper()
	return catalogtest.Build(t, Builtin, builtin.Use{Plugin: "change", Instance: "a"}, text)
}

// change is what a config makes of an answer.
type change struct {
	config string
	// method is GET where it is empty.
	method string
	// status, header and body are what the upstream answers; 200, JSON and `{}` where they do not say.
	status string
	header []string
	body   string
	// want are header lines, then the body.
	want []string
}

// run sends a request for the answer of each case through its chain, on each Envoy, by HTTP/1 and HTTP/2.
func run(t *testing.T, cases map[string]change) {
	chains := map[string][]part.Part{}
	for name, c := range cases {
		built, problems := use(t, c.config)
		if built == nil {
			t.Fatalf("%s: %v", name, problems)
		}
		chains[name] = built
	}
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			envoy := envoytest.Start(t, version, envoytest.Config{Chains: chains})
			for name, c := range cases {
				t.Run(name, func(t *testing.T) {
					r := c.request()
					for _, r.HTTP2 = range []bool{false, true} {
						if d := cmp.Diff(c.want, seen(envoy.Gateway(name).Do(t, r))); d != "" {
							t.Errorf("HTTP/2 %v: the client saw (-want +got):\n%s", r.HTTP2, d)
						}
					}
				})
			}
		})
	}
}

func (c change) request() envoytest.Request {
	r := envoytest.Request{Method: c.method, Header: []string{envoytest.EchoBody + ": " + c.body}}
	if c.body == "" {
		r.Header[0] = envoytest.EchoBody + ": {}"
	}
	if c.status != "" {
		r.Header = append(r.Header, envoytest.EchoStatus+": "+c.status)
	}
	if !slices.ContainsFunc(c.header, func(line string) bool { return strings.HasPrefix(line, "content-type") }) {
		r.Header = append(r.Header, envoytest.EchoHeader+": "+jsonType)
	}
	for _, line := range c.header {
		r.Header = append(r.Header, envoytest.EchoHeader+": "+line)
	}
	return r
}

// seen is an answer as a case writes it, without what Envoy adds. The content-length has to be right.
func seen(a *envoytest.Answer) []string {
	var out []string
	for name, values := range a.Header {
		name = strings.ToLower(name)
		if slices.Contains([]string{"date", "server", "x-envoy-upstream-service-time", "content-length"}, name) ||
			name == "content-type" && a.Status == http.StatusNotModified { // the upstream sends it by HTTP/2 only
			continue
		}
		for _, v := range values {
			out = append(out, name+": "+v)
		}
	}
	slices.SortStableFunc(out, func(a, b string) int {
		an, _, _ := strings.Cut(a, ":")
		bn, _, _ := strings.Cut(b, ":")
		return strings.Compare(an, bn)
	})
	if a.Status != http.StatusOK {
		out = append([]string{http.StatusText(a.Status)}, out...)
	}
	if a.Body != "" {
		out = append(out, "", a.Body)
	}
	return out
}

const jsonType = "content-type: application/json"

func TestHeaders(t *testing.T) {
	headers := func(config string, sent, want []string) change {
		return change{config: config, header: append(sent, "content-type: t"), want: append(append([]string{}, want...), "", "{}")}
	}
	lines := func(l ...string) []string { return l }
	run(t, map[string]change{
		"nothing":                      headers(`{}`, lines("a: 1"), lines("a: 1", "content-type: t")),
		"remove drops all lines":       headers(`{remove: {headers: [A, none]}}`, lines("a: 1", "a: 2", "b: 3"), lines("b: 3", "content-type: t")),
		"rename moves all lines":       headers(`{rename: {headers: ["Set-Cookie:X-Cookie"]}}`, lines("set-cookie: a=1", "set-cookie: b=2"), lines("content-type: t", "x-cookie: a=1", "x-cookie: b=2")),
		"rename replaces the existing": headers(`{rename: {headers: ["a:b"]}}`, lines("a: 1", "b: 2", "b: 3"), lines("b: 1", "content-type: t")),
		"rename what is absent":        headers(`{rename: {headers: ["a:b"]}}`, lines("b: 2"), lines("b: 2", "content-type: t")),
		"replace leaves one line":      headers(`{replace: {headers: ["A:x:y", "none:z"]}}`, lines("a: 1", "a: 2"), lines("a: x:y", "content-type: t")),
		"add what is absent":           headers(`{add: {headers: ["a:x", "b:y"]}}`, lines("b: 1"), lines("a: x", "b: 1", "content-type: t")),
		"append is another line":       headers(`{append: {headers: ["set-cookie:b=2", "a:1"]}}`, lines("set-cookie: a=1"), lines("a: 1", "content-type: t", "set-cookie: a=1", "set-cookie: b=2")),
		"what is absent is appended":   headers(`{append: {headers: ["a:1", "a:é"]}}`, nil, lines("a: 1", "a: é", "content-type: t")),
		"the content type":             headers(`{replace: {headers: ["Content-Type:x"]}}`, nil, lines("content-type: x")),
		"the order is Kong's":          headers(`{append: {headers: ["a:5"]}, add: {headers: ["a:4", "b:4"]}, replace: {headers: ["a:3", "b:3"]}, rename: {headers: ["x:b"]}, remove: {headers: [a]}}`, lines("a: 1", "x: 1"), lines("a: 4", "a: 5", "b: 3", "content-type: t")),
	})
}

func TestJSON(t *testing.T) {
	body := func(config, before, after string) change {
		return change{config: config, body: before, want: []string{jsonType, "", after}}
	}
	as := func(contentType, after string) change {
		return change{config: `{add: {json: ["a:1"]}}`, header: []string{"content-type: " + contentType}, want: []string{"content-type: " + contentType, "", after}}
	}
	run(t, map[string]change{
		"remove":                       body(`{remove: {json: [a, none]}}`, `{"a":{"b":[1,"}"]},"c":1}`, `{"c":1}`),
		"rename":                       body(`{rename: {json: ["a:b"]}}`, `{"a":12345678901234567890,"b":2}`, `{"b":12345678901234567890}`),
		"replace":                      body(`{replace: {json: ["a:x:y", "none:z"]}}`, `{"a":1,"b":2}`, `{"a":"x:y","b":2}`),
		"replace null and false":       body(`{replace: {json: ["a:x", "b:y"]}}`, `{"a":null,"b":false}`, `{"a":"x","b":"y"}`),
		"add":                          body(`{add: {json: ["a:x", 'b:"<é>']}}`, `{}`, `{"a":"x","b":"\"<é>"}`),
		"add to null and false":        body(`{add: {json: ["a:x", "b:y"]}}`, `{"a":null,"b":false}`, `{"a":null,"b":false}`),
		"append to a string":           body(`{append: {json: ["a:2"]}}`, `{"a":"1"}`, `{"a":["1","2"]}`),
		"append to a list":             body(`{append: {json: ["a:2", "b:3"], json_types: [number]}}`, `{"a":[1.0],"b":[]}`, `{"a":[1.0,2],"b":["3"]}`),
		"append to nothing":            body(`{append: {json: ["a:true"], json_types: [boolean]}}`, `{}`, `{"a":[true]}`),
		"append to a number":           body(`{append: {json: ["a:2"]}}`, `{"a":1}`, `{"a":[1,"2"]}`),
		"booleans":                     body(`{add: {json: ["a:true", "b:false", "c:TRUE", "d:1"], json_types: [boolean, boolean, boolean, boolean]}}`, `{}`, `{"a":true,"b":false,"c":false,"d":false}`),
		"numbers":                      body(`{add: {json: ["a:1.50", "b:-0", "c:12345678901234567890", "d:1e400", "e: +.5"], json_types: [number, number, number, number, number]}}`, `{}`, `{"a":1.50,"b":-0,"c":12345678901234567890,"d":1e400,"e":0.5}`),
		"no numbers":                   body(`{add: {json: ["a:1x", "b:NaN", "c:Inf", "d:2"], json_types: [number, number, number, number]}}`, `{}`, `{"d":2}`),
		"types by place":               body(`{replace: {json: ["a:1", "b:2", "c:3"], json_types: [string, number]}}`, `{"a":0,"b":0,"c":0}`, `{"a":"1","b":2,"c":"3"}`),
		"a list at the root":           body(`{add: {json: ["a:1"]}}`, `[{}]`, `[{}]`),
		"a scalar":                     body(`{add: {json: ["a:1"]}}`, `true`, `true`),
		"no JSON":                      body(`{add: {json: ["a:1"]}}`, `{"b":`, `{"b":`),
		"two values":                   body(`{add: {json: ["a:1"]}}`, `{}{}`, `{}{}`),
		"nested deeply":                body(`{add: {json: ["a:1"]}}`, `{"b":`+strings.Repeat("[", 70)+strings.Repeat("]", 70)+`}`, `{"b":`+strings.Repeat("[", 70)+strings.Repeat("]", 70)+`,"a":"1"}`),
		"invalid UTF-8":                body(`{add: {json: ["a:1"]}}`, "{\"b\":\"\xff\"}", "{\"b\":\"\xff\",\"a\":\"1\"}"),
		"duplicate keys":               body(`{replace: {json: ["a:x"]}}`, `{"a":1,"b":2,"a":3}`, `{"a":"x","b":2}`),
		"append to an object":          body(`{append: {json: ["a:2"]}}`, `{"a":{"b":1}}`, `{"a":{"b":1}}`),
		"nothing changes, no byte":     body(`{remove: {json: [z]}}`, `{ "a" : 1 }`, `{ "a" : 1 }`),
		"order of operations":          body(`{append: {json: ["a:5"]}, add: {json: ["a:4"]}, replace: {json: ["b:3"]}, rename: {json: ["x:b"]}, remove: {json: [a]}}`, `{"a":1,"x":1}`, `{"b":"3","a":["4","5"]}`),
		"a type with parameters":       as("Application/JSON;charset=utf-8", `{"a":"1"}`),
		"problem+json is another type": as("application/problem+json", `{}`),
		"a stream of events":           as("text/event-stream", `{}`),
		"gRPC":                         as("application/grpc+json", `{}`),
		"an error of the upstream":     {config: `{add: {json: ["a:1"]}}`, status: "502", want: []string{"Bad Gateway", jsonType, "", `{"a":"1"}`}},
		"HEAD":                         {config: `{add: {json: ["a:1"], headers: ["b:2"]}}`, method: "HEAD", want: []string{"b: 2", jsonType}},
		"behind another status":        {config: `{add: {json: ["a:1"]}}`, status: "103", want: []string{jsonType, "", `{"a":"1"}`}},
		"204":                          {config: `{add: {json: ["a:1"], headers: ["b:2"]}}`, status: "204", want: []string{"No Content", "b: 2", jsonType}},
		"304":                          {config: `{add: {json: ["a:1"], headers: ["b:2"]}}`, status: "304", want: []string{"Not Modified", "b: 2"}},
		"the type before the headers":  {config: `{replace: {headers: ["content-type:x"]}, add: {json: ["a:1"]}}`, want: []string{"content-type: x", "", `{"a":"1"}`}},
		"a known length that is small": {config: `{add: {json: ["a:1"]}, max_body_bytes: 2}`, header: []string{"content-length: 2"}, want: []string{jsonType, "", `{"a":"1"}`}},
		"one that is too large":        {config: `{add: {json: ["a:1"], headers: ["b:2"]}, max_body_bytes: 1}`, header: []string{"content-length: 2"}, want: []string{"b: 2", jsonType, "x-plugin-skipped: response-transformer", "", `{}`}},
		"too large, but not JSON":      {config: `{add: {json: ["a:1"]}, max_body_bytes: 1}`, header: []string{"content-length: 2", "content-type: t"}, want: []string{"content-type: t", "", `{}`}},
		"too large, but no JSON rules": {config: `{add: {headers: ["a:1"]}, max_body_bytes: 1}`, header: []string{"content-length: 2"}, want: []string{"a: 1", jsonType, "", `{}`}},
		"compressed":                   {config: `{add: {json: ["a:1"]}}`, header: []string{"content-encoding: gzip"}, want: []string{"content-encoding: gzip", jsonType, "", `{}`}},
	})
}

func TestAnswersOfPlugins(t *testing.T) {
	refuses := part.Lua{Plugin: "refuse", Source: `
return {
  request = function(handle)
    pdk.fail(handle, 401, "no", {headers = {["www-authenticate"] = "Key"}})
  end,
  response = function(handle)
    pdk.set_header(handle, "later", "yes")
  end,
}`}
	changes, _ := use(t, `{add: {headers: ["added:1", "later:no"], json: ["code:1"]}, remove: {headers: [www-authenticate]}, replace: {json: ["message:yes"]}}`)
	chains := map[string][]part.Part{
		"before": append(slices.Clone(changes), refuses),
		"behind": append([]part.Part{refuses}, changes...),
	}
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			envoy := envoytest.Start(t, version, envoytest.Config{Chains: chains})
			for chain, later := range map[string]string{"before": "yes", "behind": "yes"} {
				want := []string{"Unauthorized", "added: 1", "content-type: application/json; charset=utf-8", "later: " + later, "", `{"message":"yes","code":"1"}`}
				if d := cmp.Diff(want, seen(envoy.Gateway(chain).Get(t, "/"))); d != "" {
					t.Errorf("%s (-want +got):\n%s", chain, d)
				}
			}
		})
	}
}

// The answer to HEAD has no body to change, and no length that a changed body would not have. The default of max_body_bytes is
// half a mebibyte.
func TestLengths(t *testing.T) {
	cases := map[string]struct {
		config, contentType, length string
		want, skipped               string
	}{
		"a body to be changed":   {`{add: {json: ["a:1"]}}`, "application/json", "2", "", ""},
		"an empty one":           {`{add: {json: ["a:1"]}}`, "application/json", "0", "0", ""},
		"as large as may be":     {`{add: {json: ["a:1"]}}`, "application/json", "524288", "", ""},
		"one that is too large":  {`{add: {json: ["a:1"]}}`, "application/json", "524289", "524289", "response-transformer"},
		"one of another type":    {`{add: {json: ["a:1"]}}`, "text/plain", "2", "2", ""},
		"no rules for the body":  {`{add: {headers: ["a:1"]}}`, "application/json", "2", "2", ""},
		"larger than is allowed": {`{add: {json: ["a:1"]}, max_body_bytes: 0}`, "application/json", "1", "1", "response-transformer"},
	}
	chains := map[string][]part.Part{}
	for name, c := range cases {
		chains[name], _ = use(t, c.config)
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for name, c := range cases {
			t.Run(name, func(t *testing.T) {
				r := envoytest.Request{Method: "HEAD", Header: []string{envoytest.EchoHeader + ": content-type: " + c.contentType, envoytest.EchoHeader + ": content-length: " + c.length}}
				for _, r.HTTP2 = range []bool{false, true} {
					a := envoy.Gateway(name).Do(t, r)
					if got := a.Header.Get("content-length"); a.Status != 200 || got != c.want || a.Header.Get("x-plugin-skipped") != c.skipped {
						t.Errorf("HTTP/2 %v: status %d, length %q, header %v", r.HTTP2, a.Status, got, a.Header)
					}
				}
			})
		}
	})
}

// Trailers come behind a changed body where they can: HTTP/1 has none behind one of known length.
func TestTrailers(t *testing.T) {
	changes, _ := use(t, `{add: {json: ["a:1"], headers: ["x-end:1"]}, remove: {json: [b]}}`)
	catalogtest.OnEach(t, map[string][]part.Part{"chain": changes}, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct {
			http2         bool
			body, trailer string
		}{{true, `{"b":1}`, "yes"}, {true, `[]`, "yes"}, {false, `{"b":1}`, ""}, {false, `[]`, "yes"}} {
			a := envoy.Gateway("chain").Do(t, envoytest.Request{HTTP2: c.http2, Header: []string{
				envoytest.EchoBody + ": " + c.body, envoytest.EchoHeader + ": " + jsonType, envoytest.EchoTrailer + ": x-end: yes",
			}})
			if want := strings.ReplaceAll(c.body, `"b"`, `"a"`); a.Trailer.Get("x-end") != c.trailer || strings.ReplaceAll(a.Body, `"1"`, "1") != want {
				t.Errorf("%+v: body %s, trailer %v", c, a.Body, a.Trailer)
			}
		}
	})
}

// A plugin in front that compresses does so with the changed body.
func TestCompression(t *testing.T) {
	changes, _ := use(t, `{add: {json: ["a:1"]}}`)
	compress := catalogtest.Parts(t, compression.Builtin, builtin.Use{Plugin: "compression", Instance: "b"}, `{min_length: 1, algorithms: [gzip]}`)
	catalogtest.OnEach(t, map[string][]part.Part{"chain": append(compress, changes...)}, func(t *testing.T, envoy *envoytest.Envoy) {
		r := change{}.request()
		r.Header = append(r.Header, "accept-encoding: gzip")
		for _, r.HTTP2 = range []bool{false, true} {
			a := envoy.Gateway("chain").Do(t, r)
			unpacked, err := gzip.NewReader(strings.NewReader(a.Body))
			if err != nil {
				t.Fatalf("%v: %v", err, a.Header)
			}
			if text, err := io.ReadAll(unpacked); err != nil || string(text) != `{"a":"1"}` {
				t.Errorf("%q, %v", text, err)
			}
		}
	})
}

// The gateway says itself what it is, after all plugins.
func TestServer(t *testing.T) {
	changes, _ := use(t, `{remove: {headers: [date]}, replace: {headers: ["server:mine", "connection:close"]}, append: {headers: ["server:mine"]}}`)
	catalogtest.OnEach(t, map[string][]part.Part{"chain": changes}, func(t *testing.T, envoy *envoytest.Envoy) {
		a := envoy.Gateway("chain").Get(t, "/", envoytest.EchoHeader+": server: theirs")
		if got := a.Header.Values("server"); !slices.Equal(got, []string{"envoy"}) || a.Header.Get("connection") != "" || a.Header.Get("date") == "" {
			t.Errorf("header %v", a.Header)
		}
	})
}

// Two of them in a chain both change the answer, the later first.
func TestTwo(t *testing.T) {
	first, _ := use(t, `{rename: {headers: ["b:c"], json: ["b:c"]}, add: {headers: ["a:first"]}}`)
	second, _ := use(t, `{add: {headers: ["a:second", "b:second"], json: ["b:second"]}}`)
	catalogtest.OnEach(t, map[string][]part.Part{"chain": append(first, second...)}, func(t *testing.T, envoy *envoytest.Envoy) {
		want := []string{"a: second", "c: second", jsonType, "", `{"c":"second"}`}
		if d := cmp.Diff(want, seen(envoy.Gateway("chain").Do(t, change{}.request()))); d != "" {
			t.Errorf("the client saw (-want +got):\n%s", d)
		}
	})
}

// A body of unknown length is held as far as Envoy can; a streamed one that is not to be changed is not held.
func TestLargeBody(t *testing.T) {
	changes, _ := use(t, `{add: {json: ["a:1"]}}`)
	chains := map[string][]part.Part{"chain": changes}
	large := "x: " + strings.Repeat("x", 3000)
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			gateway := envoytest.Start(t, version, envoytest.Config{Chains: chains}).Gateway("chain")
			a := gateway.Get(t, "/", large)
			if a.Status != 200 || !strings.HasSuffix(a.Body, `,"a":"1"}`) {
				t.Errorf("no content-length: status %d, body %s", a.Status, a.Body)
			}
			a = gateway.Do(t, envoytest.Request{Method: "POST", Body: strings.Repeat("x", 600000)})
			if a.Status != 200 || a.Header.Get("x-plugin-skipped") != "response-transformer" || !strings.HasSuffix(a.Body, `"}`) || strings.HasSuffix(a.Body, `,"a":"1"}`) {
				t.Errorf("above max_body_bytes: status %d, header %v, body ends %s", a.Status, a.Header, a.Body[max(0, len(a.Body)-100):])
			}
			body := strings.Repeat("x", 2<<20)
			a = gateway.Do(t, envoytest.Request{Method: "POST", Body: body})
			if a.Status != 500 {
				t.Errorf("above the buffer limit: status %d, body of %d bytes", a.Status, len(a.Body))
			}
			a = gateway.Do(t, envoytest.Request{Method: "POST", Body: body, Header: []string{envoytest.EchoHeader + ": content-type: text/event-stream"}})
			if a.Status != 200 || !strings.Contains(a.Body, body) {
				t.Errorf("a stream: status %d, body of %d bytes", a.Status, len(a.Body))
			}
		})
	}
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]struct {
		config string
		want   []string
	}{
		"nothing":                       {`{}`, nil},
		"an entry without its value":    {`{add: {json: ["a:b", "c"]}}`, []string{`add.json[1]: "c" is not of the form name:value`}},
		"a rename to nothing":           {`{rename: {headers: ["a:"]}}`, []string{`rename.headers[0]: "a:" is not of the form old:new`}},
		"a header name with a blank":    {`{remove: {headers: ["a b"]}}`, []string{`remove.headers[0]: "a b" is no header name`}},
		"the status":                    {`{remove: {headers: [":status"]}}`, []string{`remove.headers[0]: ":status" is no header name`}},
		"framing":                       {`{remove: {headers: [Content-Length]}, rename: {headers: ["a:Transfer-Encoding"]}}`, []string{"remove.headers[0]: content-length frames the message and cannot be changed", "rename.headers[0]: transfer-encoding frames the message and cannot be changed"}},
		"a line break":                  {`{append: {headers: ["a:b\nc: d"]}}`, []string{"append.headers[0]: a header value cannot hold control characters"}},
		"a control character":           {`{add: {headers: ["a:\x01"]}}`, []string{"add.headers[0]: a header value cannot hold control characters"}},
		"no number":                     {`{add: {json: ["a:x", "b:1"], json_types: [number, number]}}`, []string{`warning add.json[0]: "x" is no number, the entry is left out`}},
		"more types than entries":       {`{append: {json: ["a:1"], json_types: [number, string]}}`, []string{"warning append.json_types: has 2 types for the 1 entries of append.json"}},
		"an unknown type":               {`{add: {json: ["a:1"], json_types: [int]}}`, []string{`add.json_types[0]: "int" is not allowed, allowed are "boolean", "number", "string"`}},
		"types of what has none":        {`{remove: {json_types: [number]}}`, []string{"remove.json_types: unknown field, known ones are headers, json"}},
		"body is the other transformer": {`{add: {body: ["a:1"]}}`, []string{"add.body: unknown field, known ones are headers, json, json_types"}},
		"a negative size":               {`{max_body_bytes: -1}`, []string{"max_body_bytes: -1 is too small, at least 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, got := use(t, c.config)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
		})
	}
}
