package oidc

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestSettings(t *testing.T) {
	onEach(t, map[string]string{
		"shop": shop, "scopes": shop + ", scopes: [email, profile]", "secret": shop + ", session_secret: 0123456789abcdef0123456789abcdef",
		"brief": shop + ", session_ttl: 1m", "short": shop + ", timeout: 100ms",
	}, func(t *testing.T, fresh func() *browser) {
		t.Run("scopes", func(t *testing.T) {
			for chain, want := range map[string]string{"shop": "openid", "scopes": "openid email profile"} {
				location := must(url.Parse(fresh().get(chain, "/").Header.Get("location")))
				if got := location.Query().Get("scope"); got != want {
					t.Errorf("%s: the provider is asked for %q, want %q", chain, got, want)
				}
			}
		})
		t.Run("a session of another secret", func(t *testing.T) {
			b := fresh()
			b.login("secret", "/", "anna")
			if answer := b.get("secret", "/"); answer.Status != 200 {
				t.Errorf("its own: %d", answer.Status)
			}
			if answer := b.get("shop", "/"); answer.Status != 302 || answer.Upstream != nil {
				t.Errorf("another: %d", answer.Status)
			}
		})
		t.Run("the end of a session", func(t *testing.T) {
			for chain, brief := range map[string]bool{"shop": false, "brief": true} {
				b := fresh()
				b.login(chain, "/", "anna")
				_, sealed, _ := strings.Cut(b.cookies[cookieOf(t, shop)], ".")
				payload, _, _ := strings.Cut(sealed, ".")
				var session struct {
					Ends int64 `json:"e"`
				}
				if err := json.Unmarshal([]byte(decoded(payload)), &session); err != nil {
					t.Fatalf("%s: %v in %v", chain, err, b.cookies)
				}
				if ends := time.Unix(session.Ends, 0); time.Now().Add(10*time.Minute).After(ends) != brief {
					t.Errorf("%s: the session ends %v", chain, ends)
				}
			}
		})
		t.Run("a provider that takes longer than it may", func(t *testing.T) {
			refused(t, fresh().login("short", "/", "late"), 502, "OpenID provider unavailable")
			if answer := fresh().login("shop", "/", "late"); answer.Status != 302 {
				t.Errorf("with more time: %d %q", answer.Status, answer.Body)
			}
		})
	})
}
