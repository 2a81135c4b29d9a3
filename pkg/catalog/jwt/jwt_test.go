package jwt_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/jwt"
	"github.com/istio-plugins/istio-plugins/pkg/consumer"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// Keys of the test. other is nobody's.
var (
	rsaKey   = must(rsa.GenerateKey(rand.Reader, 2048))
	otherRSA = must(rsa.GenerateKey(rand.Reader, 2048))
	ecKeys   = map[string]*ecdsa.PrivateKey{
		"ES256": must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		"ES384": must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)),
		"ES512": must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)),
	}
)

const unicodeSecret = "schlüssel-\xff\x00"

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func publicPEM(key any) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(key))}))
}

// sign returns the signature of a text by an algorithm. Of an elliptic curve it is r and s (RFC 7518 §3.4).
func sign(algorithm string, key any, text string) []byte {
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[algorithm[2:]]
	if algorithm[:2] == "HS" {
		mac := hmac.New(hash.New, []byte(key.(string)))
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
	h := hash.New()
	h.Write([]byte(text))
	digest := h.Sum(nil)
	switch algorithm[:2] {
	case "RS":
		return must(rsa.SignPKCS1v15(rand.Reader, key.(*rsa.PrivateKey), hash, digest))
	case "PS":
		return must(rsa.SignPSS(rand.Reader, key.(*rsa.PrivateKey), hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}))
	}
	k := key.(*ecdsa.PrivateKey)
	r, s, err := ecdsa.Sign(rand.Reader, k, digest)
	if err != nil {
		panic(err)
	}
	size := (k.Params().BitSize + 7) / 8
	return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
}

func b64(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// raw is a token of a header and claims as they are written, signed by an algorithm that the header need not name.
func raw(algorithm string, key any, header, claims string) string {
	signed := b64(header) + "." + b64(claims)
	return signed + "." + b64(string(sign(algorithm, key, signed)))
}

// token is a token with the usual header.
func token(algorithm string, key any, claims string) string {
	return raw(algorithm, key, `{"typ":"JWT","alg":"`+algorithm+`"}`, claims)
}

// hs is a token of alice.
func hs(claims string) string { return token("HS256", "secret", claims) }

// hugeKey has more digits than Envoy takes.
func hugeKey() *rsa.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), 20000)
	return &rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: 65537}
}

// around writes a time that is some seconds from now.
func around(seconds int64) string { return fmt.Sprint(time.Now().Unix() + seconds) }

// consumers: alice has a credential for each algorithm and one whose key is a number, bob one with a secret that is no
// UTF-8, encoded ones in base64, guest none. carol is of another namespace.
func consumers() *consumer.Index {
	person := func(namespace, name, customID string, credentials ...string) *pluginsv1alpha1.Consumer {
		return &pluginsv1alpha1.Consumer{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-" + name)},
			Spec:       pluginsv1alpha1.ConsumerSpec{Username: name + "-user", CustomID: customID, Credentials: credentials},
		}
	}
	secret := func(namespace, name string, data ...string) *corev1.Secret {
		s := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{pluginsv1alpha1.CredentialLabel: "jwt"}},
			Data:       map[string][]byte{"key": []byte(name)},
		}
		for i := 0; i < len(data); i += 2 {
			s.Data[data[i]] = []byte(data[i+1])
		}
		return s
	}
	rsaPEM := publicPEM(&rsaKey.PublicKey)
	pkcs1 := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)}))
	s := &snapshot.Snapshot{
		Secrets: []*corev1.Secret{
			secret("shop", "hs256", "secret", "secret"),
			secret("shop", "hs384", "secret", "secret", "algorithm", "HS384"),
			secret("shop", "hs512", "secret", "secret", "algorithm", "HS512"),
			// What is not for the algorithm does not count.
			secret("shop", "rs256", "rsa_public_key", rsaPEM, "algorithm", "RS256", "secret", "secret"),
			secret("shop", "rs384", "rsa_public_key", pkcs1, "algorithm", "RS384"),
			secret("shop", "rs512", "rsa_public_key", rsaPEM, "algorithm", "RS512"),
			secret("shop", "huge", "rsa_public_key", publicPEM(hugeKey()), "algorithm", "RS256"),
			secret("shop", "4711", "secret", "secret"),
			secret("shop", "1.50", "secret", "secret"),
			secret("shop", "12345678901234567890", "secret", "secret"),
			secret("shop", "unicode", "secret", unicodeSecret),
			secret("shop", "standard", "secret", base64.StdEncoding.EncodeToString([]byte("\xff\xfe\xfd>?"))),
			secret("shop", "url", "secret", base64.RawURLEncoding.EncodeToString([]byte("\xff\xfe\xfd>?"))),
			secret("partner", "carol", "secret", "secret"),
		},
		ReferenceGrants: []*gatewayv1.ReferenceGrant{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "partner", Name: "shop"},
			Spec: gatewayv1.ReferenceGrantSpec{
				From: []gatewayv1.ReferenceGrantFrom{{Group: "plugins.istio.io", Kind: "Plugin", Namespace: "shop"}},
				To:   []gatewayv1.ReferenceGrantTo{{Group: "plugins.istio.io", Kind: "Consumer"}},
			},
		}},
	}
	alices := []string{"huge", "hs256", "hs384", "hs512", "rs256", "rs384", "rs512", "4711", "1.50", "12345678901234567890"}
	for algorithm, key := range ecKeys {
		name := strings.ToLower(algorithm)
		alices = append(alices, name)
		s.Secrets = append(s.Secrets, secret("shop", name, "rsa_public_key", publicPEM(&key.PublicKey), "algorithm", algorithm))
	}
	slices.Sort(alices)
	s.Consumers = []*pluginsv1alpha1.Consumer{
		person("shop", "alice", "crm-4711", alices...), person("shop", "bob", "", "unicode", "standard", "url"),
		person("shop", "guest", ""), person("partner", "carol", "", "carol"),
	}
	index, findings := consumer.New(s)
	if len(findings) > 0 {
		panic(fmt.Sprint(findings))
	}
	return index
}

// build checks a config and makes its parts, as the instance of that name.
func build(t *testing.T, instance, text string) ([]part.Part, []string) {
	t.Helper()
	return catalogtest.Build(t, jwt.Builtin, builtin.Use{Plugin: "jwt", Instance: instance, Namespace: "shop", Consumers: consumers(), Services: catalogtest.Services(hosts...)}, text)
}

func parts(t *testing.T, text string) []part.Part {
	t.Helper()
	parts, problems := build(t, "i", text)
	if parts == nil {
		t.Fatalf("%s: %v", text, problems)
	}
	return parts
}

