package csrf

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	csrfv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/csrf/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

const refused = "Invalid origin"

func parts(t testing.TB, instance, text string) []part.Part {
	t.Helper()
	return catalogtest.Parts(t, Builtin, builtin.Use{Plugin: "csrf", Instance: instance}, text)
}

func onEach(t *testing.T, texts map[string]string, test func(t *testing.T, envoy *envoytest.Envoy)) {
	chains := map[string][]part.Part{}
	for name, text := range texts {
		chains[name] = parts(t, name, text)
	}
	catalogtest.OnEach(t, chains, test)
}

func TestConfig(t *testing.T) {
	const (
		host   = " is no host: it is written without scheme, path and `*`, and its port only if that is not the scheme's own"
		ends   = "warning additional_origins[0].suffix: allows also hosts of others that end so, unless it begins with a dot"
		begins = "warning additional_origins[0].prefix: allows also hosts of others that begin so, unless it ends with the colon before a port"
	)
	for _, c := range []struct {
		config string
		want   []string
	}{
		{`{}`, nil},
		{`{additional_origins: [{exact: "a.example:8080"}, {prefix: "a.example:"}, {suffix: .example}, {regex: '[ab]\.example'}]}`, nil},
		{`{percentage: 0.0001, shadow: true}`, nil},
		{`{additional_origins: [{suffix: good.com}]}`, []string{ends}},
		{`{additional_origins: [{prefix: good.com}]}`, []string{begins}},
		{`{additional_origins: [a.example]}`, []string{"additional_origins[0]: must be a map, not a string"}},
		{`{additional_origins: [{}]}`, []string{"additional_origins[0]: needs one of exact, prefix, suffix, regex, and has 0"}},
		{`{additional_origins: [{exact: a, regex: a}]}`, []string{"additional_origins[0]: needs one of exact, prefix, suffix, regex, and has 2"}},
		{`{additional_origins: [{exact: a}, {exact: "https://a.example"}]}`, []string{`additional_origins[1].exact: "https://a.example"` + host}},
		{`{additional_origins: [{exact: "*"}]}`, []string{`additional_origins[0].exact: "*"` + host}},
		{`{additional_origins: [{suffix: "*.good.com"}]}`, []string{`additional_origins[0].suffix: "*.good.com"` + host, ends}},
		{`{additional_origins: [{regex: a, suffix: .b/, prefix: "c*", exact: d/}]}`, []string{
			`additional_origins[0].exact: "d/"` + host, `additional_origins[0].prefix: "c*"` + host, `additional_origins[0].suffix: ".b/"` + host,
			"additional_origins[0]: needs one of exact, prefix, suffix, regex, and has 4",
		}},
		{`{additional_origins: [{exact: ""}]}`, []string{"additional_origins[0].exact: must not be shorter than 1 characters"}},
		{`{additional_origins: [{suffix: ""}]}`, []string{"additional_origins[0].suffix: must not be shorter than 1 characters"}},
		{`{additional_origins: [{regex: "("}]}`, []string{"additional_origins[0].regex: is no regular expression of RE2: missing closing ): `(`"}},
		{`{additional_origins: [{regex: "(?=a)"}]}`, []string{"additional_origins[0].regex: is no regular expression of RE2: invalid or unsupported Perl syntax: `(?=`"}},
		{`{additional_origins: [{regex: "(a{1000}){1000}"}]}`, []string{"additional_origins[0].regex: is no regular expression of RE2: invalid repeat count: `{1000}`"}},
		{`{additional_origins: [{contains: a}]}`, []string{"additional_origins[0].contains: unknown field, known ones are exact, prefix, regex, suffix"}},
		{`{percentage: 101}`, []string{"percentage: 101 is too large, at most 100"}},
		{`{percentage: -1}`, []string{"percentage: -1 is too small, at least 0"}},
		{`{percentage: 0.00001}`, []string{"percentage: 0.00001 is not a multiple of 0.0001"}},
		{`{shadow: "yes"}`, []string{"shadow: must be a boolean, not a string"}},
	} {
		_, got := catalogtest.Build(t, Builtin, builtin.Use{}, c.config)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.config, diff)
		}
	}
}

