// Package oidc is the built-in oidc: users log in at an OpenID provider with their browser. schema.yaml documents it.
//
// It is Lua and not Envoy's oauth2 filter, because that one takes its secrets by SDS only, which it never asks when the
// filter arrives by ECDS after the listener has started. Envoy 1.37.0 then goes on with an empty secret, so that anybody
// can sign a session of their own; 1.40.0 answers 503.
package oidc

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/callout"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

//go:embed schema.yaml
var schemaText []byte

var schema = builtin.MustSchema(schemaText)

// The plugin's Lua: what a file returns is a local of those behind it.
var (
	//go:embed session.lua
	sessionLua string
	//go:embed provider.lua
	providerLua string
	//go:embed handler.lua
	handlerLua string

	source = "local sessions = (function(...)\n" + sessionLua + "end)(...)\nlocal provider = (function(...)\n" + providerLua + "end)(...)\n" + handlerLua
)

// Builtin is the plugin.
var Builtin = &builtin.Builtin{
	Name:     "oidc",
	Schema:   schema,
	Auth:     true,
	Landings: landings,
	Build:    build,
}

type settings struct {
	Issuer                string           `json:"issuer"`
	AuthorizationEndpoint string           `json:"authorization_endpoint"`
	TokenEndpoint         string           `json:"token_endpoint"`
	Service               *callout.Service `json:"service"`
	Timeout               string           `json:"timeout"`
	ClientID              one              `json:"client_id"`
	ClientSecret          one              `json:"client_secret"`
	ClientAuth            string           `json:"token_endpoint_auth_method"`
	SessionSecret         string           `json:"session_secret"`
	SessionTTL            string           `json:"session_ttl"`
	RefreshToken          bool             `json:"refresh_token"`
	Scopes                []string         `json:"scopes"`
	RedirectURI           one              `json:"redirect_uri"`
	LogoutPath            string           `json:"logout_path"`
	AfterLogout           string           `json:"post_logout_redirect_uri"`
	EndSessionEndpoint    string           `json:"end_session_endpoint"`
	ForwardBearerToken    bool             `json:"forward_bearer_token"`
	ClaimHeaders          []claimHeader    `json:"claim_headers"`
	DenyRedirectHeaders   []header         `json:"deny_redirect_headers"`
	PassThroughHeaders    []header         `json:"pass_through_headers"`
	SkipAuthenticated     bool             `json:"skip_authenticated"`
	CookieDomain          string           `json:"cookie_domain"`
	CookieNames           cookieNames      `json:"cookie_names"`
	SameSite              string           `json:"same_site"`
}

// one is a text, or Kong's list of one.
type one string

// UnmarshalJSON reads either.
func (o *one) UnmarshalJSON(text []byte) error {
	var list []string
	if json.Unmarshal(text, &list) == nil && len(list) == 1 {
		*o = one(list[0])
		return nil
	}
	return json.Unmarshal(text, (*string)(o))
}

// cookieNames are the name of a session's cookie and how those of logins begin; empty for the usual ones.
type cookieNames struct {
	Session string `json:"session"`
	Login   string `json:"login"`
}

type claimHeader struct {
	Claim  string `json:"claim"`
	Header string `json:"header"`
}

type header struct {
	Name   string  `json:"name"`
	Value  *string `json:"value"`
	Prefix *string `json:"prefix"`
}