// expired is the warning that every config without exp in claims_to_verify has.
const expired = "warning claims_to_verify: does not have exp, so that expired tokens pass"

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		config string
		want   []string
	}{
		{`{}`, []string{expired}},
		{`{"claims_to_verify":["nbf"]}`, []string{expired}},
		{`{"claims_to_verify":["exp","nbf","exp"]}`, nil},
		{`{"claims_to_verify":["iat"]}`, []string{`claims_to_verify[0]: "iat" is not allowed, allowed are "exp", "nbf"`}},
		{`{"maximum_expiration":60}`, []string{"maximum_expiration: needs exp in claims_to_verify", expired}},
		{`{"maximum_expiration":31536001,"claims_to_verify":["exp"]}`, []string{"maximum_expiration: 31536001 is too large, at most 31536000"}},
		{`{"maximum_expiration":0.5,"claims_to_verify":["exp"]}`, nil},
		{`{"clock_skew_seconds":-1}`, []string{"clock_skew_seconds: -1 is too small, at least 0"}},
		{`{"uri_param_names":[],"header_names":[],"claims_to_verify":["exp"]}`, []string{"warning uri_param_names, cookie_names and header_names are all empty, so that no request has a token"}},
		{`{"header_names":["a b"]}`, []string{`header_names[0]: "a b" is no valid http header name`}},
		{`{"key_claim_name":""}`, []string{"key_claim_name: must not be shorter than 1 characters"}},
		{`{"realm":"a\nb"}`, []string{`realm: "a\nb" does not match ^[\x20-\x7e]*$`}},
		{`{"anonymous":"nobody","claims_to_verify":["exp"]}`, []string{"anonymous: anonymous consumer nobody is configured but doesn't exist"}},
		{`{"anonymous":"carol","consumers_from":["partner"],"claims_to_verify":["exp"]}`, nil},
		{`{"secret_is_base64":true,"claims_to_verify":["exp"]}`, []string{
			"warning secret_is_base64: the secret of a credential of consumer alice is no base64; its tokens are refused",
			"warning secret_is_base64: the secret of a credential of consumer bob is no base64; its tokens are refused",
		}},
		{`{"issuer":[]}`, []string{`issuer: unknown field, did you mean "issuers"?`}},
		{`{"issuers":[]}`, []string{"issuers: has 0 items, at least 1"}},
		{`{"issuers":[{"issuer":"a"}]}`, []string{"issuers[0]: needs jwks or jwks_uri: the issuer's keys, or where they are"}},
		{`{"issuers":[{"jwks":{}}]}`, []string{"issuers[0].issuer: is required"}},
		{`{"issuers":[{"issuer":"a","jwks":1}]}`, []string{"issuers[0].jwks: must be a map or a string, not a number"}},
		{`{"issuers":[{"issuer":"a","jwks":"{"}]}`, []string{"issuers[0].jwks: is no JSON Web Key Set, which is a JSON object with a list `keys`"}},
		{`{"issuers":[{"issuer":"a","jwks":{"keys":[]}}]}`, []string{"issuers[0].jwks: has no keys"}},
		{`{"issuers":[{"issuer":"a","jwks":{"keys":[{"kty":"oct","k":"AAAA"}]}}]}`, []string{"issuers[0].jwks: keys[0] is a secret, not a public key; give it to a Consumer, as a credential of type jwt"}},
		{`{"issuers":[{"issuer":"a","jwks":{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","d":"AQAB"}]}}]}`, []string{"issuers[0].jwks: keys[0] is a private key, which nobody but the issuer should have; take its public part"}},
		{`{"issuers":[{"issuer":"a","jwks":{"keys":[{"kty":"RSA","n":"A?","e":"AQAB"}]}}]}`, []string{"issuers[0].jwks: keys[0] needs n and e in base64url"}},
		{`{"issuers":[{"issuer":"a","jwks":{"keys":[{"kty":"EC","crv":"P-256","x":"AQAB","y":"AQAB"}]}}]}`, []string{"issuers[0].jwks: keys[0] needs x and y of a point on P-256 in base64url"}},
		{`{"issuers":[{"issuer":"a","jwks":{"keys":[{"kty":"EC","crv":"secp256k1"}]}}]}`, []string{`issuers[0].jwks: keys[0] has the crv "secp256k1", known are P-256, P-384 and P-521`}},
		{`{"issuers":[{"issuer":"a","jwks":{"keys":[{"kty":"OKP","crv":"X25519","x":"AQAB"}]}}]}`, []string{"issuers[0].jwks: keys[0] needs crv Ed25519, and x in base64url"}},
		{`{"issuers":[{"issuer":"a","jwks":{"keys":[{"kty":"RSA","false":"AQAB","e":"AQAB"}]}}]}`, []string{"issuers[0].jwks: keys[0] has a field true or false, which YAML makes of y and n: write them in quotes, or the key set as a JSON string"}},
		{`{"issuers":[{"issuer":"a","jwks":{"keys":[{"kty":"x"}]}}]}`, []string{`issuers[0].jwks: keys[0] has the kty "x", known are RSA, EC and OKP`}},
		{`{"issuers":[{"issuer":"a","jwks":` + jwks("k", &rsaKey.PublicKey) + `,"audiences":[]}]}`, []string{"issuers[0].audiences: has 0 items, at least 1"}},
		{`{"issuers":[{"issuer":"a","jwks":` + jwks("k", &rsaKey.PublicKey) + `}],"secret_is_base64":true}`, []string{"warning secret_is_base64: has no meaning beside issuers, whose keys are public"}},
	} {
		_, got := build(t, "i", c.config)
		slices.Sort(got)
		if diff := cmp.Diff(c.want, slices.Compact(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.config, diff)
		}
	}
}

// chains are the configs that the requests below meet.
var chains = map[string]string{
	"default":      `{}`,
	"everywhere":   `{"uri_param_names":["jwt","token"],"cookie_names":["session"],"header_names":["authorization","x-token"]}`,
	"nowhere":      `{"uri_param_names":[],"header_names":["x-token"]}`,
	"realm":        `{"realm":"my \"shop\""}`,
	"kid":          `{"key_claim_name":"kid"}`,
	"base64":       `{"secret_is_base64":true}`,
	"times":        `{"claims_to_verify":["exp","nbf"]}`,
	"exp":          `{"claims_to_verify":["exp"]}`,
	"nbf":          `{"claims_to_verify":["nbf"]}`,
	"short":        `{"claims_to_verify":["exp"],"maximum_expiration":300}`,
	"skew":         `{"claims_to_verify":["exp","nbf"],"clock_skew_seconds":60}`,
	"anonymous":    `{"anonymous":"guest-user"}`,
	"no preflight": `{"run_on_preflight":false}`,
	"partner":      `{"consumers_from":["partner"]}`,
}

// bearer is a header line.
func bearer(token string) []string { return []string{"Authorization: Bearer " + token} }

// Who the upstream is told to be asked by.
func alice(key string) []string {
	return []string{"x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: " + key}
}

func bob(key string) []string {
	return []string{"x-consumer-id: uid-bob", "x-consumer-username: bob-user", "x-credential-identifier: " + key}
}

var guest = []string{"x-anonymous-consumer: true", "x-consumer-id: uid-guest", "x-consumer-username: guest-user"}

type requestCase struct {
	name    string
	chain   string
	request envoytest.Request
	// body of the 401, or its message if it does not begin with a brace; empty where the request goes upstream.
	refused string
	// upstream is what it sees of identity headers.
	upstream []string
}

