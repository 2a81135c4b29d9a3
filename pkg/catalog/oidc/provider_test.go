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
}

const issuer = "https://login.test/realm"

// clients are those of the provider: their secret, and where they may be sent back to.
var clients = map[string]struct{ secret, redirect string }{
	"shop": {"the shop's secret & 32 characters", "https://shop.test/oauth2/callback"},
	"blog": {"short", "https://shop.test/blog/callback"},
}

func startProvider(t testing.TB) *provider {
	p := &provider{codes: map[string]url.Values{}}
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
	case r.Host != "login.test" || r.URL.RawQuery != "a=b" || r.PostForm.Get("grant_type") != "authorization_code":
		refuse("invalid_request")
	case secret != clients[id].secret || basic != (id == "shop"):
		refuse("invalid_client")
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
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	answer["id_token"] = encode([]byte(`{"alg":"RS256"}`)) + "." + encode(payload) + "." + encode([]byte("signature"))
	if asked.Get("user") == "no token" {
		delete(answer, "id_token")
	}
	w.Header().Set("content-type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

func encoded(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// decoded reads base64url as far as it goes.
func decoded(text string) string {
	text = text[strings.LastIndex(text[:min(2, len(text))], ".")+1:]
	text, _, _ = strings.Cut(text, ".")
	out, _ := base64.RawURLEncoding.DecodeString(text)
	return string(out)
}
