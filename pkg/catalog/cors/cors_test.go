package cors_test

import (
	"net/http"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/cors"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

func build(t *testing.T, instance, json string) ([]part.Part, []string) {
	t.Helper()
	return catalogtest.Build(t, cors.Builtin, builtin.Use{Plugin: "cors", Instance: instance}, json)
}

func parts(t *testing.T, json string) []part.Part {
	t.Helper()
	return catalogtest.Parts(t, cors.Builtin, builtin.Use{Plugin: "cors", Instance: "i"}, json)
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		config string
		want   []string
	}{
		{`{}`, nil},
		{`{"origins":[]}`, nil},
		{`{"origins":["*"]}`, nil},
		{`{"origins":["https://a.test","null","http://[::1]:8080","https?://.*\\.a\\.test(:\\d+)?"]}`, nil},
		{`{"origins":["*","https://a.test"]}`, nil},
		{`{"origins":["*","("]}`, []string{"origins[1]: is no regular expression of RE2: missing closing ): `(`"}},
		{`{"origins":[""]}`, []string{"origins[0]: must not be shorter than 1 characters"}},
		{`{"origins":"*"}`, []string{"origins: must be a list, not a string"}},
		{`{"origins":["*.a.test"]}`, []string{"origins[0]: is no regular expression of RE2: missing argument to repetition operator: `*`; any text is .* in a regular expression, and a dot \\."}},
		{`{"origins":["(?i-s:a|b)\\.test","[[:alpha:]]+\\.test","(?:a|b)\\.test:80","https?://(?:a|b)\\.test"]}`, []string{
			"warning origins[0]: is compared with the whole origin, not with its host, since there is a colon, although only in (?:…) or [:…:]",
			"warning origins[1]: is compared with the whole origin, not with its host, since there is a colon, although only in (?:…) or [:…:]"}},
		{`{"origins":["https://(?!b).*"]}`, []string{"origins[0]: is no regular expression of RE2: invalid or unsupported Perl syntax: `(?!`"}},
		{`{"origins":["(a)\\1"]}`, []string{"origins[0]: is no regular expression of RE2: invalid escape sequence: `\\1`"}},
		{`{"origins":["\\p{Greek}+"]}`, []string{"origins[0]: is not plain ASCII, which versions of Envoy read differently"}},
		{`{"origins":["https://ä.test"]}`, []string{"origins[0]: is not plain ASCII, which versions of Envoy read differently"}},
		{`{"origins":["((.{30}){30}){30}"]}`, []string{"origins[0]: is no regular expression of RE2: invalid repeat count: `{30}`"}},
		{`{"origins":["((.{30}){30})"]}`, nil},
		{`{"origins":["((\\W{30}){30})((\\W{30}){10})"]}`, []string{"origins[0]: is too large a regular expression for Envoy, repeat less or smaller classes"}},
		{`{"origins":["a.test","https://a.test/"]}`, []string{
			"warning origins[0]: is no origin, which is written as scheme://host or scheme://host:port",
			`warning origins[1]: has "/" behind the host, which an origin has not`}},
		{`{"methods":["get"]}`, []string{`methods[0]: "get" is not allowed, allowed are "GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT"`}},
		{`{"headers":["a b"]}`, []string{`headers[0]: "a b" is no valid http header name`}},
		{`{"exposed_headers":["a\nb"]}`, []string{`exposed_headers[0]: "a\nb" is no valid http header name`}},
		{`{"max_age":"1h"}`, []string{"max_age: must be a number, not a string"}},
		{`{"methods":[]}`, []string{"methods: has 0 items, at least 1"}},
		{`{"credentials":"yes"}`, []string{"credentials: must be a boolean, not a string"}},
		{`{"max_age":2147483648}`, []string{"max_age: 2147483648 is too large, at most 2147483647"}},
		{`{"max_age":-2}`, []string{"max_age: -2 is too small, at least -1"}},
		{`{"origin":["*"]}`, []string{`origin: unknown field, did you mean "origins"?`}},
	} {
		_, got := build(t, "i", c.config)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.config, diff)
		}
	}
}