// requests are made anew for each Envoy, because of the times in their tokens.
func requests() []requestCase {
	get := func(header ...string) envoytest.Request { return envoytest.Request{Header: header} }
	with := func(token string) envoytest.Request { return get(bearer(token)...) }
	valid := hs(`{"iss":"hs256"}`)
	second := hs(`{"iss":"hs256","jti":2}`)
	parts := strings.Split(valid, ".")
	head, claims, signature := parts[0], parts[1], parts[2]
	signedHead := func(header string) string { return raw("HS256", "secret", header, `{"iss":"hs256"}`) }
	rsaPEM := publicPEM(&rsaKey.PublicKey)
	rsaDER := string(must(x509.MarshalPKIXPublicKey(&rsaKey.PublicKey)))
	confused := func(key string) envoytest.Request {
		return with(raw("HS256", key, `{"typ":"JWT","alg":"HS256"}`, `{"iss":"rs256"}`))
	}
	es256 := token("ES256", ecKeys["ES256"], `{"iss":"es256"}`)
	cases := []requestCase{
		// Where tokens are.
		{"no token", "default", envoytest.Request{}, "Unauthorized", nil},
		{"a token in Authorization", "default", with(valid), "", alice("hs256")},
		{"the scheme in lower case", "default", get("authorization: bearer " + valid), "", alice("hs256")},
		{"the scheme in upper case, more blanks", "default", get("authorization: BEARER   " + valid), "", alice("hs256")},
		{"another scheme", "default", get("authorization: Basic " + valid), "Unauthorized", nil},
		{"another scheme, with Bearer in it", "default", get("authorization: Basic bearer " + valid), "Unauthorized", nil},
		{"no scheme", "default", get("authorization: " + valid), "Unauthorized", nil},
		{"a scheme that begins like it", "default", get("authorization: BearerX " + valid), "Unauthorized", nil},
		{"no blank behind the scheme", "default", get("authorization: Bearer" + valid), "Unauthorized", nil},
		{"the scheme alone", "default", get("authorization: Bearer"), "Unauthorized", nil},
		{"an empty header", "default", get("authorization:"), "Unauthorized", nil},
		{"repeated Authorization ends at the comma", "default", get("authorization: Bearer "+valid, "authorization: Bearer x.y.z"), "", alice("hs256")},
		{"blanks before the comma", "default", get("authorization: Bearer " + valid + " \t , Bearer x.y.z"), "", alice("hs256")},
		{"repeated Authorization, the second one good", "default", get("authorization: Bearer x.y.z", "authorization: Bearer "+valid), "Bad token; invalid JSON", nil},
		{"the query", "default", envoytest.Request{Path: "/a?b=c&jwt=" + valid}, "", alice("hs256")},
		{"the query, encoded", "default", envoytest.Request{Path: "/?j%77t=" + strings.ReplaceAll(valid, ".", "%2E")}, "", alice("hs256")},
		{"an empty argument", "default", envoytest.Request{Path: "/?jwt="}, "Unauthorized", nil},
		{"an argument without value", "default", envoytest.Request{Path: "/?jwt"}, "Unauthorized", nil},
		{"the name of an argument is exact", "default", envoytest.Request{Path: "/?JWT=" + valid}, "Unauthorized", nil},
		{"an empty argument beside a token", "default", envoytest.Request{Path: "/?jwt=", Header: bearer(valid)}, "", alice("hs256")},
		{"another argument", "default", envoytest.Request{Path: "/?token=" + valid}, "Unauthorized", nil},
		{"no cookies by default", "default", get("cookie: jwt=" + valid), "Unauthorized", nil},
		{"a second argument", "everywhere", envoytest.Request{Path: "/?token=" + valid}, "", alice("hs256")},
		{"a cookie", "everywhere", get("cookie: a=b; session=" + valid), "", alice("hs256")},
		{"a cookie in a line of its own", "everywhere", get("cookie: a=b", "cookie: session="+valid), "", alice("hs256")},
		{"a cookie, HTTP/2", "everywhere", envoytest.Request{HTTP2: true, Header: []string{"cookie: a=b", "cookie: session=" + valid}}, "", alice("hs256")},
		{"a cookie in quotes", "everywhere", get(`cookie: session="` + valid + `"`), "Bad token; invalid JSON", nil},
		{"repeated, the first one counts", "everywhere", get("x-token: Bearer "+valid, "x-token: Bearer "+second), "", alice("hs256")},
		{"an empty cookie", "everywhere", get("cookie: session="), "Unauthorized", nil},
		{"the name of a cookie is exact", "everywhere", get("cookie: Session=" + valid), "Unauthorized", nil},
		{"another header", "everywhere", get("x-token: Bearer " + valid), "", alice("hs256")},
		{"another header needs the scheme, too", "everywhere", get("x-token: " + valid), "Unauthorized", nil},
		{"only another header", "nowhere", get("x-token: bearer " + valid), "", alice("hs256")},
		{"not the usual places", "nowhere", envoytest.Request{Path: "/?jwt=" + valid, Header: bearer(valid)}, "Unauthorized", nil},
		{"one token everywhere is one", "everywhere", envoytest.Request{Path: "/?jwt=" + valid + "&token=" + valid + "&jwt=" + valid,
			Header: []string{"authorization: Bearer " + valid, "cookie: session=" + valid, "x-token: bearer " + valid}}, "", alice("hs256")},
		{"two in the query", "everywhere", envoytest.Request{Path: "/?jwt=" + valid + "&jwt=" + second}, "Multiple tokens provided", nil},
		{"two in two arguments", "everywhere", envoytest.Request{Path: "/?jwt=" + valid + "&token=" + second}, "Multiple tokens provided", nil},
		{"query and header", "default", envoytest.Request{Path: "/?jwt=" + second, Header: bearer(valid)}, "Multiple tokens provided", nil},
		{"three, two of them alike", "everywhere", envoytest.Request{Path: "/?jwt=" + valid, Header: []string{"authorization: Bearer " + second, "cookie: session=" + valid}}, "Multiple tokens provided", nil},
		{"cookie and header", "everywhere", get("cookie: session="+second, "authorization: Bearer "+valid), "Multiple tokens provided", nil},
		{"the hundredth argument", "default", envoytest.Request{Path: "/?" + strings.Repeat("a&", 99) + "jwt=" + valid}, "", alice("hs256")},
		{"the argument behind the hundredth", "default", envoytest.Request{Path: "/?" + strings.Repeat("a&", 100) + "jwt=" + valid}, "Unauthorized", nil},

		// Algorithms.
		{"HS384", "default", with(token("HS384", "secret", `{"iss":"hs384"}`)), "", alice("hs384")},
		{"HS512", "default", with(token("HS512", "secret", `{"iss":"hs512"}`)), "", alice("hs512")},
		{"RS256", "default", with(token("RS256", rsaKey, `{"iss":"rs256"}`)), "", alice("rs256")},
		{"RS384", "default", with(token("RS384", rsaKey, `{"iss":"rs384"}`)), "", alice("rs384")},
		{"RS512", "default", with(token("RS512", rsaKey, `{"iss":"rs512"}`)), "", alice("rs512")},
		{"ES256", "default", with(es256), "", alice("es256")},
		{"ES384", "default", with(token("ES384", ecKeys["ES384"], `{"iss":"es384"}`)), "", alice("es384")},
		{"ES512", "default", with(token("ES512", ecKeys["ES512"], `{"iss":"es512"}`)), "", alice("es512")},
		{"a secret that is no UTF-8", "default", with(token("HS256", unicodeSecret, `{"iss":"unicode"}`)), "", bob("unicode")},
		{"a secret in base64", "base64", with(token("HS256", "\xff\xfe\xfd>?", `{"iss":"standard"}`)), "", bob("standard")},
		{"a secret in base64url", "base64", with(token("HS256", "\xff\xfe\xfd>?", `{"iss":"url"}`)), "", bob("url")},
		{"the text of a secret in base64 is not the secret", "base64", with(token("HS256", "__79Pj8", `{"iss":"url"}`)), "Invalid signature", nil},
		{"a secret that is no base64", "base64", with(token("HS256", unicodeSecret, `{"iss":"unicode"}`)), "Invalid key/secret", nil},
		{"a public key that Envoy does not take", "default", with(token("RS256", rsaKey, `{"iss":"huge"}`)), "Invalid key/secret", nil},
		{"base64 does not concern public keys", "base64", with(token("RS256", rsaKey, `{"iss":"rs256"}`)), "", alice("rs256")},

		// Algorithm confusion.
		{"HS256 with the RSA key's PEM as secret", "default", confused(rsaPEM), "Invalid algorithm", nil},
		{"HS256 with the PEM without its last line break", "default", confused(strings.TrimSpace(rsaPEM)), "Invalid algorithm", nil},
		{"HS256 with the DER as secret", "default", confused(rsaDER), "Invalid algorithm", nil},
		{"HS256 with the base64 of the DER as secret", "default", confused(base64.StdEncoding.EncodeToString([]byte(rsaDER))), "Invalid algorithm", nil},
		{"HS256 with the credential's unused secret", "default", confused("secret"), "Invalid algorithm", nil},
		{"an HS256 signature that says RS256", "default", with(raw("HS256", rsaPEM, `{"alg":"RS256"}`, `{"iss":"rs256"}`)), "Invalid signature", nil},
		{"RS256 against an HS256 credential", "default", with(token("RS256", rsaKey, `{"iss":"hs256"}`)), "Invalid algorithm", nil},
		{"HS512 against an HS256 credential", "default", with(token("HS512", "secret", `{"iss":"hs256"}`)), "Invalid algorithm", nil},
		{"RS512 against an RS256 credential", "default", with(token("RS512", rsaKey, `{"iss":"rs256"}`)), "Invalid algorithm", nil},
		{"ES256 against an RS256 credential", "default", with(token("ES256", ecKeys["ES256"], `{"iss":"rs256"}`)), "Invalid algorithm", nil},
		{"none", "default", with(b64(`{"alg":"none"}`) + "." + claims + "."), "Bad token; invalid alg", nil},
		{"none, with a signature", "default", with(signedHead(`{"alg":"none"}`)), "Bad token; invalid alg", nil},
		{"None", "default", with(signedHead(`{"alg":"None"}`)), "Bad token; invalid alg", nil},
		{"NONE", "default", with(signedHead(`{"alg":"NONE"}`)), "Bad token; invalid alg", nil},
		{"nOnE", "default", with(signedHead(`{"alg":"nOnE"}`)), "Bad token; invalid alg", nil},
		{"none, escaped", "default", with(signedHead(`{"alg":"\u006eone"}`)), "Bad token; invalid alg", nil},
		{"an empty alg", "default", with(signedHead(`{"alg":""}`)), "Bad token; invalid alg", nil},
		{"no alg", "default", with(signedHead(`{"typ":"JWT"}`)), "Bad token; invalid alg", nil},
		{"alg null", "default", with(signedHead(`{"alg":null}`)), "Bad token; invalid alg", nil},
		{"alg a list", "default", with(signedHead(`{"alg":["HS256"]}`)), "Bad token; invalid alg", nil},
		{"alg a number", "default", with(signedHead(`{"alg":256}`)), "Bad token; invalid alg", nil},
		{"alg in lower case", "default", with(signedHead(`{"alg":"hs256"}`)), "Bad token; invalid alg", nil},
		{"alg with a blank", "default", with(signedHead(`{"alg":"HS256 "}`)), "Bad token; invalid alg", nil},
		{"Alg is not alg", "default", with(signedHead(`{"Alg":"HS256"}`)), "Bad token; invalid alg", nil},
		{"PS256 is not supported", "default", with(token("PS256", rsaKey, `{"iss":"rs256"}`)), "Bad token; invalid alg", nil},
		{"a PS256 signature that says RS256", "default", with(raw("PS256", rsaKey, `{"alg":"RS256"}`, `{"iss":"rs256"}`)), "Invalid signature", nil},
		{"duplicate alg, the last one wins", "default", with(signedHead(`{"alg":"none","alg":"HS256"}`)), "", alice("hs256")},
		{"duplicate alg, none last", "default", with(signedHead(`{"alg":"HS256","alg":"none"}`)), "Bad token; invalid alg", nil},
		{"a place of keys in the header is not asked", "default", with(raw("RS256", otherRSA, `{"alg":"RS256","jku":"http://keys.test/","x5u":"http://keys.test/"}`, `{"iss":"rs256"}`)), "Invalid signature", nil},
		{"a certificate in the header is not used", "default", with(raw("RS256", otherRSA, `{"alg":"RS256","x5c":["`+base64.StdEncoding.EncodeToString(must(x509.MarshalPKIXPublicKey(&otherRSA.PublicKey)))+`"]}`, `{"iss":"rs256"}`)), "Invalid signature", nil},
		{"a kid does not choose the key", "default", with(raw("HS256", unicodeSecret, `{"alg":"HS256","kid":"unicode"}`, `{"iss":"hs256"}`)), "Invalid signature", nil},
		{"none for an RSA key", "default", with(b64(`{"alg":"none"}`) + "." + b64(`{"iss":"rs256"}`) + "."), "Bad token; invalid alg", nil},
		{"an HS256 signature that says ES256", "default", with(raw("HS256", publicPEM(&ecKeys["ES256"].PublicKey), `{"alg":"ES256"}`, `{"iss":"es256"}`)), "Invalid signature", nil},
		{"HS256 with the EC key's PEM as secret", "default", with(raw("HS256", publicPEM(&ecKeys["ES256"].PublicKey), `{"alg":"HS256"}`, `{"iss":"es256"}`)), "Invalid algorithm", nil},
		{"HS256 with the RSA key's modulus as secret", "default", confused(string(rsaKey.N.Bytes())), "Invalid algorithm", nil},
		{"HS256 with no secret, for an RSA key", "default", confused(""), "Invalid algorithm", nil},
		{"RS256 against an ES256 credential", "default", with(token("RS256", rsaKey, `{"iss":"es256"}`)), "Invalid algorithm", nil},
		{"ES384 against an ES256 credential", "default", with(token("ES384", ecKeys["ES384"], `{"iss":"es256"}`)), "Invalid algorithm", nil},
		{"EdDSA is not supported", "default", with(raw("HS256", "secret", `{"alg":"EdDSA"}`, `{"iss":"hs256"}`)), "Bad token; invalid alg", nil},
		{"alg with NUL", "default", with(signedHead(`{"alg":"HS256\u0000"}`)), "Bad token; invalid alg", nil},
		{"the name of a Lua method as alg", "default", with(signedHead(`{"alg":"__index"}`)), "Bad token; invalid alg", nil},
		{"a key in the header is not used", "default", with(raw("RS256", otherRSA, `{"alg":"RS256","jwk":`+jwk("", &otherRSA.PublicKey)+`}`, `{"iss":"rs256"}`)), "Invalid signature", nil},

		// Signatures.
		{"another secret", "default", with(token("HS256", "Secret", `{"iss":"hs256"}`)), "Invalid signature", nil},
		{"an empty secret", "default", with(token("HS256", "", `{"iss":"hs256"}`)), "Invalid signature", nil},
		{"another RSA key", "default", with(token("RS256", otherRSA, `{"iss":"rs256"}`)), "Invalid signature", nil},
		{"another EC key", "default", with(raw("ES256", must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), `{"alg":"ES256"}`, `{"iss":"es256"}`)), "Invalid signature", nil},
		{"claims of another token", "default", with(head + "." + b64(`{"iss":"hs256","admin":true}`) + "." + signature), "Invalid signature", nil},
		{"a header of another token", "default", with(b64(`{"alg":"HS256","kid":"x"}`) + "." + claims + "." + signature), "Invalid signature", nil},
		{"an empty signature", "default", with(head + "." + claims + "."), "Invalid signature", nil},
		{"an empty RS256 signature", "default", with(b64(`{"alg":"RS256"}`) + "." + b64(`{"iss":"rs256"}`) + "."), "Invalid signature", nil},
		{"an empty ES256 signature", "default", with(b64(`{"alg":"ES256"}`) + "." + b64(`{"iss":"es256"}`) + "."), "Invalid signature", nil},
		{"an ES256 signature in DER", "default", with(ecSigned("es256", asDER)), "Invalid signature", nil},
		{"an ES256 signature with its other s, which is as good", "default", with(ecSigned("es256", otherS)), "", alice("es256")},
		{"an RS256 signature with a zero in front", "default", with(rsSigned("\x00", "")), "Invalid signature", nil},
		{"an RS256 signature with a zero behind", "default", with(rsSigned("", "\x00")), "Invalid signature", nil},
		{"an RS256 signature of nothing but zeros", "default", with(b64(`{"alg":"RS256"}`) + "." + b64(`{"iss":"rs256"}`) + "." + b64(strings.Repeat("\x00", 256))), "Invalid signature", nil},
		{"a truncated signature", "default", with(truncated(valid)), "Invalid signature", nil},
		{"a truncated RS256 signature", "default", with(truncated(token("RS256", rsaKey, `{"iss":"rs256"}`))), "Invalid signature", nil},
		{"a signature with more behind it", "default", with(valid + "AAAA"), "Invalid signature", nil},
		{"the hex of a signature", "default", with(head + "." + claims + "." + b64(fmt.Sprintf("%x", sign("HS256", "secret", head+"."+claims)))), "Invalid signature", nil},
		{"a padded signature", "default", with(valid + "="), "Bad token; invalid signature", nil},
		{"unused bits in the last digit", "default", with(spareBits(valid)), "Bad token; invalid signature", nil},
		{"a signature in the other alphabet", "default", with(head + "." + claims + ".+/" + signature[2:]), "Bad token; invalid signature", nil},
		{"a dot behind it", "default", with(valid + "."), "Bad token; invalid signature", nil},
		{"dots behind it", "default", with(valid + ".."), "Bad token; invalid signature", nil},
		{"four parts", "default", with(valid + "." + signature), "Bad token; invalid signature", nil},
		{"five parts, as of an encrypted token", "default", with(head + ".." + claims + "." + claims + "." + signature), "Bad token; invalid JSON", nil},
		{"a dot in front", "default", with("." + valid), "Bad token; invalid JSON", nil},
		{"two parts", "default", with(head + "." + claims), "Bad token; invalid JSON", nil},
		{"one part", "default", with(head), "Bad token; invalid JSON", nil},
		{"dots only", "default", with(".."), "Bad token; invalid JSON", nil},
		{"a blank inside", "default", with(head + "." + claims + ". " + signature), "Bad token; invalid signature", nil},
		{"a line break from the query", "default", envoytest.Request{Path: "/?jwt=" + valid + "%0d%0ax-consumer-id:%20admin"}, "Bad token; invalid signature", nil},
		{"NUL from the query", "default", envoytest.Request{Path: "/?jwt=" + valid + "%00"}, "Bad token; invalid signature", nil},

		// Texts.
		{"the header is no base64", "default", with("e!" + valid), "Bad token; invalid JSON", nil},
		{"the header is no JSON", "default", with(raw("HS256", "secret", `{"alg":"HS256"`, `{"iss":"hs256"}`)), "Bad token; invalid JSON", nil},
		{"more behind the header", "default", with(signedHead(`{"alg":"HS256"}{}`)), "Bad token; invalid JSON", nil},
		{"the header is no object", "default", with(signedHead(`["HS256"]`)), "Bad token; invalid JSON", nil},
		{"the header is null", "default", with(signedHead(`null`)), "Bad token; invalid JSON", nil},
		{"the claims are no JSON", "default", with(hs(`{iss:"hs256"}`)), "Bad token; invalid JSON", nil},
		{"the claims are empty", "default", with(hs(``)), "Bad token; invalid JSON", nil},
		{"the claims are null", "default", with(hs(`null`)), "Bad token; invalid claims", nil},
		{"the claims are false", "default", with(hs(`false`)), "Bad token; invalid claims", nil},
		{"the claims are a list", "default", with(hs(`[{"iss":"hs256"}]`)), "Bad token; invalid claims", nil},
		{"the claims are a text", "default", with(hs(`"iss"`)), "Bad token; invalid claims", nil},
		{"claims that are no UTF-8", "default", with(hs("{\"iss\":\"hs256\",\"a\":\"\xff\"}")), "Bad token; invalid JSON", nil},
		{"claims nested too deeply", "default", with(hs(`{"iss":"hs256","a":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`)), "Bad token; invalid JSON", nil},
		{"Unicode claims", "default", with(hs(`{"iss":"hs256","name":"Ärger \ud83d\ude00"}`)), "", alice("hs256")},
		{"white space around claims", "default", with(hs(" \r\n\t{\"iss\" : \"hs256\"} ")), "", alice("hs256")},
		{"a token of 16384 bytes", "default", with(sized(16384)), "", alice("hs256")},
		{"a token of 16385 bytes", "default", with(sized(16385)), "Bad token; invalid JSON", nil},
		{"a token of 50 KiB", "default", with(sized(50 << 10)), "Bad token; invalid JSON", nil},

		// The claim with the key.
		{"no iss", "default", with(hs(`{"sub":"hs256"}`)), "No mandatory 'iss' in claims", nil},
		{"an empty iss", "default", with(hs(`{"iss":""}`)), "Invalid 'iss' in claims", nil},
		{"iss null", "default", with(hs(`{"iss":null}`)), "Invalid 'iss' in claims", nil},
		{"iss false", "default", with(hs(`{"iss":false}`)), "Invalid 'iss' in claims", nil},
		{"iss a list", "default", with(hs(`{"iss":["hs256"]}`)), "Invalid 'iss' in claims", nil},
		{"iss an object", "default", with(hs(`{"iss":{"hs256":1}}`)), "Invalid 'iss' in claims", nil},
		{"an unknown iss", "default", with(hs(`{"iss":"nobody"}`)), "No credentials found for given 'iss'", nil},
		{"iss in another case", "default", with(hs(`{"iss":"HS256"}`)), "No credentials found for given 'iss'", nil},
		{"the name of a Lua method", "default", with(hs(`{"iss":"__index"}`)), "No credentials found for given 'iss'", nil},
		{"somebody else's iss", "default", with(hs(`{"iss":"unicode"}`)), "Invalid signature", nil},
		{"iss in the token's header", "default", with(raw("HS256", "secret", `{"alg":"HS256","iss":"hs256"}`, `{}`)), "", alice("hs256")},
		{"claims go before the header", "default", with(raw("HS256", "secret", `{"alg":"HS256","iss":"hs256"}`, `{"iss":"nobody"}`)), "No credentials found for given 'iss'", nil},
		{"null in claims goes before the header", "default", with(raw("HS256", "secret", `{"alg":"HS256","iss":"hs256"}`, `{"iss":null}`)), "Invalid 'iss' in claims", nil},
		{"duplicate iss, the last one wins", "default", with(hs(`{"iss":"nobody","iss":"hs256"}`)), "", alice("hs256")},
		{"duplicate iss, the last one is unknown", "default", with(hs(`{"iss":"hs256","iss":"nobody"}`)), "No credentials found for given 'iss'", nil},
		{"iss a number", "default", with(hs(`{"iss":4711}`)), "", alice("4711")},
		{"iss a number, by its text", "default", with(hs(`{"iss":1.50}`)), "", alice("1.50")},
		{"iss a number of another text", "default", with(hs(`{"iss":1.5}`)), "No credentials found for given 'iss'", nil},
		{"iss a large number", "default", with(hs(`{"iss":12345678901234567890}`)), "", alice("12345678901234567890")},
		{"kid", "kid", with(raw("HS256", "secret", `{"alg":"HS256","kid":"hs256"}`, `{"iss":"nobody"}`)), "", alice("hs256")},
		{"kid in claims", "kid", with(hs(`{"kid":"hs256"}`)), "", alice("hs256")},
		{"no kid", "kid", with(valid), "No mandatory 'kid' in claims", nil},
		{"an unknown kid", "kid", with(raw("HS256", "secret", `{"alg":"HS256","kid":"../hs256"}`, `{}`)), "No credentials found for given 'kid'", nil},

		// Times.
		{"expired, not verified", "default", with(hs(`{"iss":"hs256","exp":1}`)), "", alice("hs256")},
		{"not yet valid, not verified", "default", with(hs(`{"iss":"hs256","nbf":99999999999}`)), "", alice("hs256")},
		{"in time", "times", with(hs(`{"iss":"hs256","exp":` + around(60) + `,"nbf":` + around(-60) + `}`)), "", alice("hs256")},
		{"exp now", "exp", with(hs(`{"iss":"hs256","exp":` + around(0) + `}`)), `{"exp":"token expired"}`, nil},
		{"exp in the past", "exp", with(hs(`{"iss":"hs256","exp":` + around(-1) + `}`)), `{"exp":"token expired"}`, nil},
		{"nbf now", "nbf", with(hs(`{"iss":"hs256","nbf":` + around(0) + `}`)), "", alice("hs256")},
		{"nbf in the future", "nbf", with(hs(`{"iss":"hs256","nbf":` + around(60) + `}`)), `{"nbf":"token not valid yet"}`, nil},
		{"neither", "times", with(hs(`{"iss":"hs256","exp":1,"nbf":` + around(60) + `}`)), `{"exp":"token expired","nbf":"token not valid yet"}`, nil},
		{"no exp", "exp", with(valid), `{"exp":"must be a number"}`, nil},
		{"neither is there", "times", with(valid), `{"exp":"must be a number","nbf":"must be a number"}`, nil},
		{"exp a text", "exp", with(hs(`{"iss":"hs256","exp":"` + around(60) + `"}`)), `{"exp":"must be a number"}`, nil},
		{"exp null", "exp", with(hs(`{"iss":"hs256","exp":null}`)), `{"exp":"must be a number"}`, nil},
		{"exp in the header does not count", "exp", with(raw("HS256", "secret", `{"alg":"HS256","exp":`+around(60)+`}`, `{"iss":"hs256"}`)), `{"exp":"must be a number"}`, nil},
		{"a second exp, expired", "exp", with(hs(`{"iss":"hs256","exp":` + around(60) + `,"exp":1}`)), `{"exp":"token expired"}`, nil},
		{"exp negative", "exp", with(hs(`{"iss":"hs256","exp":-1}`)), `{"exp":"token expired"}`, nil},
		{"exp with a fraction", "exp", with(hs(`{"iss":"hs256","exp":` + around(60) + `.5}`)), "", alice("hs256")},
		{"exp with an exponent", "exp", with(hs(`{"iss":"hs256","exp":1e1}`)), `{"exp":"token expired"}`, nil},
		{"an expired token with a wrong signature", "exp", with(token("HS256", "x", `{"iss":"hs256","exp":1}`)), "Invalid signature", nil},
		{"short enough", "short", with(hs(`{"iss":"hs256","exp":` + around(290) + `}`)), "", alice("hs256")},
		{"too long", "short", with(hs(`{"iss":"hs256","exp":` + around(400) + `}`)), `{"exp":"exceeds maximum allowed expiration"}`, nil},
		{"endless", "short", with(hs(`{"iss":"hs256","exp":1e999}`)), `{"exp":"exceeds maximum allowed expiration"}`, nil},
		{"expired within the skew", "skew", with(hs(`{"iss":"hs256","exp":` + around(-30) + `,"nbf":` + around(30) + `}`)), "", alice("hs256")},
		{"expired beyond the skew", "skew", with(hs(`{"iss":"hs256","exp":` + around(-60) + `,"nbf":0}`)), `{"exp":"token expired"}`, nil},
		{"not yet valid, beyond the skew", "skew", with(hs(`{"iss":"hs256","exp":` + around(300) + `,"nbf":` + around(200) + `}`)), `{"nbf":"token not valid yet"}`, nil},

		// The rest.
		{"HTTP/2", "default", envoytest.Request{HTTP2: true, Header: bearer(valid)}, "", alice("hs256")},
		{"HTTP/2 without", "default", envoytest.Request{HTTP2: true}, "Unauthorized", nil},
		{"HEAD", "default", envoytest.Request{Method: "HEAD"}, "-", nil},
		{"HEAD with a token", "default", envoytest.Request{Method: "HEAD", Header: bearer(valid)}, "", alice("hs256")},
		{"OPTIONS needs a token", "default", envoytest.Request{Method: "OPTIONS"}, "Unauthorized", nil},
		{"a preflight needs a token", "default", envoytest.Request{Method: "OPTIONS", Header: []string{"origin: https://a.test", "access-control-request-method: GET"}}, "Unauthorized", nil},
		{"OPTIONS without a token", "no preflight", envoytest.Request{Method: "OPTIONS", Header: []string{"x-consumer-id: forged", "X-Consumer-Groups: forged"}}, "", nil},
		{"GET still needs one", "no preflight", envoytest.Request{}, "Unauthorized", nil},
		{"forged identity", "default", get("authorization: Bearer "+token("HS256", unicodeSecret, `{"iss":"unicode"}`), "X-Consumer-ID: x", "x-consumer-custom-id: x",
			"X-Consumer-Username: x", "x-credential-identifier: x", "x-anonymous-consumer: true", "x-consumer-groups: admins"), "", bob("unicode")},
		{"nobody is the anonymous one", "anonymous", envoytest.Request{}, "", guest},
		{"so is who has a wrong token", "anonymous", with(valid + "x"), "", guest},
		{"and who has two", "anonymous", envoytest.Request{Path: "/?jwt=" + second, Header: bearer(valid)}, "", guest},
		{"a token is who it is", "anonymous", get("authorization: Bearer "+valid, "X-Anonymous-Consumer: true"), "", alice("hs256")},
		{"a consumer of another namespace", "partner", with(hs(`{"iss":"carol"}`)), "", []string{"x-consumer-id: uid-carol", "x-consumer-username: carol-user", "x-credential-identifier: carol"}},
		{"who is not one here", "default", with(hs(`{"iss":"carol"}`)), "No credentials found for given 'iss'", nil},
		{"a realm, without a token", "realm", envoytest.Request{}, "Unauthorized", nil},
		{"a realm, with a wrong one", "realm", with("x"), "Bad token; invalid JSON", nil},
	}
	for name, edit := range badSignatures {
		cases = append(cases, requestCase{name, "default", with(ecSigned("es256", edit)), "Invalid signature", nil})
	}
	return cases
}