func build(use builtin.Use, v config.Value) ([]part.Part, []builtin.Problem) {
	var s settings
	builtin.DecodeInto(v, &s)
	timeout, problems := callout.Timeout("timeout", s.Timeout)
	ttl, wrong := sessionTTL(s.SessionTTL)
	problems = slices.Concat(problems, wrong, check(s))
	if len(problems) > 0 {
		return nil, problems
	}
	provider, problems := s.provider(use)
	token, err := url.Parse(s.TokenEndpoint)
	if err != nil {
		panic(err) // check has done so
	}
	origin, callback := split(string(s.RedirectURI))
	key, session, login := s.key()
	chunk := config.Value{
		"issuer":        s.Issuer,
		"authorization": s.AuthorizationEndpoint,
		"token_host":    token.Host,
		"token_path":    token.RequestURI(),
		"timeout":       json.Number(strconv.FormatInt(timeout.Milliseconds(), 10)),
		"client_id":     string(s.ClientID),
		"client_secret": string(s.ClientSecret),
		"post":          s.ClientAuth == "client_secret_post",
		"scope":         strings.Join(s.scopes(), " "),
		"callback":      callback,
		"logout":        s.LogoutPath,
		"after_logout":  s.AfterLogout,
		"ttl":           json.Number(strconv.FormatInt(int64(ttl.Seconds()), 10)),
		"refresh":       s.RefreshToken,
		"forward":       s.ForwardBearerToken,
		"one_is_enough": s.SkipAuthenticated,
		"claim_headers": claimHeaders(s.ClaimHeaders),
		"deny":          headers(s.DenyRedirectHeaders),
		"pass":          headers(s.PassThroughHeaders),
		"key":           key,
		"session":       session,
		"login":         login,
		"same_site":     s.SameSite,
	}
	if origin != "" {
		chunk["origin"] = origin
	}
	if s.EndSessionEndpoint != "" {
		chunk["end_session"] = s.EndSessionEndpoint
	}
	if s.CookieDomain != "" {
		chunk["domain"] = strings.ToLower(s.CookieDomain)
	}
	lua := use.Lua(source, chunk)
	lua.Services = map[string]part.Service{"provider": provider}
	return []part.Part{lua}, problems
}

// provider is the service behind the token endpoint: the one that the URL names, unless another is given.
func (s settings) provider(use builtin.Use) (part.Service, []builtin.Problem) {
	if s.Service != nil {
		return callout.Find(use, *s.Service, false)
	}
	const path = "token_endpoint"
	_, service, err := callout.URI(s.TokenEndpoint)
	if err != nil {
		return part.Service{}, []builtin.Problem{{Path: path, Message: err.Error()}}
	}
	found, problems := callout.Find(use, service, false)
	for i := range problems {
		problems[i].Path = path
	}
	return found, problems
}

func (s settings) scopes() []string {
	if slices.Contains(s.Scopes, "openid") {
		return s.Scopes
	}
	return append([]string{"openid"}, s.Scopes...)
}

// shortest is how many characters a secret has that nobody guesses: whoever is logged in can try as many as they like on
// their own cookie.
const shortest = 32

