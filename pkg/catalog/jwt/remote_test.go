package jwt_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	jwtauthnv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// hosts are those of the tests' servers of keys.
var hosts = []string{"keys.test", "other.test", "rotating.test", "late.test", "waiting.test", "slow.test", "wrong.test", "empty.test", "down.test", "unknown.test"}

func TestRemoteConfig(t *testing.T) {
	of := func(fields string) string { return `{"issuers":[{"issuer":"a",` + fields + `}]}` }
	for _, c := range []struct {
		fields string
		want   []string
	}{
		{`"jwks_uri":"http://keys.test"`, nil},
		{`"jwks_uri":"http://keys.test:81/a?b=c","cache_duration":"24h","timeout":"5m"`, nil},
		{`"jwks_uri":"https://keys.test/a"`, []string{"issuers[0].jwks_uri: ServiceEntry / has no port 443; its ports: 80, 81"}},
		{`"jwks_uri":"http://gone.test/a"`, []string{`issuers[0].jwks_uri: there is no Service test/gone, nor a ServiceEntry with the host "gone.test"`}},
		{`"jwks_uri":"http://keys.test:0/a"`, []string{"issuers[0].jwks_uri: has the port 0, which is not between 1 and 65535"}},
		{`"jwks_uri":"http://keys.test:65616/a"`, []string{"issuers[0].jwks_uri: has the port 65616, which is not between 1 and 65535"}},
		{`"jwks_uri":"http://keys.test:x/a"`, []string{"issuers[0].jwks_uri: is no URL such as https://login.example.com/keys"}},
		{`"jwks_uri":"http:///a"`, []string{"issuers[0].jwks_uri: is no URL such as https://login.example.com/keys"}},
		{`"jwks_uri":"http://a:b@keys.test/a"`, []string{"issuers[0].jwks_uri: has a username, which would not be sent"}},
		{`"jwks_uri":"ftp://keys.test/a"`, []string{`issuers[0].jwks_uri: "ftp://keys.test/a" does not match ^https?://[!-~]+$`}},
		{`"jwks_uri":"http://keys.test/a b"`, []string{`issuers[0].jwks_uri: "http://keys.test/a b" does not match ^https?://[!-~]+$`}},
		{`"jwks_uri":"http://keys.test","jwks":` + jwks("k", &rsaKey.PublicKey), []string{"issuers[0]: has both jwks and jwks_uri: only one of them can hold the keys"}},
		{`"jwks_uri":"http://keys.test","cache_duration":"0s"`, []string{"issuers[0].cache_duration: 0s is not between 1s and 24h"}},
		{`"jwks_uri":"http://keys.test","cache_duration":"300"`, []string{`issuers[0].cache_duration: "300" is no duration such as 250ms or 1.5s`}},
		{`"jwks_uri":"http://keys.test","timeout":"6m"`, []string{"issuers[0].timeout: 6m is not between 1ms and 5m"}},
	} {
		_, got := build(t, "i", of(c.fields))
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.fields, diff)
		}
	}
}

func TestURIAsItIsSent(t *testing.T) {
	for text, want := range map[string][2]string{
		"http://KEYS.test":                  {"http://KEYS.test/", "outbound|80||keys.test"},
		"http://keys.test?a=b":              {"http://keys.test/?a=b", "outbound|80||keys.test"},
		"http://keys.test:81/%7Ba%7D?b=/#c": {"http://keys.test:81/%7Ba%7D?b=/", "outbound|81||keys.test"},
		"https://keys.test:80/a":            {"https://keys.test:80/a", "outbound|80||keys.test"},
	} {
		native := parts(t, `{"issuers":[{"issuer":"a","jwks_uri":"`+text+`"}]}`)[1].(part.Native)
		uri := native.Config.(*jwtauthnv3.JwtAuthentication).Providers["0"].GetRemoteJwks().HttpUri
		if got := [2]string{uri.Uri, uri.GetCluster()}; got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
		if native.State != part.PerPlugin {
			t.Errorf("%s: the filter forgets its keys when another changes", text)
		}
	}
}

// server publishes keys.
type server struct {
	address string
	mu      sync.Mutex
	answer  http.HandlerFunc
	// asked gets a value for each request that was answered.
	asked chan struct{}
}