// truncated is a token whose signature lacks its last bytes.
func truncated(token string) string {
	at := strings.LastIndexByte(token, '.') + 1
	signature := must(base64.RawURLEncoding.DecodeString(token[at:]))
	return token[:at] + b64(string(signature[:len(signature)-3]))
}

// spareBits is the same token to a decoder that does not mind what the last digit of 32 bytes should leave zero.
func spareBits(token string) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(digits, token[len(token)-1])
	return token[:len(token)-1] + digits[last+1:last+2]
}

// sized is alice's token of that many bytes. A claim is filled, and the header where that would be a digit too much.
func sized(size int) string {
	for filler := 3 * size / 4; ; filler-- {
		for _, kid := range []string{"", "k", "kk"} {
			text := raw("HS256", "secret", `{"alg":"HS256","kid":"`+kid+`"}`, `{"iss":"hs256","a":"`+strings.Repeat("x", max(filler, 0))+`"}`)
			if len(text) == size {
				return text
			}
		}
	}
}

// ecSigned is an ES256 token whose signature is edited: r and s go in.
func ecSigned(issuer string, edit func(r, s []byte) []byte) string {
	signed := b64(`{"alg":"ES256","kid":"ES256"}`) + "." + b64(`{"iss":"`+issuer+`","aud":"shop"}`)
	signature := sign("ES256", ecKeys["ES256"], signed)
	return signed + "." + b64(string(edit(signature[:32], signature[32:])))
}

