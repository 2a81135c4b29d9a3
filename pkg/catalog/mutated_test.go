package catalog_test

import (
	"crypto/ed25519"
	crand "crypto/rand"
	"encoding/base64"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// mutated is a text with some of its bytes changed, left out, repeated or exchanged for those of alphabet.
func mutated(r *rand.Rand, text, alphabet string) string {
	for range 1 + r.IntN(3) {
		at := r.IntN(len(text) + 1)
		end := min(len(text), at+r.IntN(4))
		other := string(alphabet[r.IntN(len(alphabet))])
		switch r.IntN(4) {
		case 0:
			text = text[:at] + other + text[end:]
		case 1:
			text = text[:at] + text[end:]
		case 2:
			text = text[:at] + strings.Repeat(text[at:end], 1+r.IntN(3)) + text[at:]
		case 3:
			text = text[:at] + other + text[at:]
		}
	}
	return text
}

// Credentials that are nearly right are those of nobody or of whom they were, and none makes a plugin fail: under FailOpen a
// request would pass then.
func TestMutatedCredentials(t *testing.T) {
	public, private, err := ed25519.GenerateKey(crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	consumers := people(t)
	chains := map[string][]part.Part{
		"key": chainOf(t, consumers, `key-auth {}`), "basic": chainOf(t, consumers, `basic-auth {}`),
		"jwt": chainOf(t, consumers, `jwt {}`), "hmac": chainOf(t, consumers, `hmac-auth {}`),
		"issuer": chainOf(t, consumers, `jwt {issuers: [{issuer: jwt, jwks: {keys: [{kty: OKP, crv: Ed25519, x: "`+encode(string(public))+`"}]}}]}`),
	}
	const visible = "aZ09\"\\,;:=%+-_./ \t\x80\xff{}[]()<>'~"
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		r := rand.New(rand.NewPCG(1, 2))
		refused := 0
		for range 400 {
			for _, name := range []string{"key", "basic", "hmac", "jwt", "jwt, signed", "issuer"} {
				name, signs := strings.CutSuffix(name, ", signed")
				request, who := login("secret", name), name
				switch {
				case name == "issuer":
					who = "" // no Consumer
					text := encode(mutated(r, `{"alg":"EdDSA","typ":"JWT"}`, visible)) + "." + encode(mutated(r, `{"iss":"jwt","exp":4e9,"a":[true,null]}`, visible))
					request.Path = "/?jwt=" + text + "." + encode(string(ed25519.Sign(private, []byte(text))))
				case signs:
					text := encode(mutated(r, `{"alg":"HS256","typ":"JWT"}`, visible)) + "." + encode(mutated(r, `{"iss":"jwt","exp":1.5e2,"a":[true,null]}`, visible))
					request.Path = "/?jwt=" + text + "." + encode(string(signed("secret", text)))
				case name == "jwt":
					request.Path = "/?jwt=" + mutated(r, strings.TrimPrefix(request.Path, "/?jwt="), "aZ09-_.%&=+~")
				default:
					header, value, _ := strings.Cut(request.Header[1], ": ")
					request.Header[1] = header + ": " + mutated(r, value, visible)
				}
				answer := envoy.Gateway(name).Do(t, request)
				switch {
				case answer.Status == 200 && answer.Upstream.Value("x-consumer-username") == who:
					// A blank more, or a scheme in another case.
				case answer.Status == 401 && answer.Upstream == nil:
					refused++
				default:
					t.Errorf("%q %q: status %d %s", request.Path, request.Header, answer.Status, answer.Body)
				}
			}
		}
		if refused < 2000 {
			t.Errorf("only %d of 2400 credentials were wrong, which tests little", refused)
		}
		if log := envoy.Log(); strings.Contains(log, "failed:") || strings.Contains(log, "script log") {
			t.Errorf("something failed:\n%s", log)
		}
	})
}
