package keyauth_test

import (
	"fmt"
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
	"github.com/istio-plugins/istio-plugins/pkg/catalog/keyauth"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/consumer"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

const unicodeKey = "schlüssel-\xff"

// consumers: alice has two keys, one that has ended and one that is about to, and a custom id, bob a key that is no UTF-8, guest none. carol is of another namespace.
func consumers() *consumer.Index {
	person := func(namespace, name, customID string, credentials ...string) *pluginsv1alpha1.Consumer {
		return &pluginsv1alpha1.Consumer{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-" + name)},
			Spec:       pluginsv1alpha1.ConsumerSpec{Username: name + "-user", CustomID: customID, Credentials: credentials},
		}
	}
	key := func(namespace, name, value string) *corev1.Secret {
		return &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-" + name), Labels: map[string]string{pluginsv1alpha1.CredentialLabel: "key-auth"}},
			Data:       map[string][]byte{"key": []byte(value)},
		}
	}
	until := func(name, value string, seconds time.Duration) *corev1.Secret {
		s := key("shop", name, value)
		s.Data["ttl"] = []byte("3600")
		s.CreationTimestamp = metav1.NewTime(time.Now().Add((seconds - 3600) * time.Second))
		return s
	}
	onlyCustomID := person("shop", "robot", "crm-1", "robot-key")
	onlyCustomID.Spec.Username = ""
	index, findings := consumer.New(&snapshot.Snapshot{
		Consumers: []*pluginsv1alpha1.Consumer{
			person("shop", "alice", "crm-4711", "alice-1", "alice-2", "alice-old", "alice-new"), person("shop", "bob", "", "bob-1"),
			person("shop", "guest", ""), onlyCustomID, person("partner", "carol", "", "carol-1"),
		},
		Secrets: []*corev1.Secret{
			key("shop", "alice-1", "one"), key("shop", "alice-2", "two"), key("shop", "bob-1", unicodeKey),
			until("alice-old", "ended", 0), until("alice-new", "ending", 3000),
			key("shop", "robot-key", strings.Repeat("r", 4096)), key("partner", "carol-1", "carols"),
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

// build checks a config and makes its parts.
func build(t *testing.T, json string) ([]part.Part, []string) {
	t.Helper()
	return catalogtest.Build(t, keyauth.Builtin, builtin.Use{Plugin: "key-auth", Instance: "i", Namespace: "shop", Consumers: consumers()}, json)
}

func parts(t *testing.T, json string) []part.Part {
	t.Helper()
	parts, problems := build(t, json)
	if len(problems) > 0 {
		t.Fatalf("%s: %v", json, problems)
	}
	return parts
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		config string
		want   []string
	}{
		{`{}`, nil},
		{`{"key_name":["x"]}`, []string{`key_name: unknown field, did you mean "key_names"?`}},
		{`{"key_names":"x"}`, []string{"key_names: must be a list, not a string"}},
		{`{"key_names":[]}`, []string{"key_names: has 0 items, at least 1"}},
		{`{"key_names":["a b"]}`, []string{`key_names[0]: "a b" does not match ^[A-Za-z0-9_-]+$`}},
		{`{"hide_credentials":"yes"}`, []string{"hide_credentials: must be a boolean, not a string"}},
		{`{"realm":"a\nb"}`, []string{`realm: "a\nb" does not match ^[\x20-\x7e]*$`}},
		{`{"anonymous":"nobody"}`, []string{"anonymous: anonymous consumer nobody is configured but doesn't exist"}},
		{`{"anonymous":"carol"}`, []string{"anonymous: anonymous consumer carol is configured but doesn't exist"}},
		{`{"anonymous":"carol","consumers_from":["partner"]}`, nil},
		{`{"consumers_from":["nowhere"]}`, []string{"consumers_from[0]: namespace nowhere does not grant its Consumers to namespace shop; it needs a ReferenceGrant from plugins.istio.io Plugin in shop to plugins.istio.io Consumer"}},
		{`{"consumers_from":["no/where"]}`, []string{`consumers_from[0]: "no/where" does not match ^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`}},
		{`{"key_in_header":false,"key_in_query":false}`, []string{"warning key_in_header, key_in_query and key_in_body are all false, so that no request has a key"}},
	} {
		_, got := build(t, c.config)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.config, diff)
		}
	}
}

// Routes hold the name of the table only, and the table no key.
func TestKeysAreSharedAndHashed(t *testing.T) {
	one := parts(t, `{}`)[0].(part.Lua).Config["known"].(part.Shared)
	other := parts(t, `{"hide_credentials":true}`)[0].(part.Lua).Config["known"].(part.Shared)
	if one.Name != other.Name {
		t.Errorf("two configs of one namespace have tables %q and %q", one.Name, other.Name)
	}
	partner := parts(t, `{"consumers_from":["partner"]}`)[0].(part.Lua).Config["known"].(part.Shared)
	if one.Name == partner.Name {
		t.Errorf("%q names two tables", one.Name)
	}
	text := string(one.Table.JSON())
	// printf one | sha256sum
	if digest := "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"; !strings.Contains(text, digest) {
		t.Errorf("the table has no %s: %s", digest, text)
	}
	for _, key := range []string{`"one"`, `"two"`, "schl"} {
		if strings.Contains(text, key) {
			t.Errorf("the table holds the key %s", key)
		}
	}
}

// chains are the configs that the requests below meet.
var chains = map[string]string{
	"default":      `{}`,
	"names":        `{"key_names":["X-Key","apikey"],"realm":"my \"shop\""}`,
	"header only":  `{"key_in_query":false}`,
	"query only":   `{"key_in_header":false}`,
	"body":         `{"key_in_body":true}`,
	"hide":         `{"hide_credentials":true,"key_names":["apikey","x-key"]}`,
	"hide body":    `{"hide_credentials":true,"key_in_body":true}`,
	"anonymous":    `{"anonymous":"guest-user","hide_credentials":true}`,
	"by name":      `{"anonymous":"guest"}`,
	"no preflight": `{"run_on_preflight":false}`,
	"bearer":       `{"key_names":["authorization"]}`,
	"partner":      `{"consumers_from":["partner"]}`,
	"underscore":   `{"key_names":["api_key"]}`,
}

const (
	form = "content-type: application/x-www-form-urlencoded"
	json = "content-type: application/json; charset=utf-8"
)

// Whom the upstream sees.
var (
	alice = []string{"x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: uid-alice-1"}
	guest = []string{"x-anonymous-consumer: true", "x-consumer-id: uid-guest", "x-consumer-username: guest-user"}
)

// with puts another line where seen has it: the body behind the identity, everything else in front.
func with(identity []string, line string) []string {
	if strings.HasPrefix(line, "body: ") {
		return append(slices.Clone(identity), line)
	}
	return append([]string{line}, identity...)
}

var requests = []struct {
	name    string
	chain   string
	request envoytest.Request
	// refused is the message of the 401; empty where the request goes upstream.
	refused string
	// upstream is what the upstream sees of path, body and the headers named like keys and identities.
	upstream []string
}{
	{"no key", "default", envoytest.Request{}, "No API key found in request", nil},
	{"a key in a header", "default", envoytest.Request{Header: []string{"apikey: one"}}, "",
		[]string{"apikey: one", "x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: uid-alice-1"}},
	{"another key of the same consumer", "default", envoytest.Request{Header: []string{"ApiKey: two"}}, "",
		[]string{"apikey: two", "x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: uid-alice-2"}},
	{"a consumer without custom id, a key that is no UTF-8", "default", envoytest.Request{Header: []string{"apikey: " + unicodeKey}}, "",
		[]string{"apikey: " + unicodeKey, "x-consumer-id: uid-bob", "x-consumer-username: bob-user", "x-credential-identifier: uid-bob-1"}},
	{"a consumer without username, a key of 4096 bytes", "header only", envoytest.Request{Header: []string{"apikey: " + strings.Repeat("r", 4096)}}, "",
		[]string{"apikey: " + strings.Repeat("r", 4096), "x-consumer-custom-id: crm-1", "x-consumer-id: uid-robot", "x-credential-identifier: uid-robot-key"}},
	{"a key of 4097 bytes", "default", envoytest.Request{Header: []string{"apikey: " + strings.Repeat("r", 4097)}}, "Unauthorized", nil},
	{"a key that is going to end", "default", envoytest.Request{Header: []string{"apikey: ending"}}, "",
		[]string{"apikey: ending", "x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: uid-alice-new"}},
	{"a key that has ended", "default", envoytest.Request{Header: []string{"apikey: ended"}}, "Unauthorized", nil},
	{"an unknown key", "default", envoytest.Request{Header: []string{"apikey: three"}}, "Unauthorized", nil},
	{"the hash of a key is no key", "default", envoytest.Request{Header: []string{"apikey: 7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"}}, "Unauthorized", nil},
	{"a key in another case", "default", envoytest.Request{Header: []string{"apikey: One"}}, "Unauthorized", nil},
	{"a key that is cut", "default", envoytest.Request{Header: []string{"apikey: on"}}, "Unauthorized", nil},
	{"a key with more behind it", "default", envoytest.Request{Path: "/?apikey=one%00"}, "Unauthorized", nil},
	{"a key with a line break behind it", "default", envoytest.Request{Path: "/?apikey=one%0a"}, "Unauthorized", nil},
	{"a key with a scheme", "default", envoytest.Request{Header: []string{"apikey: Bearer one"}}, "Unauthorized", nil},
	{"a header is not decoded", "default", envoytest.Request{Header: []string{"apikey: %6Fne"}}, "Unauthorized", nil},
	{"an argument is decoded once", "default", envoytest.Request{Path: "/?apikey=%256Fne"}, "Unauthorized", nil},
	{"an argument whose name is encoded twice", "default", envoytest.Request{Path: "/?api%256bey=one"}, "No API key found in request", nil},
	{"a name with an underscore", "names", envoytest.Request{Header: []string{"x_key: one"}}, "No API key found in request", nil},
	{"two keys in one line", "default", envoytest.Request{Header: []string{"apikey: one,two"}}, "Unauthorized", nil},
	{"a list in the query", "default", envoytest.Request{Path: "/?apikey[]=one"}, "No API key found in request", nil},
	{"a semicolon does not separate arguments", "default", envoytest.Request{Path: "/?a=b;apikey=one"}, "No API key found in request", nil},
	{"the path is not searched", "default", envoytest.Request{Path: "/apikey=one"}, "No API key found in request", nil},
	{"a cookie is not searched", "default", envoytest.Request{Header: []string{"cookie: apikey=one"}}, "No API key found in request", nil},
	{"the name of a Lua method", "default", envoytest.Request{Header: []string{"apikey: __index"}}, "Unauthorized", nil},
	{"HTTP/2", "default", envoytest.Request{HTTP2: true, Header: []string{"apikey: three"}}, "Unauthorized", nil},
	{"HTTP/2 with a key", "default", envoytest.Request{HTTP2: true, Header: []string{"apikey: one"}}, "", with(alice, "apikey: one")},
	{"HTTP/2, repeated", "default", envoytest.Request{HTTP2: true, Header: []string{"apikey: one", "apikey: two"}}, "Duplicate API key found", nil},
	{"HEAD with a key", "default", envoytest.Request{Method: "HEAD", Header: []string{"apikey: one"}}, "", with(alice, "apikey: one")},
	{"OPTIONS with a key", "default", envoytest.Request{Method: "OPTIONS", Header: []string{"apikey: one"}}, "", with(alice, "apikey: one")},
	{"a percent sign alone stays", "default", envoytest.Request{Path: "/?apikey=one%"}, "Unauthorized", nil},
	{"too long in the query", "query only", envoytest.Request{Path: "/?apikey=" + strings.Repeat("r", 4097)}, "Unauthorized", nil},
	{"too long before it is decoded", "query only", envoytest.Request{Path: "/?apikey=" + strings.Repeat("%72", 4096)}, "",
		[]string{"/?apikey=" + strings.Repeat("%72", 4096), "x-consumer-custom-id: crm-1", "x-consumer-id: uid-robot", "x-credential-identifier: uid-robot-key"}},
	{"an underscore in the name", "underscore", envoytest.Request{Header: []string{"api_key: one"}}, "", alice},
	{"a dash in its place", "underscore", envoytest.Request{Header: []string{"api-key: one"}}, "No API key found in request", nil},
	{"a preflight needs a key", "default", envoytest.Request{Method: "OPTIONS", Header: []string{"origin: https://a.test", "access-control-request-method: GET"}}, "No API key found in request", nil},
	{"HEAD is no preflight", "no preflight", envoytest.Request{Method: "HEAD"}, "-", nil},
	{"nor is a claim to be one", "no preflight", envoytest.Request{Method: "POST", Header: []string{"x-http-method-override: OPTIONS"}}, "No API key found in request", nil},
	{"an empty header ends the search", "default", envoytest.Request{Path: "/?apikey=one", Header: []string{"apikey:"}}, "No API key found in request", nil},
	{"a repeated header", "default", envoytest.Request{Header: []string{"apikey: one", "apikey: one"}}, "Duplicate API key found", nil},
	{"a key in the query", "default", envoytest.Request{Path: "/a?b=c&apikey=one"}, "",
		[]string{"/a?b=c&apikey=one", "x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: uid-alice-1"}},
	{"a key in the query, encoded", "default", envoytest.Request{Path: "/?api%6bey=%6Fne"}, "",
		[]string{"/?api%6bey=%6Fne", "x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: uid-alice-1"}},
	{"the name in the query is exact", "default", envoytest.Request{Path: "/?Apikey=one"}, "No API key found in request", nil},
	{"a repeated argument", "default", envoytest.Request{Path: "/?apikey=one&apikey=one"}, "Duplicate API key found", nil},
	{"an argument without value", "default", envoytest.Request{Path: "/?apikey"}, "No API key found in request", nil},
	{"an argument without value beside one with a value", "default", envoytest.Request{Path: "/?apikey&apikey=three"}, "Unauthorized", nil},
	{"an empty argument", "default", envoytest.Request{Path: "/?apikey="}, "No API key found in request", nil},
	{"the hundredth argument", "default", envoytest.Request{Path: "/?" + strings.Repeat("a=b&", 99) + "apikey=three"}, "Unauthorized", nil},
	{"the argument behind the hundredth", "default", envoytest.Request{Path: "/?" + strings.Repeat("a=b&", 100) + "apikey=one"}, "No API key found in request", nil},
	{"the header goes before the query", "default", envoytest.Request{Path: "/?apikey=one", Header: []string{"apikey: three"}}, "Unauthorized", nil},
	{"no search in the body", "default", envoytest.Request{Method: "POST", Header: []string{form}, Body: "apikey=one"}, "No API key found in request", nil},
	{"an answer is JSON, whatever the client likes", "default", envoytest.Request{Header: []string{"accept: text/html"}}, "No API key found in request", nil},
	{"HEAD", "default", envoytest.Request{Method: "HEAD"}, "-", nil},
	{"OPTIONS needs a key", "default", envoytest.Request{Method: "OPTIONS"}, "No API key found in request", nil},
	{"OPTIONS without a key", "no preflight", envoytest.Request{Method: "OPTIONS", Header: []string{"x-consumer-id: forged", "X-Consumer-Groups: forged"}}, "", nil},
	{"GET still needs one", "no preflight", envoytest.Request{}, "No API key found in request", nil},

	{"the first name goes before the second", "names", envoytest.Request{Header: []string{"apikey: one", "x-key: three"}}, "Unauthorized", nil},
	{"a name's query goes before the next name's header", "names", envoytest.Request{Path: "/?X-Key=three", Header: []string{"apikey: one"}}, "Unauthorized", nil},
	{"the second name counts when the first is not there", "names", envoytest.Request{Header: []string{"apikey: one"}}, "",
		[]string{"apikey: one", "x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: uid-alice-1"}},
	{"an empty first name ends the search", "names", envoytest.Request{Header: []string{"apikey: one", "x-key:"}}, "No API key found in request", nil},

	{"only the header", "header only", envoytest.Request{Path: "/?apikey=one"}, "No API key found in request", nil},
	{"only the query", "query only", envoytest.Request{Header: []string{"apikey: one"}}, "No API key found in request", nil},

	{"a form", "body", envoytest.Request{Method: "POST", Header: []string{form}, Body: "a=b&apikey=%6fne"}, "",
		[]string{"x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: uid-alice-1", "body: a=b&apikey=%6fne"}},
	{"the hundredth field", "body", envoytest.Request{Method: "POST", Header: []string{form}, Body: strings.Repeat("a=b&", 99) + "apikey=three"}, "Unauthorized", nil},
	{"the field behind the hundredth", "body", envoytest.Request{Method: "POST", Header: []string{form}, Body: strings.Repeat("a=b&", 100) + "apikey=one"}, "No API key found in request", nil},
	{"hidden behind the hundredth field", "hide body", envoytest.Request{Method: "POST", Header: []string{form, "apikey: one"}, Body: strings.Repeat("a&", 100) + "apikey=two"}, "",
		with(alice, "body: "+strings.TrimSuffix(strings.Repeat("a&", 100), "&"))},
	{"a repeated field", "body", envoytest.Request{Method: "POST", Header: []string{form}, Body: "apikey=one&apikey=one"}, "Duplicate API key found", nil},
	{"JSON", "body", envoytest.Request{Method: "POST", Header: []string{json}, Body: `{"apikey":"one"}`}, "",
		[]string{"x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: uid-alice-1", `body: {"apikey":"one"}`}},
	{"a form of unknown length", "body", envoytest.Request{Method: "POST", Header: []string{form}, Body: "apikey=one", UnknownLength: true}, "", with(alice, "body: apikey=one")},
	{"a type in another case", "body", envoytest.Request{Method: "POST", Header: []string{"content-type: Application/JSON"}, Body: `{"apikey":"one"}`}, "", with(alice, `body: {"apikey":"one"}`)},
	{"JSON, escaped", "body", envoytest.Request{Method: "POST", Header: []string{json}, Body: `{"\u0061pikey":"\u006fne"}`}, "", with(alice, `body: {"\u0061pikey":"\u006fne"}`)},
	{"an empty field", "body", envoytest.Request{Method: "POST", Header: []string{form}, Body: "apikey=&x=one"}, "No API key found in request", nil},
	{"JSON, empty", "body", envoytest.Request{Method: "POST", Header: []string{json}, Body: `{"apikey":""}`}, "No API key found in request", nil},
	{"JSON, null", "body", envoytest.Request{Method: "POST", Header: []string{json}, Body: `{"apikey":null}`}, "No API key found in request", nil},
	{"JSON, too long", "body", envoytest.Request{Method: "POST", Header: []string{json}, Body: `{"apikey":"` + strings.Repeat("r", 4097) + `"}`}, "Unauthorized", nil},
	{"JSON that is called so besides", "body", envoytest.Request{Method: "POST", Header: []string{"content-type: text/plain; application/json"}, Body: `{"apikey":"one"}`}, "No API key found in request", nil},
	{"JSON, nested", "body", envoytest.Request{Method: "POST", Header: []string{json}, Body: `{"a":{"apikey":"one"}}`}, "No API key found in request", nil},
	{"JSON, no string", "body", envoytest.Request{Method: "POST", Header: []string{json}, Body: `{"apikey":["one"]}`}, "No API key found in request", nil},
	{"JSON, a list", "body", envoytest.Request{Method: "POST", Header: []string{json}, Body: `["apikey","one"]`}, "No API key found in request", nil},
	{"JSON, the last of two", "body", envoytest.Request{Method: "POST", Header: []string{json}, Body: `{"apikey":"one","apikey":"three"}`}, "Unauthorized", nil},
	{"JSON, in another case", "body", envoytest.Request{Method: "POST", Header: []string{json}, Body: `{"ApiKey":"one"}`}, "No API key found in request", nil},
	{"JSON that says it is a form", "body", envoytest.Request{Method: "POST", Header: []string{form}, Body: `{"apikey":"one"}`}, "No API key found in request", nil},
	{"JSON, broken", "body", envoytest.Request{Method: "POST", Header: []string{json}, Body: `{"apikey":"one"`}, "No API key found in request", nil},
	{"another type of body", "body", envoytest.Request{Method: "POST", Header: []string{"content-type: text/plain"}, Body: `apikey=one`}, "No API key found in request", nil},
	{"no body", "body", envoytest.Request{Method: "POST", Header: []string{form}}, "No API key found in request", nil},
	{"the query goes before the body", "body", envoytest.Request{Method: "POST", Path: "/?apikey=three", Header: []string{form}, Body: "apikey=one"}, "Unauthorized", nil},

	{"hidden header", "hide", envoytest.Request{Header: []string{"apikey: one", "other: x"}}, "",
		[]string{"x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: uid-alice-1"}},
	{"hidden in all places", "hide", envoytest.Request{Path: "/a?x=%20+1&apikey=two&%61pikey=3&apikey&y&x-key=4&&z=", Header: []string{"apikey: one", "x-key: two"}}, "",
		[]string{"/a?x=%20+1&y&z=", "x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: uid-alice-1"}},
	{"hidden only argument", "hide", envoytest.Request{Path: "/a?apikey=one"}, "",
		[]string{"/a", "x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: uid-alice-1"}},
	{"hidden behind the hundredth argument", "hide", envoytest.Request{Path: "/a?" + strings.Repeat("a=b&", 100) + "apikey=one", Header: []string{"apikey: one"}}, "",
		[]string{"/a?" + strings.TrimSuffix(strings.Repeat("a=b&", 100), "&"), "x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: uid-alice-1"}},
	{"a path without a key stays as it is", "hide", envoytest.Request{Path: "/a?b&&c=%7e", Header: []string{"apikey: one"}}, "",
		[]string{"/a?b&&c=%7e", "x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: uid-alice-1"}},
	{"the body is not searched and stays", "hide", envoytest.Request{Method: "POST", Header: []string{form, "apikey: one"}, Body: "apikey=x"}, "",
		[]string{"x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: uid-alice-1", "body: apikey=x"}},
	{"hidden in a form", "hide body", envoytest.Request{Method: "POST", Header: []string{form}, Body: "a=%20+b&apikey=one&c"}, "",
		[]string{"x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: uid-alice-1", "body: a=%20+b&c"}},
	{"hidden in JSON", "hide body", envoytest.Request{Method: "POST", Header: []string{json}, Body: `{"z":1.0,"apikey":"one","a":[],"n":null}`}, "",
		[]string{"x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: uid-alice-1", `body: {"z":1.0,"a":[],"n":null}`}},
	{"hidden in the body, too", "hide body", envoytest.Request{Method: "POST", Header: []string{form, "apikey: one"}, Body: "apikey=two&a=b"}, "",
		[]string{"x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: uid-alice-1", "body: a=b"}},

	{"nobody is the anonymous one", "anonymous", envoytest.Request{}, "",
		[]string{"x-anonymous-consumer: true", "x-consumer-id: uid-guest", "x-consumer-username: guest-user"}},
	{"an unknown key is the anonymous one, and hidden", "anonymous", envoytest.Request{Path: "/?apikey=three"}, "",
		[]string{"x-anonymous-consumer: true", "x-consumer-id: uid-guest", "x-consumer-username: guest-user"}},
	{"repeated keys are the anonymous one, and hidden", "anonymous", envoytest.Request{Path: "/?apikey=one&apikey=one", Header: []string{"apikey: one", "apikey: one"}}, "", guest},
	{"so is one that is too long", "anonymous", envoytest.Request{Header: []string{"apikey: " + strings.Repeat("r", 4097)}}, "", guest},
	{"and one that has ended", "anonymous", envoytest.Request{Header: []string{"apikey: ended"}}, "", guest},
	{"HEAD of nobody", "anonymous", envoytest.Request{Method: "HEAD"}, "", guest},
	{"a key is who it is", "anonymous", envoytest.Request{Header: []string{"apikey: one", "X-Anonymous-Consumer: true"}}, "",
		[]string{"x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: uid-alice-1"}},
	{"the anonymous one by the name of the object", "by name", envoytest.Request{}, "",
		[]string{"x-anonymous-consumer: true", "x-consumer-id: uid-guest", "x-consumer-username: guest-user"}},

	{"forged identity", "default", envoytest.Request{Header: []string{
		"apikey: " + unicodeKey, "X-Consumer-ID: x", "x-consumer-custom-id: x", "X-Consumer-Username: x", "x-credential-identifier: x",
		"x-anonymous-consumer: true", "x-consumer-groups: admins"}}, "",
		[]string{"apikey: " + unicodeKey, "x-consumer-id: uid-bob", "x-consumer-username: bob-user", "x-credential-identifier: uid-bob-1"}},

	{"authorization, once", "bearer", envoytest.Request{Header: []string{"authorization: one"}}, "",
		[]string{"x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: uid-alice-1"}},
	{"authorization has no scheme", "bearer", envoytest.Request{Header: []string{"authorization: Bearer one"}}, "Unauthorized", nil},
	{"authorization, repeated", "bearer", envoytest.Request{Header: []string{"authorization: one", "authorization: one"}}, "Unauthorized", nil},

	{"a consumer of another namespace", "partner", envoytest.Request{Header: []string{"apikey: carols"}}, "",
		[]string{"apikey: carols", "x-consumer-id: uid-carol", "x-consumer-username: carol-user", "x-credential-identifier: uid-carol-1"}},
	{"who is not one here", "default", envoytest.Request{Header: []string{"apikey: carols"}}, "Unauthorized", nil},
}

// seen is what the cases speak of.
func seen(r *envoytest.Received) []string {
	var out []string
	if r.Path != "/" {
		out = append(out, r.Path)
	}
	for _, line := range r.Header {
		name, _, _ := strings.Cut(line, ":")
		if name == "apikey" || name == "x-key" || name == "x-anonymous-consumer" || strings.HasPrefix(name, "x-consumer-") || strings.HasPrefix(name, "x-credential-") {
			out = append(out, line)
		}
	}
	if r.Body != "" {
		out = append(out, "body: "+r.Body)
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
					if c.refused == "" {
						if answer.Upstream == nil {
							t.Fatalf("status %d %s, did not get upstream\n%s", answer.Status, answer.Body, envoy.Log())
						}
						if diff := cmp.Diff(c.upstream, seen(answer.Upstream)); diff != "" {
							t.Errorf("upstream (-want +got):\n%s", diff)
						}
						return
					}
					if answer.Status != 401 || answer.Upstream != nil {
						t.Fatalf("status %d, upstream %v", answer.Status, answer.Upstream)
					}
					challenge := "Key"
					if c.chain == "names" {
						challenge = `Key realm="my \"shop\""`
					}
					if got := answer.Header.Get("WWW-Authenticate"); got != challenge {
						t.Errorf("WWW-Authenticate: %s, want %s", got, challenge)
					}
					if got := answer.Header.Get("Content-Type"); got != "application/json; charset=utf-8" {
						t.Errorf("Content-Type: %s", got)
					}
					if c.refused == "-" {
						return
					}
					if answer.Message() != c.refused {
						t.Errorf("body %s, want message %q", answer.Body, c.refused)
					}
					if !strings.Contains(answer.Body, `"request_id":"`) {
						t.Errorf("no request_id in %s", answer.Body)
					}
				})
			}
		})
	}
}

