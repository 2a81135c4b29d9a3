package catalog_test

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/catalog"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/consumer"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// people have a credential of one type each, and a group that is called like it: key has the key `secret`, basic, jwt and
// hmac are the usernames, or the issuer, of the others, with the same secret. guest has nothing.
func people(t *testing.T) *consumer.Index {
	s := &snapshot.Snapshot{}
	for name, data := range map[string]map[string]string{
		"key": {"key": "secret"}, "basic": {"username": "basic", "password": "secret"}, "jwt": {"key": "jwt", "secret": "secret"},
		"hmac": {"username": "hmac", "secret": "secret"}, "guest": nil,
	} {
		c := &pluginsv1alpha1.Consumer{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-" + name)},
			Spec:       pluginsv1alpha1.ConsumerSpec{Username: name, Groups: []string{name + "s"}},
		}
		if data != nil {
			kind := map[string]string{"key": "key-auth", "basic": "basic-auth", "jwt": "jwt", "hmac": "hmac-auth"}[name]
			c.Spec.Credentials = []string{name}
			secret := &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-of-" + name), Labels: map[string]string{pluginsv1alpha1.CredentialLabel: kind}},
				Data:       map[string][]byte{},
			}
			for k, v := range data {
				secret.Data[k] = []byte(v)
			}
			s.Secrets = append(s.Secrets, secret)
		}
		s.Consumers = append(s.Consumers, c)
	}
	index, findings := consumer.New(s)
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	return index
}

// chainOf are plugins in their order, each `name config`.
func chainOf(t *testing.T, consumers builtin.Consumers, plugins ...string) []part.Part {
	t.Helper()
	var parts []part.Part
	for i, p := range plugins {
		name, config, _ := strings.Cut(p, " ")
		at := slices.IndexFunc(catalog.All(), func(b *builtin.Builtin) bool { return b.Name == name })
		use := builtin.Use{Plugin: name, Instance: fmt.Sprint(i), Namespace: "shop", Consumers: consumers}
		parts = append(parts, catalogtest.Parts(t, catalog.All()[at], use, config)...)
	}
	return parts
}

func signed(secret, text string) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

// login is a request with the credentials of some people, each with a place of its own, and with a secret that may be wrong.
func login(secret string, names ...string) envoytest.Request {
	date := "date: " + time.Now().UTC().Format(http.TimeFormat)
	r := envoytest.Request{Header: []string{date}}
	for _, name := range names {
		switch name {
		case "key":
			r.Header = append(r.Header, "apikey: "+secret)
		case "basic":
			r.Header = append(r.Header, "proxy-authorization: Basic "+base64.StdEncoding.EncodeToString([]byte("basic:"+secret)))
		case "jwt":
			encode := base64.RawURLEncoding.EncodeToString
			text := encode([]byte(`{"alg":"HS256"}`)) + "." + encode([]byte(`{"iss":"jwt"}`))
			r.Path = "/?jwt=" + text + "." + encode(signed(secret, text))
		case "hmac":
			r.Header = append(r.Header, `authorization: hmac username="hmac", algorithm="hmac-sha256", headers="date", signature="`+
				base64.StdEncoding.EncodeToString(signed(secret, date))+`"`)
		}
	}
	return r
}

