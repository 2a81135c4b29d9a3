package requesttransformer

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

const understood = ` is no template that is understood; there are $(headers.name), $(headers["x-name"]), $(query_params.name) and $(query_params["name"]), each with an optional or "text"`

func TestConfig(t *testing.T) {
	for name, c := range map[string]struct {
		config string
		want   []string
	}{
		"nothing":                         {`{}`, nil},
		"an entry without its value":      {`{add: {headers: ["a:b", "c"]}}`, []string{`add.headers[1]: "c" is not of the form name:value`}},
		"with an empty value":             {`{replace: {querystring: ["c:"]}}`, []string{`replace.querystring[0]: "c:" is not of the form name:value`}},
		"with a blank value":              {`{replace: {headers: ["c: "]}}`, []string{"replace.headers[0]: c has an empty value"}},
		"without a name":                  {`{append: {body: [":c"]}}`, []string{`append.body[0]: ":c" is not of the form name:value`}},
		"a rename to nothing":             {`{rename: {body: ["a"]}}`, []string{`rename.body[0]: "a" is not of the form old:new`}},
		"an empty entry":                  {`{remove: {body: [""]}}`, []string{"remove.body[0]: must not be shorter than 1 characters"}},
		"a header name with a blank":      {`{remove: {headers: ["a b"]}}`, []string{`remove.headers[0]: "a b" is no header name`}},
		"a pair in remove":                {`{remove: {headers: ["a:b"]}}`, []string{`remove.headers[0]: "a:b" is no header name`}},
		"a new header name with a blank":  {`{rename: {headers: ["a:b c"]}}`, []string{`rename.headers[0]: "b c" is no header name`}},
		"a pseudo header":                 {`{remove: {headers: [":path"]}}`, []string{`remove.headers[0]: ":path" is no header name`}},
		"framing":                         {`{remove: {headers: [Content-Length]}, add: {headers: ["transfer-encoding:chunked"]}, rename: {headers: ["a:Connection"]}}`, []string{"remove.headers[0]: content-length frames the message and cannot be changed", "rename.headers[0]: connection frames the message and cannot be changed", "add.headers[0]: transfer-encoding frames the message and cannot be changed"}},
		"a line break":                    {`{add: {headers: ["a:b\r\nc: d"]}}`, []string{"add.headers[0]: a header value cannot hold control characters"}},
		"a control character":             {`{replace: {headers: ["a:b\x7f"]}}`, []string{"replace.headers[0]: a header value cannot hold control characters"}},
		"a tab":                           {`{replace: {headers: ["a:b\tc"]}}`, nil},
		"a line break in a query":         {`{add: {querystring: ["a:b\r\nc"]}}`, nil},
		"remove Host":                     {`{remove: {headers: [Host]}}`, []string{"warning remove.headers[0]: Host is always there and is left as it is, use replace"}},
		"add Host":                        {`{add: {headers: ["host:a"]}}`, []string{"warning add.headers[0]: Host is always there and is left as it is, use replace"}},
		"append Host":                     {`{append: {headers: ["host:a"]}}`, []string{"append.headers[0]: a request has one Host, use replace"}},
		"a URL for Host":                  {`{replace: {headers: ["Host:https://a.test", "host:a.test/b"]}}`, []string{`replace.headers[0]: "https://a.test" is no host such as example.com or example.com:8080`, `replace.headers[1]: "a.test/b" is no host such as example.com or example.com:8080`}},
		"an address for Host":             {`{replace: {headers: ["Host:[2001:db8::7]:8080"]}}`, nil},
		"CONNECT":                         {`{http_method: connect}`, []string{"http_method: CONNECT opens a tunnel, which no other request can become"}},
		"no method":                       {`{http_method: "GET /"}`, []string{`http_method: "GET /" does not match ^[A-Za-z]+$`}},
		"a relative uri":                  {`{replace: {uri: a/b}}`, []string{`replace.uri: "a/b" does not begin with /`}},
		"an empty uri":                    {`{replace: {uri: ""}}`, []string{"replace.uri: must not be shorter than 1 characters"}},
		"Lua":                             {`{add: {headers: ["a:$(os.time())"]}}`, []string{"add.headers[0]: $(os.time()" + understood}},
		"Lua behind a reference":          {`{add: {headers: ['a:x$(headers.a .. "b")']}}`, []string{`add.headers[0]: $(headers.a .. "b")` + understood}},
		"a dash in a short name":          {`{add: {headers: ["a:$(headers.x-y)"]}}`, []string{"add.headers[0]: $(headers.x-y)" + understood}},
		"captures of the uri":             {`{replace: {uri: "/$(uri_captures.a)"}}`, []string{"replace.uri: $(uri_captures.a)" + understood}},
		"shared":                          {`{add: {body: ["a:$(shared.a)"]}}`, []string{"add.body[0]: $(shared.a)" + understood}},
		"a template without end":          {`{add: {body: ["a:$(headers.a"]}}`, []string{"add.body[0]: $(headers.a" + understood}},
		"or without a text":               {`{add: {body: ["a:$(headers.a or headers.b)"]}}`, []string{"add.body[0]: $(headers.a or headers.b)" + understood}},
		"or grown together":               {`{add: {body: ['a:$(headers.aor "b")']}}`, []string{`add.body[0]: $(headers.aor "b")` + understood}},
		"a template as a new name":        {`{rename: {querystring: ["a:$(headers.b)"]}}`, []string{"rename.querystring[0]: a name cannot be a template"}},
		"a template as a name":            {`{add: {body: ["$(headers.a):b"]}}`, []string{"add.body[0]: a name cannot be a template"}},
		"a template to be removed":        {`{remove: {querystring: ["$(headers.a)"]}}`, []string{"remove.querystring[0]: a name cannot be a template"}},
		"a template of what is no header": {`{replace: {uri: '/$(headers["a b"])$(headers[":path"])$(query_params["a b"])'}}`, []string{`replace.uri: "a b" is no header name`, `replace.uri: ":path" is no header name`}},
		"a template as a new header name": {`{rename: {headers: ["a:$(headers.b)"]}}`, []string{`rename.headers[0]: "$(headers.b)" is no header name`}},
		"a negative size":                 {`{max_body_bytes: -1}`, []string{"max_body_bytes: -1 is too small, at least 0"}},
		"a size in words":                 {`{max_body_bytes: 1Mi}`, []string{"max_body_bytes: must be an integer, not a string"}},
		"an unknown list":                 {`{add: {header: [a]}}`, []string{`add.header: unknown field, did you mean "headers"?`}},
		"uri elsewhere":                   {`{add: {uri: /a}}`, []string{"add.uri: unknown field, known ones are body, headers, querystring"}},
		"a text for a list":               {`{remove: {headers: a}}`, []string{"remove.headers: must be a list, not a string"}},
		"Kong's fields without meaning":   {`{tags: [a]}`, []string{"warning tags: has no meaning here and is ignored"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, got := use(t, c.config)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
		})
	}
}