// rsSigned is an RS256 token with more bytes around its signature.
func rsSigned(before, behind string) string {
	signed := b64(`{"alg":"RS256"}`) + "." + b64(`{"iss":"rs256"}`)
	return signed + "." + b64(before+string(sign("RS256", rsaKey, signed))+behind)
}

var (
	zeros = make([]byte, 32)
	// order of the curve of ES256: r and s are less.
	order = elliptic.P256().Params().N.Bytes()
)

// badSignatures are not r and s, each of 32 bytes and more than nought.
var badSignatures = map[string]func(r, s []byte) []byte{
	"r zero":                 func(_, s []byte) []byte { return slices.Concat(zeros, s) },
	"s zero":                 func(r, _ []byte) []byte { return slices.Concat(r, zeros) },
	"r and s zero":           func(_, _ []byte) []byte { return slices.Concat(zeros, zeros) },
	"r of the order":         func(_, s []byte) []byte { return slices.Concat(order, s) },
	"r and s of the order":   func(_, _ []byte) []byte { return slices.Concat(order, order) },
	"s and r":                func(r, s []byte) []byte { return slices.Concat(s, r) },
	"r and s as large as is": func(_, _ []byte) []byte { return slices.Repeat([]byte{0xff}, 64) },
	"r and s of 33 bytes":    func(r, s []byte) []byte { return slices.Concat(zeros[:1], r, zeros[:1], s) },
	"r and s of 66 bytes":    func(r, s []byte) []byte { return slices.Concat(zeros, zeros[:2], r, zeros, zeros[:2], s) },
	"a byte less":            func(r, s []byte) []byte { return slices.Concat(r, s[:31]) },
	"a byte more":            func(r, s []byte) []byte { return slices.Concat(r, s, zeros[:1]) },
	"r alone":                func(r, _ []byte) []byte { return r },
	"one byte":               func(r, _ []byte) []byte { return r[:1] },
	"twice":                  func(r, s []byte) []byte { return slices.Concat(r, s, r, s) },
}