// chains are the configs that the requests below meet.
var chains = map[string]string{
	"all":           `{}`,
	"star":          `{"origins":["https://b.test","*"],"exposed_headers":["X-A","X-B"]}`,
	"credentials":   `{"credentials":true}`,
	"single":        `{"origins":["https://a.test"],"credentials":true}`,
	"single odd":    `{"origins":["HTTPS://A.test:443/"]}`,
	"plain":         `{"origins":["https://a.test","http://b.test:8080","http://[::1]:8080","null","HTTP://Up.Test:80","https://xn--4ca.test"]}`,
	"plain secret":  `{"origins":["https://a.test","https://b.test"],"credentials":true,"exposed_headers":["X-A"]}`,
	"preflight":     `{"origins":["https://a.test","https://b.test"],"methods":["GET","POST"],"headers":["X-A","X-B"],"max_age":3600,"credentials":true,"private_network":true}`,
	"max age":       `{"max_age":1e5}`,
	"continue":      `{"preflight_continue":true}`,
	"present":       `{"allow_origin_absent":false}`,
	"regex":         `{"origins":["https://.*\\.a\\.test(:[0-9]+)?","http://B[0-9]\\.test"]}`,
	"host":          `{"origins":["(.*\\.)?foo\\.test"]}`,
	"mixed":         `{"origins":["https://plain.test","^https://re[0-9]+\\.test$"],"credentials":true}`,
	"many":          `{"origins":["https://x[0-9]\\.test","(.*\\.)?y\\.test","https://z[0-9]\\.test","null|file"]}`,
	"regex present": `{"origins":["(.*\\.)?foo\\.test"],"allow_origin_absent":false}`,
}

const preflight = "access-control-request-method: PUT"