func publish(t *testing.T, answer http.HandlerFunc) *server {
	s := &server{answer: answer, asked: make(chan struct{}, 1000)}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		answer := s.answer
		s.mu.Unlock()
		answer(w, r)
		s.asked <- struct{}{}
	}))
	s.address = h.Listener.Addr().String()
	t.Cleanup(h.CloseClientConnections) // for those that hang
	t.Cleanup(h.Close)
	return s
}

// set changes the answer.
func (s *server) set(answer http.HandlerFunc) {
	s.mu.Lock()
	s.answer = answer
	s.mu.Unlock()
}

// next waits until a request after this call was answered.
func (s *server) next(t *testing.T) {
	t.Helper()
	for len(s.asked) > 0 {
		<-s.asked
	}
	select {
	case <-s.asked:
	case <-time.After(20 * time.Second):
		t.Fatal("nobody asks for keys")
	}
}

func text(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
}

func fails(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }

func hangs(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// each runs a test on each version, with servers by host and chains by name.
func each(t *testing.T, chains map[string]string, servers map[string]http.HandlerFunc, test func(*testing.T, *envoytest.Envoy, map[string]*server)) {
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			c := envoytest.Config{Chains: map[string][]part.Part{}, Clusters: map[string]string{"outbound|80||down.test": envoytest.Nobody}}
			for name, text := range chains {
				c.Chains[name] = parts(t, text)
			}
			running := map[string]*server{}
			for host, answer := range servers {
				running[host] = publish(t, answer)
				c.Clusters["outbound|80||"+host] = running[host].address
			}
			test(t, envoytest.Start(t, version, c), running)
		})
	}
}

const unavailable = "Keys of the token's issuer are not available"

func expect(t *testing.T, name string, answer *envoytest.Answer, status int, message string) {
	t.Helper()
	if answer.Status != status || (answer.Upstream != nil) != (status == 200) || status != 200 && answer.Message() != message {
		t.Errorf("%s: status %d %s, upstream %v; want %d %s", name, answer.Status, answer.Body, answer.Upstream != nil, status, message)
	}
}

// rs is a token of an issuer, signed with a key that is called kid.
func rs(issuer, kid string, key any) string {
	return raw("RS256", key, `{"alg":"RS256","kid":"`+kid+`"}`, `{"iss":"`+issuer+`","aud":"shop"}`)
}

