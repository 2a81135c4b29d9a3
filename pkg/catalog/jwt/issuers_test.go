package jwt_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// issuers have an RSA key and one of each curve; other is another issuer.
func issuers(more string) string {
	keys := []string{jwk("rsa", &rsaKey.PublicKey)}
	for algorithm, key := range ecKeys {
		keys = append(keys, jwk(algorithm, &key.PublicKey))
	}
	slices.Sort(keys)
	set := `{"keys":[` + strings.Join(keys, ",") + `]}`
	other := string(must(json.Marshal(jwks("other", &otherRSA.PublicKey))))
	return `{"issuers":[{"issuer":"https://issuer.test","jwks":` + set + `,"audiences":["shop","pay"],"forward_payload_header":"x-claims"},
		{"issuer":"https://other.test","jwks":` + other + `}]` + more + `}`
}

var issuerChains = map[string]string{
	"default":      issuers(""),
	"everywhere":   issuers(`,"cookie_names":["session"],"header_names":["authorization","x-token"]`),
	"realm":        issuers(`,"realm":"shop"`),
	"times":        issuers(`,"claims_to_verify":["exp","nbf"]`),
	"short":        issuers(`,"claims_to_verify":["exp"],"maximum_expiration":300`),
	"skew":         issuers(`,"clock_skew_seconds":60`),
	"anonymous":    issuers(`,"anonymous":"guest"`),
	"no preflight": issuers(`,"run_on_preflight":false`),
}