// requests: the wanted header lines are all CORS headers and Vary that the client gets.
var requests = []struct {
	name   string
	chain  string
	method string
	header []string
	want   []string
}{
	// Real requests.
	{"all origins", "all", "GET", []string{"origin: https://a.test"}, []string{"access-control-allow-origin: *"}},
	{"all origins, none sent", "all", "GET", nil, []string{"access-control-allow-origin: *"}},
	{"star among others", "star", "GET", []string{"origin: https://a.test"}, []string{"access-control-allow-origin: *", "access-control-expose-headers: X-A,X-B"}},
	{"HEAD is like GET", "star", "HEAD", []string{"origin: https://a.test"}, []string{"access-control-allow-origin: *", "access-control-expose-headers: X-A,X-B"}},
	{"OPTIONS without origin is no preflight", "all", "OPTIONS", []string{preflight}, []string{"access-control-allow-origin: *"}},
	{"OPTIONS with an empty origin is no preflight", "all", "OPTIONS", []string{"origin:", preflight}, []string{"access-control-allow-origin: *"}},
	{"OPTIONS without method is no preflight", "all", "OPTIONS", []string{"origin: https://a.test"}, []string{"access-control-allow-origin: *"}},
	{"credentials with all", "credentials", "GET", []string{"origin: https://a.test:443"}, []string{"access-control-allow-credentials: true", "access-control-allow-origin: https://a.test:443", "vary: Origin"}},
	{"credentials with all, no origin", "credentials", "GET", nil, []string{"access-control-allow-origin: *", "vary: Origin"}},
	{"credentials with all, two origins", "credentials", "GET", []string{"origin: https://a.test", "origin: https://b.test"}, []string{"access-control-allow-origin: *", "vary: Origin"}},
	{"credentials with all, two origins in one line", "credentials", "GET", []string{"origin: https://a.test,https://b.test"}, []string{"access-control-allow-origin: *", "vary: Origin"}},
	{"credentials with all, bytes that are no origin", "credentials", "GET", []string{"origin: https://a.test\xff"}, []string{"access-control-allow-origin: *", "vary: Origin"}},
	{"credentials with all, null", "credentials", "GET", []string{"origin: null"}, []string{"access-control-allow-credentials: true", "access-control-allow-origin: null", "vary: Origin"}},
	{"single, matching", "single", "GET", []string{"origin: https://a.test"}, []string{"access-control-allow-credentials: true", "access-control-allow-origin: https://a.test", "vary: Origin"}},
	{"single, not matching", "single", "GET", []string{"origin: https://b.test"}, []string{"access-control-allow-credentials: true", "access-control-allow-origin: https://a.test", "vary: Origin"}},
	{"single, no origin", "single", "GET", nil, []string{"access-control-allow-credentials: true", "access-control-allow-origin: https://a.test", "vary: Origin"}},
	{"single, as browsers write it", "single odd", "GET", []string{"origin: https://a.test"}, []string{"access-control-allow-origin: https://a.test", "vary: Origin"}},
	{"plain", "plain", "GET", []string{"origin: https://a.test"}, []string{"access-control-allow-origin: https://a.test", "vary: Origin"}},
	{"plain, with default port", "plain", "GET", []string{"origin: https://a.test:443"}, []string{"access-control-allow-origin: https://a.test", "vary: Origin"}},
	{"plain, with path", "plain", "GET", []string{"origin: https://a.test/x?y"}, []string{"access-control-allow-origin: https://a.test", "vary: Origin"}},
	{"plain, in upper case", "plain", "GET", []string{"origin: HTTPS://A.TEST"}, []string{"access-control-allow-origin: https://a.test", "vary: Origin"}},
	{"plain, entry in upper case with default port", "plain", "GET", []string{"origin: http://up.test"}, []string{"access-control-allow-origin: http://up.test", "vary: Origin"}},
	{"plain, with port", "plain", "GET", []string{"origin: http://b.test:8080"}, []string{"access-control-allow-origin: http://b.test:8080", "vary: Origin"}},
	{"plain, IPv6", "plain", "GET", []string{"origin: http://[::1]:8080"}, []string{"access-control-allow-origin: http://[::1]:8080", "vary: Origin"}},
	{"plain, null", "plain", "GET", []string{"origin: null"}, []string{"access-control-allow-origin: null", "vary: Origin"}},
	{"foreign: another scheme", "plain", "GET", []string{"origin: http://a.test"}, []string{"vary: Origin"}},
	{"foreign: another port", "plain", "GET", []string{"origin: https://a.test:8443"}, []string{"vary: Origin"}},
	{"foreign: the other scheme's port", "plain", "GET", []string{"origin: https://a.test:80"}, []string{"vary: Origin"}},
	{"foreign: longer host", "plain", "GET", []string{"origin: https://evil-a.test"}, []string{"vary: Origin"}},
	{"foreign: the dot is a dot", "plain", "GET", []string{"origin: https://aXtest"}, []string{"vary: Origin"}},
	{"foreign: trailing dot", "plain", "GET", []string{"origin: https://a.test."}, []string{"vary: Origin"}},
	{"foreign: with user", "plain", "GET", []string{"origin: https://a.test@evil.test"}, []string{"vary: Origin"}},
	{"foreign: two origins", "plain", "GET", []string{"origin: https://a.test", "origin: https://a.test"}, []string{"vary: Origin"}},
	{"plain, with a colon and no port", "plain", "GET", []string{"origin: https://a.test:"}, []string{"access-control-allow-origin: https://a.test", "vary: Origin"}},
	{"foreign: a port with a letter", "plain", "GET", []string{"origin: https://a.test:443x"}, []string{"vary: Origin"}},
	{"foreign: a byte that is no UTF-8", "plain", "GET", []string{"origin: https://a.test\xff"}, []string{"vary: Origin"}},
	{"plain, punycode", "plain", "GET", []string{"origin: https://xn--4ca.test"}, []string{"access-control-allow-origin: https://xn--4ca.test", "vary: Origin"}},
	{"foreign: a host in Unicode", "plain", "GET", []string{"origin: https://ä.test"}, []string{"vary: Origin"}},
	{"foreign: half an IPv6 address", "plain", "GET", []string{"origin: http://[::1:8080"}, []string{"vary: Origin"}},
	{"foreign: very long", "plain", "GET", []string{"origin: https://" + strings.Repeat("a.", 20_000) + "a.test"}, []string{"vary: Origin"}},
	{"foreign: no origin", "plain", "GET", nil, []string{"vary: Origin"}},
	{"foreign: an upstream's word is removed", "plain", "GET", []string{"origin: https://c.test", "echo-header: access-control-allow-origin: *", "echo-header: access-control-allow-origin: https://c.test"}, []string{"vary: Origin"}},
	{"foreign, with what does not depend on the origin", "plain secret", "GET", []string{"origin: https://c.test"}, []string{"access-control-allow-credentials: true", "access-control-expose-headers: X-A", "vary: Origin"}},
	{"an upstream's headers are overwritten", "plain secret", "GET", []string{"origin: https://a.test", "echo-header: access-control-allow-origin: *", "echo-header: access-control-allow-origin: https://c.test", "echo-header: access-control-allow-credentials: false", "echo-header: access-control-expose-headers: X-C"},
		[]string{"access-control-allow-credentials: true", "access-control-allow-origin: https://a.test", "access-control-expose-headers: X-A", "vary: Origin"}},
	{"an upstream's Vary is extended", "plain", "GET", []string{"origin: https://a.test", "echo-header: vary: Accept"}, []string{"access-control-allow-origin: https://a.test", "vary: Accept,Origin"}},
	{"an upstream's Vary of everything stays", "plain", "GET", []string{"origin: https://a.test", "echo-header: vary: *"}, []string{"access-control-allow-origin: https://a.test", "vary: *"}},
	{"an upstream's Vary in two lines", "plain", "GET", []string{"origin: https://a.test", "echo-header: vary: Accept", "echo-header: vary: ORIGIN"}, []string{"access-control-allow-origin: https://a.test", "vary: Accept,ORIGIN"}},
	{"an upstream's Vary of something similar", "plain", "GET", []string{"origin: https://a.test", "echo-header: vary: x-origin,origin-x"}, []string{"access-control-allow-origin: https://a.test", "vary: x-origin,origin-x,Origin"}},
	{"an upstream's Vary is not doubled", "plain", "GET", []string{"origin: https://a.test", "echo-header: vary: Accept, origin"}, []string{"access-control-allow-origin: https://a.test", "vary: Accept, origin"}},
	{"only with an origin", "present", "GET", nil, nil},
	{"only with an origin, sent", "present", "GET", []string{"origin: https://a.test"}, []string{"access-control-allow-origin: *"}},
	{"only with an origin, two sent", "present", "GET", []string{"origin: https://a.test", "origin: https://b.test"}, []string{"access-control-allow-origin: *"}},

	// Regular expressions.
	{"regex", "regex", "GET", []string{"origin: https://x.a.test"}, []string{"access-control-allow-origin: https://x.a.test", "vary: Origin"}},
	{"regex, normalised", "regex", "GET", []string{"origin: HTTPS://X.a.test:443/path"}, []string{"access-control-allow-origin: https://x.a.test", "vary: Origin"}},
	{"regex, with port", "regex", "GET", []string{"origin: https://x.a.test:8443"}, []string{"access-control-allow-origin: https://x.a.test:8443", "vary: Origin"}},
	{"regex, the expression's case does not matter", "regex", "GET", []string{"origin: http://b1.test"}, []string{"access-control-allow-origin: http://b1.test", "vary: Origin"}},
	{"regex, only the end matches", "regex", "GET", []string{"origin: https://evil.testhttps://x.a.test"}, []string{"vary: Origin"}},
	{"regex, only the start matches", "regex", "GET", []string{"origin: https://x.a.test.evil.test"}, []string{"vary: Origin"}},
	{"regex, in the path", "regex", "GET", []string{"origin: https://evil.test/https://x.a.test"}, []string{"vary: Origin"}},
	{"regex, two origins", "regex", "GET", []string{"origin: https://x.a.test", "origin: https://x.a.test"}, []string{"vary: Origin"}},
	{"regex, very long", "regex", "GET", []string{"origin: https://" + strings.Repeat("a", 20_000) + ".a.test"}, []string{"access-control-allow-origin: https://" + strings.Repeat("a", 20_000) + ".a.test", "vary: Origin"}},
	{"regex, a byte that is no UTF-8", "regex", "GET", []string{"origin: https://\xff.a.test"}, []string{"vary: Origin"}},
	{"regex, no origin", "regex", "GET", nil, []string{"vary: Origin"}},
	{"host", "host", "GET", []string{"origin: https://x.foo.test"}, []string{"access-control-allow-origin: https://x.foo.test", "vary: Origin"}},
	{"host, any scheme and port", "host", "GET", []string{"origin: http://FOO.test:8080"}, []string{"access-control-allow-origin: http://foo.test:8080", "vary: Origin"}},
	{"host, not a query", "host", "GET", []string{"origin: https://evil.test?x.foo.test"}, []string{"vary: Origin"}},
	{"host, not a path", "host", "GET", []string{"origin: https://evil.test/.foo.test"}, []string{"vary: Origin"}},
	{"host, not a fragment", "host", "GET", []string{"origin: https://evil.test#.foo.test"}, []string{"vary: Origin"}},
	{"host, not a user", "host", "GET", []string{"origin: https://x.foo.test@evil.test"}, []string{"vary: Origin"}},
	{"host, not behind a user", "host", "GET", []string{"origin: https://evil.test@x.foo.test"}, []string{"vary: Origin"}},
	{"host, not behind a backslash", "host", "GET", []string{`origin: https://evil.test\.foo.test`}, []string{"vary: Origin"}},
	{"host, no scheme", "host", "GET", []string{"origin: foo.test"}, []string{"vary: Origin"}},
	{"mixed, plain", "mixed", "GET", []string{"origin: https://plain.test"}, []string{"access-control-allow-credentials: true", "access-control-allow-origin: https://plain.test", "vary: Origin"}},
	{"mixed, regex with anchors", "mixed", "GET", []string{"origin: https://re12.test"}, []string{"access-control-allow-credentials: true", "access-control-allow-origin: https://re12.test", "vary: Origin"}},
	{"many, first", "many", "GET", []string{"origin: https://x1.test"}, []string{"access-control-allow-origin: https://x1.test", "vary: Origin"}},
	{"many, by host", "many", "GET", []string{"origin: capacitor://a.y.test"}, []string{"access-control-allow-origin: capacitor://a.y.test", "vary: Origin"}},
	{"many, third", "many", "GET", []string{"origin: https://z9.test"}, []string{"access-control-allow-origin: https://z9.test", "vary: Origin"}},
	{"many, null", "many", "GET", []string{"origin: null"}, []string{"access-control-allow-origin: null", "vary: Origin"}},
	{"regex, only with an origin", "regex present", "GET", nil, nil},

	// Preflights.
	{"preflight, all", "all", "OPTIONS", []string{"origin: https://a.test", preflight}, []string{"access-control-allow-methods: GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT", "access-control-allow-origin: *"}},
	{"preflight, requested headers are echoed", "star", "OPTIONS", []string{"origin: https://a.test", preflight, "access-control-request-headers: X-C, x-d"},
		[]string{"access-control-allow-headers: X-C, x-d", "access-control-allow-methods: GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT", "access-control-allow-origin: *"}},
	{"preflight, requested headers of several lines", "all", "OPTIONS", []string{"origin: https://a.test", preflight, "access-control-request-headers: x-c", "access-control-request-headers: x-d"},
		[]string{"access-control-allow-headers: x-c,x-d", "access-control-allow-methods: GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT", "access-control-allow-origin: *"}},
	{"preflight, an empty list of requested headers", "all", "OPTIONS", []string{"origin: https://a.test", preflight, "access-control-request-headers:"},
		[]string{"access-control-allow-methods: GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT", "access-control-allow-origin: *"}},
	{"preflight, for a method that is not allowed", "preflight", "OPTIONS", []string{"origin: https://a.test", preflight},
		[]string{"access-control-allow-credentials: true", "access-control-allow-headers: X-A,X-B", "access-control-allow-methods: GET,POST", "access-control-allow-origin: https://a.test", "access-control-max-age: 3600", "vary: Origin"}},
	{"preflight, all with credentials and two origins", "credentials", "OPTIONS", []string{"origin: https://a.test", "origin: https://b.test", preflight},
		[]string{"access-control-allow-methods: GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT", "access-control-allow-origin: *", "vary: Origin"}},
	{"preflight, all with credentials", "credentials", "OPTIONS", []string{"origin: https://a.test", preflight},
		[]string{"access-control-allow-credentials: true", "access-control-allow-methods: GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT", "access-control-allow-origin: https://a.test", "vary: Origin"}},
	{"preflight, everything", "preflight", "OPTIONS", []string{"origin: https://b.test", preflight, "access-control-request-headers: x-c", "access-control-request-private-network: true"},
		[]string{"access-control-allow-credentials: true", "access-control-allow-headers: X-A,X-B", "access-control-allow-methods: GET,POST", "access-control-allow-origin: https://b.test", "access-control-allow-private-network: true", "access-control-max-age: 3600", "vary: Origin"}},
	{"preflight, no private network asked for", "preflight", "OPTIONS", []string{"origin: https://b.test", preflight},
		[]string{"access-control-allow-credentials: true", "access-control-allow-headers: X-A,X-B", "access-control-allow-methods: GET,POST", "access-control-allow-origin: https://b.test", "access-control-max-age: 3600", "vary: Origin"}},
	{"preflight, private network not configured", "single", "OPTIONS", []string{"origin: https://a.test", preflight, "access-control-request-private-network: true"},
		[]string{"access-control-allow-credentials: true", "access-control-allow-methods: GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT", "access-control-allow-origin: https://a.test", "vary: Origin"}},
	{"preflight, an age without exponent", "max age", "OPTIONS", []string{"origin: https://a.test", preflight},
		[]string{"access-control-allow-methods: GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT", "access-control-allow-origin: *", "access-control-max-age: 100000"}},
	{"preflight, foreign", "preflight", "OPTIONS", []string{"origin: https://c.test", preflight, "access-control-request-private-network: true"}, []string{"vary: Origin"}},
	{"preflight, two origins", "preflight", "OPTIONS", []string{"origin: https://a.test", "origin: https://b.test", preflight}, []string{"vary: Origin"}},
	{"preflight, single is sent to everybody", "single", "OPTIONS", []string{"origin: https://c.test", preflight},
		[]string{"access-control-allow-credentials: true", "access-control-allow-methods: GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT", "access-control-allow-origin: https://a.test", "vary: Origin"}},
	{"preflight, regex", "regex", "OPTIONS", []string{"origin: https://x.a.test", preflight},
		[]string{"access-control-allow-methods: GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT", "access-control-allow-origin: https://x.a.test", "vary: Origin"}},
	{"preflight, regex, foreign", "regex", "OPTIONS", []string{"origin: https://c.test", preflight}, []string{"vary: Origin"}},
	{"preflight, exposed headers are for real responses", "star", "OPTIONS", []string{"origin: https://a.test", preflight},
		[]string{"access-control-allow-methods: GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT", "access-control-allow-origin: *"}},
	{"preflight of gRPC-Web", "all", "OPTIONS", []string{"origin: https://a.test", "access-control-request-method: POST", "access-control-request-headers: x-grpc-web"},
		[]string{"access-control-allow-headers: x-grpc-web", "access-control-allow-methods: GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT", "access-control-allow-origin: *"}},
	{"preflight for the upstream", "continue", "OPTIONS", []string{"origin: https://a.test", preflight, "echo-header: access-control-allow-origin: https://u.test"}, []string{"access-control-allow-origin: https://u.test"}},
}