// Without anonymous all have to pass, with it the first is enough; and no upstream sees what is to be hidden.
func TestSeveralPlugins(t *testing.T) {
	all := []string{"key", "basic", "jwt", "hmac"}
	consumers := people(t)
	chains := map[string][]part.Part{
		"and": chainOf(t, consumers, `key-auth {}`, `basic-auth {}`, `jwt {}`, `hmac-auth {}`),
		"or": chainOf(t, consumers, `key-auth {anonymous: guest, hide_credentials: true}`, `basic-auth {anonymous: guest, hide_credentials: true}`,
			`jwt {anonymous: guest}`, `hmac-auth {anonymous: guest, hide_credentials: true}`),
		"one must":  chainOf(t, consumers, `key-auth {anonymous: guest, hide_credentials: true}`, `basic-auth {hide_credentials: true}`),
		"preflight": chainOf(t, consumers, `key-auth {run_on_preflight: false, hide_credentials: true}`),
		"groups":    chainOf(t, consumers, `key-auth {}`, `acl {allow: [keys]}`, `basic-auth {}`),
		"in turn":   chainOf(t, consumers, `key-auth {}`, `acl {allow: [keys]}`, `basic-auth {}`, `acl {allow: [basics]}`),
		"or groups": chainOf(t, consumers, `key-auth {anonymous: guest}`, `acl {allow: [keys]}`, `basic-auth {anonymous: guest}`),
	}
	without := func(name string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(n string) bool { return n == name })
	}
	wrongKey := login("secret", "basic")
	wrongKey.Header = append(wrongKey.Header, "apikey: wrong")
	type requestCase struct {
		name, chain string
		request     envoytest.Request
		// who it is; empty where it is refused.
		who, groups string
	}
	cases := []requestCase{
		{"all", "and", login("secret", all...), "hmac", ""},
		{"nobody", "and", login("secret"), "", ""},
		{"nobody, or a guest", "or", login("secret"), "guest", ""},
		{"everybody with a wrong secret", "or", login("wrong", all...), "guest", ""},
		{"everybody, the first counts", "or", login("secret", all...), "key", ""},
		{"all but the first", "or", login("secret", without("key")...), "basic", ""},
		{"a guest is not enough for the second", "one must", login("secret", "key"), "", ""},
		{"a wrong key beside a good password", "one must", wrongKey, "basic", ""},
		{"the second alone", "one must", login("secret", "basic"), "basic", ""},
		{"both", "one must", login("secret", "key", "basic"), "basic", ""},
		{"groups of the first are not those of the second", "groups", login("secret", "key", "basic"), "basic", ""},
		{"the second has groups of its own", "in turn", login("secret", "key", "basic"), "basic", "basics"},
		{"the first stays, and so do the groups", "or groups", login("secret", "key", "basic"), "key", "keys"},
	}
	for _, name := range all {
		cases = append(cases,
			requestCase{"all but " + name, "and", login("secret", without(name)...), "", ""},
			requestCase{name + " alone", "or", login("secret", name), name, ""},
			requestCase{name + " with a wrong secret", "or", login("wrong", name), "guest", ""})
	}
	options := login("secret", "key")
	options.Method = "OPTIONS"
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range cases {
			got := envoy.Gateway(c.chain).Do(t, c.request)
			if c.who == "" {
				if got.Status != 401 || got.Upstream != nil {
					t.Errorf("%s: %s: status %d %s", c.chain, c.name, got.Status, got.Body)
				}
				continue
			}
			if got.Upstream == nil {
				t.Errorf("%s: %s: status %d %s", c.chain, c.name, got.Status, got.Body)
				continue
			}
			who, groups := got.Upstream.Values("x-consumer-username"), got.Upstream.Value("x-consumer-groups")
			if !slices.Equal(who, []string{c.who}) || groups != c.groups || (got.Upstream.Value("x-anonymous-consumer") == "true") != (c.who == "guest") {
				t.Errorf("%s: %s: the upstream sees %v", c.chain, c.name, got.Upstream.Header)
			}
			if c.chain == "or" || c.chain == "one must" {
				seesNone(t, c.chain+": "+c.name, got.Upstream)
			}
		}
		got := envoy.Gateway("preflight").Do(t, options)
		if got.Upstream == nil {
			t.Fatalf("OPTIONS: status %d %s", got.Status, got.Body)
		}
		seesNone(t, "OPTIONS", got.Upstream)
	})
}

