package requesttransformer

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// use builds the parts of one use of the plugin.
func use(t testing.TB, text string) ([]part.Part, []string) {
	t.Helper()
	return catalogtest.Build(t, Builtin, builtin.Use{Plugin: "change", Instance: "a"}, text)
}

// change is what a config makes of a request.
type change struct {
	config  string
	request envoytest.Request
	// want is the request line, then the header lines that the config or the request names, then the body.
	want []string
}

// run sends the request of each case through its chain, on each Envoy, by HTTP/1 and HTTP/2.
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
					a := envoy.Gateway(name).Do(t, c.request)
					if a.Upstream == nil {
						t.Fatalf("status %d, body %s\n%s", a.Status, a.Body, envoy.Log())
					}
					if d := cmp.Diff(c.want, seen(a.Upstream, c.request.Host != "")); d != "" {
						t.Errorf("the upstream saw (-want +got):\n%s", d)
					}
					c.request.HTTP2 = true
					a = envoy.Gateway(name).Do(t, c.request)
					if a.Upstream == nil || a.Upstream.Proto != "HTTP/2.0" {
						t.Fatalf("HTTP/2: status %d, body %s\n%s", a.Status, a.Body, envoy.Log())
					}
					// An empty body has a length in HTTP/1 only.
					if d := cmp.Diff(without(c.want, empty), without(seen(a.Upstream, c.request.Host != ""), empty)); d != "" {
						t.Errorf("the upstream saw by HTTP/2 (-want +got):\n%s", d)
					}
				})
			}
		})
	}
}

const empty = "content-length: 0"

func without(lines []string, line string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return l == line })
}

// seen is a request as a case writes it, without what Envoy and the HTTP client add.
func seen(r *envoytest.Received, host bool) []string {
	added := []string{"x-envoy-expected-rq-timeout-ms", "x-envoy-external-address", "x-envoy-internal", "x-forwarded-for", "x-forwarded-proto", "x-request-id", "transfer-encoding"}
	out := []string{r.Method + " " + r.Path}
	if host || !strings.HasPrefix(r.Host, "127.0.0.1") {
		out = append(out, "host: "+r.Host)
	}
	for _, line := range r.Header {
		if name, _, _ := strings.Cut(line, ":"); !slices.Contains(added, name) {
			out = append(out, line)
		}
	}
	if r.Body != "" {
		out = append(out, "", r.Body)
	}
	return out
}

