package basicauth_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/basicauth"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/consumer"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

const colons, unicode = "open: sesame: now", "pässwörd\xff\xfe"

// consumers: alice has two credentials and a custom id, bob one that is no ASCII, guest none, robot no username. carol is of
// another namespace, and so is her username alice.
func consumers() *consumer.Index {
	person := func(namespace, name, customID string, credentials ...string) *pluginsv1alpha1.Consumer {
		return &pluginsv1alpha1.Consumer{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-" + name)},
			Spec:       pluginsv1alpha1.ConsumerSpec{Username: name + "-user", CustomID: customID, Credentials: credentials},
		}
	}
	login := func(namespace, name, username, password string) *corev1.Secret {
		return &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-" + name), Labels: map[string]string{pluginsv1alpha1.CredentialLabel: "basic-auth"}},
			Data:       map[string][]byte{"username": []byte(username), "password": []byte(password)},
		}
	}
	kongs := login("shop", "alice-2", "alice2", colons)
	kongs.Labels = map[string]string{pluginsv1alpha1.KongCredentialLabel: "basic-auth"}
	robot := person("shop", "robot", "crm-1", "robot-1")
	robot.Spec.Username = ""
	index, findings := consumer.New(&snapshot.Snapshot{
		Consumers: []*pluginsv1alpha1.Consumer{
			person("shop", "alice", "crm-4711", "alice-1", "alice-2"), person("shop", "bob", "", "bob-1"),
			person("shop", "guest", ""), robot, person("partner", "carol", "", "carol-1"),
		},
		Secrets: []*corev1.Secret{
			login("shop", "alice-1", "alice", "one"), kongs, login("shop", "bob-1", "böb", unicode),
			login("shop", "robot-1", "robot", strings.Repeat("r", 6138)), login("partner", "carol-1", "carol", "carols"),
		},
		ReferenceGrants: []*gatewayv1.ReferenceGrant{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "partner", Name: "shop"},
			Spec: gatewayv1.ReferenceGrantSpec{
				From: []gatewayv1.ReferenceGrantFrom{{Group: "plugins.istio.io", Kind: "Plugin", Namespace: "shop"}},
				To:   []gatewayv1.ReferenceGrantTo{{Group: "plugins.istio.io", Kind: "Consumer"}},
			},
		}},
	})
	if len(findings) > 0 {
		panic(fmt.Sprint(findings))
	}
	return index
}

func build(t *testing.T, index *consumer.Index, text string) ([]part.Part, []string) {
	t.Helper()
	return catalogtest.Build(t, basicauth.Builtin, builtin.Use{Plugin: "basic-auth", Instance: "i", Namespace: "shop", Consumers: index}, text)
}

func parts(t *testing.T, text string) []part.Part {
	t.Helper()
	parts, problems := build(t, consumers(), text)
	if len(problems) > 0 {
		t.Fatalf("%s: %v", text, problems)
	}
	return parts
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		config string
		want   []string
	}{
		{`{}`, nil},
		{`{"hide_credential":true}`, []string{`hide_credential: unknown field, did you mean "hide_credentials"?`}},
		{`{"hide_credentials":"yes"}`, []string{"hide_credentials: must be a boolean, not a string"}},
		{`{"run_on_preflight":false}`, []string{"run_on_preflight: unknown field, known ones are anonymous, consumers_from, hide_credentials, realm"}},
		{`{"realm":"a\nb"}`, []string{`realm: "a\nb" does not match ^[\x20-\x7e]*$`}},
		{`{"realm":""}`, []string{"realm: must not be shorter than 1 characters"}},
		{`{"anonymous":"nobody"}`, []string{"anonymous: anonymous consumer nobody is configured but doesn't exist"}},
		{`{"anonymous":"carol"}`, []string{"anonymous: anonymous consumer carol is configured but doesn't exist"}},
		{`{"anonymous":"carol","consumers_from":["partner"]}`, nil},
		{`{"consumers_from":["nowhere"]}`, []string{"consumers_from[0]: namespace nowhere does not grant its Consumers to namespace shop; it needs a ReferenceGrant from plugins.istio.io Plugin in shop to plugins.istio.io Consumer"}},
		{`{"consumers_from":["no/where"]}`, []string{`consumers_from[0]: "no/where" does not match ^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`}},
	} {
		_, got := build(t, consumers(), c.config)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.config, diff)
		}
	}
}