func issuerRequests() []requestCase {
	of := func(claims string) string {
		return raw("RS256", rsaKey, `{"alg":"RS256","kid":"rsa"}`, `{"iss":"https://issuer.test","aud":"shop"`+claims+`}`)
	}
	with := func(token string) envoytest.Request { return envoytest.Request{Header: bearer(token)} }
	valid, second := of(""), of(`,"jti":"2"`)
	others := raw("RS256", otherRSA, `{"alg":"RS256","kid":"other"}`, `{"iss":"https://other.test"}`)
	const form = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
	own := func(header, claims string) envoytest.Request { return with(raw("RS256", rsaKey, header, claims)) }
	const unparsed, unverified = "Jwt payload is an invalid JSON", "Jwt verification fails"
	const integer, positive = "Jwt payload [%s] field is not an integer", "Jwt payload [%s] field is not a positive 64 bit integer"
	cases := []requestCase{
		{"no token", "default", envoytest.Request{}, "Unauthorized", nil},
		{"another scheme", "default", envoytest.Request{Header: []string{"authorization: Basic " + valid}}, "Unauthorized", nil},
		{"a token", "default", with(valid), "", nil},
		{"the scheme in another case", "default", envoytest.Request{Header: []string{"authorization: bEARER " + valid}}, "", nil},
		{"the query", "default", envoytest.Request{Path: "/?jwt=" + valid}, "", nil},
		{"a cookie", "everywhere", envoytest.Request{Header: []string{"cookie: session=" + valid}}, "", nil},
		{"another header", "everywhere", envoytest.Request{Header: []string{"x-token: Bearer " + valid}}, "", nil},
		{"one token everywhere is one", "default", envoytest.Request{Path: "/?jwt=" + valid, Header: bearer(valid)}, "", nil},
		{"different tokens", "default", envoytest.Request{Path: "/?jwt=" + second, Header: bearer(valid)}, "Multiple tokens provided", nil},
		{"repeated Authorization ends at the comma", "default", envoytest.Request{Header: []string{"authorization: Bearer " + valid, "authorization: Bearer x"}}, "", nil},
		{"another issuer", "default", with(others), "", nil},
		{"a second audience", "default", with(raw("RS256", rsaKey, `{"alg":"RS256"}`, `{"iss":"https://issuer.test","aud":["x","pay"]}`)), "", nil},
		{"a wrong audience", "default", with(raw("RS256", rsaKey, `{"alg":"RS256"}`, `{"iss":"https://issuer.test","aud":"x"}`)), "Audiences in Jwt are not allowed", nil},
		{"no audience", "default", with(raw("RS256", rsaKey, `{"alg":"RS256"}`, `{"iss":"https://issuer.test"}`)), "Audiences in Jwt are not allowed", nil},
		{"a number among audiences", "default", own(`{"alg":"RS256"}`, `{"iss":"https://issuer.test","aud":[1,"shop"]}`), "Jwt payload [aud] field is not a string or string list", nil},
		{"an audience in another case", "default", own(`{"alg":"RS256"}`, `{"iss":"https://issuer.test","aud":"Shop"}`), "Audiences in Jwt are not allowed", nil},
		{"an audience as a URL", "default", own(`{"alg":"RS256"}`, `{"iss":"https://issuer.test","aud":"https://shop/"}`), "", nil},
		{"an audience that is longer", "default", own(`{"alg":"RS256"}`, `{"iss":"https://issuer.test","aud":"https://shop/x"}`), "Audiences in Jwt are not allowed", nil},
		{"an issuer with a slash", "default", own(`{"alg":"RS256"}`, `{"iss":"https://issuer.test/","aud":"shop"}`), "Jwt issuer is not configured", nil},
		{"a second iss", "default", with(of(`,"iss":"https://other.test"`)), unparsed, nil},
		{"a key that the token brings", "default", with(raw("RS256", otherRSA, `{"alg":"RS256","jwk":`+jwk("", &otherRSA.PublicKey)+`}`, `{"iss":"https://issuer.test","aud":"shop"}`)), unverified, nil},
		{"a place of keys that the token names", "default", with(raw("RS256", otherRSA, `{"alg":"RS256","jku":"http://keys.test/","x5u":"http://keys.test/"}`, `{"iss":"https://issuer.test","aud":"shop"}`)), unverified, nil},
		{"an unknown issuer", "default", with(raw("RS256", rsaKey, `{"alg":"RS256"}`, `{"iss":"https://evil.test","aud":"shop"}`)), "Jwt issuer is not configured", nil},
		{"no issuer", "default", with(raw("RS256", rsaKey, `{"alg":"RS256"}`, `{"aud":"shop"}`)), "Jwt issuer is not configured", nil},
		{"the key of the other issuer", "default", with(raw("RS256", otherRSA, `{"alg":"RS256"}`, `{"iss":"https://issuer.test","aud":"shop"}`)), "Jwt verification fails", nil},
		{"the key of the other issuer, by its kid", "default", with(raw("RS256", otherRSA, `{"alg":"RS256","kid":"other"}`, `{"iss":"https://issuer.test","aud":"shop"}`)), "Jwks doesn't have key to match kid or alg from Jwt", nil},
		{"our key for the other issuer", "default", with(raw("RS256", rsaKey, `{"alg":"RS256"}`, `{"iss":"https://other.test"}`)), "Jwt verification fails", nil},
		{"an unknown kid", "default", with(raw("RS256", rsaKey, `{"alg":"RS256","kid":"x"}`, `{"iss":"https://issuer.test","aud":"shop"}`)), "Jwks doesn't have key to match kid or alg from Jwt", nil},
		{"none", "default", with(b64(`{"alg":"none"}`) + "." + strings.Split(valid, ".")[1] + "."), form, nil},
		{"none, with a signature", "default", with(raw("HS256", "", `{"alg":"none"}`, `{"iss":"https://issuer.test","aud":"shop"}`)), "Jwt header [alg] is not supported", nil},
		{"nOnE", "default", with(raw("HS256", "", `{"alg":"nOnE"}`, `{"iss":"https://issuer.test","aud":"shop"}`)), "Jwt header [alg] is not supported", nil},
		{"HS256 with the RSA key's PEM as secret", "default", with(raw("HS256", publicPEM(&rsaKey.PublicKey), `{"alg":"HS256","kid":"rsa"}`, `{"iss":"https://issuer.test","aud":"shop"}`)), "Jwt verification fails", nil},
		{"HS256 without a kid", "default", with(raw("HS256", publicPEM(&rsaKey.PublicKey), `{"alg":"HS256"}`, `{"iss":"https://issuer.test","aud":"shop"}`)), "Jwt verification fails", nil},
		{"None", "default", with(raw("HS256", "", `{"alg":"None"}`, `{"iss":"https://issuer.test","aud":"shop"}`)), "Jwt header [alg] is not supported", nil},
		{"alg in lower case", "default", own(`{"alg":"rs256"}`, `{"iss":"https://issuer.test","aud":"shop"}`), "Jwt header [alg] is not supported", nil},
		{"no alg", "default", own(`{"kid":"rsa"}`, `{"iss":"https://issuer.test","aud":"shop"}`), "Jwt header [alg] field is required and must be a string", nil},
		{"alg a list", "default", own(`{"alg":["RS256"]}`, `{"iss":"https://issuer.test","aud":"shop"}`), "Jwt header [alg] field is required and must be a string", nil},
		{"alg null", "default", own(`{"alg":null}`, `{"iss":"https://issuer.test","aud":"shop"}`), "Jwt header [alg] field is required and must be a string", nil},
		{"ES256 by an RSA key's kid", "default", with(raw("ES256", ecKeys["ES256"], `{"alg":"ES256","kid":"rsa"}`, `{"iss":"https://issuer.test","aud":"shop"}`)), unverified, nil},
		{"an ES256 signature in DER", "default", with(ecSigned("https://issuer.test", asDER)), unverified, nil},
		{"another key's signature", "default", with(raw("RS256", otherRSA, `{"alg":"RS256"}`, `{"iss":"https://issuer.test","aud":"shop"}`)), unverified, nil},
		{"unused bits in the last digit", "default", with(spareBits(valid)), unverified, nil},
		{"a truncated signature", "default", with(truncated(valid)), "Jwt verification fails", nil},
		{"expired", "default", with(of(`,"exp":` + around(-1))), "Jwt is expired", nil},
		{"exp now", "default", with(of(`,"exp":` + around(0))), "Jwt is expired", nil},
		{"expired long ago", "default", with(of(`,"exp":1`)), "Jwt is expired", nil},
		{"nbf now", "default", with(of(`,"nbf":` + around(0))), "", nil},
		{"exp a text", "default", with(of(`,"exp":"` + around(60) + `"`)), fmt.Sprintf(integer, "exp"), nil},
		{"exp null", "default", with(of(`,"exp":null`)), fmt.Sprintf(integer, "exp"), nil},
		{"exp negative", "default", with(of(`,"exp":-1`)), fmt.Sprintf(positive, "exp"), nil},
		{"exp endless", "default", with(of(`,"exp":1e300`)), fmt.Sprintf(positive, "exp"), nil},
		{"nbf a text", "default", with(of(`,"nbf":"1"`)), fmt.Sprintf(integer, "nbf"), nil},
		{"a second exp", "default", with(of(`,"exp":1,"exp":` + around(60))), unparsed, nil},
		{"in time", "default", with(of(`,"exp":` + around(60) + `,"nbf":` + around(-1))), "", nil},
		{"not yet valid", "default", with(of(`,"nbf":` + around(60))), "Jwt not yet valid", nil},
		{"expired within the skew", "skew", with(of(`,"exp":` + around(-30))), "", nil},
		{"expired beyond the skew", "skew", with(of(`,"exp":` + around(-90))), "Jwt is expired", nil},
		{"no exp where it must be there", "times", with(of(`,"nbf":1`)), `{"exp":"must be a number"}`, nil},
		{"exp and nbf where they must be there", "times", with(of(`,"nbf":1,"exp":` + around(60))), "", nil},
		{"too long", "short", with(of(`,"exp":` + around(400))), `{"exp":"exceeds maximum allowed expiration"}`, nil},
		{"one part", "default", with("x"), form, nil},
		{"a dot behind it", "default", with(valid + "."), form, nil},
		{"a line break from the query", "default", envoytest.Request{Path: "/?jwt=" + valid + "%0d%0ax-consumer-id:%20admin"}, form, nil},
		{"empty parts", "default", with(".." + valid), form, nil},
		{"four parts", "default", with(valid + ".x"), form, nil},
		{"padding", "default", with(valid + "="), form, nil},
		{"more than 16384 bytes", "default", with(strings.Repeat("x", 16385)), form, nil},
		{"HTTP/2", "default", envoytest.Request{HTTP2: true, Header: bearer(valid)}, "", nil},
		{"HTTP/2, a cookie in a line of its own", "everywhere", envoytest.Request{HTTP2: true, Header: []string{"cookie: a=b", "cookie: session=" + valid}}, "", nil},
		{"HEAD", "default", envoytest.Request{Method: "HEAD"}, "-", nil},
		{"HEAD with a token", "default", envoytest.Request{Method: "HEAD", Header: bearer(valid)}, "", nil},
		{"a preflight needs a token", "default", envoytest.Request{Method: "OPTIONS", Header: []string{"origin: https://a.test", "access-control-request-method: GET"}}, "Unauthorized", nil},
		{"OPTIONS needs a token", "default", envoytest.Request{Method: "OPTIONS"}, "Unauthorized", nil},
		{"OPTIONS without a token", "no preflight", envoytest.Request{Method: "OPTIONS", Header: []string{"x-consumer-id: forged", "x-claims: forged"}}, "", nil},
		{"OPTIONS with a wrong token", "no preflight", envoytest.Request{Method: "OPTIONS", Header: bearer("x")}, "", nil},
		{"forged headers", "default", envoytest.Request{Header: append(bearer(others), "x-claims: forged", "x-consumer-id: forged", "x-consumer-groups: forged", "x-anonymous-consumer: true")}, "", nil},
		{"a realm", "realm", envoytest.Request{}, "Unauthorized", nil},
		{"a realm and a wrong token", "realm", with("x"), form, nil},
		{"nobody is the anonymous one", "anonymous", envoytest.Request{}, "", guest},
		{"so is who has a wrong token", "anonymous", with(valid + "x"), "", guest},
		{"and who has two", "anonymous", envoytest.Request{Path: "/?jwt=" + second, Header: bearer(valid)}, "", guest},
		{"a token is a token", "anonymous", with(valid), "", nil},
	}
	for name, edit := range badSignatures {
		cases = append(cases, requestCase{name, "default", with(ecSigned("https://issuer.test", edit)), unverified, nil})
	}
	for algorithm, key := range ecKeys {
		cases = append(cases, requestCase{algorithm, "default", with(raw(algorithm, key, `{"alg":"`+algorithm+`","kid":"`+algorithm+`"}`, `{"iss":"https://issuer.test","aud":"shop"}`)), "", nil})
	}
	return cases
}