func TestHeaders(t *testing.T) {
	with := func(lines ...string) envoytest.Request { return envoytest.Request{Header: lines} }
	run(t, map[string]change{
		"nothing":                           {`{}`, with("a: 1"), []string{"GET /", "a: 1"}},
		"remove drops all lines":            {`{remove: {headers: [A, none]}}`, with("a: 1", "a: 2", "b: 3"), []string{"GET /", "b: 3"}},
		"rename moves all lines":            {`{rename: {headers: [A:New]}}`, with("a: 1", "a: 2"), []string{"GET /", "new: 1", "new: 2"}},
		"rename what is absent":             {`{rename: {headers: ["a:new"]}}`, with("b: 1"), []string{"GET /", "b: 1"}},
		"rename replaces the existing":      {`{rename: {headers: ["a:b"]}}`, with("a: 1", "b: 2", "b: 3"), []string{"GET /", "b: 1"}},
		"rename to itself":                  {`{rename: {headers: ["a:A"]}}`, with("a: 1", "a: 2"), []string{"GET /", "a: 1", "a: 2"}},
		"replace leaves one line":           {`{replace: {headers: ["A:new"]}}`, with("a: 1", "a: 2"), []string{"GET /", "a: new"}},
		"replace what is absent":            {`{replace: {headers: ["a:new"]}}`, with("b: 1"), []string{"GET /", "b: 1"}},
		"replace an empty value":            {`{replace: {headers: ["a:new"]}}`, with("a:"), []string{"GET /", "a: new"}},
		"add what is absent":                {`{add: {headers: ["A:new"]}}`, with("b: 1"), []string{"GET /", "a: new", "b: 1"}},
		"add what is there":                 {`{add: {headers: ["a:new"]}}`, with("a: 1"), []string{"GET /", "a: 1"}},
		"add where it is empty":             {`{add: {headers: ["a:new"]}}`, with("a:"), []string{"GET /", "a: "}},
		"append is another line":            {`{append: {headers: ["a:2", "a:3"]}}`, with("a: 1"), []string{"GET /", "a: 1", "a: 2", "a: 3"}},
		"append where there is none":        {`{append: {headers: ["a:1"]}}`, with(), []string{"GET /", "a: 1"}},
		"the first colon splits":            {`{add: {headers: ["a:b:c", "d: e "]}}`, with(), []string{"GET /", "a: b:c", "d: e"}},
		"UTF-8":                             {`{add: {headers: ["a:é"]}}`, with(), []string{"GET /", "a: é"}},
		"the order is Kong's":               {`{append: {headers: ["a:5"]}, add: {headers: ["a:4", "b:4"]}, replace: {headers: ["a:3", "b:3"]}, rename: {headers: ["x:b"]}, remove: {headers: [a]}}`, with("a: 1", "x: 1"), []string{"GET /", "a: 4", "a: 5", "b: 3"}},
		"entries run in their order":        {`{rename: {headers: ["a:b", "b:c"]}}`, with("a: 1"), []string{"GET /", "c: 1"}},
		"host is replaced":                  {`{replace: {headers: ["Host:new.test:8080"]}}`, with(), []string{"GET /", "host: new.test:8080"}},
		"host is not removed":               {`{remove: {headers: [HOST]}}`, envoytest.Request{Host: "old.test"}, []string{"GET /", "host: old.test"}},
		"host is not added":                 {`{add: {headers: ["Host:new.test"]}}`, envoytest.Request{Host: "old.test"}, []string{"GET /", "host: old.test"}},
		"host is not renamed":               {`{rename: {headers: ["Host:x"]}}`, envoytest.Request{Host: "old.test"}, []string{"GET /", "host: old.test"}},
		"another header becomes the host":   {`{rename: {headers: ["x-host:Host"]}}`, envoytest.Request{Host: "old.test", Header: []string{"x-host: new.test"}}, []string{"GET /", "host: new.test"}},
		"which is absent":                   {`{rename: {headers: ["x-host:Host"]}}`, envoytest.Request{Host: "old.test"}, []string{"GET /", "host: old.test"}},
		"of several the first":              {`{rename: {headers: ["x-host:Host"]}}`, envoytest.Request{Host: "old.test", Header: []string{"x-host: [2001:db8::7]:80", "x-host: b.test"}}, []string{"GET /", "host: [2001:db8::7]:80"}},
		"not one that is no host":           {`{rename: {headers: ["x-host:Host"]}}`, envoytest.Request{Host: "old.test", Header: []string{"x-host: a.test/b"}}, []string{"GET /", "host: old.test"}},
		"nor an empty one":                  {`{rename: {headers: ["x-host:Host"]}}`, envoytest.Request{Host: "old.test", Header: []string{"x-host:"}}, []string{"GET /", "host: old.test"}},
		"the host of a template":            {`{replace: {headers: ["host:$(headers.x).test"]}}`, envoytest.Request{Host: "old.test", Header: []string{"x: a"}}, []string{"GET /", "host: a.test", "x: a"}},
		"not one with a blank":              {`{replace: {headers: ["host:$(headers.x).test"]}}`, envoytest.Request{Host: "old.test", Header: []string{"x: a b"}}, []string{"GET /", "host: old.test", "x: a b"}},
		"nor with a user":                   {`{replace: {headers: ["host:$(headers.x).test"]}}`, envoytest.Request{Host: "old.test", Header: []string{"x: a@b"}}, []string{"GET /", "host: old.test", "x: a@b"}},
		"nor none at all":                   {`{replace: {headers: ["host:$(headers.x)"]}}`, envoytest.Request{Host: "old.test"}, []string{"GET /", "host: old.test"}},
		"a header that Envoy joins":         {`{append: {headers: ["user-agent:b"]}}`, with("user-agent: a"), []string{"GET /", "user-agent: a,b"}},
		"replace a header that Envoy joins": {`{replace: {headers: ["user-agent:b"]}}`, with("user-agent: a"), []string{"GET /", "user-agent: b"}},
	})
}