func TestPercentagesAreExact(t *testing.T) {
	for text, want := range map[string]uint32{
		"percentage: 0": 0, "percentage: 0.0001": 1, "percentage: 33.3333": 333333, "percentage: 0.07": 700,
		"percentage: 100.0": 1_000_000, "shadow: true": 0,
	} {
		p := parts(t, "i", "{"+text+"}")[1].(part.Native).Config.(*csrfv3.CsrfPolicy).GetFilterEnabled().GetDefaultValue()
		if p.GetNumerator() != want || p.GetDenominator() != typev3.FractionalPercent_MILLION {
			t.Errorf("%s is %v", text, p)
		}
	}
}

func TestOrigins(t *testing.T) {
	texts := map[string]string{
		"default": `{}`,
		"exact":   `{additional_origins: [{exact: "App.example:8080"}]}`,
		"prefix":  `{additional_origins: [{prefix: "app.example:"}]}`,
		"suffix":  `{additional_origins: [{suffix: .good.com}]}`,
		"open":    `{additional_origins: [{suffix: good.com}]}`,
		"regex":   `{additional_origins: [{regex: '(a|b)\.example(:\d+)?'}]}`,
		"several": `{additional_origins: [{exact: a.example}, {exact: b.example}]}`,
		"any":     `{additional_origins: [{regex: .*}, {exact: "null"}]}`,
		"v6":      `{additional_origins: [{exact: "[2001:db8::1]:8443"}]}`,
	}
	const host = "shop.example"
	onEach(t, texts, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct {
			chain, host string
			header      []string
			passes      bool
		}{
			{"default", host, []string{"origin: https://shop.example"}, true},
			{"default", host, []string{"origin: http://shop.example"}, true},
			{"default", host, []string{"origin: https://evil.example"}, false},
			{"default", host, []string{"origin: https://shop.example.evil.example"}, false},
			{"default", host, []string{"origin: https://evilshop.example"}, false},
			{"default", host, []string{"origin: https://shop.example@evil.example"}, false},
			{"default", host, []string{"origin: https://www.shop.example"}, false},
			{"default", host, []string{"origin: null"}, false},
			{"default", host, []string{"origin:"}, false},
			{"default", host, nil, false},
			{"default", host, []string{"referer: https://shop.example/a?b=c"}, true},
			{"default", host, []string{"referer: https://evil.example/shop.example"}, false},
			{"default", host, []string{"referer: https://evil.example/?https://shop.example"}, false},
			{"default", host, []string{"origin: https://evil.example", "referer: https://shop.example/"}, false},
			{"default", host, []string{"origin: https://shop.example", "referer: https://evil.example/"}, true},
			{"default", host, []string{"origin: null", "referer: https://shop.example/"}, false},
			// Two are none that is known.
			{"default", host, []string{"origin: https://evil.example", "origin: https://shop.example"}, false},
			{"default", host, []string{"origin: https://shop.example", "origin: https://evil.example"}, false},
			// Ports as they are written.
			{"default", "shop.example:8443", []string{"origin: https://shop.example:8443"}, true},
			{"default", "shop.example:8443", []string{"origin: https://shop.example"}, false},
			{"default", host, []string{"origin: https://shop.example:8443"}, false},
			{"default", host, []string{"origin: https://shop.example:443"}, false},
			{"default", "shop.example:443", []string{"origin: https://shop.example"}, false},
			{"default", "shop.example:443", []string{"origin: https://shop.example:443"}, true},
			// Case of the request's host counts, which Envoy leaves as it is.
			{"default", "Shop.example", []string{"origin: https://shop.example"}, false},
			{"default", "[2001:db8::7]:8080", []string{"origin: http://[2001:db8::7]:8080"}, true},
			{"exact", host, []string{"origin: https://app.example:8080"}, true},
			{"exact", host, []string{"origin: https://APP.example:8080"}, true},
			{"exact", host, []string{"origin: https://app.example"}, false},
			{"exact", host, []string{"origin: https://shop.example"}, true},
			{"exact", host, []string{"referer: https://app.example:8080/a"}, true},
			{"prefix", host, []string{"origin: https://app.example:1"}, true},
			{"prefix", host, []string{"origin: https://app.example"}, false},
			{"prefix", host, []string{"origin: https://app.example.evil.example:1"}, false},
			{"suffix", host, []string{"origin: https://a.Good.com"}, true},
			{"suffix", host, []string{"origin: https://good.com"}, false},
			{"suffix", host, []string{"origin: https://evilgood.com"}, false},
			{"suffix", host, []string{"origin: https://a.good.com:8080"}, false},
			{"suffix", host, []string{"referer: https://evil.example/.good.com"}, false},
			{"open", host, []string{"origin: https://evilgood.com"}, true},
			{"regex", host, []string{"origin: https://b.example:8080"}, true},
			{"regex", host, []string{"origin: https://a.example"}, true},
			{"regex", host, []string{"origin: https://a.example.evil"}, false},
			{"regex", host, []string{"origin: https://ca.example"}, false},
			{"regex", host, []string{"referer: https://evil.example/a.example"}, false},
			{"several", host, []string{"origin: https://b.example"}, true},
			{"several", host, []string{"origin: https://c.example"}, false},
			{"any", host, []string{"origin: https://evil.example"}, true},
			{"any", host, nil, false},
			{"any", host, []string{"origin:"}, false},
			{"any", host, []string{"origin: null"}, false},
			{"v6", host, []string{"origin: https://[2001:DB8::1]:8443"}, true},
			{"v6", host, []string{"origin: https://[2001:db8::1]"}, false},
			// What browsers do not send: case of the origin, and texts that are none.
			{"default", host, []string{"origin: https://SHOP.example"}, false},
			{"regex", host, []string{"origin: https://A.example"}, false},
			{"default", host, []string{"origin: https://"}, false},
			{"default", host, []string{"origin: https://shop.example\xff"}, false},
			{"default", host, []string{"origin: https://shop.example, https://shop.example"}, false},
			{"default", host, []string{"origin: " + strings.Repeat("a", 50_000)}, false},
			{"suffix", host, []string{"origin: https://evil.example?.good.com"}, false},
			{"suffix", host, []string{"referer: https://evil.example#.good.com"}, false},
			{"suffix", host, []string{`referer: https://evil.example\.good.com`}, false},
			{"prefix", host, []string{"origin: https://app.example:1@evil.example"}, false},
		} {
			t.Run(fmt.Sprintf("%s, host %s, %.99q", c.chain, c.host, c.header), func(t *testing.T) {
				for _, http2 := range []bool{false, true} {
					a := envoy.Gateway(c.chain).Do(t, envoytest.Request{Method: "POST", Host: c.host, Header: c.header, HTTP2: http2})
					if passed := a.Status == 200; passed != c.passes {
						t.Errorf("status %d, HTTP/2 %v", a.Status, http2)
					}
				}
			})
		}
	})
}