// key is what sessions are signed with, the name of their cookie, and how the names of logins' cookies begin. The key and the
// usual names say what is in a session: who changes that makes users log in again, and two plugins share a session where
// it is the same for both.
func (s settings) key() (key, session, login string) {
	content, err := json.Marshal([]any{s.Issuer, s.ClientID, s.scopes(), s.ClaimHeaders, s.ForwardBearerToken})
	if err != nil {
		panic(err) // strings and booleans only
	}
	secret := s.SessionSecret
	if secret == "" {
		secret = string(s.ClientSecret)
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(append([]byte("istio-plugins oidc\n"), content...))
	name := sha256.Sum256(content)
	// Browsers take a cookie of such a name from nobody but this host, or by HTTPS.
	prefix := "__Host-"
	if s.CookieDomain != "" {
		prefix = "__Secure-"
	}
	session = cmp.Or(s.CookieNames.Session, prefix+"oidc-"+hex.EncodeToString(name[:8]))
	return hex.EncodeToString(mac.Sum(nil)), session, cmp.Or(s.CookieNames.Login, session+"-login-")
}

// sessionTTL reads how long a session lasts; zero is as long as the provider says.
func sessionTTL(text string) (time.Duration, []builtin.Problem) {
	ttl, problems := callout.Duration("session_ttl", text, "0s", "720h")
	if len(problems) == 0 && ttl != 0 && ttl < time.Minute {
		problems = []builtin.Problem{{Path: "session_ttl", Message: text + " is less than 1m; 0s is as long as the provider says"}}
	}
	return ttl, problems
}

// landings are where browsers come back from the provider, and where they log out.
func landings(v config.Value) []builtin.Landing {
	complete, problems := schema.Check(v)
	if slices.ContainsFunc(problems, func(p builtin.Problem) bool { return !p.Warning }) {
		return nil
	}
	var s settings
	builtin.DecodeInto(complete, &s)
	if len(check(s)) > 0 {
		return nil
	}
	return []builtin.Landing{
		{Field: "redirect_uri", URL: string(s.RedirectURI), Otherwise: "nobody can log in"},
		{Field: "logout_path", URL: s.LogoutPath, Otherwise: "nobody can log out"},
	}
}

// split is a URL's origin, empty where it is a path alone, and its path.
func split(text string) (origin, path string) {
	if strings.HasPrefix(text, "/") {
		return "", text
	}
	u, err := url.Parse(text)
	if err != nil {
		panic(err) // check has done so
	}
	return u.Scheme + "://" + u.Host, u.EscapedPath()
}

func claimHeaders(list []claimHeader) []any {
	out := make([]any, len(list))
	for i, c := range list {
		out[i] = map[string]any{"claim": c.Claim, "header": strings.ToLower(c.Header)}
	}
	return out
}

func headers(list []header) []any {
	out := make([]any, len(list))
	for i, h := range list {
		entry := map[string]any{"name": strings.ToLower(h.Name)}
		if h.Value != nil {
			entry["value"] = *h.Value
		}
		if h.Prefix != nil {
			entry["prefix"] = *h.Prefix
		}
		out[i] = entry
	}
	return out
}

// unsafe are headers that would break the request, or what this plugin does, if a claim overwrote them.
var unsafe = []string{"authorization", "connection", "content-length", "cookie", "host", "te", "trailer", "transfer-encoding", "upgrade"}

// check holds the rules that go beyond the schema.
func check(s settings) []builtin.Problem {
	var problems []builtin.Problem
	add := func(path, format string, args ...any) {
		problems = append(problems, builtin.Problem{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	endpoint := func(path, text string, local bool) {
		u, err := url.Parse(text)
		switch {
		case text == "":
		case err != nil || u.User != nil || strings.Contains(text, "#"),
			(u.Host == "" || u.Scheme != "https" && u.Scheme != "http") && !(local && u.Host == "" && strings.HasPrefix(text, "/")):
			add(path, "%q is no URL such as https://login.example.com/path", text)
		}
	}
	endpoint("authorization_endpoint", s.AuthorizationEndpoint, false)
	endpoint("token_endpoint", s.TokenEndpoint, false)
	endpoint("end_session_endpoint", s.EndSessionEndpoint, false)
	endpoint("post_logout_redirect_uri", s.AfterLogout, true)
	endpoint("redirect_uri", string(s.RedirectURI), true)
	if len(problems) > 0 {
		return problems
	}
	if _, path := split(string(s.RedirectURI)); path == "" || path == "/" || strings.Contains(string(s.RedirectURI), "?") {
		add("redirect_uri", "needs a path of its own, and no query: the provider sends the browser back to it")
	} else if path == s.LogoutPath {
		add("logout_path", "is the path of redirect_uri, too")
	}
	if s.SessionSecret == "" && len(s.ClientSecret) < shortest {
		add("session_secret", "is required where client_secret has less than %d characters", shortest)
	}
	ofDomain := func(path, name string) {
		if s.CookieDomain != "" && strings.HasPrefix(name, "__Host-") {
			add(path, "%s cannot begin with __Host- beside cookie_domain: browsers refuse such a cookie of a domain", name)
		}
	}
	ofDomain("cookie_names.session", s.CookieNames.Session)
	ofDomain("cookie_names.login", s.CookieNames.Login)
	matches := func(path string, list []header) {
		for i, h := range list {
			if h.Value != nil && h.Prefix != nil {
				add(builtin.Path(path, strconv.Itoa(i)), "has value and prefix, of which it can have one")
			}
		}
	}
	matches("deny_redirect_headers", s.DenyRedirectHeaders)
	matches("pass_through_headers", s.PassThroughHeaders)
	seen := map[string]bool{}
	for i, c := range s.ClaimHeaders {
		name := strings.ToLower(c.Header)
		switch path := builtin.Path("claim_headers", strconv.Itoa(i), "header"); {
		case slices.Contains(unsafe, name):
			add(path, "a claim cannot be the header %s", name)
		case seen[name]:
			add(path, "%s is there twice", name)
		}
		seen[name] = true
	}
	return problems
}