func TestQuery(t *testing.T) {
	path := func(p string) envoytest.Request { return envoytest.Request{Path: p} }
	run(t, map[string]change{
		"remove":                        {`{remove: {querystring: [a, none]}}`, path("/p?a=1&b=2&a=3"), []string{"GET /p?b=2"}},
		"remove the last":               {`{remove: {querystring: [a]}}`, path("/p?a=1"), []string{"GET /p"}},
		"names are exact":               {`{remove: {querystring: [A]}}`, path("/?a=1"), []string{"GET /?a=1"}},
		"names are decoded":             {`{remove: {querystring: ["a b", "é"]}}`, path("/?a%20b=1&a+b=2&%C3%a9=3&c=4"), []string{"GET /?c=4"}},
		"rename keeps bytes":            {`{rename: {querystring: ["a:b c"]}}`, path("/?x=%7e&a=%2f+1&a&a="), []string{"GET /?x=%7e&b%20c=%2f+1&b%20c&b%20c="}},
		"rename replaces the existing":  {`{rename: {querystring: ["a:b"]}}`, path("/?b=1&a=2&b=3"), []string{"GET /?b=2"}},
		"rename what is absent":         {`{rename: {querystring: ["a:b"]}}`, path("/?b=1"), []string{"GET /?b=1"}},
		"replace leaves one":            {`{replace: {querystring: ["a:x y&"]}}`, path("/?a=1&b=2&a=3"), []string{"GET /?a=x%20y%26&b=2"}},
		"replace what is absent":        {`{replace: {querystring: ["a:x"]}}`, path("/?b=2"), []string{"GET /?b=2"}},
		"replace one without a value":   {`{replace: {querystring: ["a:x"]}}`, path("/?a"), []string{"GET /?a=x"}},
		"add":                           {`{add: {querystring: ["a:1", "é:ü"]}}`, path("/p"), []string{"GET /p?a=1&%C3%A9=%C3%BC"}},
		"add to an empty query":         {`{add: {querystring: ["a:1"]}}`, path("/p?"), []string{"GET /p?a=1"}},
		"add what is there":             {`{add: {querystring: ["a:1"]}}`, path("/?a"), []string{"GET /?a"}},
		"append":                        {`{append: {querystring: ["a:2", "b:3"]}}`, path("/?a=1"), []string{"GET /?a=1&a=2&b=3"}},
		"the rest keeps bytes":          {`{add: {querystring: ["z:1"]}}`, path("/?a&b=&&=c&%zz=%2F+&a=1=2"), []string{"GET /?a&b=&&=c&%zz=%2F+&a=1=2&z=1"}},
		"nothing to do keeps all bytes": {`{remove: {querystring: [z]}}`, path("/p?"), []string{"GET /p?"}},
		"more than a hundred arguments": {`{remove: {querystring: [z]}}`, path("/?" + strings.Repeat("a=1&", 150) + "z=1"), []string{"GET /?" + strings.TrimSuffix(strings.Repeat("a=1&", 150), "&")}},
		"the order is Kong's":           {`{append: {querystring: ["a:5"]}, add: {querystring: ["a:4"]}, replace: {querystring: ["b:3"]}, rename: {querystring: ["x:b"]}, remove: {querystring: [a]}}`, path("/?a=1&x=1"), []string{"GET /?b=3&a=4&a=5"}},
	})
}