func TestRemoteKeys(t *testing.T) {
	keys := []string{jwk("rsa", &rsaKey.PublicKey)}
	for algorithm, key := range ecKeys {
		keys = append(keys, jwk(algorithm, &key.PublicKey))
	}
	chains := map[string]string{"c": `{"issuers":[
		{"issuer":"one","jwks_uri":"http://keys.test/keys","audiences":["shop"]},
		{"issuer":"two","jwks_uri":"http://other.test/keys"},
		{"issuer":"three","jwks":` + jwks("rsa", &rsaKey.PublicKey) + `}]}`}
	servers := map[string]http.HandlerFunc{
		"keys.test":  text(`{"keys":[` + strings.Join(keys, ",") + `]}`),
		"other.test": text(jwks("other", &otherRSA.PublicKey)),
	}
	each(t, chains, servers, func(t *testing.T, envoy *envoytest.Envoy, _ map[string]*server) {
		gateway := envoy.Gateway("c")
		valid := rs("one", "rsa", rsaKey)
		for _, c := range []struct{ name, token, refused string }{
			{"RS256", valid, ""},
			{"no kid", raw("RS256", rsaKey, `{"alg":"RS256"}`, `{"iss":"one","aud":"shop"}`), ""},
			{"the other issuer", rs("two", "other", otherRSA), ""},
			{"keys in the config beside them", rs("three", "rsa", rsaKey), ""},
			{"a wrong audience", raw("RS256", rsaKey, `{"alg":"RS256"}`, `{"iss":"one","aud":"x"}`), "Audiences in Jwt are not allowed"},
			{"an unknown issuer", rs("x", "rsa", rsaKey), "Jwt issuer is not configured"},
			{"the key of the other issuer", rs("one", "rsa", otherRSA), "Jwt verification fails"},
			{"the key of the other issuer, by its kid", rs("one", "other", otherRSA), "Jwks doesn't have key to match kid or alg from Jwt"},
			{"our key for the other issuer", rs("two", "other", rsaKey), "Jwt verification fails"},
			{"an unknown kid", rs("one", "x", rsaKey), "Jwks doesn't have key to match kid or alg from Jwt"},
			{"none", b64(`{"alg":"none"}`) + "." + strings.Split(valid, ".")[1] + ".", "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"},
			{"none, with a signature", raw("HS256", "", `{"alg":"none"}`, `{"iss":"one","aud":"shop"}`), "Jwt header [alg] is not supported"},
			{"HS256 with the public key as secret", raw("HS256", publicPEM(&rsaKey.PublicKey), `{"alg":"HS256","kid":"rsa"}`, `{"iss":"one","aud":"shop"}`), "Jwt verification fails"},
			{"expired", raw("RS256", rsaKey, `{"alg":"RS256"}`, `{"iss":"one","aud":"shop","exp":1}`), "Jwt is expired"},
		} {
			status := 200
			if c.refused != "" {
				status = 401
			}
			expect(t, c.name, gateway.Get(t, "/", bearer(c.token)...), status, c.refused)
		}
		for algorithm, key := range ecKeys {
			token := raw(algorithm, key, `{"alg":"`+algorithm+`","kid":"`+algorithm+`"}`, `{"iss":"one","aud":"shop"}`)
			expect(t, algorithm, gateway.Get(t, "/", bearer(token)...), 200, "")
		}
		expect(t, "no token", gateway.Get(t, "/"), 401, "Unauthorized")
		if log := envoy.Log(); strings.Contains(log, "failed:") || strings.Contains(log, "script log") {
			t.Errorf("something failed:\n%s", log)
		}
	})
}

// New keys come and old ones go with the next fetch, and the last ones stay where there is none.
func TestKeysChange(t *testing.T) {
	chains := map[string]string{"c": `{"issuers":[{"issuer":"one","jwks_uri":"http://rotating.test","cache_duration":"1s"}]}`}
	servers := map[string]http.HandlerFunc{"rotating.test": text(jwks("old", &rsaKey.PublicKey))}
	each(t, chains, servers, func(t *testing.T, envoy *envoytest.Envoy, servers map[string]*server) {
		gateway, keys := envoy.Gateway("c"), servers["rotating.test"]
		before, after := bearer(rs("one", "old", rsaKey)), bearer(rs("one", "new", otherRSA))
		expect(t, "before", gateway.Get(t, "/", before...), 200, "")
		keys.set(text(jwks("new", &otherRSA.PublicKey)))
		for {
			answer := gateway.Get(t, "/", after...)
			if answer.Status == 200 {
				break
			}
			expect(t, "a key that is not known yet", answer, 401, "Jwks doesn't have key to match kid or alg from Jwt")
			keys.next(t)
		}
		expect(t, "a key that is gone", gateway.Get(t, "/", before...), 401, "Jwks doesn't have key to match kid or alg from Jwt")
		keys.set(fails)
		keys.next(t)
		envoy.WaitLog(t, "failed")
		expect(t, "the issuer is down", gateway.Get(t, "/", after...), 200, "")
	})
}

