package oidc

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
)

func TestCookieDomain(t *testing.T) {
	const domain = shop + ", cookie_domain: Shop.test, redirect_uri: 'https://shop.test/oauth2/callback'"
	onEach(t, map[string]string{"shop": domain}, func(t *testing.T, fresh func() *browser) {
		at := func(host string) *browser {
			b := fresh()
			b.host = host
			b.proper = func(c *http.Cookie) bool {
				return strings.HasPrefix(c.Name, "__Secure-oidc-") && c.Domain == "shop.test" && c.SameSite == http.SameSiteLaxMode
			}
			return b
		}
		for host, want := range map[string]string{
			"shop.test": "https://shop.test", "de.shop.test": "https://de.shop.test", "A.B.Shop.Test:8443": "https://a.b.shop.test:8443",
			// Who is not of the domain is not sent elsewhere by a login.
			"notshop.test": "https://shop.test", "shop.test.evil.test": "https://shop.test", "test": "https://shop.test", "shop.test.": "https://shop.test",
		} {
			b := at(host)
			back := b.begin("shop", "/cart?a=b", "anna")
			b.host = "shop.test"
			if got := b.get("shop", back).Header.Get("location"); got != want+"/cart?a=b" {
				t.Errorf("%s: after the login to %q, want %q", host, got, want)
			}
			b.host = "blog.shop.test"
			expect(t, b.get("shop", "/"), "x-credential-identifier: anna", "cookie")
			if b.get("shop", "/logout"); len(b.cookies) != 0 {
				t.Errorf("%s: cookies after logout: %v", host, b.cookies)
			}
		}
		// Where to go is nobody's to change, nor to be made up.
		b := at("de.shop.test")
		back := must(url.Parse(b.begin("shop", "/", "anna")))
		state := back.Query().Get("state")
		payload, signature, _ := strings.Cut(state, ".")
		other := encoded(strings.Replace(decoded(payload), "https://de.shop.test", "https://evil.test", 1))
		if other == payload {
			t.Fatalf("no host in %s", decoded(payload))
		}
		b.host = "shop.test"
		refused(t, b.get("shop", "/oauth2/callback?"+url.Values{"code": back.Query()["code"], "state": {other + "." + signature}}.Encode()), 401, "Login failed")
		b.get("shop", back.RequestURI())
		if got := b.get("shop", "/oauth2/callback?code=a&state="+other+"."+signature).Header.Get("location"); got != "https://shop.test/" {
			t.Errorf("with a session and a state of nobody: to %q", got)
		}
	})
}

func TestCookieNames(t *testing.T) {
	const named = forwarding + ", cookie_names: {session: 's.id', login: l-}"
	onEach(t, map[string]string{"named": named, "half": shop + ", cookie_names: {session: half}"}, func(t *testing.T, fresh func() *browser) {
		b := fresh()
		b.proper = func(c *http.Cookie) bool {
			return (slices.Contains([]string{"s.id", "s.id-2", "s.id-3"}, c.Name) || strings.HasPrefix(c.Name, "l-")) && c.SameSite == http.SameSiteLaxMode
		}
		back := b.begin("named", "/", "long")
		if names := slices.Collect(maps.Keys(b.cookies)); len(names) != 1 || !strings.HasPrefix(names[0], "l-") {
			t.Errorf("while one logs in: %q", names)
		}
		b.get("named", back)
		if names := slices.Sorted(maps.Keys(b.cookies)); strings.Join(names, " ") != "s.id s.id-2 s.id-3" {
			t.Errorf("names %q", names)
		}
		// Others' cookies are others', however they are called.
		r := envoytest.Request{Path: "/", Header: []string{"cookie: s.id-22=a; s.idx=b; sxid-2=c; S.ID=d; l=e; xl-=f; s.id-=g; bare", "cookie: l-1 =h;s.id-9=i; l-=j; last=k"}}
		expect(t, b.do("named", r), "cookie: s.id-22=a; s.idx=b; sxid-2=c; S.ID=d; l=e; xl-=f; s.id-=g; bare; last=k", "authorization: Bearer "+strings.Repeat("0123456789", 700))

		b = fresh()
		b.proper = func(c *http.Cookie) bool { return c.Name == "half" || strings.HasPrefix(c.Name, "half-login-") }
		if b.login("half", "/", "anna"); b.cookies["half"] == "" {
			t.Errorf("cookies %v", b.cookies)
		}
	})
}