// ours is a header or metadata name that is not for the upstream.
const ours = "x-istio-plugins-jwt-"

func TestIssuers(t *testing.T) {
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			c := envoytest.Config{Chains: map[string][]part.Part{}}
			for name, text := range issuerChains {
				c.Chains[name] = parts(t, text)
			}
			envoy := envoytest.Start(t, version, c)
			for _, c := range issuerRequests() {
				t.Run(c.name, func(t *testing.T) {
					check(t, envoy, c, func(invalid bool) string {
						url := envoy.Gateway(c.chain).URL + "/"
						if path, _, _ := strings.Cut(c.request.Path, "?"); path != "" {
							url = envoy.Gateway(c.chain).URL + path
						}
						if c.chain == "realm" {
							url = "shop"
						}
						challenge := fmt.Sprintf("Bearer realm=%q", url)
						if invalid {
							challenge += `, error="invalid_token"`
						}
						return challenge
					})
				})
			}
			if log := envoy.Log(); strings.Contains(log, "failed:") || strings.Contains(log, "script log") {
				t.Errorf("something failed:\n%s", log)
			}

			claims := `{"iss":"https://issuer.test","aud":"shop","sub":"ärger"}`
			answer := envoy.Gateway("default").Get(t, "/", append(bearer(raw("RS256", rsaKey, `{"alg":"RS256"}`, claims)), "x-claims: forged")...)
			if got := answer.Upstream.Values("x-claims"); len(got) != 1 || string(must(base64.RawURLEncoding.DecodeString(got[0]))) != claims {
				t.Errorf("the upstream gets x-claims %q", got)
			}
			// Nobody's claims, and those of an issuer that has no header for them.
			others := raw("RS256", otherRSA, `{"alg":"RS256","kid":"other"}`, `{"iss":"https://other.test"}`)
			forged := []string{"x-claims: forged", "X_Claims: forged", "x.claims: forged", "x-claims: forged again"}
			for _, c := range []struct{ chain, method, token string }{
				{"no preflight", "OPTIONS", ""}, {"anonymous", "GET", ""}, {"anonymous", "GET", "a.b.c"}, {"anonymous", "GET", others}, {"default", "GET", others},
			} {
				answer := envoy.Gateway(c.chain).Do(t, envoytest.Request{Method: c.method, Header: append(bearer(c.token), forged...)})
				for _, line := range answer.Upstream.Header {
					if strings.Contains(line, "claims") || strings.HasPrefix(line, ours) {
						t.Errorf("%s %s: the upstream gets %s", c.chain, c.method, line)
					}
				}
			}
			good := bearer(raw("RS256", rsaKey, `{"alg":"RS256"}`, claims))
			for _, line := range envoy.Gateway("default").Get(t, "/", append(good, forged...)...).Upstream.Header {
				if strings.HasSuffix(line, "forged") || strings.HasSuffix(line, "forged again") {
					t.Errorf("the upstream gets %s", line)
				}
			}
		})
	}
}