// seen are the header lines that the cases speak of.
func seen(h http.Header) []string {
	var lines []string
	for name, values := range h {
		name = strings.ToLower(name)
		if name != "vary" && !strings.HasPrefix(name, "access-control-") {
			continue
		}
		for _, v := range values {
			lines = append(lines, name+": "+v)
		}
	}
	sort.Strings(lines)
	return lines
}

func TestRequests(t *testing.T) {
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			c := envoytest.Config{Chains: map[string][]part.Part{}}
			for name, json := range chains {
				c.Chains[name] = parts(t, json)
			}
			envoy := envoytest.Start(t, version, c)
			for _, c := range requests {
				t.Run(c.name, func(t *testing.T) {
					for _, http2 := range []bool{false, true} {
						answer := envoy.Gateway(c.chain).Do(t, envoytest.Request{Method: c.method, Header: c.header, HTTP2: http2})
						if diff := cmp.Diff(c.want, seen(answer.Header)); diff != "" {
							t.Errorf("headers, HTTP/2 %v (-want +got):\n%s\n%s", http2, diff, envoy.Log())
						}
						answered := strings.HasPrefix(c.name, "preflight") && c.chain != "continue"
						if answered != (answer.Upstream == nil) {
							t.Errorf("HTTP/2 %v, answered here: %v, want %v", http2, answer.Upstream == nil, answered)
						}
						if answer.Status != 200 || answered && answer.Body != "" {
							t.Errorf("HTTP/2 %v: status %d, body %q", http2, answer.Status, answer.Body)
						}
					}
				})
			}
		})
	}
}

