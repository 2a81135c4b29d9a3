package correlationid_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/correlationid"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

func build(t *testing.T, json string) ([]part.Part, []string) {
	t.Helper()
	return catalogtest.Build(t, correlationid.Builtin, builtin.Use{Plugin: "correlation-id"}, json)
}

func parts(t *testing.T, json string) []part.Part {
	t.Helper()
	parts, problems := build(t, json)
	if len(problems) > 0 {
		t.Fatalf("%s: %v", json, problems)
	}
	return parts
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		config string
		want   []string
	}{
		{`{}`, nil},
		{`{"generator":"tracker"}`, []string{`generator: "tracker" is not allowed, allowed are "uuid", "uuid#counter"`}},
		{`{"generator":1}`, []string{"generator: must be a string, not a number"}},
		{`{"header_name":"a b"}`, []string{`header_name: "a b" is no valid http header name`}},
		{`{"header_name":""}`, []string{`header_name: "" is no valid http header name`}},
		{`{"header_name":":path"}`, []string{`header_name: ":path" is no valid http header name`}},
		{`{"header_name":"Content-Length"}`, []string{"header_name: this header has a meaning for the connection and cannot hold an id"}},
		{`{"header_name":"HOST"}`, []string{"header_name: this header has a meaning for the connection and cannot hold an id"}},
		{`{"header_name":"x: y\r\nz"}`, []string{`header_name: "x: y\r\nz" is no valid http header name`}},
		{`{"header_name":"` + strings.Repeat("x", 257) + `"}`, []string{"header_name: must not be longer than 256 characters"}},
		{`{"header_name":null,"tags":["a"]}`, []string{"warning tags: has no meaning here and is ignored"}},
		{`{"header_nam":"x"}`, []string{`header_nam: unknown field, did you mean "header_name"?`}},
		{`{"echo_downstream":"true"}`, []string{"echo_downstream: must be a boolean, not a string"}},
	} {
		_, got := build(t, c.config)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.config, diff)
		}
	}
}

// refuse answers every request, after a plugin or before it.
var refuse = part.Lua{Plugin: "refuse", Source: `return {request = function(h) pdk.exit(h, 403, {}, "no") end}`}

// show tells the upstream what access logs can see.
var show = part.Lua{Plugin: "show", Source: `return {request = function(h)
	pdk.set_header(h, "x-seen", pdk.metadata(h, "plugins.istio.io", "correlation_id"))
end}`}

const uuid = `[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`

func TestIDs(t *testing.T) {
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			echo := parts(t, `{"header_name":"X-Trace","generator":"uuid","echo_downstream":true}`)
			envoy := envoytest.Start(t, version, envoytest.Config{Chains: map[string][]part.Part{
				"default":        append(parts(t, `{}`), show),
				"uuid":           append(parts(t, `{"generator":"uuid"}`), show),
				"echo":           append(slices.Clone(echo), show),
				"echo, refused":  append(slices.Clone(echo), refuse),
				"refused, echo":  append([]part.Part{refuse}, echo...),
				"x-request-id":   append(parts(t, `{"header_name":"X-Request-ID","echo_downstream":true}`), show),
				"refused, quiet": append([]part.Part{refuse}, parts(t, `{}`)...),
			}})
			long := strings.Repeat("x", 10<<10)
			for _, c := range []struct {
				name, chain, header string
				sent                []string
				// upstream and client are expressions for the values that they get; empty for none.
				upstream, client string
			}{
				{"none sent", "default", "kong-request-id", nil, uuid + "#1", ""},
				{"the counter counts", "default", "kong-request-id", nil, uuid + "#2", ""},
				{"one sent is kept and not counted", "default", "kong-request-id", []string{"mine"}, "mine", ""},
				{"an empty one is replaced", "default", "kong-request-id", []string{""}, uuid + "#3", ""},
				{"uuid", "uuid", "kong-request-id", nil, uuid, ""},
				{"echo", "echo", "x-trace", nil, uuid, uuid},
				{"echo of one sent", "echo", "x-trace", []string{"mine"}, "mine", "mine"},
				{"an empty one, echoed", "echo", "x-trace", []string{""}, uuid, uuid},
				{"of a repeated one the first is echoed", "echo", "x-trace", []string{"a", "b"}, "a,b", "a"},
				{"odd characters", "echo", "x-trace", []string{`"<%41>" ; ü`}, `"<%41>" ; ü`, `"<%41>" ; ü`},
				{"no UTF-8", "echo", "x-trace", []string{"\xff\xfe"}, "\xff\xfe", "\xff\xfe"},
				{"what templates look like", "echo", "x-trace", []string{"%REQ(:path)% $(x) ${x} %d"}, "%REQ(:path)% $(x) ${x} %d", "%REQ(:path)% $(x) ${x} %d"},
				{"of an empty one and another", "echo", "x-trace", []string{"", "b"}, uuid, uuid},
				{"10 KiB", "echo", "x-trace", []string{long}, long, long},
				{"Envoy's own id", "x-request-id", "x-request-id", nil, uuid, uuid},
				{"refused behind", "echo, refused", "x-trace", []string{"mine"}, "", "mine"},
				{"refused in front", "refused, echo", "x-trace", []string{"mine"}, "", uuid},
				{"refused in front, without echo", "refused, quiet", "kong-request-id", nil, "", ""},
			} {
				t.Run(c.name, func(t *testing.T) {
					request := envoytest.Request{}
					for _, v := range c.sent {
						request.Header = append(request.Header, c.header+": "+v)
					}
					answer := envoy.Gateway(c.chain).Do(t, request)
					client := strings.Join(answer.Header.Values(c.header), ",")
					if !matches(c.client, client) {
						t.Errorf("client got %q, want %q\n%s", client, c.client, envoy.Log())
					}
					if c.upstream == "" {
						if answer.Upstream != nil {
							t.Error("the request got upstream")
						}
						return
					}
					upstream := strings.Join(answer.Upstream.Values(c.header), ",")
					if !matches(c.upstream, upstream) {
						t.Errorf("upstream got %q, want %q", upstream, c.upstream)
					}
					if c.client != "" && client != answer.Upstream.Value(c.header) {
						t.Errorf("client got %q, upstream %q", client, upstream)
					}
					if seen := answer.Upstream.Value("x-seen"); seen != answer.Upstream.Value(c.header) {
						t.Errorf("the metadata have %q, upstream %q", seen, upstream)
					}
				})
			}
		})
	}
}

