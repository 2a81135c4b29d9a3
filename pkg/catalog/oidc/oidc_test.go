package oidc

import (
	"bufio"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// shop and blog are clients of the provider, on one host.
const (
	shop = `issuer: https://login.test/realm, authorization_endpoint: 'https://login.test/authorize?kept=1', token_endpoint: 'https://login.test/token?a=b',
		service: {host: login.test, port: 80}, client_id: shop, client_secret: "the shop's secret & 32 characters"`
	blog = `issuer: https://login.test/realm, authorization_endpoint: 'https://login.test/authorize?kept=1', token_endpoint: 'http://login.test/token?a=b',
		client_id: blog, client_secret: short, session_secret: 0123456789abcdef0123456789abcdef,
		token_endpoint_auth_method: client_secret_post, redirect_uri: 'https://shop.test/blog/callback', logout_path: /blog/logout`
	forwarding = shop + `, forward_bearer_token: true, scopes: [email, profile], claim_headers: [{claim: email, header: X-Email}, {claim: groups, header: x-groups},
		{claim: age, header: x-age}, {claim: odd, header: x-odd}, {claim: line, header: x-line}, {claim: none, header: x-none}, {claim: gone, header: x-gone}]`
)

func use(t testing.TB, text string) ([]part.Part, []string) {
	t.Helper()
	return catalogtest.Build(t, Builtin, builtin.Use{Plugin: "login", Instance: "i", Services: catalogtest.Services("login.test", "down.test", "unknown.test")}, text)
}

func TestConfig(t *testing.T) {
	const required = "authorization_endpoint: is required, client_id: is required, client_secret: is required, issuer: is required, token_endpoint: is required"
	for _, c := range []struct {
		config string
		want   []string
	}{
		{`{` + shop + `}`, nil},
		{`{` + blog + `}`, nil},
		{`{` + forwarding + `}`, nil},
		{`{}`, strings.Split(required, ", ")},
		{`{` + strings.Replace(shop, "the shop's secret & ", "", 1) + `}`, []string{"session_secret: is required where client_secret has less than 32 characters"}},
		{`{` + shop + `, session_secret: short}`, []string{"session_secret: must not be shorter than 32 characters"}},
		{`{` + strings.Replace(shop, "login.test,", "gone.test,", 1) + `}`, []string{`service: there is no Service test/gone, nor a ServiceEntry with the host "gone.test"`}},
		{`{` + strings.Replace(blog, "http://login.test/token", "https://login.test/token", 1) + `}`, []string{"token_endpoint: ServiceEntry / has no port 443; its ports: 80, 81"}},
		{`{` + strings.Replace(blog, "login.test/token", "login.test:0/token", 1) + `}`, []string{"token_endpoint: has the port 0, which is not between 1 and 65535"}},
		{`{` + strings.Replace(shop, "https://login.test/token", "/token", 1) + `}`, []string{`token_endpoint: "/token?a=b" is no URL such as https://login.example.com/path`}},
		{`{` + strings.Replace(shop, "https://login.test/token", "https://a:b@login.test/token", 1) + `}`, []string{`token_endpoint: "https://a:b@login.test/token?a=b" is no URL such as https://login.example.com/path`}},
		{`{` + shop + `, end_session_endpoint: 'ftp://login.test/'}`, []string{`end_session_endpoint: "ftp://login.test/" is no URL such as https://login.example.com/path`}},
		{`{` + shop + `, post_logout_redirect_uri: 'login.test'}`, []string{`post_logout_redirect_uri: "login.test" is no URL such as https://login.example.com/path`}},
		{`{` + shop + `, redirect_uri: 'https://shop.test/#a'}`, []string{`redirect_uri: "https://shop.test/#a" is no URL such as https://login.example.com/path`}},
		{`{` + shop + `, redirect_uri: 'https://shop.test'}`, []string{"redirect_uri: needs a path of its own, and no query: the provider sends the browser back to it"}},
		{`{` + shop + `, redirect_uri: '/a?b'}`, []string{"redirect_uri: needs a path of its own, and no query: the provider sends the browser back to it"}},
		{`{` + shop + `, redirect_uri: '//evil.test/a'}`, []string{`redirect_uri: "//evil.test/a" is no URL such as https://login.example.com/path`}},
		{`{` + shop + `, post_logout_redirect_uri: '//evil.test/a'}`, []string{`post_logout_redirect_uri: "//evil.test/a" is no URL such as https://login.example.com/path`}},
		{`{` + shop + `, redirect_uri: /logout}`, []string{"logout_path: is the path of redirect_uri, too"}},
		{`{` + shop + `, logout_path: '/a?b'}`, []string{`logout_path: "/a?b" does not match ^/[!->@-~]*$`}},
		{`{` + shop + `, timeout: 6m}`, []string{"timeout: 6m is not between 1ms and 5m"}},
		{`{` + shop + `, session_ttl: 8h}`, nil},
		{`{` + shop + `, session_ttl: 59s}`, []string{"session_ttl: 59s is less than 1m; 0s is as long as the provider says"}},
		{`{` + shop + `, session_ttl: 721h}`, []string{"session_ttl: 721h is not between 0s and 720h"}},
		{`{` + shop + `, session_ttl: 3600}`, []string{"session_ttl: must be a string, not a number"}},
		{`{` + strings.NewReplacer("client_id: shop", "client_id: [shop]", `client_secret: "`, `client_secret: ["`, `characters"`, `characters"]`).Replace(shop) + `, redirect_uri: [/a]}`, nil},
		{`{` + strings.Replace(shop, "client_id: shop", "client_id: [shop, blog]", 1) + `}`, []string{"client_id: has 2 items, at most 1"}},
		{`{` + shop + `, redirect_uri: []}`, []string{"redirect_uri: has 0 items, at least 1"}},
		{`{` + shop + `, redirect_uri: 1}`, []string{"redirect_uri: must be a list or a string, not a number"}},
		{`{` + shop + `, cookie_domain: shop.test, cookie_names: {session: __Secure-s, login: l}, same_site: None, pass_through_headers: [{name: authorization, prefix: "Bearer "}]}`, nil},
		{`{` + shop + `, cookie_domain: test}`, []string{`cookie_domain: "test" does not match ^[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)+$`}},
		{`{` + shop + `, cookie_domain: shop.test, cookie_names: {session: __Host-s, login: __Host-l}}`, []string{
			"cookie_names.session: __Host-s cannot begin with __Host- beside cookie_domain: browsers refuse such a cookie of a domain",
			"cookie_names.login: __Host-l cannot begin with __Host- beside cookie_domain: browsers refuse such a cookie of a domain"}},
		{`{` + shop + `, cookie_names: {session: "a b"}}`, []string{"cookie_names.session: \"a b\" does not match ^[-!#$%&'*+.^_`|~0-9A-Za-z]+$"}},
		{`{` + shop + `, same_site: lax}`, []string{`same_site: "lax" is not allowed, allowed are "Lax", "Strict", "None"`}},
		{`{` + shop + `, pass_through_headers: [{name: a, value: b, prefix: c}], deny_redirect_headers: [{name: a}, {name: a, value: b, prefix: c}]}`, []string{
			"deny_redirect_headers[1]: has value and prefix, of which it can have one", "pass_through_headers[0]: has value and prefix, of which it can have one"}},
		{`{` + shop + `, scopes: ['a b']}`, []string{`scopes[0]: "a b" does not match ^[!#-\[\]-~]+$`}},
		{`{` + shop + `, claim_headers: [{claim: sub, header: Cookie}, {claim: sub, header: x-a}, {claim: sub, header: X-A}]}`, []string{
			"claim_headers[0].header: a claim cannot be the header cookie", "claim_headers[2].header: x-a is there twice"}},
	} {
		_, got := use(t, c.config)
		if diff := gocmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.config, diff)
		}
	}
}

