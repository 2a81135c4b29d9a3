// Package jwt is the built-in plugin jwt: a client proves itself with a signed token (RFC 7519). schema.yaml documents it.
//
// Tokens of Consumers are verified in Lua, which knows the Consumers. Tokens of issuers are verified by Envoy's jwt_authn,
// between two Lua parts: one hands it the token, one answers for it.
package jwt

import (
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/authn"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
	"github.com/istio-plugins/istio-plugins/pkg/publickey"
)

//go:embed schema.yaml
var schema []byte

//go:embed token.lua
var token string

//go:embed consumer.lua
var handler string

// name of the plugin, and of the type of its credentials.
const name = "jwt"

// Builtin is the plugin.
var Builtin = &builtin.Builtin{
	Name:   name,
	Schema: builtin.MustSchema(schema),
	Auth:   true,
	Build:  build,
}

type settings struct {
	URIParamNames     []string    `json:"uri_param_names"`
	CookieNames       []string    `json:"cookie_names"`
	HeaderNames       []string    `json:"header_names"`
	KeyClaimName      string      `json:"key_claim_name"`
	SecretIsBase64    bool        `json:"secret_is_base64"`
	ClaimsToVerify    []string    `json:"claims_to_verify"`
	MaximumExpiration json.Number `json:"maximum_expiration"`
	Anonymous         string      `json:"anonymous"`
	RunOnPreflight    bool        `json:"run_on_preflight"`
	Realm             string      `json:"realm"`
	ClockSkewSeconds  json.Number `json:"clock_skew_seconds"`
	Issuers           []issuer    `json:"issuers"`
	ConsumersFrom     []string    `json:"consumers_from"`
}

func build(use builtin.Use, c config.Value) ([]part.Part, []builtin.Problem) {
	var s settings
	builtin.DecodeInto(c, &s)
	credentials, problems := use.Consumers.In(use.Namespace, s.ConsumersFrom, name)
	chunk := config.Value{
		"parameters": authn.List(s.URIParamNames),
		"cookies":    authn.List(s.CookieNames),
		"headers":    authn.List(s.HeaderNames),
		"verify":     authn.List(s.ClaimsToVerify),
		"longest":    s.MaximumExpiration,
		"skew":       s.ClockSkewSeconds,
		"preflight":  s.RunOnPreflight,
	}
	problems = slices.Concat(problems, check(s), authn.Anonymous(chunk, credentials, s.Anonymous))
	if len(s.Issuers) > 0 {
		parts, wrong := ofIssuers(use, s, chunk)
		return parts, append(problems, wrong...)
	}
	chunk["challenge"] = authn.Challenge("Bearer", s.Realm)
	chunk["key_claim"] = s.KeyClaimName
	chunk["base64"] = s.SecretIsBase64
	chunk["known"] = authn.Table(credentials, entry)
	return []part.Part{chunkOf(use, handler, chunk)}, append(problems, ofConsumers(s, credentials)...)
}

// chunkOf is a Lua part of the plugin.
func chunkOf(use builtin.Use, handler string, chunk config.Value) part.Part {
	source := authn.Source("local token = (function()\n" + token + "end)()\n" + handler)
	return part.Lua{Plugin: use.Plugin, Source: source, Config: chunk, FailOpen: use.FailOpen}
}

// check holds the rules across fields.
func check(s settings) []builtin.Problem {
	var problems []builtin.Problem
	if len(s.URIParamNames)+len(s.CookieNames)+len(s.HeaderNames) == 0 {
		problems = append(problems, builtin.Problem{
			Message: "uri_param_names, cookie_names and header_names are all empty, so that no request has a token",
			Warning: true,
		})
	}
	if longest, _ := s.MaximumExpiration.Float64(); longest > 0 && !slices.Contains(s.ClaimsToVerify, "exp") {
		problems = append(problems, builtin.Problem{Path: "maximum_expiration", Message: "needs exp in claims_to_verify"})
	}
	return problems
}

// ofConsumers warns of what looks like a mistake where tokens are those of Consumers.
func ofConsumers(s settings, c *builtin.Credentials) []builtin.Problem {
	var problems []builtin.Problem
	if !slices.Contains(s.ClaimsToVerify, "exp") {
		problems = append(problems, builtin.Problem{Path: "claims_to_verify", Message: "does not have exp, so that expired tokens pass", Warning: true})
	}
	for _, credential := range c.All {
		if secret := credential.Data["secret"]; s.SecretIsBase64 && !isPublic(credential) && !isBase64(string(secret)) {
			problems = append(problems, builtin.Problem{
				Path:    "secret_is_base64",
				Message: fmt.Sprintf("the secret of a credential of consumer %s is no base64; its tokens are refused", credential.Consumer.Name),
				Warning: true,
			})
		}
	}
	return problems
}

// isBase64 says whether the chunk can decode a text: both alphabets, with and without padding, but no other bytes.
func isBase64(text string) bool {
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if decoded, err := encoding.DecodeString(text); err == nil && encoding.EncodeToString(decoded) == text {
			return true
		}
	}
	return false
}

func algorithm(c builtin.Credential) string {
	if given, set := c.Data["algorithm"]; set {
		return string(given)
	}
	return "HS256"
}

func isPublic(c builtin.Credential) bool { return publickey.Supports(algorithm(c)) }

// entry is found by the key that tokens name, and holds what they are verified with. A secret cannot be hidden, since
// only itself can verify what it has signed.
func entry(c builtin.Credential) (string, config.Value) {
	fields := config.Value{"algorithm": algorithm(c)}
	if !isPublic(c) {
		fields["secret"] = string(c.Data["secret"])
		return string(c.Data["key"]), fields
	}
	der, err := publickey.DER(c.Data["rsa_public_key"], algorithm(c))
	if err != nil {
		panic(err) // package consumer has checked it
	}
	fields["public_key"] = base64.StdEncoding.EncodeToString(der)
	return string(c.Data["key"]), fields
}