// asDER is a signature as everybody but JSON Web Signatures writes it.
func asDER(r, s []byte) []byte {
	return must(asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(r), new(big.Int).SetBytes(s)}))
}

// otherS is the second s that belongs to each r.
func otherS(r, s []byte) []byte {
	n := elliptic.P256().Params().N
	return append(slices.Clone(r), new(big.Int).Sub(n, new(big.Int).SetBytes(s)).FillBytes(make([]byte, 32))...)
}

// identity is what the upstream sees of headers about who calls.
func identity(r *envoytest.Received) []string {
	var out []string
	for _, line := range r.Header {
		if strings.HasPrefix(line, "x-anonymous-consumer:") || strings.HasPrefix(line, "x-consumer-") || strings.HasPrefix(line, "x-credential-") {
			out = append(out, line)
		}
	}
	return out
}

// check compares an answer with what a case expects.
func check(t *testing.T, envoy *envoytest.Envoy, c requestCase, challenge func(invalid bool) string) {
	t.Helper()
	answer := envoy.Gateway(c.chain).Do(t, c.request)
	if c.refused == "" {
		if answer.Upstream == nil {
			t.Fatalf("status %d %s, did not get upstream\n%s", answer.Status, answer.Body, envoy.Log())
		}
		if diff := cmp.Diff(c.upstream, identity(answer.Upstream)); diff != "" {
			t.Errorf("upstream (-want +got):\n%s", diff)
		}
		for _, line := range c.request.Header {
			if name, value, _ := strings.Cut(line, ": "); strings.EqualFold(name, "authorization") && answer.Upstream.Value(name) == "" {
				t.Errorf("the upstream did not get %s: %s", name, value)
			}
		}
		return
	}
	if answer.Status != 401 || answer.Upstream != nil {
		t.Fatalf("status %d %s, upstream %v", answer.Status, answer.Body, answer.Upstream)
	}
	if got, want := answer.Header.Get("WWW-Authenticate"), challenge(c.refused != "Unauthorized" && c.refused != "-"); got != want {
		t.Errorf("WWW-Authenticate: %s, want %s", got, want)
	}
	if got := answer.Header.Get("Content-Type"); got != "application/json; charset=utf-8" {
		t.Errorf("Content-Type: %s", got)
	}
	want := c.refused
	if want == "-" {
		want = ""
	} else if !strings.HasPrefix(want, "{") {
		want = string(must(json.Marshal(map[string]string{"message": want})))
	}
	if answer.Body != want {
		t.Errorf("body %s, want %s", answer.Body, want)
	}
}