func TestMethods(t *testing.T) {
	onEach(t, map[string]string{"csrf": `{}`}, func(t *testing.T, envoy *envoytest.Envoy) {
		for method, status := range map[string]int{
			"POST": 403, "PUT": 403, "PATCH": 403, "DELETE": 403,
			"GET": 200, "HEAD": 200, "OPTIONS": 200, "TRACE": 200, "PROPFIND": 200,
		} {
			t.Run(method, func(t *testing.T) {
				a := envoy.Gateway("csrf").Do(t, envoytest.Request{Method: method, Header: []string{"origin: https://evil.example"}})
				if a.Status != status {
					t.Errorf("status %d, want %d", a.Status, status)
				}
			})
		}
	})
}

// A WebSocket begins with GET.
func TestWebSockets(t *testing.T) {
	onEach(t, map[string]string{"csrf": `{}`}, func(t *testing.T, envoy *envoytest.Envoy) {
		if a, back := envoy.Gateway("csrf").Upgrade(t, "/", "hello", "origin: https://evil.example"); a.Status != 101 || back != "hello" {
			t.Errorf("status %d, %q came back", a.Status, back)
		}
	})
}

func TestAnswer(t *testing.T) {
	onEach(t, map[string]string{"csrf": `{}`}, func(t *testing.T, envoy *envoytest.Envoy) {
		gateway := envoy.Gateway("csrf")
		for _, r := range []envoytest.Request{
			{Method: "POST"}, {Method: "POST", HTTP2: true}, {Method: "PUT", Body: "hello"}, {Method: "PUT", Body: "hello", UnknownLength: true},
		} {
			a := gateway.Do(t, r)
			if a.Status != 403 || a.Body != `{"message":"Invalid origin"}` || a.Upstream != nil || a.Header.Get("content-type") != "application/json; charset=utf-8" {
				t.Errorf("%v: status %d, header %v, body %s, upstream %v", r, a.Status, a.Header, a.Body, a.Upstream)
			}
		}
		a := gateway.Do(t, envoytest.Request{Method: "POST", HTTP2: true, Header: []string{"content-type: application/grpc"}})
		if a.Status != 200 || a.Header.Get("grpc-status") != "7" || a.Header.Get("grpc-message") != refused || a.Body != "" {
			t.Errorf("gRPC: status %d, header %v, body %s", a.Status, a.Header, a.Body)
		}
		a = gateway.Do(t, envoytest.Request{Method: "POST", Body: "hello", Host: "a.example", Header: []string{"origin: https://a.example"}})
		if a.Status != 200 || a.Upstream.Body != "hello" {
			t.Errorf("what passes: status %d, upstream %v", a.Status, a.Upstream)
		}
	})
}