// What the upstream is told in headers, later filters and access logs find in dynamic metadata.
func TestMetadata(t *testing.T) {
	consumers := people(t)
	c := envoytest.Config{Chains: map[string][]part.Part{}, AccessLog: "by"}
	for _, field := range []string{"authenticated_by", "consumer_id", "consumer_username", "consumer_name", "consumer_custom_id", "credential_id", "groups", "anonymous"} {
		c.AccessLog += " %DYNAMIC_METADATA(plugins.istio.io:" + field + ")%"
	}
	for name, plugin := range map[string]string{"key": "key-auth", "basic": "basic-auth", "jwt": "jwt", "hmac": "hmac-auth"} {
		c.Chains[name] = chainOf(t, consumers, plugin+` {anonymous: guest}`)
	}
	catalogtest.OnEachWith(t, c, func(t *testing.T, envoy *envoytest.Envoy) {
		for name, line := range map[string]string{
			"key":   `by key-auth uid-key key key  uid-of-key ["keys"] false`,
			"basic": `by basic-auth uid-basic basic basic  basic ["basics"] false`,
			"jwt":   `by jwt uid-jwt jwt jwt  jwt ["jwts"] false`,
			"hmac":  `by hmac-auth uid-hmac hmac hmac  hmac ["hmacs"] false`,
		} {
			envoy.Gateway(name).Do(t, login("secret", name))
			envoy.WaitLog(t, line)
			envoy.Gateway(name).Do(t, login("wrong", name))
			plugin := strings.Fields(line)[1]
			envoy.WaitLog(t, "by "+plugin+` uid-guest guest guest   ["guests"] true`)
		}
	})
}

// Whom an issuer vouches for is no Consumer, so acl knows nothing of them, whatever they may be a member of; they may be
// Consumers by another plugin.
func TestGroupsOfNoConsumer(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	issuers := `issuers: [{issuer: i, jwks: {keys: [{kty: OKP, crv: Ed25519, x: "` + encode(public) + `"}]}}]`
	text := encode([]byte(`{"alg":"EdDSA"}`)) + "." + encode([]byte(`{"iss":"i","groups":["keys"]}`))
	token := "authorization: Bearer " + text + "." + encode(ed25519.Sign(private, []byte(text)))
	consumers := people(t)
	chains := map[string][]part.Part{
		"none":      chainOf(t, consumers, `jwt {`+issuers+`}`),
		"allow":     chainOf(t, consumers, `jwt {`+issuers+`}`, `acl {allow: [keys]}`),
		"deny":      chainOf(t, consumers, `jwt {`+issuers+`}`, `acl {deny: [basics]}`),
		"anonymous": chainOf(t, consumers, `jwt {anonymous: guest, `+issuers+`}`, `acl {allow: [guests]}`),
		"and":       chainOf(t, consumers, `jwt {`+issuers+`}`, `key-auth {}`, `acl {allow: [keys]}`),
		"or":        chainOf(t, consumers, `jwt {anonymous: guest, `+issuers+`}`, `key-auth {anonymous: guest}`, `acl {allow: [keys]}`),
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct {
			chain  string
			header []string
			status int
			groups string
		}{
			{"none", []string{token}, 200, ""},
			{"allow", []string{token, "x-consumer-id: uid-key", "x-consumer-groups: keys"}, 401, ""},
			{"deny", []string{token}, 401, ""},
			{"anonymous", []string{token}, 401, ""},
			{"anonymous", nil, 200, "guests"},
			{"and", []string{token, "apikey: secret"}, 200, "keys"},
			{"and", []string{token}, 401, ""},
			{"or", []string{"apikey: secret"}, 200, "keys"},
			{"or", []string{token, "apikey: secret"}, 401, ""},
			{"or", nil, 403, ""},
		} {
			got := envoy.Gateway(c.chain).Get(t, "/", c.header...)
			if got.Status != c.status || (got.Upstream != nil) != (c.status == 200) {
				t.Errorf("%s, %.20q: status %d %s, want %d", c.chain, c.header, got.Status, got.Body, c.status)
			} else if got.Upstream != nil && got.Upstream.Value("x-consumer-groups") != c.groups {
				t.Errorf("%s, %.20q: the upstream sees %v", c.chain, c.header, got.Upstream.Header)
			}
		}
	})
}