func TestURI(t *testing.T) {
	path := func(p string) envoytest.Request { return envoytest.Request{Path: p} }
	run(t, map[string]change{
		"a new path keeps the query":         {`{replace: {uri: /new}}`, path("/old?a=1"), []string{"GET /new?a=1"}},
		"a question mark is part of it":      {`{replace: {uri: "/a?b#c"}}`, path("/?a=1"), []string{"GET /a%3Fb%23c?a=1"}},
		"what a path cannot hold is encoded": {`{replace: {uri: "/é \"%41%zz%"}}`, path("/"), []string{"GET /%C3%A9%20%22%41%25zz%25"}},
		"references are encoded":             {`{replace: {uri: "/u/$(query_params.id)/$(headers.x)"}}`, envoytest.Request{Path: "/?id=a%2Fb%3Fc%2541%0d%0aX:", Header: []string{"x: é%2F"}}, []string{"GET /u/a/b%3Fc%2541%0D%0AX:/%C3%A9%252F?id=a%2Fb%3Fc%2541%0d%0aX:", "x: é%2F"}},
		"a reference alone gets a slash":     {`{replace: {uri: "$(query_params.to or \"/\")"}}`, path("/?to=here"), []string{"GET /here?to=here"}},
		"or is the path by itself":           {`{replace: {uri: "$(query_params.to)"}}`, path("/?to=%2Fhere"), []string{"GET /here?to=%2Fhere"}},
		"or is absent":                       {`{replace: {uri: "$(query_params.to)"}}`, path("/x"), []string{"GET /"}},
		"a client does not lead upwards":     {`{replace: {uri: "/u/$(query_params.id)/x"}}`, path("/?id=../../admin"), []string{"GET /u/admin/x?id=../../admin"}},
		"nor by what some servers take so":   {`{replace: {uri: "/u/$(query_params.id)"}}`, path("/?id=..;a=b/%252e%252e/.%2f.../..%5cb/..;"), []string{"GET /u/%252e%252e/.../..%5Cb?id=..;a=b/%252e%252e/.%2f.../..%5cb/..;"}},
		"nor with the help of the config":    {`{replace: {uri: "/u/.$(query_params.id)"}}`, path("/?id=."), []string{"GET /u?id=."}},
		"nor above everything":               {`{replace: {uri: "$(query_params.id)"}}`, path("/?id=.."), []string{"GET /?id=.."}},
		"the config alone may":               {`{replace: {uri: "/u/../x"}}`, path("/"), []string{"GET /u/../x"}},
	})
}

func TestTemplates(t *testing.T) {
	request := envoytest.Request{Path: "/?q=a%20b&q=2&flag&empty=", Header: []string{"x-y: 1", "x-y: 2", "z:", "cr: ok"}}
	value := func(name, template string, want ...string) change {
		return change{
			config: `{add: {headers: ['` + name + `:` + template + `']}}`, request: request,
			want: append([]string{"GET " + request.Path, "cr: ok"}, append(want, "x-y: 1", "x-y: 2", "z: ")...),
		}
	}
	run(t, map[string]change{
		"a header":                     value("t", `$(headers["x-y"])`, "t: 1"),
		"in other quotes, with blanks": value("t", `$( headers[ "x-y" ] )`, "t: 1"),
		"any case":                     value("t", `$(headers["X-Y"])`, "t: 1"),
		"underscores for dashes":       value("t", `$(headers.x_y)`, "t: 1"),
		"a query argument":             value("t", `$(query_params.q)`, "t: a b"),
		"a plus is a blank":            {`{add: {headers: ["t:$(query_params.q)"]}}`, envoytest.Request{Path: "/?q=a+b%2b"}, []string{"GET /?q=a+b%2b", "t: a b+"}},
		"one without a value":          value("t", `$(query_params["flag"])`, "t: true"),
		"an empty one":                 value("t", `<$(query_params.empty or "x")>`, "t: <>"),
		"the host":                     {`{add: {headers: ["t:$(headers.host)"]}}`, envoytest.Request{Host: "a.test:8080"}, []string{"GET /", "host: a.test:8080", "t: a.test:8080"}},
		"an empty header":              value("t", `<$(headers.z or "x")>`, "t: <>"),
		"absent":                       value("t", `<$(headers.none)>`, "t: <>"),
		"absent, with a default":       value("t", `<$(headers.none or "a b")>`, "t: <a b>"),
		"several":                      value("t", `$(headers["x-y"])-$(query_params.q)-$(headers["x-y"])`, "t: 1-a b-1"),
		"a dollar alone":               value("t", `$ $5 ($) $`, "t: $ $5 ($) $"),
		"a percent sign":               value("t", `100% %s $(query_params.q)`, "t: 100% %s a b"),

		"a line break from a client adds no header": {
			config:  `{add: {headers: ["t:$(query_params.q)"]}, append: {headers: ["a:$(query_params.q)"]}, replace: {headers: ["r:$(query_params.q)"]}}`,
			request: envoytest.Request{Path: "/?q=1%0d%0aevil:1", Header: []string{"r: 1"}},
			want:    []string{"GET /?q=1%0d%0aevil:1", "r: 1"},
		},
		"nor do other control characters, which would end the request": {
			config:  `{add: {headers: ["t:$(query_params.a)", "u:$(query_params.b)", "v:$(query_params.c)"]}}`,
			request: envoytest.Request{Path: "/?a=%01x&b=x%7f&c=x%09%ffy"},
			want:    []string{"GET /?a=%01x&b=x%7f&c=x%09%ffy", "v: x\t\xffy"},
		},
		"they mean the request as it came": {
			config:  `{remove: {headers: [a], querystring: [q]}, replace: {uri: "/$(query_params.q)"}, add: {headers: ["t:$(headers.a)"], querystring: ["t:$(query_params.q)$(headers.a)"]}}`,
			request: envoytest.Request{Path: "/?q=1", Header: []string{"a: 2"}},
			want:    []string{"GET /1?t=12", "t: 2"},
		},
		"in a body": {
			config:  `{add: {body: ["t:$(headers.a)\"é"]}}`,
			request: envoytest.Request{Method: "POST", Header: []string{"a: \"x", "content-type: application/json"}, Body: `{}`},
			want:    []string{"POST /", "a: \"x", "content-length: 15", "content-type: application/json", "", `{"t":"\"x\"é"}`},
		},
	})
}