// Without keys nobody passes who has a token, and the first request after they come does.
func TestKeysThatAreNotThere(t *testing.T) {
	chains := map[string]string{}
	for _, host := range []string{"late", "slow", "wrong", "empty", "down", "unknown"} {
		issuers := `"issuers":[{"issuer":"one","jwks_uri":"http://` + host + `.test","timeout":"50ms"},{"issuer":"two","jwks":` + jwks("rsa", &rsaKey.PublicKey) + `}]`
		chains[host] = `{` + issuers + `}`
		chains[host+" anonymous"] = `{"anonymous":"guest",` + issuers + `}`
	}
	servers := map[string]http.HandlerFunc{
		"late.test": fails, "slow.test": hangs, "wrong.test": text(`{"keys":[{"kty":"RSA"}]}`),
		"empty.test": func(http.ResponseWriter, *http.Request) {},
	}
	each(t, chains, servers, func(t *testing.T, envoy *envoytest.Envoy, servers map[string]*server) {
		valid, other := bearer(rs("one", "rsa", rsaKey)), bearer(rs("two", "rsa", rsaKey))
		for chain := range chains {
			anonymous := strings.HasSuffix(chain, "anonymous")
			for i := range 3 {
				expect(t, fmt.Sprint(chain, i), envoy.Gateway(chain).Get(t, "/", valid...), 503, unavailable)
			}
			expect(t, chain+", another issuer", envoy.Gateway(chain).Get(t, "/", other...), 200, "")
			if anonymous {
				expect(t, chain+", no token", envoy.Gateway(chain).Get(t, "/"), 200, "")
			} else {
				expect(t, chain+", no token", envoy.Gateway(chain).Get(t, "/"), 401, "Unauthorized")
				expect(t, chain+", expired", envoy.Gateway(chain).Get(t, "/", bearer(raw("RS256", rsaKey, `{"alg":"RS256"}`, `{"iss":"one","exp":1}`))...), 401, "Jwt is expired")
			}
		}
		servers["late.test"].set(text(jwks("rsa", &rsaKey.PublicKey)))
		expect(t, "late", envoy.Gateway("late").Get(t, "/", valid...), 200, "")
		expect(t, "late, not ours", envoy.Gateway("late").Get(t, "/", bearer(rs("one", "rsa", otherRSA))...), 401, "Jwt verification fails")
		if log := envoy.Log(); strings.Contains(log, "script log") || strings.Contains(log, "not judged") {
			t.Errorf("something failed:\n%s", log)
		}
	})
}

// Keys may take as long as the config says.
func TestKeysThatTakeTooLong(t *testing.T) {
	chains := map[string]string{
		"short": `{"issuers":[{"issuer":"one","jwks_uri":"http://slow.test","timeout":"100ms"}]}`,
		"long":  `{"issuers":[{"issuer":"one","jwks_uri":"http://slow.test"}]}`,
	}
	keys := jwks("rsa", &rsaKey.PublicKey)
	slow := func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(time.Second):
			_, _ = io.WriteString(w, keys)
		case <-r.Context().Done():
		}
	}
	each(t, chains, map[string]http.HandlerFunc{"slow.test": slow}, func(t *testing.T, envoy *envoytest.Envoy, _ map[string]*server) {
		valid := bearer(rs("one", "rsa", rsaKey))
		expect(t, "short", envoy.Gateway("short").Get(t, "/", valid...), 503, unavailable)
		expect(t, "long", envoy.Gateway("long").Get(t, "/", valid...), 200, "")
	})
}

// Requests that come before the keys wait for them.
func TestKeysThatTakeTheirTime(t *testing.T) {
	keys := jwks("rsa", &rsaKey.PublicKey)
	for _, c := range []struct {
		name    string
		end     http.HandlerFunc
		status  int
		message string
	}{{"good", text(keys), 200, ""}, {"bad", fails, 503, unavailable}} {
		t.Run(c.name, func(t *testing.T) {
			chains := map[string]string{"c": `{"issuers":[{"issuer":"zero","jwks_uri":"http://down.test"},{"issuer":"one","jwks_uri":"http://waiting.test"},{"issuer":"two","jwks_uri":"http://down.test"}]}`}
			// The servers of all versions wait for their own.
			each(t, chains, map[string]http.HandlerFunc{"waiting.test": hangs}, func(t *testing.T, envoy *envoytest.Envoy, servers map[string]*server) {
				arrived, release := make(chan struct{}, 100), make(chan struct{})
				servers["waiting.test"].set(func(w http.ResponseWriter, r *http.Request) {
					arrived <- struct{}{}
					<-release
					c.end(w, r)
				})
				var requests sync.WaitGroup
				for range 8 {
					requests.Go(func() {
						expect(t, "a request", envoy.Gateway("c").Get(t, "/", bearer(rs("one", "rsa", rsaKey))...), c.status, c.message)
					})
				}
				for range 8 {
					<-arrived
				}
				close(release)
				requests.Wait()
			})
		})
	}
}