// As many keys as are accepted at all are looked up, the first as the last.
func TestManyKeys(t *testing.T) {
	const most = 10_000
	s := &snapshot.Snapshot{}
	for i := range most {
		name := fmt.Sprintf("c%d", i)
		s.Consumers = append(s.Consumers, &pluginsv1alpha1.Consumer{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
			Spec:       pluginsv1alpha1.ConsumerSpec{Username: name, Credentials: []string{name}},
		})
		s.Secrets = append(s.Secrets, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{pluginsv1alpha1.CredentialLabel: "key-auth"}},
			Data:       map[string][]byte{"key": []byte("key of " + name)},
		})
	}
	index, findings := consumer.New(s)
	if len(findings) > 0 {
		t.Fatal(findings[0])
	}
	parts := catalogtest.Parts(t, keyauth.Builtin, builtin.Use{Plugin: "key-auth", Namespace: "shop", Consumers: index}, `{}`)
	gateway := envoytest.Run(t, parts)
	for _, name := range []string{"c0", "c4999", "c9999"} {
		answer := gateway.Get(t, "/", "apikey: key of "+name)
		if answer.Upstream == nil || answer.Upstream.Value("x-consumer-username") != name {
			t.Errorf("%s: status %d, upstream %v", name, answer.Status, answer.Upstream)
		}
	}
	if answer := gateway.Get(t, "/", "apikey: key of c10000"); answer.Status != 401 {
		t.Errorf("an unknown key among many: status %d", answer.Status)
	}
}