func TestJSONBody(t *testing.T) {
	body := func(config, before, after string) change {
		return typed("application/json", config, before, after)
	}
	run(t, map[string]change{
		"remove":                           body(`{remove: {body: [a, none]}}`, `{"a": {"b": [1, "}"]}, "c": 1}`, `{"c":1}`),
		"remove all":                       body(`{remove: {body: [a]}}`, `{"a":1}`, `{}`),
		"rename keeps the value":           body(`{rename: {body: ["a:b"]}}`, `{"a":1.50,"c":"\u00e9\/"}`, `{"b":1.50,"c":"\u00e9\/"}`),
		"rename replaces the existing":     body(`{rename: {body: ["a:b"]}}`, `{"b":1,"a":2}`, `{"b":2}`),
		"rename what is absent":            body(`{rename: {body: ["a:b"]}}`, `{"b":1}`, `{"b":1}`),
		"replace":                          body(`{replace: {body: ["a:x", "none:y"]}}`, `{"a":[1,2],"b":false}`, `{"a":"x","b":false}`),
		"replace null and false":           body(`{replace: {body: ["a:x", "b:y"]}}`, `{"a":null,"b":false}`, `{"a":"x","b":"y"}`),
		"add":                              body(`{add: {body: ['a:1', 'b "c":é']}}`, `{}`, `{"a":"1","b \"c\"":"é"}`),
		"add where it is false":            body(`{add: {body: ["a:1", "b:2"]}}`, `{"a":false,"b":null}`, `{"a":false,"b":null}`),
		"append to a string":               body(`{append: {body: ["a:2"]}}`, `{"a":"1"}`, `{"a":["1","2"]}`),
		"append to a list":                 body(`{append: {body: ["a:2", "b:3"]}}`, `{"a":[1.0, {}],"b":[ ]}`, `{"a":[1.0, {},"2"],"b":["3"]}`),
		"append to a number":               body(`{append: {body: ["a:2"]}}`, `{"a":12345678901234567890}`, `{"a":[12345678901234567890,"2"]}`),
		"append to null, and to nothing":   body(`{append: {body: ["a:2", "b:3"]}}`, `{"a":null}`, `{"a":["2"],"b":["3"]}`),
		"append to an object":              body(`{append: {body: ["a:2"]}}`, `{"a":{"b":1}}`, `{"a":{"b":1}}`),
		"numbers keep their text":          body(`{add: {body: ["z:1"]}}`, `{"a":1.0,"b":12345678901234567890,"c":1E5,"d":-0}`, `{"a":1.0,"b":12345678901234567890,"c":1E5,"d":-0,"z":"1"}`),
		"order, lists and nulls are kept":  body(`{add: {body: ["m:1"]}}`, `{"z":[],"y":{},"x":null,"a":[null]}`, `{"z":[],"y":{},"x":null,"a":[null],"m":"1"}`),
		"keys are compared decoded":        body(`{remove: {body: [é]}}`, `{"\u00e9":1,"e":2}`, `{"e":2}`),
		"duplicate keys":                   body(`{replace: {body: ["a:x"]}}`, `{"a":1,"b":2,"a":3}`, `{"a":"x","b":2}`),
		"strings with braces and quotes":   body(`{remove: {body: [b]}}`, `{"a":"}\"{\\","b":["\\\"]"],"c":"\\"}`, `{"a":"}\"{\\","c":"\\"}`),
		"blanks everywhere":                body(`{remove: {body: [b]}}`, " \r\n{ \"a\" :\t1 , \"b\" : 2 ,\"c\": true } \n", `{"a":1,"c":true}`),
		"a list at the root":               body(`{add: {body: ["a:1"]}}`, `[{"b":1}]`, `[{"b":1}]`),
		"a scalar":                         body(`{add: {body: ["a:1"]}}`, `"text"`, `"text"`),
		"no JSON":                          body(`{add: {body: ["a:1"]}}`, `{"b":1`, `{"b":1`),
		"two values":                       body(`{add: {body: ["a:1"]}}`, `{"b":1}{}`, `{"b":1}{}`),
		"nested deeply":                    body(`{remove: {body: [a]}}`, `{"a":1,"b":`+strings.Repeat(`[{"c":`, 5000)+"1"+strings.Repeat("}]", 5000)+`}`, `{"b":`+strings.Repeat(`[{"c":`, 5000)+"1"+strings.Repeat("}]", 5000)+`}`),
		"invalid UTF-8":                    body(`{remove: {body: [a]}}`, "{\"a\":1,\"b\xff\":\"\xff\"}", "{\"b\xff\":\"\xff\"}"),
		"a byte order mark":                body(`{add: {body: ["a:1"]}}`, "\ufeff{}", "\ufeff{}"),
		"half of a surrogate pair":         body(`{remove: {body: [a]}}`, `{"a":1,"b\ud800":"\ud800"}`, `{"b\ud800":"\ud800"}`),
		"an empty key":                     body(`{add: {body: ["a:1"]}}`, `{"":{"":[]}}`, `{"":{"":[]},"a":"1"}`),
		"a value that is not UTF-8":        {`{add: {body: ["a:$(query_params.q)"]}}`, envoytest.Request{Method: "POST", Path: "/?q=%ff%00", Header: []string{"content-type: application/json"}, Body: `{}`}, []string{"POST /?q=%ff%00", "content-length: 17", "content-type: application/json", "", `{"a":"` + "\ufffd" + `\u0000"}`}},
		"of unknown length":                {`{add: {body: ["a:1"]}}`, envoytest.Request{Method: "POST", Header: []string{"content-type: application/json"}, Body: `{}`, UnknownLength: true}, []string{"POST /", "content-length: 9", "content-type: application/json", "", `{"a":"1"}`}},
		"of a GET request":                 {`{add: {body: ["a:1"]}}`, envoytest.Request{Header: []string{"content-type: application/json"}, Body: `{}`}, []string{"GET /", "content-length: 9", "content-type: application/json", "", `{"a":"1"}`}},
		"gRPC":                             typed("application/grpc+json", `{add: {body: ["a:1"]}}`, `{}`, `{}`),
		"several types":                    typed("application/json,text/plain", `{add: {body: ["a:1"]}}`, `{}`, `{}`),
		"nothing changes, no byte does":    body(`{remove: {body: [z]}}`, `{ "a" : 1 }`, `{ "a" : 1 }`),
		"no body stays none":               body(`{add: {body: ["a:1"]}}`, ``, ``),
		"a list of headers only":           body(`{add: {headers: ["content-type:x"]}}`, `{ "a" : 1 }`, `{ "a" : 1 }`),
		"a type with parameters":           typed("Application/JSON; charset=utf-8", `{add: {body: ["a:1"]}}`, `{}`, `{"a":"1"}`),
		"another JSON type":                typed("application/problem+json", `{add: {body: ["a:1"]}}`, `{}`, `{}`),
		"another type":                     typed("text/plain", `{add: {body: ["a:1"]}}`, `{}`, `{}`),
		"multipart":                        typed("multipart/form-data; boundary=x", `{add: {body: ["a:1"]}}`, "--x--", "--x--"),
		"the order is Kong's":              body(`{append: {body: ["a:5"]}, add: {body: ["a:4"]}, replace: {body: ["b:3"]}, rename: {body: ["x:b"]}, remove: {body: [a]}}`, `{"a":1,"x":1}`, `{"b":"3","a":["4","5"]}`),
		"values that look like a template": body(`{add: {body: ["a:$ (headers.x)"]}}`, `{}`, `{"a":"$ (headers.x)"}`),
	})
}