// The header by which the filter gets the token is never a client's, and never the upstream's.
func TestHandingOver(t *testing.T) {
	valid := raw("RS256", rsaKey, `{"alg":"RS256"}`, `{"iss":"https://issuer.test","aud":"shop"}`)
	envoy := envoytest.Start(t, envoytest.Versions[0], envoytest.Config{Chains: map[string][]part.Part{
		"closed": parts(t, issuers("")), "anonymous": parts(t, issuers(`,"anonymous":"guest"`)), "no preflight": parts(t, issuers(`,"run_on_preflight":false`)),
	}})
	header := ours + "de7d1b721a1e0632" // of the instance "i"
	if !strings.Contains(string(parts(t, issuers(""))[0].(part.Lua).Config.JSON()), header) {
		t.Fatalf("the header is not %s any more", header)
	}
	if answer := envoy.Gateway("closed").Get(t, "/", header+": "+valid); answer.Status != 401 || answer.Message() != "Unauthorized" {
		t.Errorf("a client hands over a token: status %d %s", answer.Status, answer.Body)
	}
	for _, answer := range []*envoytest.Answer{
		envoy.Gateway("closed").Get(t, "/", append(bearer(valid), header+": x")...),
		envoy.Gateway("anonymous").Get(t, "/", header+": "+valid),
		envoy.Gateway("anonymous").Get(t, "/", append(bearer("a.b.c"), header+": "+valid)...),
		envoy.Gateway("no preflight").Do(t, envoytest.Request{Method: "OPTIONS", Header: append(bearer(valid), header+": "+valid)}),
	} {
		if answer.Upstream == nil {
			t.Fatalf("status %d %s", answer.Status, answer.Body)
		}
		if got := answer.Upstream.Values(header); got != nil {
			t.Errorf("the upstream gets %q", got)
		}
	}
}