// With anonymous, one of several plugins is enough; without, all have to pass.
func TestSeveral(t *testing.T) {
	first, second := `{"key_names":["first"]}`, `{"key_names":["second"]}`
	firstOr, secondOr := `{"key_names":["first"],"anonymous":"guest"}`, `{"key_names":["second"],"anonymous":"guest"}`
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			envoy := envoytest.Start(t, version, envoytest.Config{Chains: map[string][]part.Part{
				"and": append(parts(t, first), parts(t, second)...),
				"or":  append(parts(t, firstOr), parts(t, secondOr)...),
			}})
			for _, c := range []struct {
				name, chain string
				header      []string
				status      int
				id          string
			}{
				{"both pass, the last one counts", "and", []string{"first: one", "second: " + unicodeKey}, 200, "uid-bob"},
				{"the first fails", "and", []string{"second: one"}, 401, ""},
				{"the second fails", "and", []string{"first: one"}, 401, ""},
				{"the first is enough", "or", []string{"first: one", "second: " + unicodeKey}, 200, "uid-alice"},
				{"the second is enough", "or", []string{"second: " + unicodeKey}, 200, "uid-bob"},
				{"the first stays", "or", []string{"first: one"}, 200, "uid-alice"},
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
					if anonymous := answer.Upstream.Value("x-anonymous-consumer") == "true"; anonymous != (c.id == "uid-guest") {
						t.Errorf("x-anonymous-consumer = %v", anonymous)
					}
				})
			}
		})
	}
}