// What is JSON to Go is changed, and its meaning is as the rules say; all else stays byte for byte.
func TestJSONOfAnyKind(t *testing.T) {
	documents := []string{
		`{"a":1,"b":[true,false,null,{"a":"a"}],"c":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00","z":-0.5e+10}`, `{"a":{},"a":[],"":""}`, ` { } `, "{\t\"b\"\r:\n12 , \"z\" : [ ] }",
		`{"b":[[1,2],[{"a":[]}]],"a":"}"}`, `{"z":null,"\u0061":0,"b":1E5,"c":1.50,"d":12345678901234567890}`,
	}
	pieces := strings.Split(`{ } [ ] " : , \ \u \ud800 \x 0 1 01 - + . e E 1.5 true false null tru NaN a "a" "z" "a": ' / //`, " ")
	pieces = append(pieces, " ", "\n", "\t", "\v", "\x00", "\x1f", "\x7f", "\xff", "\u00a0", "\ufeff")
	random := rand.New(rand.NewPCG(1, 2))
	bodies := slices.Clone(documents)
	for range 1500 {
		b := documents[random.IntN(len(documents))]
		for range 1 + random.IntN(2) {
			at := random.IntN(len(b))
			behind := at + random.IntN(min(3, len(b)-at)+1)
			b = b[:at] + pieces[random.IntN(len(pieces))] + b[behind:]
		}
		bodies = append(bodies, b)
	}
	rules, _ := use(t, `{remove: {body: [a]}, add: {body: ["z:1"]}}`)
	catalogtest.OnEach(t, map[string][]part.Part{"chain": rules}, func(t *testing.T, envoy *envoytest.Envoy) {
		changed := 0
		for _, body := range bodies {
			got := envoy.Gateway("chain").Do(t, envoytest.Request{Method: "POST", Header: []string{"content-type: application/json"}, Body: body}).Upstream.Body
			object := decoded(body)
			if object == nil {
				if got != body {
					t.Errorf("%q became %q", body, got)
				}
				continue
			}
			changed++
			delete(object, "a")
			if _, is := object["z"]; !is {
				object["z"] = "1"
			}
			if d := cmp.Diff(object, decoded(got)); d != "" {
				t.Errorf("%q became %q (-want +got):\n%s", body, got, d)
			}
		}
		if changed < 100 || changed > len(bodies)-100 {
			t.Errorf("%d of %d are JSON objects", changed, len(bodies))
		}
	})
}