// An upstream may refuse as this plugin does, and another plugin, too.
func TestOtherAnswersStay(t *testing.T) {
	refuses := part.Lua{Plugin: "refuses", Source: `return {request = function(handle)
		if pdk.header(handle, "refuse") then pdk.exit(handle, 403, {}, "refused") end
	end}`}
	csrf := parts(t, "i", `{}`)
	chains := map[string][]part.Part{
		"in front": append([]part.Part{refuses}, csrf...),
		"behind":   append(csrf[:len(csrf):len(csrf)], refuses),
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for chain := range chains {
			if a := envoy.Gateway(chain).Get(t, "/", "echo-status: 403", "echo-body: mine"); a.Status != 403 || a.Body != "mine" {
				t.Errorf("%s: the upstream's answer became %d %s", chain, a.Status, a.Body)
			}
			if a := envoy.Gateway(chain).Get(t, "/", "refuse: yes"); a.Status != 403 || a.Body != "refused" {
				t.Errorf("%s: another plugin's answer became %d %s", chain, a.Status, a.Body)
			}
			if a := envoy.Gateway(chain).Do(t, envoytest.Request{Method: "POST"}); a.Status != 403 || a.Message() != refused {
				t.Errorf("%s: a refusal is %d %s", chain, a.Status, a.Body)
			}
		}
	})
}

// Each instance in a chain judges for itself: what one allows, the other may not.
func TestSeveral(t *testing.T) {
	chains := map[string][]part.Part{"two": append(
		parts(t, "a", `{additional_origins: [{exact: a.example}, {exact: both.example}]}`),
		parts(t, "b", `{additional_origins: [{exact: b.example}, {exact: both.example}]}`)...)}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for host, status := range map[string]int{"a.example": 403, "b.example": 403, "both.example": 200} {
			a := envoy.Gateway("two").Do(t, envoytest.Request{Method: "POST", Header: []string{"origin: https://" + host}})
			if a.Status != status || status == 403 && a.Message() != refused {
				t.Errorf("%s: status %d %s", host, a.Status, a.Body)
			}
		}
	})
}

func TestShares(t *testing.T) {
	texts := map[string]string{"half": `{percentage: 50}`, "none": `{percentage: 0}`, "shadow": `{shadow: true}`, "all": `{percentage: 100}`}
	onEach(t, texts, func(t *testing.T, envoy *envoytest.Envoy) {
		const all = 200
		for chain := range texts {
			hit := 0
			for range all {
				if envoy.Gateway(chain).Do(t, envoytest.Request{Method: "POST", Header: []string{"origin: https://evil.example"}}).Status == 403 {
					hit++
				}
			}
			// Six standard deviations to each side for a half.
			lower, upper := map[string]int{"half": 58, "all": all}[chain], map[string]int{"half": 142, "all": all}[chain]
			if hit < lower || hit > upper {
				t.Errorf("%s: %d of %d requests are refused", chain, hit, all)
			}
			envoy.Gateway(chain).Do(t, envoytest.Request{Method: "POST"})
			envoy.Gateway(chain).Do(t, envoytest.Request{Method: "POST", Host: "a.example", Header: []string{"origin: https://a.example"}})
			envoy.Gateway(chain).Get(t, "/")
			got := stats(t, envoy, chain)
			want := map[string]int{"missing_source_origin": 1, "request_invalid": all, "request_valid": 1}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: counters (-want +got):\n%s", chain, diff)
			}
		}
	})
}

// stats are the counters of the csrf filters of a chain.
func stats(t *testing.T, envoy *envoytest.Envoy, chain string) map[string]int {
	t.Helper()
	response, err := http.Get(envoy.Admin + "/stats?filter=csrf")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	counters := map[string]int{}
	for line := range strings.Lines(string(text)) {
		if counter, ok := strings.CutPrefix(strings.TrimSpace(line), fmt.Sprintf("http.%s.csrf.", chain)); ok {
			name, value, _ := strings.Cut(counter, ": ")
			if counters[name], err = strconv.Atoi(value); err != nil {
				t.Fatal(err)
			}
		}
	}
	return counters
}