// A username goes before the name of an object, which somebody else may have.
func TestAnonymousByUsernameOrName(t *testing.T) {
	index, findings := consumer.New(&snapshot.Snapshot{Consumers: []*pluginsv1alpha1.Consumer{
		{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "guest", UID: "uid-named"}, Spec: pluginsv1alpha1.ConsumerSpec{Username: "admin"}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "visitor", UID: "uid-called"}, Spec: pluginsv1alpha1.ConsumerSpec{Username: "guest"}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "robot", UID: "uid-robot"}, Spec: pluginsv1alpha1.ConsumerSpec{CustomID: "crm-1"}},
	}})
	if len(findings) > 0 {
		t.Fatal(findings[0])
	}
	for anonymous, want := range map[string]string{"guest": "uid-called", "admin": "uid-named", "robot": "uid-robot", "crm-1": ""} {
		parts, problems := catalogtest.Build(t, keyauth.Builtin, builtin.Use{Plugin: "key-auth", Namespace: "shop", Consumers: index}, `{"anonymous":"`+anonymous+`"}`)
		if (len(problems) > 0) != (want == "") {
			t.Errorf("%s: %v", anonymous, problems)
		}
		if want == "" {
			continue
		}
		got := parts[0].(part.Lua).Config["anonymous"].(config.Value)
		if got["id"] != want || got["anonymous"] != true {
			t.Errorf("%s: %v, want %s", anonymous, got, want)
		}
	}
}