// decoded is a JSON object, or nil.
func decoded(text string) map[string]any {
	var object map[string]any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if !json.Valid([]byte(text)) || d.Decode(&object) != nil {
		return nil
	}
	return object
}

func TestFormBody(t *testing.T) {
	const form = "application/x-www-form-urlencoded"
	run(t, map[string]change{
		"remove":                    typed(form, `{remove: {body: [a]}}`, "a=1&b=2&a=3", "b=2"),
		"rename":                    typed(form, `{rename: {body: ["a:b"]}}`, "a=x+y&b=2&c", "b=x%20y&c"),
		"replace":                   typed(form, `{replace: {body: ["a:x y", "none:1"]}}`, "a=1&a=2", "a=x%20y"),
		"add and append":            typed(form, `{add: {body: ["a:0", "b:2"]}, append: {body: ["a:é"]}}`, "a=1", "a=1&b=2&a=%C3%A9"),
		"remove all":                typed(form, `{remove: {body: [a]}}`, "a=1", ""),
		"one without a value":       typed(form, `{add: {body: ["b:1"]}}`, "a", "a&b=1"),
		"nothing is no field":       typed(form, `{add: {body: ["b:1"]}}`, "&&a=1&&=&", "a=1&=&b=1"),
		"it is encoded anew":        typed(form, `{add: {body: ["b:1"]}}`, "a=é+%7e", "a=%C3%A9%20~&b=1"),
		"no body stays none":        typed(form, `{add: {body: ["b:1"]}}`, "", ""),
		"type with parameters":      typed(form+";charset=utf-8", `{remove: {body: [a]}}`, "a=1&b=2", "b=2"),
		"more than a hundred":       typed(form, `{remove: {body: [z]}}`, strings.Repeat("a=1&", 150)+"z=1", strings.TrimSuffix(strings.Repeat("a=1&", 150), "&")),
		"a compressed one is left":  encoded("gzip", "a=1"),
		"identity is no encoding":   encoded("Identity", "a=1&b=1"),
		"nor is none":               encoded("", "a=1&b=1"),
		"the type after the header": typed("text/plain", `{replace: {headers: ["content-type:`+form+`"]}, add: {body: ["b:1"]}}`, "a=1", "a=1&b=1").sentAs(form),
	})
}