// A WebSocket is not subject to CORS: an upstream has to look at Origin itself.
func TestWebSockets(t *testing.T) {
	chain := map[string][]part.Part{"chain": parts(t, `{"origins":["https://a.test","https://(b|c)\\.test"]}`)}
	catalogtest.OnEach(t, chain, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, origin := range []string{"https://a.test", "https://b.test", "https://evil.test"} {
			answer, back := envoy.Gateway("chain").Upgrade(t, "/", "hello", "origin: "+origin)
			if answer.Status != 101 || back != "hello" || answer.Upstream.Value("origin") != origin {
				t.Errorf("%s: status %d, %q came back, upstream %v", origin, answer.Status, back, answer.Upstream)
			}
		}
	})
}

// refuse answers every request.
var refuse = part.Lua{Plugin: "refuse", Source: `return {request = function(h) pdk.fail(h, 401, "no") end}`}

func TestRefusals(t *testing.T) {
	single := `{"origins":["https://a.test"]}`
	list := `{"origins":["https://a.test","https://b.test"],"exposed_headers":["X-A"]}`
	regex := `{"origins":["https://a.test","https://(b|c)\\.test"]}`
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			envoy := envoytest.Start(t, version, envoytest.Config{Chains: map[string][]part.Part{
				"list, refuse":   append(parts(t, list), refuse),
				"regex, refuse":  append(parts(t, regex), refuse),
				"refuse, list":   append([]part.Part{refuse}, parts(t, list)...),
				"refuse, single": append([]part.Part{refuse}, parts(t, single)...),
				"refuse, all":    append([]part.Part{refuse}, parts(t, `{"credentials":true}`)...),
				"refuse, absent": append([]part.Part{refuse}, parts(t, `{"allow_origin_absent":false}`)...),
			}})
			for _, c := range []struct {
				chain string
				want  []string
			}{
				{"list, refuse", []string{"access-control-allow-origin: https://b.test", "access-control-expose-headers: X-A", "vary: Origin"}},
				{"regex, refuse", []string{"access-control-allow-origin: https://b.test", "vary: Origin"}},
				// Behind the plugin that refuses, the origin is not known.
				{"refuse, list", []string{"access-control-expose-headers: X-A", "vary: Origin"}},
				{"refuse, single", []string{"access-control-allow-origin: https://a.test", "vary: Origin"}},
				{"refuse, all", []string{"access-control-allow-origin: *", "vary: Origin"}},
				{"refuse, absent", nil},
			} {
				answer := envoy.Gateway(c.chain).Get(t, "/", "origin: https://b.test")
				if answer.Status != 401 || answer.Message() != "no" {
					t.Errorf("%s: status %d, body %s\n%s", c.chain, answer.Status, answer.Body, envoy.Log())
				}
				if diff := cmp.Diff(c.want, seen(answer.Header)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", c.chain, diff)
				}
			}
			answer := envoy.Gateway("list, refuse").Do(t, envoytest.Request{Method: "OPTIONS", Header: []string{"origin: https://b.test", preflight}})
			if answer.Status != 200 {
				t.Errorf("a preflight in front of a plugin that refuses: status %d", answer.Status)
			}
		})
	}
}

