package oidc

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
)

// mask is what encrypts and decrypts tokens.
func (m maker) mask(purpose, seed, text string) string {
	out := []byte(text)
	secret := hex.EncodeToString(m.digest(purpose, seed))
	for from := 0; from < len(out); from += 32 {
		raw, err := hex.DecodeString(secret)
		if err != nil {
			panic(err)
		}
		block := sha256.Sum256(append(fmt.Appendf(nil, "%08d", from+1), raw...))
		for i := from; i < min(from+32, len(out)); i++ {
			out[i] ^= block[i-from]
		}
	}
	return string(out)
}

// session is anna's, which ends, is to be renewed, and can be renewed until, in so many seconds from now.
func (m maker) session(seed string, ends, renew, until int64, refresh string) string {
	now := time.Now().Unix()
	text := encoded(fmt.Sprintf(`{"e":%d,"r":%d,"u":%d,"s":"anna","h":{"1":"old@test"},"k":%q}`, now+ends, now+renew, now+until, seed))
	text += "." + encoded(m.mask("token", seed, "old-token")) + "." + encoded(m.mask("refresh", seed, refresh))
	return "1." + text + "." + m.seal("session", text)
}

// times are those of a browser's session.
type times struct{ E, R, U int64 }

func timesOf(t testing.TB, b *browser, cookie string) times {
	t.Helper()
	_, sealed, _ := strings.Cut(b.cookies[cookie], ".")
	payload, _, _ := strings.Cut(sealed, ".")
	var out times
	if err := json.Unmarshal([]byte(decoded(payload)), &out); err != nil {
		t.Fatalf("%v in %v", err, b.cookies)
	}
	return out
}

const renewing = shop + `, forward_bearer_token: true, claim_headers: [{claim: email, header: x-email}], timeout: 1m`

// about says whether a time is so many seconds from now, as exactly as a slow machine lets it be.
func about(at int64, seconds int64) bool {
	return time.Now().Unix()+seconds-60 <= at && at <= time.Now().Unix()+seconds
}

// What a login makes of a refresh token.
func TestSessionsThatCanBeRenewed(t *testing.T) {
	onEach(t, map[string]string{
		"renewing": renewing, "once": renewing + ", refresh_token: false", "long": shop + ", session_ttl: 8h", "short": renewing + ", session_ttl: 10m",
	}, func(t *testing.T, fresh func() *browser) {
		cookie := cookieOf(t, renewing)
		for _, c := range []struct {
			chain, user             string
			ends, renew, until, age int64
		}{
			{"renewing", "anna", 3600, 0, 0, 3600},
			{"renewing", "keeper", 3600, 3570, 604800, 604800},
			{"renewing", "a-day", 7200, 7170, 86400, 86400},
			{"renewing", "no-end", 3600, 0, 0, 3600},
			{"renewing", "too-much", 3600, 0, 0, 3600},
			{"once", "keeper", 3600, 0, 0, 3600},
			{"short", "keeper", 600, 570, 604800, 604800},
			{"long", "keeper", 28800, 28770, 604800, 604800},
		} {
			b := fresh()
			if answer := b.login(c.chain, "/", c.user); answer.Status != 302 {
				t.Errorf("%s, %s: %d %q", c.chain, c.user, answer.Status, answer.Body)
				continue
			}
			name := cookie
			if c.chain == "long" {
				name = cookieOf(t, shop)
			}
			got := timesOf(t, b, name)
			if !about(got.E, c.ends) || c.until == 0 && got != (times{E: got.E}) || c.until > 0 && (!about(got.R, c.renew) || !about(got.U, c.until)) || !about(time.Now().Unix()+int64(b.ages[name]), c.age) {
				t.Errorf("%s, %s: %+v at %d, Max-Age %d; want %+v", c.chain, c.user, got, time.Now().Unix(), b.ages[name], c)
			}
			for name, value := range b.cookies {
				if text := decoded(value); strings.Contains(text, "refresh-of") || strings.Contains(text, "token-of") {
					t.Errorf("a token can be read in cookie %s: %s", name, text)
				}
			}
			if answer := b.get(c.chain, "/"); answer.Status != 200 || answer.Header["Set-Cookie"] != nil {
				t.Errorf("%s, %s: a page is %d %v", c.chain, c.user, answer.Status, answer.Header)
			}
		}
		if log := fresh().envoy.Log(); strings.Contains(log, "refresh-of") {
			t.Errorf("Envoy's log:\n%s", log)
		}
	})
}