// The longest names leave room for attributes.
func TestLongCookies(t *testing.T) {
	name, domain := strings.Repeat("s", 128), strings.Repeat(strings.Repeat("d", 59)+".", 4)+"shop.test"
	text := forwarding + ", cookie_names: {session: " + name + "}, cookie_domain: " + domain
	onEach(t, map[string]string{"long": text}, func(t *testing.T, fresh func() *browser) {
		b := fresh()
		b.proper = func(c *http.Cookie) bool { return strings.HasPrefix(c.Name, name) && c.Domain == domain }
		b.login("long", "/", "long")
		expect(t, b.get("long", "/"), "authorization: Bearer "+strings.Repeat("0123456789", 700))
	})
}

func TestSameSite(t *testing.T) {
	onEach(t, map[string]string{"strict": shop + ", same_site: Strict", "none": shop + ", same_site: None", "lax": shop + ", same_site: Lax"}, func(t *testing.T, fresh func() *browser) {
		for chain, want := range map[string]struct {
			session, login http.SameSite
			status         int
		}{
			"strict": {http.SameSiteStrictMode, http.SameSiteLaxMode, 200},
			"none":   {http.SameSiteNoneMode, http.SameSiteNoneMode, 302},
			"lax":    {http.SameSiteLaxMode, http.SameSiteLaxMode, 302},
		} {
			b := fresh()
			b.proper = func(c *http.Cookie) bool {
				if c.MaxAge < 0 {
					return true
				}
				return strings.Contains(c.Name, "-login-") && c.SameSite == want.login || !strings.Contains(c.Name, "-login-") && c.SameSite == want.session
			}
			answer := b.login(chain, `/cart?a="><script>'&amp;`, "anna")
			if answer.Status != want.status || len(b.cookies) != 1 || answer.Header.Get("cache-control") != "no-store" {
				t.Errorf("%s: %d %v", chain, answer.Status, b.cookies)
			}
			if chain != "strict" {
				continue
			}
			// A page of the site sends the browser on, so that it sends its cookie.
			const page = `<!DOCTYPE html><meta http-equiv="refresh" content="0; url=https://shop.test/cart?a=&quot;&gt;&lt;script&gt;&#39;&amp;amp;">`
			if answer.Body != page || answer.Header.Get("content-type") != "text/html" || answer.Header.Get("location") != "" {
				t.Errorf("%s: %v %s", chain, answer.Header, answer.Body)
			}
			expect(t, b.get(chain, "/cart"), "x-credential-identifier: anna")
		}
	})
}

// Who is let through is nobody.
func TestPassThrough(t *testing.T) {
	const config = forwarding + `, pass_through_headers: [{name: Authorization, prefix: "Bearer "}, {name: x-app}, {name: x-kind, value: a}], logout_path: /out`
	onEach(t, map[string]string{"pass": config}, func(t *testing.T, fresh func() *browser) {
		for _, c := range []struct {
			header string
			status int
		}{
			{"authorization: Bearer abc", 200}, {"authorization: Bearer ", 302}, {"authorization: bearer abc", 302}, {"authorization: Basic Bearer abc", 302},
			{"x-app: ", 200}, {"x-app: 1", 200}, {"x-application: 1", 302}, {"x-kind: a", 200}, {"x-kind: ab", 302}, {"x-kind: A", 302},
		} {
			b := fresh()
			answer := b.get("pass", "/", c.header, "x-email: eve@test", "x-credential-identifier: eve", "x-consumer-username: eve")
			if answer.Status != c.status {
				t.Errorf("%s: %d", c.header, answer.Status)
			}
			if c.status == 200 {
				expect(t, answer, "x-email", "x-credential-identifier", "x-consumer-username", strings.TrimSpace(c.header))
			} else if answer.Upstream != nil {
				t.Errorf("%s: it arrived", c.header)
			}
		}
		// A session does not matter then, and does not go further. Paths are the upstream's.
		b := fresh()
		b.login("pass", "/", "anna")
		expect(t, b.get("pass", "/", "authorization: Bearer abc", "cookie: own=1"), "authorization: Bearer abc", "x-email", "x-credential-identifier", "cookie: own=1")
		for _, path := range []string{"/out", "/oauth2/callback?code=a&state=b"} {
			if answer := b.get("pass", path, "x-kind: b", "x-kind: a"); answer.Status != 200 || answer.Upstream == nil || answer.Upstream.Path != path {
				t.Errorf("%s: %d", path, answer.Status)
			}
		}
		expect(t, b.get("pass", "/"), "authorization: Bearer token-of-anna", "x-email: anna@test")
	})
}