// The second of two sees what the first made, and a plugin that refuses sees nothing of what stands behind it.
func TestTwo(t *testing.T) {
	first, _ := use(t, `{replace: {uri: /one}, add: {headers: ["x-one:1"], querystring: ["q:1"]}, rename: {body: ["a:b"]}}`)
	second, _ := use(t, `{replace: {uri: "/$(query_params.q)$(headers.x_one)"}, rename: {headers: ["x-one:x-two"]}, append: {querystring: ["q:2"]}, add: {body: ["a:$(query_params.q)"]}}`)
	shows := part.Lua{Plugin: "shows", Source: `return {request = function(handle)
		pdk.exit(handle, 403, {seen = pdk.header(handle, ":path") .. (pdk.header(handle, "x-two") or "")})
	end}`}
	chains := map[string][]part.Part{"both": slices.Concat(first, second), "refused": slices.Concat(first, []part.Part{shows}, second)}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		r := envoytest.Request{Method: "POST", Path: "/?p", Header: []string{"content-type: application/json"}, Body: `{"a":1}`}
		want := []string{"POST /11?p&q=1&q=2", "content-length: 15", "content-type: application/json", "x-two: 1", "", `{"b":1,"a":"1"}`}
		if d := cmp.Diff(want, seen(envoy.Gateway("both").Do(t, r).Upstream, false)); d != "" {
			t.Errorf("the upstream saw (-want +got):\n%s", d)
		}
		if a := envoy.Gateway("refused").Do(t, r); a.Status != 403 || a.Header.Get("seen") != "/one?p&q=1" {
			t.Errorf("status %d, header %v", a.Status, a.Header)
		}
	})
}

// typed is a body of a type.
func typed(contentType, config, before, after string) change {
	want := []string{"POST /"}
	if after != "" {
		want = append(want, "content-length: "+length(after))
	} else {
		want = append(want, "content-length: 0")
	}
	want = append(want, "content-type: "+contentType)
	if after != "" {
		want = append(want, "", after)
	}
	return change{config, envoytest.Request{Method: "POST", Header: []string{"content-type: " + contentType}, Body: before}, want}
}

func (c change) sentAs(contentType string) change {
	c.want[2] = "content-type: " + contentType
	return c
}

func encoded(encoding, after string) change {
	const form = "application/x-www-form-urlencoded"
	c := typed(form, `{add: {body: ["b:1"]}}`, "a=1", after)
	c.request.Header = append(c.request.Header, "content-encoding: "+encoding)
	c.want = slices.Insert(c.want, 1, "content-encoding: "+encoding)
	slices.Sort(c.want[1:4])
	return c
}