func TestSecretsAreMarked(t *testing.T) {
	for _, field := range []string{"client_secret", "session_secret"} {
		if !Builtin.Schema.Secret(field) {
			t.Errorf("%s may be shown", field)
		}
		for _, wrong := range []string{"hidden-word", "[hidden-word]", "{hidden-word: 1}", "hidden-word" + strings.Repeat("x", 5000)} {
			if _, got := use(t, fmt.Sprintf("{%s: %s}", field, wrong)); strings.Contains(fmt.Sprint(got), "hidden-word") {
				t.Errorf("%s: %v", field, got)
			}
		}
	}
}

// What a session holds and who may make it says which sessions are the same.
func TestKeys(t *testing.T) {
	type pair struct{ key, cookie string }
	of := func(text string) pair {
		parts, problems := use(t, "{"+text+"}")
		if len(problems) > 0 {
			t.Fatalf("%s: %v", text, problems)
		}
		c := parts[0].(part.Lua).Config
		return pair{c["key"].(string), c["session"].(string)}
	}
	first := of(shop)
	for _, same := range []string{shop + ", redirect_uri: [/a]", shop + ", refresh_token: false", shop + ", same_site: Strict", strings.Replace(shop, "client_id: shop", "client_id: [shop]", 1), shop + ", session_ttl: 1m", shop + ", scopes: []", shop + ", deny_redirect_headers: []"} {
		if got := of(same); got != first {
			t.Errorf("%s: another session", same)
		}
	}
	for _, other := range []string{blog, forwarding, shop + ", forward_bearer_token: true", shop + ", scopes: [email]", shop + ", claim_headers: [{claim: a, header: b}]",
		strings.Replace(shop, "/realm", "/realm2", 1)} {
		if got := of(other); got.key == first.key || got.cookie == first.cookie {
			t.Errorf("%s: the same session", other)
		}
	}
	if got := of(shop + ", session_secret: 0123456789abcdef0123456789abcdef"); got.key == first.key || got.cookie != first.cookie {
		t.Error("session_secret is not what makes the key")
	}
	if got := of(shop + ", cookie_domain: shop.test"); got.key != first.key || strings.Replace(got.cookie, "__Secure-", "__Host-", 1) != first.cookie {
		t.Errorf("the cookie of a domain is %s, of the host %s", got.cookie, first.cookie)
	}
}