// What is held to be changed cannot be larger than Envoy's buffer and max_body_bytes; what is not changed is not held.
func TestLargeBody(t *testing.T) {
	const form, plain = "application/x-www-form-urlencoded", "text/plain"
	chains := map[string][]part.Part{}
	for name, text := range map[string]string{
		"default": `{remove: {body: [a]}}`, "small": `{remove: {body: [a]}, max_body_bytes: 10}`, "method": `{http_method: GET, max_body_bytes: 10}`,
		"large": `{remove: {body: [a]}, max_body_bytes: 4000000}`, "headers": `{add: {headers: ["x:y"]}, max_body_bytes: 10}`,
	} {
		chains[name], _ = use(t, text)
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct {
			chain, contentType string
			size               int
			// http1 and http2 are the statuses.
			http1, http2 int
		}{
			{"default", form, 1 << 20, 200, 200},
			{"default", form, 1<<20 + 1, 413, 413},
			{"default", form, 8 << 20, 413, 413},
			{"default", plain, 8 << 20, 200, 200},
			{"small", form, 10, 200, 200},
			{"small", form, 11, 413, 413},
			{"small", "multipart/form-data; boundary=x", 11, 200, 200},
			{"method", form, 10, 200, 200},
			{"method", form, 11, 413, 413},
			{"method", plain, 11, 200, 200},
			{"large", form, 3 << 20, 413, 200}, // Envoy holds less by HTTP/1
			{"headers", form, 11, 200, 200},
		} {
			r := envoytest.Request{Method: "POST", Header: []string{"content-type: " + c.contentType}, Body: "b=" + strings.Repeat("x", c.size-2)}
			for _, r.HTTP2 = range []bool{false, true} {
				for _, r.UnknownLength = range []bool{false, true} {
					t.Run(fmt.Sprintf("%s, %s, %d bytes, HTTP/2 %v, unknown %v", c.chain, c.contentType, c.size, r.HTTP2, r.UnknownLength), func(t *testing.T) {
						status := c.http1
						if r.HTTP2 {
							status = c.http2
						}
						a := envoy.Gateway(c.chain).Do(t, r)
						if a.Status != status || (a.Upstream != nil) != (status == 200) {
							t.Errorf("status %d, body %.100s", a.Status, a.Body)
						}
						if status == 200 && c.chain != "method" && a.Upstream.Body != r.Body {
							t.Errorf("the upstream got %d bytes", len(a.Upstream.Body))
						}
						if status == 413 && c.size < 1<<20 && (a.Message() != "Request size limit exceeded" || !strings.Contains(a.Body, `"request_id":"`)) {
							t.Errorf("body %.100s", a.Body)
						}
					})
				}
			}
		}
	})
}