func TestRequests(t *testing.T) {
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			c := envoytest.Config{Chains: map[string][]part.Part{}}
			for name, text := range chains {
				c.Chains[name] = parts(t, text)
			}
			envoy := envoytest.Start(t, version, c)
			for _, c := range requests() {
				t.Run(c.name, func(t *testing.T) {
					check(t, envoy, c, func(invalid bool) string {
						challenge := "Bearer"
						if c.chain == "realm" {
							challenge = `Bearer realm="my \"shop\""`
						}
						switch {
						case invalid && c.chain == "realm":
							return challenge + `, error="invalid_token"`
						case invalid:
							return challenge + ` error="invalid_token"`
						}
						return challenge
					})
				})
			}
			if log := envoy.Log(); strings.Contains(log, "failed:") || strings.Contains(log, "script log") {
				t.Errorf("something failed:\n%s", log)
			}
		})
	}
}

// Signatures with an elliptic curve are numbers whose DER has many forms: zeros in front, a first bit that is set.
func TestManyECSignatures(t *testing.T) {
	for _, version := range envoytest.Versions {
		envoy := envoytest.Start(t, version, envoytest.Config{Chains: map[string][]part.Part{"default": parts(t, `{}`)}})
		for algorithm, key := range ecKeys {
			for i := range 100 {
				signed := token(algorithm, key, fmt.Sprintf(`{"iss":"%s","jti":%d}`, strings.ToLower(algorithm), i))
				if answer := envoy.Gateway("default").Get(t, "/", bearer(signed)...); answer.Status != 200 {
					t.Fatalf("%s: status %d %s for %s", algorithm, answer.Status, answer.Body, signed)
				}
			}
		}
	}
}