func TestRenewal(t *testing.T) {
	onEach(t, map[string]string{"renewing": renewing, "plain": shop, "once": renewing + ", refresh_token: false"}, func(t *testing.T, fresh func() *browser) {
		m := makerOf(t, renewing)
		with := func(value string) *browser {
			b := fresh()
			b.cookies[m.cookie] = value
			return b
		}
		made := 0
		// anew is a text that no other part of the test uses, on any Envoy.
		anew := func(kind string) string { made++; return fmt.Sprintf("%s: %s %d", kind, t.Name(), made) }
		asked := func(refresh string, want int) {
			t.Helper()
			if n := fresh().provider.renewed(refresh); n != want {
				t.Errorf("%s: the provider was asked %d times, want %d", refresh, n, want)
			}
		}
		script := envoytest.Request{Method: "POST", Path: "/cart", Body: "form", Header: []string{"x-requested-with: XMLHttpRequest"}}

		t.Run("of a session that has ended", func(t *testing.T) {
			refresh := anew("whole")
			b := with(m.session(anew("seed"), -10, -40, 600, refresh))
			old := b.cookies[m.cookie]
			answer := b.do("renewing", script)
			if answer.Status != 200 || len(answer.Header["Set-Cookie"]) != 1 || answer.Upstream.Body != "form" {
				t.Fatalf("%d %q, cookies %q", answer.Status, answer.Body, answer.Header["Set-Cookie"])
			}
			expect(t, answer, "authorization: Bearer new-token", "x-email: new@test", "x-credential-identifier: anna", "cookie")
			if got := timesOf(t, b, m.cookie); !about(got.E, 1800) || !about(got.U, 604800) {
				t.Errorf("%+v", got)
			}
			answer = b.do("renewing", script)
			if answer.Status != 200 || answer.Header["Set-Cookie"] != nil {
				t.Errorf("the next one: %d %v", answer.Status, answer.Header)
			}
			expect(t, answer, "authorization: Bearer new-token", "x-email: new@test")
			// What was sent before the answer came.
			answer = with(old).do("renewing", script)
			if answer.Status != 200 || len(answer.Header["Set-Cookie"]) != 1 {
				t.Errorf("with the old cookie: %d %v", answer.Status, answer.Header)
			}
			expect(t, answer, "authorization: Bearer new-token")
			asked(refresh, 1)
		})
		t.Run("of one that is about to end", func(t *testing.T) {
			b := with(m.session(anew("seed"), 300, -5, 600, anew("whole")))
			expect(t, b.do("renewing", script), "authorization: Bearer new-token")
		})
		t.Run("of one that has time", func(t *testing.T) {
			answer := with(m.session(anew("seed"), 300, 270, 600, anew("whole"))).do("renewing", script)
			expect(t, answer, "authorization: Bearer old-token", "x-email: old@test")
			if answer.Header["Set-Cookie"] != nil {
				t.Errorf("%v", answer.Header)
			}
		})
		t.Run("with an answer that says little", func(t *testing.T) {
			refresh := anew("short")
			b := with(m.session(anew("seed"), -10, -40, 600, refresh))
			expect(t, b.do("renewing", script), "authorization: Bearer new-token", "x-email: old@test", "x-credential-identifier: anna")
			if got := timesOf(t, b, m.cookie); !about(got.E, 3600) || !about(got.U, 604800) {
				t.Errorf("%+v", got)
			}
			// The refresh token stays good.
			_, sealed, _ := strings.Cut(b.cookies[m.cookie], ".")
			pieces := strings.Split(sealed, ".")
			var session struct{ K string }
			if err := json.Unmarshal([]byte(decoded(pieces[0])), &session); err != nil || len(pieces) != 4 || m.mask("refresh", session.K, decoded(pieces[2])) != refresh {
				t.Errorf("%v in %s", err, sealed)
			}
		})
		t.Run("without a token for the upstream", func(t *testing.T) {
			m := makerOf(t, shop)
			b := fresh()
			b.cookies[m.cookie] = m.session(anew("seed"), -10, -40, 600, anew("no access"))
			expect(t, b.do("plain", script), "x-credential-identifier: anna", "authorization")
			if got := timesOf(t, b, m.cookie); !about(got.E, 1800) {
				t.Errorf("%+v", got)
			}
		})
		t.Run("that is refused", func(t *testing.T) {
			for _, kind := range []string{"revoked", "other user", "other issuer", "no access"} {
				seed, refresh := anew("seed"), anew(kind)
				for range 2 {
					b := with(m.session(seed, -10, -40, 600, refresh))
					refused(t, b.do("renewing", script), 401, "Unauthorized")
					if answer := b.get("renewing", "/"); answer.Status != 302 || answer.Upstream != nil {
						t.Errorf("%s: a page is %d", kind, answer.Status)
					}
				}
				asked(refresh, 1)
				// What has not ended is good.
				answer := with(m.session(anew("seed"), 300, -10, 600, anew(kind))).do("renewing", script)
				expect(t, answer, "authorization: Bearer old-token")
			}
			fresh().envoy.WaitLog(t, "session not renewed: the ID token is of another user")
		})
		t.Run("that nobody answers", func(t *testing.T) {
			seed := anew("seed")
			refused(t, with(m.session(seed, -10, -40, 600, anew("broken"))).do("renewing", script), 502, "OpenID provider unavailable")
			refused(t, with(m.session(anew("seed"), -10, -40, 600, anew("too long"))).do("renewing", script), 502, "OpenID provider unavailable")
			// A moment later another answer counts.
			expect(t, with(m.session(seed, -10, -40, 600, anew("whole"))).do("renewing", script), "authorization: Bearer new-token")
			// What has not ended is good.
			expect(t, with(m.session(anew("seed"), 300, -10, 600, anew("broken"))).do("renewing", script), "authorization: Bearer old-token")
		})
		t.Run("that is too late, or not wanted", func(t *testing.T) {
			refresh := anew("whole")
			refused(t, with(m.session(anew("seed"), -10, -40, -5, refresh)).do("renewing", script), 401, "Unauthorized")
			refused(t, with(m.session(anew("seed"), -10, -40, 600, refresh)).do("once", script), 401, "Unauthorized")
			expect(t, with(m.session(anew("seed"), 300, -40, -5, refresh)).do("renewing", script), "authorization: Bearer old-token")
			expect(t, with(m.session(anew("seed"), 300, -40, 600, refresh)).do("once", script), "authorization: Bearer old-token")
			asked(refresh, 0)
		})
		t.Run("while others come", func(t *testing.T) {
			refresh := anew("slow")
			value := m.session(anew("seed"), 300, -10, 600, refresh)
			first := make(chan *envoytest.Answer)
			go func() { first <- with(value).do("renewing", script) }()
			for deadline := time.Now().Add(time.Minute); fresh().provider.renewed(refresh) == 0; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("the provider is not asked")
				}
			}
			expect(t, with(value).do("renewing", script), "authorization: Bearer old-token")
			close(fresh().provider.gate(refresh))
			expect(t, <-first, "authorization: Bearer new-token")
			expect(t, with(value).do("renewing", script), "authorization: Bearer new-token")
			asked(refresh, 1)
		})
		t.Run("beside cookies of the upstream", func(t *testing.T) {
			r := script
			r.Header = append([]string{envoytest.EchoHeader + ": set-cookie: __Host-oidc-own=1; Path=/; Secure; HttpOnly; SameSite=Lax"}, r.Header...)
			answer := with(m.session(anew("seed"), -10, -40, 600, anew("whole"))).do("renewing", r)
			if len(answer.Header["Set-Cookie"]) != 2 {
				t.Errorf("cookies %q", answer.Header["Set-Cookie"])
			}
		})
		t.Run("of a forged session", func(t *testing.T) {
			refresh := anew("whole")
			value := m.session(anew("seed"), -10, -40, 600, refresh)
			pieces := strings.Split(value, ".")
			for _, wrong := range []string{
				strings.Join([]string{pieces[0], pieces[1], pieces[2], pieces[4]}, "."),            // without the refresh token
				strings.Join([]string{pieces[0], pieces[1], pieces[3], pieces[2], pieces[4]}, "."), // tokens in other places
				value[:len(value)-1] + "_", value + ".", strings.Replace(value, "1.", "1.1.", 1),
			} {
				refused(t, with(wrong).do("renewing", script), 401, "Unauthorized")
			}
			asked(refresh, 0)
		})
	})
}