// Two instances in one chain do not read each other's results.
func TestInstances(t *testing.T) {
	first, _ := build(t, "1", `{"origins":["https://a[0-9]\\.test"]}`)
	second, _ := build(t, "2", `{"origins":["https://b[0-9]\\.test"],"exposed_headers":["X-B"]}`)
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			envoy := envoytest.Start(t, version, envoytest.Config{Chains: map[string][]part.Part{"both": append(slices.Clone(first), second...)}})
			// Responses run in reverse, so the first plugin has the last word.
			for origin, want := range map[string][]string{
				"https://a1.test": {"access-control-allow-origin: https://a1.test", "access-control-expose-headers: X-B", "vary: Origin"},
				"https://b1.test": {"access-control-expose-headers: X-B", "vary: Origin"},
			} {
				if diff := cmp.Diff(want, seen(envoy.Gateway("both").Get(t, "/", "origin: "+origin).Header)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", origin, diff)
				}
			}
		})
	}
}

// If the filter for regular expressions did not run, nobody may pass.
func TestMissingResult(t *testing.T) {
	chain := parts(t, `{"origins":["https://a[0-9]\\.test"]}`)
	gateway := envoytest.Run(t, []part.Part{chain[0], chain[2]})
	if answer := gateway.Get(t, "/", "origin: https://a1.test"); answer.Status != 500 || answer.Upstream != nil {
		t.Errorf("status %d, upstream %v", answer.Status, answer.Upstream)
	}
}

func TestNumberOfParts(t *testing.T) {
	if n := len(parts(t, `{"origins":["https://a.test","https://b.test"]}`)); n != 1 {
		t.Errorf("plain origins take %d parts, want 1", n)
	}
	if n := len(parts(t, `{"origins":["https://a.test","https://b.*\\.test"]}`)); n != 3 {
		t.Errorf("regular expressions take %d parts, want 3", n)
	}
	if n := len(parts(t, `{"origins":["*","https://b.*\\.test"]}`)); n != 1 {
		t.Errorf("all origins take %d parts, want 1", n)
	}
}