// Objects in files may be copies of others with their uids. Each is who it says it is all the same.
func TestEqualUIDs(t *testing.T) {
	s := &snapshot.Snapshot{}
	for _, name := range []string{"alice", "bob"} {
		s.Consumers = append(s.Consumers, &pluginsv1alpha1.Consumer{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: "copied"},
			Spec:       pluginsv1alpha1.ConsumerSpec{Username: name, Credentials: []string{name}},
		})
		s.Secrets = append(s.Secrets, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: "copied, too", Labels: map[string]string{pluginsv1alpha1.CredentialLabel: "key-auth"}},
			Data:       map[string][]byte{"key": []byte("key of " + name)},
		})
	}
	index, findings := consumer.New(s)
	if len(findings) > 0 {
		t.Fatal(findings[0])
	}
	gateway := envoytest.Run(t, catalogtest.Parts(t, keyauth.Builtin, builtin.Use{Plugin: "key-auth", Namespace: "shop", Consumers: index}, `{}`))
	for _, name := range []string{"alice", "bob"} {
		answer := gateway.Get(t, "/", "apikey: key of "+name)
		if answer.Upstream == nil || answer.Upstream.Value("x-consumer-username") != name {
			t.Errorf("%s: status %d, upstream %v", name, answer.Status, answer.Upstream)
		}
	}
}