// A browser at one host, which keeps cookies as browsers do.
type browser struct {
	t        testing.TB
	envoy    *envoytest.Envoy
	provider *provider
	cookies  map[string]string
	// ages are the Max-Age that its cookies came with.
	ages map[string]int
	// host is shop.test, unless it says otherwise.
	host string
	// proper says whether a cookie is as it must be; those of one host alone if it is nil.
	proper func(*http.Cookie) bool
}

func ofOneHost(c *http.Cookie) bool {
	return strings.HasPrefix(c.Name, "__Host-oidc-") && c.Domain == "" && c.SameSite == http.SameSiteLaxMode
}

func (b *browser) get(chain, path string, header ...string) *envoytest.Answer {
	b.t.Helper()
	return b.do(chain, envoytest.Request{Path: path, Header: header})
}

func (b *browser) do(chain string, r envoytest.Request) *envoytest.Answer {
	b.t.Helper()
	r.Host = cmp.Or(b.host, "shop.test")
	r.Header = append(r.Header, "x-forwarded-proto: https")
	for _, name := range slices.Sorted(maps.Keys(b.cookies)) {
		r.Header = append(r.Header, "cookie: "+name+"="+b.cookies[name])
	}
	gateway := b.envoy.Gateway(chain)
	answer := &envoytest.Answer{}
	if strings.HasPrefix(r.Path, "//") {
		answer.Status, answer.Header = raw(b.t, gateway.Address, r)
	} else {
		answer = gateway.Do(b.t, r)
	}
	for _, line := range answer.Header["Set-Cookie"] {
		c, err := http.ParseSetCookie(line)
		proper := ofOneHost
		if b.proper != nil {
			proper = b.proper
		}
		if err != nil || !proper(c) || !c.Secure || !c.HttpOnly || c.Path != "/" || len(line) > 4096 {
			b.t.Errorf("cookie %q: %v", line, err)
		}
		b.ages[c.Name] = c.MaxAge
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		} else {
			b.cookies[c.Name] = c.Value
		}
	}
	if answer.Status == 302 && answer.Header.Get("cache-control") != "no-store" {
		b.t.Errorf("a redirect that may be stored: %v", answer.Header)
	}
	return answer
}

