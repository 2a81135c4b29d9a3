package oidc

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// A provider is an OpenID provider of two clients. It logs in whom the argument `user` of the authorization request names,
// which a test puts there; some users get tokens that must not be accepted.
type provider struct {
	*httptest.Server
	mu    sync.Mutex
	codes map[string]url.Values // the authorization requests by code; a code is used once
	forms []url.Values          // what the token endpoint got
	gates map[string]chan struct{}
}

const issuer = "https://login.test/realm"

// clients are those of the provider: their secret, and where they may be sent back to.
var clients = map[string]struct{ secret, redirect string }{
	"shop": {"the shop's secret & 32 characters", "https://shop.test/oauth2/callback"},
	"blog": {"short", "https://shop.test/blog/callback"},
}

func startProvider(t testing.TB) *provider {
	p := &provider{codes: map[string]url.Values{}, gates: map[string]chan struct{}{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /authorize", p.authorize)
	mux.HandleFunc("POST /token", p.token)
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func (p *provider) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	client, known := clients[q.Get("client_id")]
	if !known || q.Get("redirect_uri") != client.redirect || q.Get("response_type") != "code" || q.Get("nonce") == "" || q.Get("kept") != "1" ||
		q.Get("code_challenge") == "" || q.Get("code_challenge_method") != "S256" || q.Get("state") == "" || !strings.HasPrefix(q.Get("scope"), "openid") {
		http.Error(w, "wrong request: "+r.URL.String(), http.StatusBadRequest)
		return
	}
	back := url.Values{"state": q["state"]}
	if q.Get("user") == "denied" {
		back.Set("error", "access_denied")
	} else {
		p.mu.Lock()
		code := fmt.Sprintf("code %d+", len(p.codes))
		p.codes[code] = q
		p.mu.Unlock()
		back.Set("code", code)
	}
	http.Redirect(w, r, client.redirect+"?"+back.Encode(), http.StatusFound)
}

func (p *provider) token(w http.ResponseWriter, r *http.Request) {
	refuse := func(why string) {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": why})
	}
	_ = r.ParseForm()
	p.mu.Lock()
	p.forms = append(p.forms, r.PostForm)
	asked, known := p.codes[r.PostForm.Get("code")]
	p.codes[r.PostForm.Get("code")] = nil
	p.mu.Unlock()
	id, secret, basic := r.BasicAuth()
	if basic {
		id, _ = url.QueryUnescape(id)
		secret, _ = url.QueryUnescape(secret)
	} else {
		id, secret = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	}
	challenge := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
	switch {
	case r.Host != "login.test" || r.URL.RawQuery != "a=b":
		refuse("invalid_request")
	case secret != clients[id].secret || basic != (id == "shop"):
		refuse("invalid_client")
	case r.PostForm.Get("grant_type") == "refresh_token":
		p.renew(w, r, id)
	case r.PostForm.Get("grant_type") != "authorization_code":
		refuse("invalid_request")
	case !known || asked == nil || asked.Get("client_id") != id || asked.Get("redirect_uri") != r.PostForm.Get("redirect_uri") ||
		asked.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(challenge[:]):
		refuse("invalid_grant")
	default:
		p.answer(w, r, asked, id)
	}
}

// answer is the answer to a good request, or what the user's name says.
func (p *provider) answer(w http.ResponseWriter, r *http.Request, asked url.Values, id string) {
	claims := map[string]any{
		"iss": issuer, "aud": id, "exp": time.Now().Add(time.Hour).Unix(), "nonce": asked.Get("nonce"), "sub": asked.Get("user"),
		"email": "anna@test", "groups": []any{"a", 2, true, map[string]any{}}, "age": 1234567890123456789, "odd": map[string]any{"a": 1}, "line": "a\r\nb", "none": nil,
	}
	answer := map[string]any{"access_token": "token of " + asked.Get("user"), "token_type": "Bearer", "expires_in": 3600}
	answer["access_token"] = "token-of-" + asked.Get("user")
	switch asked.Get("user") {
	case "broken":
		w.WriteHeader(http.StatusInternalServerError)
		return
	case "slow":
		<-r.Context().Done()
		return
	case "late":
		select {
		case <-time.After(time.Second):
		case <-r.Context().Done():
			return
		}
	case "text":
		_, _ = w.Write([]byte("hello"))
		return
	case "issuer":
		claims["iss"] = "https://login.test/other"
	case "audience":
		claims["aud"] = []string{"other"}
	case "party":
		claims["aud"], claims["azp"] = []string{"other", id}, "other"
	case "audiences":
		claims["aud"], claims["azp"] = []string{"other", id}, id
	case "expired":
		claims["exp"] = time.Now().Add(-2 * time.Minute).Unix()
	case "nonce":
		claims["nonce"] = "other"
	case "no nonce":
		delete(claims, "nonce")
	case "nobody":
		claims["sub"] = ""
	case "lines":
		claims["sub"] = "a\nb"
	case "long":
		answer["access_token"] = strings.Repeat("0123456789", 700)
	case "endless":
		answer["access_token"] = strings.Repeat("0123456789", 1500)
	case "spaces":
		answer["access_token"] = "a\r\nx-b: c"
	case "keeper":
		answer["refresh_token"] = "refresh-of-keeper"
	case "a-day":
		answer["refresh_token"], answer["refresh_expires_in"], answer["expires_in"] = "refresh-of-a-day", 86400, "7200"
	case "too-much":
		answer["refresh_token"] = strings.Repeat("0123456789", 1500)
	case "no-end":
		delete(answer, "expires_in")
	}
	answer["id_token"] = idToken(claims)
	if asked.Get("user") == "no token" {
		delete(answer, "id_token")
	}
	w.Header().Set("content-type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// renewed says how often a refresh token was used.
func (p *provider) renewed(refresh string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, form := range p.forms {
		if form.Get("refresh_token") == refresh {
			n++
		}
	}
	return n
}

// gate is what the answer to a slow refresh token waits for.
func (p *provider) gate(refresh string) chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gates[refresh] == nil {
		p.gates[refresh] = make(chan struct{})
	}
	return p.gates[refresh]
}

// renew is the answer to a refresh token, which says before a colon what it shall be.
func (p *provider) renew(w http.ResponseWriter, r *http.Request, client string) {
	claims := map[string]any{"iss": issuer, "aud": client, "exp": time.Now().Add(time.Hour).Unix(), "sub": "anna", "email": "new@test"}
	answer := map[string]any{"access_token": "new-token", "token_type": "Bearer", "expires_in": 1800, "refresh_token": "next", "refresh_expires_in": 0}
	refresh := r.PostForm.Get("refresh_token")
	kind, _, _ := strings.Cut(refresh, ":")
	switch kind {
	case "whole":
	case "slow":
		select {
		case <-p.gate(refresh):
		case <-r.Context().Done():
			return
		}
	case "short":
		answer = map[string]any{"access_token": "new-token", "token_type": "Bearer"}
		claims = nil
	case "other user":
		claims["sub"] = "bob"
	case "other issuer":
		claims["iss"] = "https://login.test/other"
	case "no access":
		delete(answer, "access_token")
	case "too long":
		answer["access_token"] = strings.Repeat("0123456789", 1500)
	case "broken":
		w.WriteHeader(http.StatusInternalServerError)
		return
	default:
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_grant"})
		return
	}
	if claims != nil {
		answer["id_token"] = idToken(claims)
	}
	w.Header().Set("content-type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

func idToken(claims map[string]any) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	return encoded(`{"alg":"RS256"}`) + "." + encoded(string(payload)) + "." + encoded("signature")
}

func encoded(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// decoded reads base64url as far as it goes.
func decoded(text string) string {
	text = text[strings.LastIndex(text[:min(2, len(text))], ".")+1:]
	text, _, _ = strings.Cut(text, ".")
	out, _ := base64.RawURLEncoding.DecodeString(text)
	return string(out)
}