// What no request can hold is not accepted in silence.
func TestTooLongCredential(t *testing.T) {
	index, findings := consumer.New(&snapshot.Snapshot{
		Consumers: []*pluginsv1alpha1.Consumer{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "alice"},
			Spec:       pluginsv1alpha1.ConsumerSpec{Username: "alice", Credentials: []string{"long"}},
		}},
		Secrets: []*corev1.Secret{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "long", Labels: map[string]string{pluginsv1alpha1.CredentialLabel: "basic-auth"}},
			Data:       map[string][]byte{"username": []byte("alice"), "password": []byte(strings.Repeat("r", 6139))},
		}},
	})
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	_, got := build(t, index, `{}`)
	want := []string{"warning a basic-auth credential of consumer alice is longer than 8192 characters of base64, and authenticates nobody"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The table is one for all configs of a namespace, and holds no password: the same one has another hash for another user.
func TestPasswordsAreSaltedAndHashed(t *testing.T) {
	one := parts(t, `{}`)[0].(part.Lua).Config["known"].(part.Shared)
	other := parts(t, `{"hide_credentials":true}`)[0].(part.Lua).Config["known"].(part.Shared)
	if one.Name != other.Name {
		t.Errorf("two configs of one namespace have tables %q and %q", one.Name, other.Name)
	}
	if partner := parts(t, `{"consumers_from":["partner"]}`)[0].(part.Lua).Config["known"].(part.Shared); one.Name == partner.Name {
		t.Errorf("%q names two tables", one.Name)
	}
	text := string(one.Table.JSON())
	for _, password := range []string{`"one"`, "sesame", "ssw", "rrrr"} {
		if strings.Contains(text, password) {
			t.Errorf("the table holds the password %s", password)
		}
	}
	credentials := one.Table["credentials"].(map[string]any)
	salts := map[any]bool{}
	for _, c := range credentials {
		salts[c.(map[string]any)["salt"]] = true
	}
	if len(credentials) != 4 || len(salts) != 4 {
		t.Errorf("%d credentials have %d salts", len(credentials), len(salts))
	}
	alice := credentials["alice"].(map[string]any)
	digest := sha256.Sum256([]byte(alice["salt"].(string) + "one"))
	if alice["digest"] != hex.EncodeToString(digest[:]) {
		t.Errorf("alice has the digest %v", alice["digest"])
	}
}

// chains are the configs that the requests below meet.
var chains = map[string]string{
	"default":   `{}`,
	"realm":     `{"realm":"my \"shop\""}`,
	"hide":      `{"hide_credentials":true}`,
	"anonymous": `{"anonymous":"guest-user","hide_credentials":true}`,
	"by name":   `{"anonymous":"guest"}`,
	"partner":   `{"consumers_from":["partner"]}`,
}

func encoded(pair string) string { return base64.StdEncoding.EncodeToString([]byte(pair)) }

// unpadded is the pair in base64, which would end in padding.
func unpadded(pair string) string {
	text := strings.TrimRight(encoded(pair), "=")
	if text == encoded(pair) {
		panic(pair + " has no padding")
	}
	return text
}

// spareBits is the same pair to a decoder that does not mind what the last digit should leave zero.
func spareBits(encoded string) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	text := strings.TrimRight(encoded, "=")
	at := len(text) - 1
	return text[:at] + digits[strings.IndexByte(digits, text[at])+1:][:1] + encoded[len(text):]
}

// basic is a header line with credentials.
func basic(username, password string) string {
	return "authorization: Basic " + encoded(username+":"+password)
}

func proxy(username, password string) string {
	return "proxy-authorization: Basic " + encoded(username+":"+password)
}

// Whom the upstream sees.
var (
	alice = []string{"x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: alice"}
	guest = []string{"x-anonymous-consumer: true", "x-consumer-id: uid-guest", "x-consumer-username: guest-user"}
)

// with puts header lines in front of those of an identity, which are sorted behind them.
func with(identity []string, lines ...string) []string { return slices.Concat(lines, identity) }