// Two instances on one route do not mistake each other's findings for their own.
func TestTwoInstancesOfIssuers(t *testing.T) {
	of := func(instance, header, issuer string, public any) []part.Part {
		parts, problems := build(t, instance, `{"header_names":["`+header+`"],"issuers":[{"issuer":"`+issuer+`","jwks":`+jwks("k", public)+`}]}`)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		return parts
	}
	both := append(of("1", "first", "one", &rsaKey.PublicKey), of("2", "second", "two", &otherRSA.PublicKey)...)
	one, two := token("RS256", rsaKey, `{"iss":"one"}`), token("RS256", otherRSA, `{"iss":"two"}`)
	for _, version := range envoytest.Versions {
		gateway := envoytest.Start(t, version, envoytest.Config{Chains: map[string][]part.Part{"both": both}}).Gateway("both")
		for _, c := range []struct {
			first, second string
			status        int
		}{{one, two, 200}, {one, one, 401}, {two, two, 401}, {two, one, 401}, {one, "", 401}, {"", two, 401}} {
			if answer := gateway.Get(t, "/", "first: Bearer "+c.first, "second: Bearer "+c.second); answer.Status != c.status {
				t.Errorf("status %d %s, want %d", answer.Status, answer.Body, c.status)
			}
		}
	}
}