// What is above the gateway's buffer limit is refused, whether it has a key or not.
func TestLargeBody(t *testing.T) {
	envoy := envoytest.Start(t, envoytest.Versions[0], envoytest.Config{Chains: map[string][]part.Part{"body": parts(t, `{"key_in_body":true,"anonymous":"guest"}`)}})
	for _, body := range []string{"apikey=one&a=" + strings.Repeat("x", 2<<20), strings.Repeat("x", 2<<20)} {
		if answer := envoy.Gateway("body").Do(t, envoytest.Request{Method: "POST", Header: []string{form}, Body: body}); answer.Status != 413 || answer.Upstream != nil {
			t.Errorf("status %d %s", answer.Status, answer.Body)
		}
	}
	if answer := envoy.Gateway("body").Do(t, envoytest.Request{Method: "POST", Header: []string{"content-type: text/plain"}, Body: strings.Repeat("x", 2<<20)}); answer.Upstream == nil {
		t.Errorf("a body that is not searched: status %d %s", answer.Status, answer.Body)
	}
}

func TestGRPC(t *testing.T) {
	answer := envoytest.Run(t, parts(t, `{}`)).Do(t, envoytest.Request{Method: "POST", HTTP2: true, Header: []string{"content-type: application/grpc"}})
	if answer.Status != 200 || answer.Header.Get("grpc-status") != "16" || answer.Header.Get("grpc-message") != "No API key found in request" {
		t.Errorf("status %d, headers %v", answer.Status, answer.Header)
	}
}