// raw is a GET of a path that Go's client would take for a host.
func raw(t testing.TB, address string, r envoytest.Request) (int, http.Header) {
	conn := must(net.Dial("tcp", address))
	defer conn.Close()
	must(fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nhost: %s\r\n%s\r\n\r\n", r.Path, r.Host, strings.Join(r.Header, "\r\n")))
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode, response.Header
}

// begin asks for a page and goes to the provider as user. It returns the path and query of the way back.
func (b *browser) begin(chain, path, user string) string {
	b.t.Helper()
	answer := b.get(chain, path)
	location := answer.Header.Get("location")
	query, ok := strings.CutPrefix(location, "https://login.test/authorize?")
	if answer.Status != 302 || !ok || answer.Upstream != nil {
		b.t.Fatalf("%s: %d to %q, %q", path, answer.Status, location, answer.Body)
	}
	response, err := http.DefaultTransport.RoundTrip(must(http.NewRequest("GET", b.provider.URL+"/authorize?"+query+"&user="+url.QueryEscape(user), nil)))
	if err != nil {
		b.t.Fatal(err)
	}
	defer response.Body.Close()
	back, ok := strings.CutPrefix(response.Header.Get("location"), "https://shop.test")
	if !ok {
		b.t.Fatalf("the provider answers %s to %s", response.Status, location)
	}
	return back
}

// login is begin and the way back.
func (b *browser) login(chain, path, user string) *envoytest.Answer {
	b.t.Helper()
	return b.get(chain, b.begin(chain, path, user))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func onEach(t *testing.T, texts map[string]string, test func(t *testing.T, fresh func() *browser)) {
	chains := map[string][]part.Part{}
	for name, text := range texts {
		parts, problems := use(t, "{"+text+"}")
		if len(problems) > 0 {
			t.Fatalf("%s: %v", text, problems)
		}
		chains[name] = parts
	}
	p := startProvider(t)
	catalogtest.OnEachWith(t, envoytest.Config{
		Chains:   chains,
		Clusters: map[string]string{"outbound|80||login.test": p.Listener.Addr().String(), "outbound|80||down.test": envoytest.Nobody},
	}, func(t *testing.T, envoy *envoytest.Envoy) {
		test(t, func() *browser {
			return &browser{t: t, envoy: envoy, provider: p, cookies: map[string]string{}, ages: map[string]int{}}
		})
	})
}

func TestLogin(t *testing.T) {
	onEach(t, map[string]string{"shop": shop, "blog": blog, "forwarding": forwarding, "down": strings.Replace(shop, "login.test, port", "down.test, port", 1) + ", timeout: 100ms",
		"short": shop + ", timeout: 100ms", "unknown": strings.Replace(shop, "login.test, port", "unknown.test, port", 1),
		"wrong": strings.Replace(shop, "the shop's", "no shop's", 1)}, func(t *testing.T, fresh func() *browser) {
		t.Run("login, page, logout", func(t *testing.T) {
			b := fresh()
			answer := b.login("shop", "/cart?a=b&c=%20d", "anna")
			if got := answer.Header.Get("location"); answer.Status != 302 || got != "https://shop.test/cart?a=b&c=%20d" {
				t.Fatalf("%d to %q %q", answer.Status, got, answer.Body)
			}
			if len(b.cookies) != 1 {
				t.Errorf("cookies %v", b.cookies)
			}
			answer = b.do("shop", envoytest.Request{Method: "POST", Path: "/cart", Body: "x", Header: []string{"cookie: mine=1; other=2", "x-credential-identifier: eve", "authorization: Own"}})
			if answer.Status != 200 || answer.Upstream == nil {
				t.Fatalf("%d %q", answer.Status, answer.Body)
			}
			expect(t, answer, "x-credential-identifier: anna", "cookie: mine=1; other=2", "authorization: Own")
			if answer := b.get("shop", "/cart"); answer.Status != 200 || slices.ContainsFunc(answer.Upstream.Header, func(l string) bool { return strings.HasPrefix(l, "cookie:") }) {
				t.Errorf("%d, the upstream gets %q", answer.Status, answer.Upstream.Header)
			}
			expect(t, b.do("shop", envoytest.Request{Path: "/cart", HTTP2: true, Header: []string{"cookie: a=1", "cookie: b=2"}}), "x-credential-identifier: anna", "cookie: a=1; b=2")
			if answer := b.get("shop", "/logout?x"); answer.Status != 302 || answer.Header.Get("location") != "https://shop.test/" || len(b.cookies) != 0 {
				t.Errorf("logout: %d to %q, cookies %v", answer.Status, answer.Header.Get("location"), b.cookies)
			}
			if answer := b.get("shop", "/cart"); answer.Status != 302 || answer.Upstream != nil {
				t.Errorf("after logout: %d", answer.Status)
			}
		})
		t.Run("tokens and claims for the upstream", func(t *testing.T) {
			b := fresh()
			if answer := b.login("forwarding", "/", "anna"); answer.Status != 302 {
				t.Fatalf("%d %q", answer.Status, answer.Body)
			}
			for name, value := range b.cookies {
				if text := decoded(value); strings.Contains(text, "token-of") {
					t.Errorf("the token can be read in cookie %s: %s", name, text)
				}
			}
			answer := b.get("forwarding", "/", "x-email: eve@test", "x-none: 1", "x-gone: 1", "x-odd: 1", "x-line: 1", "authorization: Bearer eve")
			if answer.Upstream == nil {
				t.Fatalf("%d %q", answer.Status, answer.Body)
			}
			expect(t, answer, "authorization: Bearer token-of-anna", "x-email: anna@test", "x-groups: a,2,true", "x-age: 1234567890123456789", "x-none", "x-gone", "x-odd", "x-line")
		})
		t.Run("a token of several cookies", func(t *testing.T) {
			b := fresh()
			if answer := b.login("forwarding", "/", "long"); answer.Status != 302 || len(b.cookies) != 3 {
				t.Fatalf("%d %q, %d cookies", answer.Status, answer.Body, len(b.cookies))
			}
			expect(t, b.get("forwarding", "/"), "authorization: Bearer "+strings.Repeat("0123456789", 700))
			long := maps.Clone(b.cookies)
			b.cookies = maps.Clone(long)
			delete(b.cookies, slices.Max(slices.Collect(maps.Keys(b.cookies))))
			if answer := b.get("forwarding", "/"); answer.Status != 302 {
				t.Errorf("a cookie is missing: %d", answer.Status)
			}
			b.cookies = long
			if answer := b.get("forwarding", "/logout"); answer.Status != 302 || len(b.cookies) != 0 {
				t.Errorf("logout: %d, cookies %v", answer.Status, b.cookies)
			}
		})
		t.Run("two clients on one host", func(t *testing.T) {
			b := fresh()
			if answer := b.login("shop", "/cart", "anna"); answer.Status != 302 {
				t.Fatalf("shop: %d %q", answer.Status, answer.Body)
			}
			if answer := b.login("blog", "/blog", "bob"); answer.Status != 302 || answer.Header.Get("location") != "https://shop.test/blog" {
				t.Fatalf("blog: %d %q", answer.Status, answer.Body)
			}
			expect(t, b.get("shop", "/"), "x-credential-identifier: anna")
			expect(t, b.get("blog", "/"), "x-credential-identifier: bob")
			b.get("blog", "/blog/logout")
			if answer := b.get("blog", "/"); answer.Status != 302 {
				t.Errorf("blog after its logout: %d", answer.Status)
			}
			expect(t, b.get("shop", "/"), "x-credential-identifier: anna")
			// One's session under the other's name.
			for name, value := range b.cookies {
				b.cookies[cookieOf(t, blog)] = value
				delete(b.cookies, name)
			}
			if answer := b.get("blog", "/"); answer.Status != 302 {
				t.Errorf("a session of another client: %d", answer.Status)
			}
		})
		t.Run("two tabs", func(t *testing.T) {
			b := fresh()
			one, two := b.begin("shop", "/one", "anna"), b.begin("shop", "/two", "anna")
			for _, tab := range []struct{ back, want string }{{one, "/one"}, {two, "/two"}, {one, "/one"}} { // the last comes again
				if answer := b.get("shop", tab.back); answer.Status != 302 || answer.Header.Get("location") != "https://shop.test"+tab.want {
					t.Errorf("%s: %d to %q", tab.want, answer.Status, answer.Header.Get("location"))
				}
			}
		})
		t.Run("another browser's login", func(t *testing.T) {
			eve, anna := fresh(), fresh()
			back := eve.begin("shop", "/", "eve")
			anna.begin("shop", "/", "anna")
			refused(t, anna.get("shop", back), 401, "Login failed")
			if answer := eve.get("shop", back); answer.Status != 302 {
				t.Errorf("her own: %d", answer.Status)
			}
			delete(eve.cookies, cookieOf(t, shop))
			refused(t, eve.get("shop", back), 401, "Login failed") // replayed
		})
		t.Run("a code again", func(t *testing.T) {
			b := fresh()
			back := b.begin("shop", "/", "anna")
			pending := maps.Clone(b.cookies)
			b.get("shop", back)
			b.cookies = pending
			refused(t, b.get("shop", back), 401, "Login failed")
			b.envoy.WaitLog(t, "login refused: the token endpoint answers 400 invalid_grant")
		})
		t.Run("wrong states", func(t *testing.T) {
			b := fresh()
			back := must(url.Parse(b.begin("shop", "/", "anna")))
			state := back.Query().Get("state")
			payload, signature, _ := strings.Cut(state, ".")
			other := encoded(strings.Replace(decoded(payload), `"/"`, `"//evil.test"`, 1))
			if other == payload {
				t.Fatalf("no path in %s", decoded(payload))
			}
			for _, wrong := range []string{"", "x", ".", "e30.", payload, payload + ".", payload + "." + strings.ToUpper(signature), other + "." + signature,
				encoded(`[]`) + "." + signature, encoded(`{"f":1,"p":"/"}`) + "." + signature, encoded(`{"f":"%","p":"/"}`) + "." + signature, "!!." + signature, encoded("no json") + "." + signature} {
				query := url.Values{"code": back.Query()["code"], "state": {wrong}}
				refused(t, b.get("shop", "/oauth2/callback?"+query.Encode()), 401, "Login failed")
			}
			for _, query := range []string{"", "?", "?code=a", "?state=" + state, "?" + back.RawQuery + "&code=a", "?" + back.RawQuery + "&state=b", "?code&state=" + state} {
				refused(t, b.get("shop", "/oauth2/callback"+query), 401, "Login failed")
			}
		})
		t.Run("open redirect", func(t *testing.T) {
			for path, want := range map[string]string{
				"//evil.test/a":                      "https://shop.test//evil.test/a",
				`/\evil.test`:                        "https://shop.test//evil.test", // Envoy normalizes paths
				"/a?next=https://evil.test":          "https://shop.test/a?next=https://evil.test",
				"/" + strings.Repeat("a", 1024):      "https://shop.test/",
				"/" + strings.Repeat("a", 1023):      "https://shop.test/" + strings.Repeat("a", 1023),
				`//a"%ff`:                            "https://shop.test//a%22%ff", // and encode what must be
				"/%0d%0alocation:%20//evil.test?%00": "https://shop.test/%0d%0alocation:%20//evil.test?%00",
			} {
				if got := fresh().login("shop", path, "anna").Header.Get("location"); got != want {
					t.Errorf("%s: to %q, want %q", path, got, want)
				}
			}
			// The state of nobody, with a session.
			b := fresh()
			b.login("shop", "/", "anna")
			for _, path := range []string{"evil.test", ".evil.test", "@evil.test", "/a\r\nb: c", "/ä", ""} {
				state := encoded(fmt.Sprintf(`{"f":"a","p":%q}`, path)) + ".x"
				refused(t, b.get("shop", "/oauth2/callback?code=a&state="+state), 401, "Login failed")
			}
		})
		t.Run("tokens that are not accepted", func(t *testing.T) {
			for user, why := range map[string]string{
				"denied": "the provider says access_denied", "no token": "there is no ID token", "issuer": "of another issuer", "audience": "for another client",
				"party": "for another client", "expired": "is expired", "nonce": "of another login", "no nonce": "of another login", "nobody": "no subject", "lines": "no subject",
			} {
				b := fresh()
				answer := b.login("shop", "/", user)
				refused(t, answer, 401, "Login failed")
				b.envoy.WaitLog(t, why)
				if len(b.cookies) != 0 {
					t.Errorf("%s: cookies %v", user, b.cookies)
				}
			}
			if answer := fresh().login("shop", "/", "audiences"); answer.Status != 302 {
				t.Errorf("several audiences: %d", answer.Status)
			}
			refused(t, fresh().login("forwarding", "/", "spaces"), 401, "Login failed")
		})
		t.Run("a provider that does not answer", func(t *testing.T) {
			for _, user := range []string{"broken", "text"} {
				refused(t, fresh().login("shop", "/", user), 502, "OpenID provider unavailable")
			}
			refused(t, fresh().login("short", "/", "slow"), 502, "OpenID provider unavailable")
			refused(t, fresh().login("down", "/", "anna"), 502, "OpenID provider unavailable")
			refused(t, fresh().login("unknown", "/", "anna"), 502, "OpenID provider unavailable")
			refused(t, fresh().login("wrong", "/", "anna"), 502, "OpenID provider unavailable") // a wrong secret
			refused(t, fresh().login("forwarding", "/", "endless"), 502, "OpenID provider unavailable")
		})
		t.Run("forged sessions", func(t *testing.T) {
			b := fresh()
			b.login("shop", "/", "anna")
			name := cookieOf(t, shop)
			payload, signature, _ := strings.Cut(strings.TrimPrefix(b.cookies[name], "1."), ".")
			longer := encoded(strings.Replace(decoded(payload), "anna", "root", 1))
			for _, value := range []string{"", "1.", "1..", "1." + payload, "1." + payload + ".", "1." + longer + "." + signature, "9." + payload + "." + signature + "x",
				"0." + strings.ToUpper(payload) + "." + signature, payload + "." + signature} {
				b.cookies = map[string]string{name: value}
				if answer := b.get("shop", "/"); answer.Status != 302 || answer.Upstream != nil {
					t.Errorf("%q: %d", value, answer.Status)
				}
			}
		})
		if log := fresh().envoy.Log(); strings.Contains(log, "secret & 32") || strings.Contains(log, "[error]") || strings.Contains(log, "token-of") {
			t.Errorf("Envoy's log:\n%s", log)
		}
	})
}

// A maker has the key of a config, and can make sessions and states.
type maker struct{ key, cookie, login string }

func makerOf(t testing.TB, text string) maker {
	parts, _ := use(t, "{"+text+"}")
	c := parts[0].(part.Lua).Config
	return maker{c["key"].(string), c["session"].(string), c["login"].(string)}
}

func (m maker) digest(purpose, text string) []byte {
	mac := hmac.New(sha256.New, []byte(m.key))
	fmt.Fprintf(mac, "%s\n%s", purpose, text)
	return mac.Sum(nil)
}

func (m maker) seal(purpose, text string) string {
	return base64.RawURLEncoding.EncodeToString(m.digest(purpose, text))
}

// Who has the key can make sessions and states, which end.
func TestTimes(t *testing.T) {
	onEach(t, map[string]string{"shop": shop}, func(t *testing.T, fresh func() *browser) {
		m := makerOf(t, shop)
		for ends, status := range map[int64]int{time.Now().Unix() - 1: 302, time.Now().Unix() + 60: 200} {
			b := fresh()
			session := encoded(fmt.Sprintf(`{"e":%d,"s":"anna","h":{}}`, ends)) + "."
			b.cookies[m.cookie] = "1." + session + "." + m.seal("session", session)
			if answer := b.get("shop", "/"); answer.Status != status {
				t.Errorf("a session until %d: %d", ends, answer.Status)
			}
			b.cookies[m.cookie] = "1." + session + "." + m.seal("state", session)
			if answer := b.get("shop", "/"); answer.Status != 302 {
				t.Errorf("a session that is none: %d", answer.Status)
			}
		}
		for ends, want := range map[int64]string{time.Now().Unix() - 1: "the state is not", time.Now().Unix() + 60: "answers 400 invalid_grant"} {
			b := fresh()
			state := encoded(fmt.Sprintf(`{"f":"a","p":"/","u":%d}`, ends))
			b.cookies[m.login+"a"] = "b"
			refused(t, b.get("shop", "/oauth2/callback?code=a&state="+state+"."+m.seal("state", state+"\nb")), 401, "Login failed")
			b.envoy.WaitLog(t, want)
		}
	})
}

// What is no page that a browser shows is not sent to the provider.
func TestNoRedirect(t *testing.T) {
	onEach(t, map[string]string{"shop": shop, "own": shop + ", deny_redirect_headers: [{name: X-App}, {name: x-kind, value: a}, {name: accept, prefix: application/}]"}, func(t *testing.T, fresh func() *browser) {
		for _, c := range []struct {
			chain, method string
			header        []string
			status        int
		}{
			{"shop", "GET", nil, 302},
			{"shop", "HEAD", nil, 302},
			{"shop", "GET", []string{"sec-fetch-mode: navigate"}, 302},
			{"shop", "GET", []string{"sec-fetch-mode: cors"}, 401},
			{"shop", "GET", []string{"sec-fetch-mode: no-cors"}, 401},
			{"shop", "GET", []string{"x-requested-with: XMLHttpRequest"}, 401},
			{"shop", "GET", []string{"x-requested-with: other"}, 302},
			{"shop", "POST", nil, 401},
			{"shop", "OPTIONS", nil, 401},
			{"own", "GET", []string{"x-requested-with: XMLHttpRequest"}, 302},
			{"own", "GET", []string{"x-app: "}, 401},
			{"own", "GET", []string{"x-kind: a"}, 401},
			{"own", "GET", []string{"x-kind: b"}, 302},
			{"own", "GET", []string{"accept: application/json"}, 401},
			{"own", "GET", []string{"accept: text/html, application/json"}, 302},
		} {
			answer := fresh().do(c.chain, envoytest.Request{Method: c.method, Path: "/", Header: c.header})
			if answer.Status != c.status || answer.Upstream != nil || c.status == 401 && (answer.Message() != "Unauthorized" || answer.Header["Set-Cookie"] != nil) {
				t.Errorf("%s %v: %d %q", c.method, c.header, answer.Status, answer.Body)
			}
		}
		call := envoytest.Request{Method: "POST", Path: "/a.B/C", HTTP2: true, Header: []string{"content-type: application/grpc", "te: trailers"}, Body: "\x00\x00\x00\x00\x00"}
		if answer := fresh().do("shop", call); answer.Status != 200 || answer.Upstream != nil || answer.Header.Get("grpc-status")+answer.Trailer.Get("grpc-status") != "16" {
			t.Errorf("a gRPC call: %d %v", answer.Status, answer.Header)
		}
	})
}

func TestLogoutElsewhere(t *testing.T) {
	onEach(t, map[string]string{
		"provider": shop + ", end_session_endpoint: 'https://login.test/end?x=1', post_logout_redirect_uri: /bye",
		"away":     shop + ", post_logout_redirect_uri: 'https://other.test/', logout_path: /out",
		"fixed":    shop + ", redirect_uri: 'https://shop.test:8443/oauth2/callback'",
	}, func(t *testing.T, fresh func() *browser) {
		for _, c := range []struct{ chain, path, want string }{
			{"provider", "/logout", "https://login.test/end?x=1&client_id=shop&post_logout_redirect_uri=https%3A%2F%2Fshop.test%2Fbye"},
			{"away", "/out", "https://other.test/"},
			{"fixed", "/logout", "https://shop.test:8443/"},
		} {
			if answer := fresh().get(c.chain, c.path); answer.Status != 302 || answer.Header.Get("location") != c.want {
				t.Errorf("%s: %d to %q", c.chain, answer.Status, answer.Header.Get("location"))
			}
		}
	})
}

// A plugin before this one may be enough.
func TestAuthenticated(t *testing.T) {
	chains := map[string][]part.Part{}
	for name, text := range map[string]string{"both": shop, "one": shop + ", skip_authenticated: true, claim_headers: [{claim: email, header: x-email}]"} {
		parts, _ := use(t, "{"+text+"}")
		chains[name] = append([]part.Part{part.Lua{Source: `return { request = function(handle)
			local who = pdk.header(handle, "x-who")
			if who then pdk.authenticate(handle, { id = who, name = who, anonymous = who == "nobody" }, nil, "first") end
		end }`}}, parts...)
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct {
			chain, who string
			status     int
		}{{"both", "x-who: a", 302}, {"one", "x-who: a", 200}, {"one", "x-who: nobody", 302}, {"one", "x-other: a", 302}} {
			answer := envoy.Gateway(c.chain).Get(t, "/", c.who, "x-email: eve@test")
			if answer.Status != c.status {
				t.Errorf("%s, %s: %d", c.chain, c.who, answer.Status)
			}
			if answer.Upstream != nil {
				expect(t, answer, "x-consumer-id: a", "x-email")
			}
		}
	})
}

func cookieOf(t testing.TB, text string) string { return makerOf(t, text).cookie }

func refused(t testing.TB, answer *envoytest.Answer, status int, message string) {
	t.Helper()
	if answer.Status != status || answer.Message() != message || answer.Upstream != nil {
		t.Errorf("%d to %q, %q; want %d %q", answer.Status, answer.Header.Get("location"), answer.Body, status, message)
	}
}

// expect looks for header lines at the upstream; a name alone must not be there.
func expect(t testing.TB, answer *envoytest.Answer, want ...string) {
	t.Helper()
	if answer.Upstream == nil {
		t.Errorf("%d %q, and nothing arrived", answer.Status, answer.Body)
		return
	}
	for _, w := range want {
		name, _, whole := strings.Cut(w, ": ")
		at := slices.IndexFunc(answer.Upstream.Header, func(l string) bool { return strings.HasPrefix(l, name+": ") || l == name+":" })
		if whole && (at < 0 || answer.Upstream.Header[at] != w) || !whole && at >= 0 {
			t.Errorf("the upstream gets %q, want %q", answer.Upstream.Header, w)
		}
	}
}