// A token of an issuer is enough for a plugin behind it that has an anonymous consumer, and the other way round.
func TestIssuersOrConsumers(t *testing.T) {
	byIssuer := parts(t, issuers(`,"anonymous":"guest","header_names":["first"]`))
	byConsumer := parts(t, `{"anonymous":"guest","header_names":["second"]}`)
	valid := raw("RS256", rsaKey, `{"alg":"RS256"}`, `{"iss":"https://issuer.test","aud":"shop"}`)
	envoy := envoytest.Start(t, envoytest.Versions[1], envoytest.Config{Chains: map[string][]part.Part{
		"issuer first": append(slices.Clone(byIssuer), byConsumer...), "consumer first": append(slices.Clone(byConsumer), byIssuer...),
	}})
	for _, chain := range []string{"issuer first", "consumer first"} {
		for _, c := range []struct {
			header []string
			want   []string
		}{
			{[]string{"first: Bearer " + valid}, nil},
			{[]string{"second: Bearer " + hs(`{"iss":"hs256"}`)}, alice("hs256")},
			{nil, guest},
			{[]string{"first: Bearer x", "second: Bearer x"}, guest},
		} {
			answer := envoy.Gateway(chain).Get(t, "/", c.header...)
			if answer.Upstream == nil || !slices.Equal(identity(answer.Upstream), c.want) {
				t.Errorf("%s, %.20q: status %d, upstream %+v", chain, c.header, answer.Status, answer.Upstream)
			}
		}
	}
}

// Envoy verifies more than Lua does: RSA-PSS and Ed25519.
func TestMoreAlgorithms(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ed := `{"kty":"OKP","crv":"Ed25519","x":"` + base64.RawURLEncoding.EncodeToString(public) + `"}`
	set := `{"keys":[` + jwk("rsa", &rsaKey.PublicKey) + `,` + ed + `]}`
	parts := parts(t, `{"issuers":[{"issuer":"i","jwks":`+set+`}]}`)
	signed := b64(`{"alg":"EdDSA"}`) + "." + b64(`{"iss":"i"}`)
	for _, version := range envoytest.Versions {
		gateway := envoytest.Start(t, version, envoytest.Config{Chains: map[string][]part.Part{"c": parts}}).Gateway("c")
		for _, text := range []string{signed + "." + b64(string(ed25519.Sign(private, []byte(signed)))), token("PS384", rsaKey, `{"iss":"i"}`)} {
			if answer := gateway.Get(t, "/", bearer(text)...); answer.Status != 200 {
				t.Errorf("Envoy %s, %s: status %d %s", version, text, answer.Status, answer.Body)
			}
		}
	}
}