var requests = []struct {
	name    string
	chain   string
	request envoytest.Request
	// upstream is what the upstream sees of credentials and identities; nil where the request is refused.
	upstream []string
}{
	{"no credentials", "default", envoytest.Request{}, nil},
	{"a username and its password", "default", envoytest.Request{Header: []string{basic("alice", "one")}}, with(alice, basic("alice", "one"))},
	{"a second credential, of a Secret with Kong's label, with colons", "default", envoytest.Request{Header: []string{basic("alice2", colons)}},
		[]string{basic("alice2", colons), "x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: alice2"}},
	{"UTF-8 in the username, and other bytes in the password", "default", envoytest.Request{Header: []string{basic("böb", unicode)}},
		[]string{basic("böb", unicode), "x-consumer-id: uid-bob", "x-consumer-username: bob-user", "x-credential-identifier: böb"}},
	{"as long as it may be", "default", envoytest.Request{Header: []string{basic("robot", strings.Repeat("r", 6138))}},
		[]string{basic("robot", strings.Repeat("r", 6138)), "x-consumer-custom-id: crm-1", "x-consumer-id: uid-robot", "x-credential-identifier: robot"}},
	{"longer", "default", envoytest.Request{Header: []string{basic("robot", strings.Repeat("r", 6139))}}, nil},
	{"much longer", "default", envoytest.Request{Header: []string{basic("alice", strings.Repeat("one", 10_000))}}, nil},

	{"a wrong password", "default", envoytest.Request{Header: []string{basic("alice", "two")}}, nil},
	{"an empty password", "default", envoytest.Request{Header: []string{basic("alice", "")}}, nil},
	{"a truncated password", "default", envoytest.Request{Header: []string{basic("alice", "on")}}, nil},
	{"a password with something behind it", "default", envoytest.Request{Header: []string{basic("alice", "one\n")}}, nil},
	{"a password in another case", "default", envoytest.Request{Header: []string{basic("alice", "ONE")}}, nil},
	{"the password of another", "default", envoytest.Request{Header: []string{basic("alice", colons)}}, nil},
	{"an unknown username", "default", envoytest.Request{Header: []string{basic("mallory", "one")}}, nil},
	{"the hash that stands for nobody is no password", "default", envoytest.Request{Header: []string{basic("mallory", strings.Repeat("0", 64))}}, nil},
	{"a username in another case", "default", envoytest.Request{Header: []string{basic("Alice", "one")}}, nil},
	{"a username in another normal form", "default", envoytest.Request{Header: []string{basic("bo\u0308b", unicode)}}, nil},
	{"the Consumer's username is not the credential's", "default", envoytest.Request{Header: []string{basic("alice-user", "one")}}, nil},
	{"a field of a Lua table is no username", "default", envoytest.Request{Header: []string{basic("consumer", "1")}}, nil},
	{"an empty username", "default", envoytest.Request{Header: []string{basic("", "one")}}, nil},
	{"a username with NUL behind it", "default", envoytest.Request{Header: []string{basic("alice\x00", "one")}}, nil},
	{"no colon", "default", envoytest.Request{Header: []string{"authorization: Basic " + encoded("alice")}}, nil},
	{"nothing but a colon", "default", envoytest.Request{Header: []string{basic("", "")}}, nil},

	{"an empty header", "default", envoytest.Request{Header: []string{"authorization:"}}, nil},
	{"a scheme alone", "default", envoytest.Request{Header: []string{"authorization: Basic"}}, nil},
	{"a value alone", "default", envoytest.Request{Header: []string{"authorization: " + encoded("alice:one")}}, nil},
	{"scheme and value without a blank", "default", envoytest.Request{Header: []string{"authorization: Basic" + encoded("alice:one")}}, nil},
	{"another scheme", "default", envoytest.Request{Header: []string{"authorization: Bearer " + encoded("alice:one")}}, nil},
	{"a scheme that begins so", "default", envoytest.Request{Header: []string{"authorization: Basically " + encoded("alice:one")}}, nil},
	{"the scheme in lower case", "default", envoytest.Request{Header: []string{"Authorization: basic " + encoded("alice:one")}},
		with(alice, "authorization: basic "+encoded("alice:one"))},
	{"the scheme in any case", "default", envoytest.Request{Header: []string{"AUTHORIZATION: bASIC " + encoded("alice:one")}},
		with(alice, "authorization: bASIC "+encoded("alice:one"))},
	{"more blanks", "default", envoytest.Request{Header: []string{"authorization:   Basic    " + encoded("alice:one") + "  "}},
		with(alice, "authorization: Basic    "+encoded("alice:one"))},
	{"two values", "default", envoytest.Request{Header: []string{"authorization: Basic " + encoded("alice:one") + " x"}}, nil},
	{"no base64", "default", envoytest.Request{Header: []string{"authorization: Basic alice:one"}}, nil},
	{"base64 in the alphabet of URLs", "default", envoytest.Request{Header: []string{"authorization: Basic " + strings.ReplaceAll(encoded("böb:"+unicode), "/", "_")}}, nil},
	{"base64 without padding", "default", envoytest.Request{Header: []string{"authorization: Basic " + unpadded("böb:"+unicode)}},
		[]string{"authorization: Basic " + unpadded("böb:"+unicode), "x-consumer-id: uid-bob", "x-consumer-username: bob-user", "x-credential-identifier: böb"}},
	{"base64 with too much padding", "default", envoytest.Request{Header: []string{"authorization: Basic " + encoded("alice:one") + "===="}}, nil},
	{"base64 that is cut", "default", envoytest.Request{Header: []string{"authorization: Basic " + strings.TrimRight(encoded("alice:one"), "=")[:11]}}, nil},
	{"unused bits in the last digit of base64", "default", envoytest.Request{Header: []string{"authorization: Basic " + spareBits(encoded("böb:"+unicode))}}, nil},
	{"base64 in percent-encoding", "default", envoytest.Request{Header: []string{"authorization: Basic%20" + encoded("alice:one")}}, nil},
	{"base64 in parameters", "default", envoytest.Request{Header: []string{`authorization: Basic credentials="` + encoded("alice:one") + `"`}}, nil},
	{"base64 twice", "default", envoytest.Request{Header: []string{"authorization: Basic " + encoded(encoded("alice:one"))}}, nil},

	{"repeated", "default", envoytest.Request{Header: []string{basic("alice", "one"), basic("alice", "one")}}, nil},
	{"an empty one besides, which Envoy drops", "default", envoytest.Request{Header: []string{basic("alice", "one"), "authorization:"}}, with(alice, basic("alice", "one"))},
	{"in the query", "default", envoytest.Request{Path: "/?authorization=Basic%20" + encoded("alice:one")}, nil},

	{"Proxy-Authorization", "default", envoytest.Request{Header: []string{proxy("alice", "one")}}, with(alice, proxy("alice", "one"))},
	{"Proxy-Authorization goes before Authorization", "default", envoytest.Request{Header: []string{basic("böb", unicode), proxy("alice", "one")}},
		with(alice, basic("böb", unicode), proxy("alice", "one"))},
	{"a wrong one, whatever Authorization says", "default", envoytest.Request{Header: []string{basic("alice", "one"), proxy("alice", "two")}}, nil},
	{"an unknown one", "default", envoytest.Request{Header: []string{basic("alice", "one"), proxy("mallory", "two")}}, nil},
	{"a malformed one", "default", envoytest.Request{Header: []string{basic("alice", "one"), "proxy-authorization: Basic !"}}, nil},
	{"an empty one", "default", envoytest.Request{Header: []string{basic("alice", "one"), "proxy-authorization:"}}, nil},
	{"one of another scheme", "default", envoytest.Request{Header: []string{basic("alice", "one"), "proxy-authorization: Bearer x"}}, nil},
	{"a repeated one", "default", envoytest.Request{Header: []string{proxy("alice", "one"), proxy("alice", "one")}}, nil},

	{"HEAD", "default", envoytest.Request{Method: "HEAD"}, nil},
	{"HEAD with credentials", "default", envoytest.Request{Method: "HEAD", Header: []string{basic("alice", "one")}}, with(alice, basic("alice", "one"))},
	{"a preflight", "default", envoytest.Request{Method: "OPTIONS", Header: []string{"origin: https://a.test", "access-control-request-method: GET"}}, nil},
	{"OPTIONS with credentials", "default", envoytest.Request{Method: "OPTIONS", Header: []string{basic("alice", "one")}}, with(alice, basic("alice", "one"))},
	{"HTTP/2", "default", envoytest.Request{HTTP2: true, Header: []string{basic("alice", "one")}}, with(alice, basic("alice", "one"))},
	{"HTTP/2 without", "default", envoytest.Request{HTTP2: true}, nil},
	{"HTTP/2, repeated", "default", envoytest.Request{HTTP2: true, Header: []string{basic("alice", "one"), basic("alice", "one")}}, nil},
	{"HTTP/2, a repeated Proxy-Authorization", "default", envoytest.Request{HTTP2: true, Header: []string{proxy("alice", "one"), proxy("alice", "one")}}, nil},

	{"hidden", "hide", envoytest.Request{Header: []string{basic("alice", "one")}}, alice},
	{"hidden, in another case", "hide", envoytest.Request{Header: []string{"authorization: basic " + encoded("alice:one")}}, alice},
	{"hidden where it was used only", "hide", envoytest.Request{Header: []string{"authorization: Bearer upstream", proxy("alice", "one")}},
		with(alice, "authorization: Bearer upstream")},
	{"wrong", "hide", envoytest.Request{Header: []string{basic("alice", "two")}}, nil},

	{"nobody is the anonymous one", "anonymous", envoytest.Request{}, guest},
	{"so is who fails, and what failed is hidden", "anonymous", envoytest.Request{Header: []string{basic("alice", "two")}}, guest},
	{"a malformed one is hidden, too", "anonymous", envoytest.Request{Header: []string{"authorization: Basic"}}, guest},
	{"repeated ones are hidden, too", "anonymous", envoytest.Request{Header: []string{proxy("alice", "one"), proxy("alice", "one")}}, guest},
	{"too long ones are hidden, too", "anonymous", envoytest.Request{Header: []string{basic("robot", strings.Repeat("r", 6139))}}, guest},
	{"and those behind another scheme", "anonymous", envoytest.Request{Header: []string{"authorization: Bearer x", basic("alice", "one")}}, guest},
	{"and those before another scheme", "anonymous", envoytest.Request{Header: []string{basic("alice", "one"), "authorization: Bearer x"}}, guest},
	{"a scheme that begins so stays", "anonymous", envoytest.Request{Header: []string{"authorization: Basically x"}}, with(guest, "authorization: Basically x")},
	{"a parameter that is called so stays", "anonymous", envoytest.Request{Header: []string{`authorization: Digest a="b", basic="c"`}}, with(guest, `authorization: Digest a="b", basic="c"`)},
	{"HEAD of nobody", "anonymous", envoytest.Request{Method: "HEAD"}, guest},
	{"a token of another scheme is not", "anonymous", envoytest.Request{Header: []string{"authorization: Bearer x"}}, with(guest, "authorization: Bearer x")},
	{"who has credentials is not anonymous", "anonymous", envoytest.Request{Header: []string{basic("alice", "one"), "X-Anonymous-Consumer: true"}}, alice},
	{"the anonymous one by the name of the object", "by name", envoytest.Request{}, guest},

	{"forged identity", "default", envoytest.Request{Header: []string{
		basic("alice", "one"), "X-Consumer-ID: x", "x-consumer-custom-id: x", "X-Consumer-Username: x", "x-credential-identifier: x",
		"x-anonymous-consumer: true", "x-consumer-groups: admins"}}, with(alice, basic("alice", "one"))},
	{"forged identity of somebody anonymous", "by name", envoytest.Request{Header: []string{
		"x-consumer-custom-id: x", "X-Consumer-ID: uid-alice", "x-credential-identifier: alice", "x-consumer-groups: admins"}}, guest},

	{"a consumer of another namespace", "partner", envoytest.Request{Header: []string{basic("carol", "carols")}},
		[]string{basic("carol", "carols"), "x-consumer-id: uid-carol", "x-consumer-username: carol-user", "x-credential-identifier: carol"}},
	{"who is not one here", "default", envoytest.Request{Header: []string{basic("carol", "carols")}}, nil},
}