// matches takes text for an expression only if it is one of a UUID.
func matches(want, got string) bool {
	if strings.HasPrefix(want, "[") {
		return regexp.MustCompile("^(" + want + ")$").MatchString(got)
	}
	return want == got
}

// The upstream's own header is replaced, by HTTP/2 and for gRPC, too.
func TestEcho(t *testing.T) {
	chains := map[string][]part.Part{"echo": parts(t, `{"echo_downstream":true}`), "quiet": parts(t, `{}`)}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		theirs := envoytest.EchoHeader + ": kong-request-id: theirs"
		for _, r := range []envoytest.Request{
			{Header: []string{theirs}},
			{Method: "HEAD", Header: []string{theirs}},
			{HTTP2: true, Header: []string{theirs}},
			{HTTP2: true, Method: "POST", Header: []string{theirs, "content-type: application/grpc", "te: trailers"}, Body: "x"},
			{Header: []string{theirs, envoytest.EchoStatus + ": 503"}},
			{Header: []string{theirs, envoytest.EchoStatus + ": 304"}},
		} {
			a := envoy.Gateway("echo").Do(t, r)
			if got := a.Header.Values("kong-request-id"); len(got) != 1 || got[0] == "" || got[0] != a.Upstream.Value("kong-request-id") {
				t.Errorf("%+v: client got %q, upstream %q", r, got, a.Upstream.Values("kong-request-id"))
			}
			a = envoy.Gateway("quiet").Do(t, r)
			if got := a.Header.Values("kong-request-id"); len(got) != 1 || got[0] != "theirs" {
				t.Errorf("without echo, %+v: client got %q", r, got)
			}
		}
	})
}

// Two in a chain do not mix their ids up, and the second keeps what the first made. Each config has a counter of its own.
func TestTwo(t *testing.T) {
	a, b := parts(t, `{"header_name":"a","echo_downstream":true}`), parts(t, `{"header_name":"b","echo_downstream":true}`)
	chains := map[string][]part.Part{"two": slices.Concat(a, b), "same": slices.Concat(a, a)}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for i := 1; i <= 2; i++ {
			answer := envoy.Gateway("two").Get(t, "/")
			x, y := answer.Upstream.Value("a"), answer.Upstream.Value("b")
			want := regexp.MustCompile(fmt.Sprintf("^%s#%d$", uuid, i))
			if !want.MatchString(x) || !want.MatchString(y) || x == y || answer.Header.Get("a") != x || answer.Header.Get("b") != y {
				t.Errorf("upstream got %q and %q, client %q and %q", x, y, answer.Header.Get("a"), answer.Header.Get("b"))
			}
		}
		answer := envoy.Gateway("same").Get(t, "/")
		if got := answer.Upstream.Values("a"); len(got) != 1 || answer.Header.Get("a") != got[0] {
			t.Errorf("upstream got %q, client %q", got, answer.Header.Values("a"))
		}
	})
}

// Access logs show the id, whatever the client made of it.
func TestAccessLog(t *testing.T) {
	c := envoytest.Config{Chains: map[string][]part.Part{"chain": parts(t, `{}`)}, AccessLog: "id=<%DYNAMIC_METADATA(plugins.istio.io:correlation_id)%>"}
	catalogtest.OnEachWith(t, c, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, id := range []string{"mine", "\"<%41>\" ; ü"} {
			envoy.Gateway("chain").Get(t, "/", "kong-request-id: "+id)
			envoy.WaitLog(t, "id=<"+id+">")
		}
		if a := envoy.Gateway("chain").Get(t, "/", "kong-request-id: \xff"); a.Status != 200 {
			t.Errorf("no UTF-8: status %d", a.Status)
		}
	})
}

func TestIDsDiffer(t *testing.T) {
	chains := map[string][]part.Part{"uuid": parts(t, `{"generator":"uuid"}`), "uuid#counter": parts(t, `{"generator":"uuid#counter"}`)}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for chain := range chains {
			seen := map[string]bool{}
			for range 20 {
				id := envoy.Gateway(chain).Get(t, "/").Upstream.Value("kong-request-id")
				if id == "" || seen[id] {
					t.Fatalf("%s: %q is empty or was there before", chain, id)
				}
				seen[id] = true
			}
		}
	})
}

// Each worker, and each start, has a UUID of its own.
func TestCountersOfTwoGatewaysDiffer(t *testing.T) {
	chains := map[string][]part.Part{"chain": parts(t, `{}`)}
	catalogtest.OnEach(t, chains, func(t *testing.T, a *envoytest.Envoy) {
		b := envoytest.Run(t, chains["chain"])
		x, y := a.Gateway("chain").Get(t, "/").Upstream.Value("kong-request-id"), b.Get(t, "/").Upstream.Value("kong-request-id")
		if x == y {
			t.Errorf("both made %q", x)
		}
	})
}