// Several instances on one route must each verify with their own key, though Envoy remembers the first that is imported.
func TestTwoInstances(t *testing.T) {
	owner := func(name string, key *rsa.PrivateKey) []part.Part {
		s := &snapshot.Snapshot{
			Consumers: []*pluginsv1alpha1.Consumer{{
				ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-" + name)},
				Spec:       pluginsv1alpha1.ConsumerSpec{Username: name, Credentials: []string{"key"}},
			}},
			Secrets: []*corev1.Secret{{
				ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "key", Labels: map[string]string{pluginsv1alpha1.CredentialLabel: "jwt"}},
				Data:       map[string][]byte{"key": []byte("issuer"), "algorithm": []byte("RS256"), "rsa_public_key": []byte(publicPEM(&key.PublicKey))},
			}},
		}
		index, findings := consumer.New(s)
		if len(findings) > 0 {
			t.Fatal(findings)
		}
		header := fmt.Sprintf(`{"header_names":["%s"]}`, name)
		// Another namespace, so that the tables have different names.
		in := renamed{index, "shop", name}
		return catalogtest.Parts(t, jwt.Builtin, builtin.Use{Plugin: "jwt", Namespace: name, Consumers: in}, header)
	}
	first, second := owner("first", rsaKey), owner("second", otherRSA)
	one, other := token("RS256", rsaKey, `{"iss":"issuer"}`), token("RS256", otherRSA, `{"iss":"issuer"}`)
	for _, version := range envoytest.Versions {
		gateway := envoytest.Start(t, version, envoytest.Config{Chains: map[string][]part.Part{"both": append(first, second...)}}).Gateway("both")
		for _, c := range []struct {
			first, second string
			status        int
		}{{one, other, 200}, {one, one, 401}, {other, other, 401}, {other, one, 401}} {
			answer := gateway.Get(t, "/", "first: Bearer "+c.first, "second: Bearer "+c.second)
			if answer.Status != c.status {
				t.Errorf("status %d %s, want %d", answer.Status, answer.Body, c.status)
			}
			if c.status == 200 && answer.Upstream.Value("x-consumer-username") != "second" {
				t.Errorf("the upstream is told %v", identity(answer.Upstream))
			}
		}
	}
}

// Times are compared to the second: exp is the first at which a token has expired, nbf the first at which it is valid.
func TestBoundaries(t *testing.T) {
	consumers := map[string]string{"0": `{"claims_to_verify":["exp","nbf"]}`, "60": chains["skew"]}
	issuers := map[string]string{"0": issuerChains["times"], "60": issuers(`,"claims_to_verify":["exp","nbf"],"clock_skew_seconds":60`)}
	c := envoytest.Config{Chains: map[string][]part.Part{}}
	for skew, text := range consumers {
		c.Chains["consumers "+skew], c.Chains["issuers "+skew] = parts(t, text), parts(t, issuers[skew])
	}
	catalogtest.OnEachWith(t, c, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct {
			skew     string
			exp, nbf int64
			status   int
		}{
			{"0", 1, 0, 200}, {"0", 0, 0, 401}, {"0", 1, 1, 401},
			{"60", -59, 60, 200}, {"60", -60, 60, 401}, {"60", -59, 61, 401},
		} {
			for _, whose := range []string{"consumers", "issuers"} {
				catalogtest.InOneSecond(t, func(now time.Time) error {
					times := fmt.Sprintf(`"exp":%d,"nbf":%d}`, now.Unix()+c.exp, now.Unix()+c.nbf)
					signed := hs(`{"iss":"hs256",` + times)
					if whose == "issuers" {
						signed = raw("RS256", rsaKey, `{"alg":"RS256"}`, `{"iss":"https://issuer.test","aud":"shop",`+times)
					}
					if answer := envoy.Gateway(whose+" "+c.skew).Get(t, "/", bearer(signed)...); answer.Status != c.status {
						return fmt.Errorf("%s, skew %s, exp %+d, nbf %+d: status %d %s", whose, c.skew, c.exp, c.nbf, answer.Status, answer.Body)
					}
					return nil
				})
			}
		}
	})
}

// renamed are the consumers of a namespace under the name of another.
type renamed struct {
	builtin.Consumers
	real, name string
}

func (r renamed) In(_ string, from []string, kind string) (*builtin.Credentials, []builtin.Problem) {
	found, problems := r.Consumers.In(r.real, from, kind)
	copied := *found
	copied.ID = kind + "/" + r.name
	return &copied, problems
}

func TestGRPC(t *testing.T) {
	gateway := envoytest.Run(t, parts(t, `{"claims_to_verify":["exp"]}`))
	for text, want := range map[string]string{
		"":                               "Unauthorized",
		hs(`{"iss":"hs256"}`):            "exp: must be a number",
		hs(`{"iss":"hs256","exp":1}`):    "exp: token expired",
		token("HS256", "x", `{"iss":1}`): "No credentials found for given 'iss'",
	} {
		request := envoytest.Request{Method: "POST", HTTP2: true, Header: append(bearer(text), "content-type: application/grpc")}
		answer := gateway.Do(t, request)
		if answer.Status != 200 || answer.Header.Get("grpc-status") != "16" || answer.Header.Get("grpc-message") != want {
			t.Errorf("status %d, headers %v, want %q", answer.Status, answer.Header, want)
		}
	}
}

// Routes hold the name of the table only, and no public key's Secret more than the public key.
func TestTableHoldsWhatIsNeeded(t *testing.T) {
	table := parts(t, `{}`)[0].(part.Lua).Config["known"].(part.Shared)
	if other := parts(t, `{"realm":"x"}`)[0].(part.Lua).Config["known"].(part.Shared); table.Name != other.Name {
		t.Errorf("two configs of one namespace have tables %q and %q", table.Name, other.Name)
	}
	credentials := table.Table["credentials"].(map[string]any)
	der := base64.StdEncoding.EncodeToString(must(x509.MarshalPKIXPublicKey(&rsaKey.PublicKey)))
	want := map[string]any{"algorithm": "RS256", "public_key": der, "consumer": json.Number("1")}
	if diff := cmp.Diff(want, credentials["rs256"]); diff != "" {
		t.Errorf("rs256 (-want +got):\n%s", diff)
	}
}

// jwk is a public key as JSON.
func jwk(kid string, public any) string {
	fields := map[string]string{"kid": kid}
	switch key := public.(type) {
	case *rsa.PublicKey:
		fields["kty"], fields["e"] = "RSA", "AQAB"
		fields["n"] = base64.RawURLEncoding.EncodeToString(key.N.Bytes())
	case *ecdsa.PublicKey:
		size := (key.Params().BitSize + 7) / 8
		fields["kty"], fields["crv"] = "EC", key.Params().Name
		point := must(key.Bytes())[1:]
		fields["x"], fields["y"] = base64.RawURLEncoding.EncodeToString(point[:size]), base64.RawURLEncoding.EncodeToString(point[size:])
	}
	return string(must(json.Marshal(fields)))
}

func jwks(kid string, public any) string { return `{"keys":[` + jwk(kid, public) + `]}` }