// seen is what the cases speak of.
func seen(r *envoytest.Received) []string {
	var out []string
	for _, line := range r.Header {
		name, _, _ := strings.Cut(line, ":")
		if strings.HasSuffix(name, "authorization") || name == "x-anonymous-consumer" || strings.HasPrefix(name, "x-consumer-") || strings.HasPrefix(name, "x-credential-") {
			out = append(out, line)
		}
	}
	return out
}

func TestRequests(t *testing.T) {
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			c := envoytest.Config{Chains: map[string][]part.Part{}}
			for name, json := range chains {
				c.Chains[name] = parts(t, json)
			}
			envoy := envoytest.Start(t, version, c)
			for _, c := range requests {
				t.Run(c.name, func(t *testing.T) {
					answer := envoy.Gateway(c.chain).Do(t, c.request)
					if c.upstream != nil {
						if answer.Upstream == nil {
							t.Fatalf("status %d %s, did not get upstream\n%s", answer.Status, answer.Body, envoy.Log())
						}
						if diff := cmp.Diff(slices.Sorted(slices.Values(c.upstream)), slices.Sorted(slices.Values(seen(answer.Upstream)))); diff != "" {
							t.Errorf("upstream (-want +got):\n%s", diff)
						}
						return
					}
					refused(t, answer, c.request.Method == "HEAD", `Basic realm="service"`)
				})
			}
			t.Run("realm", func(t *testing.T) {
				refused(t, envoy.Gateway("realm").Get(t, "/"), false, `Basic realm="my \"shop\""`)
			})
		})
	}
}