// seesNone fails where an upstream sees a credential that was to be hidden.
func seesNone(t *testing.T, name string, r *envoytest.Received) {
	t.Helper()
	for _, header := range []string{"apikey", "authorization", "proxy-authorization"} {
		if value := r.Value(header); value != "" {
			t.Errorf("%s: the upstream sees %s: %s", name, header, value)
		}
	}
}

// counting stands in front of a plugin's source: how many bytes were hashed and compared is in the header x-work of what it
// answers. Unlike time, that is the same on every run.
const counting = `
local hashed, compared = 0, 0
local sha256, hmac, equal, fail = pdk.sha256, pdk.hmac, pdk.equal, pdk.fail
function pdk.sha256(text) hashed = hashed + #text return sha256(text) end
function pdk.hmac(algorithm, key, text) hashed = hashed + #key + #text return hmac(algorithm, key, text) end
function pdk.equal(a, b) compared = compared + (#a == #b and #a or 0) return equal(a, b) end
function pdk.fail(handle, status, message, options)
  options.headers["x-work"] = hashed .. " hashed, " .. compared .. " compared"
  hashed, compared = 0, 0
  return fail(handle, status, message, options)
end
`

// What it costs to refuse a credential tells neither whose it might be nor where it goes wrong.
func TestRefusingTakesTheSameWork(t *testing.T) {
	chains := map[string][]part.Part{}
	for _, plugin := range []string{`key-auth {}`, `basic-auth {}`, `jwt {}`, `hmac-auth {}`} {
		parts := chainOf(t, people(t), plugin)
		l := parts[0].(part.Lua)
		l.Source = counting + l.Source
		chains[l.Plugin] = []part.Part{l}
	}
	basic := func(pair string) envoytest.Request {
		return envoytest.Request{Header: []string{"authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(pair))}}
	}
	// flipped changes one byte of the signature in a request.
	flipped := func(name string, at int) envoytest.Request {
		r := login("secret", name)
		edit := func(text, begin string, encoding *base64.Encoding) string {
			head, rest, _ := strings.Cut(text, begin)
			digits, tail, _ := strings.Cut(rest, `"`)
			raw, err := encoding.DecodeString(digits)
			if err != nil {
				t.Fatal(err)
			}
			raw[at] ^= 1
			return head + begin + encoding.EncodeToString(raw) + strings.Repeat(`"`, min(1, len(rest)-len(digits))) + tail
		}
		if name == "jwt" {
			begin := r.Path[:strings.LastIndexByte(r.Path, '.')+1]
			r.Path = edit(r.Path, begin, base64.RawURLEncoding)
			return r
		}
		r.Header[1] = edit(r.Header[1], `signature="`, base64.StdEncoding)
		return r
	}
	text := strings.TrimPrefix(login("secret", "jwt").Path, "/?jwt=")
	date := login("secret", "hmac").Header[0]
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct {
			plugin, want string
			requests     []envoytest.Request
		}{
			{"key-auth", "6 hashed, 0 compared", []envoytest.Request{login("xecret", "key"), login("secrex", "key"), login("nobody", "key")}},
			// A salt of 32 characters and the password; the hex of a digest.
			{"basic-auth", "38 hashed, 64 compared", []envoytest.Request{basic("basic:xecret"), basic("basic:secrex"), basic("nobody:secret"), basic("nobody:nobody")}},
			{"jwt", fmt.Sprintf("%d hashed, 64 compared", len("secret")+strings.LastIndexByte(text, '.')), []envoytest.Request{flipped("jwt", 0), flipped("jwt", 16), flipped("jwt", 31)}},
			{"hmac-auth", fmt.Sprintf("%d hashed, 64 compared", len("secret")+len(date)), []envoytest.Request{flipped("hmac", 0), flipped("hmac", 16), flipped("hmac", 31)}},
		} {
			for i, request := range c.requests {
				answer := envoy.Gateway(c.plugin).Do(t, request)
				if got := answer.Header.Get("x-work"); answer.Status != 401 || got != c.want {
					t.Errorf("%s, request %d: status %d %s, %s; want %s", c.plugin, i, answer.Status, answer.Body, got, c.want)
				}
			}
		}
	})
}