func refused(t *testing.T, answer *envoytest.Answer, head bool, challenge string) {
	t.Helper()
	if answer.Status != 401 || answer.Upstream != nil {
		t.Fatalf("status %d, upstream %v", answer.Status, answer.Upstream)
	}
	if got := answer.Header.Values("WWW-Authenticate"); !slices.Equal(got, []string{challenge}) {
		t.Errorf("WWW-Authenticate: %q, want %s", got, challenge)
	}
	if got := answer.Header.Get("Content-Type"); got != "application/json; charset=utf-8" {
		t.Errorf("Content-Type: %s", got)
	}
	if head != (answer.Body == "") {
		t.Errorf("body %q", answer.Body)
	}
	if !head && (answer.Message() != "Unauthorized" || !strings.Contains(answer.Body, `"request_id":"`)) {
		t.Errorf("body %s", answer.Body)
	}
}

// With anonymous, one of several plugins is enough; without, all have to pass.
func TestSeveral(t *testing.T) {
	or := `{"anonymous":"guest","hide_credentials":true}`
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			envoy := envoytest.Start(t, version, envoytest.Config{Chains: map[string][]part.Part{
				"and": append(parts(t, `{"hide_credentials":true}`), parts(t, `{}`)...),
				"or":  append(parts(t, or), parts(t, or)...),
			}})
			for _, c := range []struct {
				name, chain string
				header      []string
				status      int
				id          string
			}{
				{"both pass, the last one counts", "and", []string{proxy("alice", "one"), basic("böb", unicode)}, 200, "uid-bob"},
				{"the first fails", "and", []string{proxy("alice", "two"), basic("böb", unicode)}, 401, ""},
				{"the second fails", "and", []string{proxy("alice", "one")}, 401, ""},
				{"the first is enough", "or", []string{proxy("alice", "one"), basic("böb", unicode)}, 200, "uid-alice"},
				{"the second is enough", "or", []string{proxy("alice", "two"), basic("böb", unicode)}, 200, "uid-bob"},
				{"none is anonymous", "or", nil, 200, "uid-guest"},
			} {
				t.Run(c.name, func(t *testing.T) {
					answer := envoy.Gateway(c.chain).Get(t, "/", c.header...)
					if answer.Status != c.status {
						t.Fatalf("status %d, want %d: %s", answer.Status, c.status, answer.Body)
					}
					if answer.Upstream == nil {
						return
					}
					if got := answer.Upstream.Values("x-consumer-id"); !slices.Equal(got, []string{c.id}) {
						t.Errorf("x-consumer-id = %q, want %q", got, c.id)
					}
				})
			}
		})
	}
}

func TestGRPC(t *testing.T) {
	answer := envoytest.Run(t, parts(t, `{}`)).Do(t, envoytest.Request{Method: "POST", HTTP2: true, Header: []string{"content-type: application/grpc"}})
	if answer.Status != 200 || answer.Header.Get("grpc-status") != "16" || answer.Header.Get("grpc-message") != "Unauthorized" {
		t.Errorf("status %d, headers %v", answer.Status, answer.Header)
	}
}
