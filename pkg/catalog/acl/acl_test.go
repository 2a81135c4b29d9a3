package acl_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/acl"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/keyauth"
	"github.com/istio-plugins/istio-plugins/pkg/consumer"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// consumers have their names as keys: anna groups of both kinds, ben one that is not plain, carla none, guest one.
func consumers() *consumer.Index {
	s := &snapshot.Snapshot{}
	secret := func(name, kind, key, value string) string {
		s.Secrets = append(s.Secrets, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{pluginsv1alpha1.CredentialLabel: kind}},
			Data:       map[string][]byte{key: []byte(value)},
		})
		return name
	}
	person := func(name string, groups []string, credentials ...string) {
		s.Consumers = append(s.Consumers, &pluginsv1alpha1.Consumer{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-" + name)},
			Spec:       pluginsv1alpha1.ConsumerSpec{Username: name, Groups: groups, Credentials: append(credentials, secret(name+"-key", "key-auth", "key", name))},
		})
	}
	person("anna", []string{"staff", "Buyers"}, secret("admins", "acl", "group", "admins"), secret("staff", "acl", "group", "staff"))
	person("ben", []string{"Gäste der Küche"})
	person("carla", nil)
	person("guest", []string{"guests"})
	index, findings := consumer.New(s)
	if len(findings) > 0 {
		panic(fmt.Sprint(findings))
	}
	return index
}

// build checks a config of a built-in and makes its parts.
func build(t *testing.T, b *builtin.Builtin, text string) ([]part.Part, []string) {
	t.Helper()
	return catalogtest.Build(t, b, builtin.Use{Plugin: b.Name, Namespace: "shop", Consumers: consumers()}, text)
}

// chain is key-auth followed by one acl for each config.
func chain(t *testing.T, keyAuth string, configs ...string) []part.Part {
	t.Helper()
	parts, problems := build(t, keyauth.Builtin, keyAuth)
	for _, c := range configs {
		more, wrong := build(t, acl.Builtin, c)
		parts, problems = append(parts, more...), append(problems, wrong...)
	}
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return parts
}

func TestConfig(t *testing.T) {
	const one = "needs exactly one of allow and deny"
	for _, c := range []struct {
		config string
		want   []string
	}{
		{`{}`, []string{one}},
		{`{"allow":[]}`, []string{one}},
		{`{"allow":[],"deny":[]}`, []string{one}},
		{`{"allow":["a"],"deny":["b"]}`, []string{one}},
		{`{"allow":["a"]}`, nil},
		{`{"allow":["a"],"deny":[]}`, nil},
		{`{"deny":["a","b c","ä"],"hide_groups_header":true}`, nil},
		{`{"deny":["a"],"always_use_authenticated_groups":true}`, []string{"warning always_use_authenticated_groups: has no meaning here and is ignored"}},
		{`{"allow":["a,b"]}`, []string{`allow[0]: "a,b" does not match ^[^,\x00-\x1f\x7f]+$`}},
		{`{"deny":["a","b\n"]}`, []string{`deny[1]: "b\n" does not match ^[^,\x00-\x1f\x7f]+$`}},
		{`{"allow":[""]}`, []string{`allow[0]: "" does not match ^[^,\x00-\x1f\x7f]+$`, "allow[0]: must not be shorter than 1 characters"}},
		{`{"allow":"a"}`, []string{"allow: must be a list, not a string"}},
		{`{"whitelist":["a"]}`, []string{"whitelist: unknown field, known ones are allow, deny, hide_groups_header"}},
	} {
		_, got := build(t, acl.Builtin, c.config)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.config, diff)
		}
	}
}

func TestRequests(t *testing.T) {
	const allAnnas = "Buyers, admins, staff"
	chains := map[string][]part.Part{
		"allow":                    chain(t, `{}`, `{"allow":["staff"]}`),
		"allow secret":             chain(t, `{}`, `{"allow":["admins"]}`),
		"allow case":               chain(t, `{}`, `{"allow":["Staff","buyers"]}`),
		"allow text":               chain(t, `{}`, `{"allow":["Gäste der Küche"]}`),
		"deny":                     chain(t, `{}`, `{"deny":["staff","x"]}`),
		"hide":                     chain(t, `{}`, `{"allow":["staff"],"hide_groups_header":true}`),
		"both":                     chain(t, `{}`, `{"allow":["staff"]}`, `{"deny":["admins"]}`),
		"hide last":                chain(t, `{}`, `{"allow":["staff"]}`, `{"allow":["admins"],"hide_groups_header":true}`),
		"hide first":               chain(t, `{}`, `{"allow":["staff"],"hide_groups_header":true}`, `{"allow":["admins"]}`),
		"anonymous":                chain(t, `{"anonymous":"guest"}`, `{"allow":["guests","staff"]}`),
		"no anonymous":             chain(t, `{"anonymous":"guest"}`, `{"allow":["staff"]}`),
		"anonymous without groups": chain(t, `{"anonymous":"carla"}`, `{"deny":["staff"]}`),
		"no preflight":             chain(t, `{"run_on_preflight":false}`, `{"deny":["x"]}`),
		"begins":                   chain(t, `{}`, `{"allow":["staf","staffs","staff "]}`),
		"list":                     chain(t, `{}`, `{"allow":["Buyers admins staff"]}`),
		"method":                   chain(t, `{}`, `{"allow":["__index","1"]}`),
		"alone":                    chain(t, `{}`, `{"deny":["x"]}`)[1:],
	}
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			envoy := envoytest.Start(t, version, envoytest.Config{Chains: chains})
			for _, c := range []struct {
				name, chain, key string
				method           string
				http2            bool
				header           []string
				status           int
				groups           string
			}{
				{name: "of the group", chain: "allow", key: "anna", status: 200, groups: allAnnas},
				{name: "of another group", chain: "allow", key: "ben", status: 403},
				{name: "without groups", chain: "allow", key: "carla", status: 403},
				{name: "not authenticated, by the plugin before", chain: "allow", key: "x", status: 401},
				{name: "of a group from a Secret", chain: "allow secret", key: "anna", status: 200, groups: allAnnas},
				{name: "of groups in another case", chain: "allow case", key: "anna", status: 403},
				{name: "of a group that is no plain word", chain: "allow text", key: "ben", status: 200, groups: "Gäste der Küche"},
				{name: "of a denied group", chain: "deny", key: "anna", status: 403},
				{name: "of a group that is not denied", chain: "deny", key: "ben", status: 200, groups: "Gäste der Küche"},
				{name: "without groups, not denied", chain: "deny", key: "carla", status: 200},
				{name: "groups hidden", chain: "hide", key: "anna", status: 200},
				{name: "both must let pass", chain: "both", key: "anna", status: 403},
				{name: "the last hides", chain: "hide last", key: "anna", status: 200},
				{name: "the first hides", chain: "hide first", key: "anna", status: 200, groups: allAnnas},
				{name: "forged groups", chain: "allow", key: "ben", header: []string{"X-Consumer-Groups: staff"}, status: 403},
				{name: "forged groups of who passes", chain: "allow", key: "anna", header: []string{"X-Consumer-Groups: root", "x-consumer-groups: more"}, status: 200, groups: allAnnas},
				{name: "forged groups, hidden", chain: "hide", key: "anna", header: []string{"X-Consumer-Groups: root"}, status: 200},
				{name: "forged groups of who has none", chain: "deny", key: "carla", header: []string{"X-Consumer-Groups: root"}, status: 200},
				{name: "the anonymous one, allowed", chain: "anonymous", status: 200, groups: "guests"},
				{name: "the anonymous one, not allowed", chain: "no anonymous", status: 403},
				{name: "somebody, with an anonymous one", chain: "no anonymous", key: "anna", status: 200, groups: allAnnas},
				{name: "the anonymous one without groups", chain: "anonymous without groups", status: 200},
				{name: "a preflight that nobody authenticated", chain: "no preflight", method: "OPTIONS", status: 401},
				{name: "nobody, and a forged identity", chain: "alone", header: []string{"x-consumer-id: uid-anna", "x-consumer-username: anna"}, status: 401},
				{name: "forged groups in another spelling", chain: "allow", key: "ben", header: []string{"X_Consumer_Groups: staff", "x-consumer_groups: staff"}, status: 403},
				{name: "forged groups of the anonymous one", chain: "no anonymous", header: []string{"X-Consumer-Groups: staff", "x-consumer-id: uid-anna"}, status: 403},
				{name: "an empty key", chain: "no anonymous", header: []string{"apikey:"}, status: 403},
				{name: "two keys, and an anonymous one", chain: "no anonymous", key: "anna", header: []string{"apikey: anna"}, status: 403},
				{name: "OPTIONS is asked for, too", chain: "allow", key: "ben", method: "OPTIONS", status: 403},
				{name: "HEAD", chain: "allow", key: "ben", method: "HEAD", status: 403},
				{name: "HEAD of the group", chain: "allow", key: "anna", method: "HEAD", status: 200, groups: allAnnas},
				{name: "OPTIONS of the group", chain: "allow", key: "anna", method: "OPTIONS", status: 200, groups: allAnnas},
				{name: "HTTP/2", chain: "allow", key: "ben", http2: true, header: []string{"x-consumer-groups: staff"}, status: 403},
				{name: "HTTP/2, of the group", chain: "allow", key: "anna", http2: true, header: []string{"x-consumer-groups: root"}, status: 200, groups: allAnnas},
				{name: "a group that begins so", chain: "begins", key: "anna", status: 403},
				{name: "a group in a list", chain: "list", key: "anna", status: 403},
				{name: "the name of a Lua method", chain: "method", key: "carla", status: 403},
			} {
				t.Run(c.name, func(t *testing.T) {
					header := c.header
					if c.key != "" {
						header = append(slices.Clone(header), "apikey: "+c.key)
					}
					answer := envoy.Gateway(c.chain).Do(t, envoytest.Request{Method: c.method, HTTP2: c.http2, Header: header})
					if answer.Status != c.status {
						t.Fatalf("status %d %s, want %d", answer.Status, answer.Body, c.status)
					}
					if c.status == 200 {
						if got := answer.Upstream.Values("x-consumer-groups"); strings.Join(got, "|") != c.groups {
							t.Errorf("the upstream gets the groups %q, want %q", got, c.groups)
						}
						return
					}
					if answer.Upstream != nil {
						t.Errorf("it went upstream: %v", answer.Upstream)
					}
					if c.key == "x" || c.method == "HEAD" {
						return
					}
					message := map[int]string{401: "Unauthorized", 403: "You cannot consume this service"}[c.status]
					if answer.Message() != message || !strings.Contains(answer.Body, `"request_id":"`) || answer.Header.Get("www-authenticate") != "" {
						t.Errorf("the answer is %s, %v", answer.Body, answer.Header)
					}
				})
			}
		})
	}
}

func TestGRPC(t *testing.T) {
	request := envoytest.Request{Method: "POST", HTTP2: true, Header: []string{"content-type: application/grpc", "apikey: ben"}}
	answer := envoytest.Run(t, chain(t, `{}`, `{"allow":["staff"]}`)).Do(t, request)
	if answer.Status != 200 || answer.Header.Get("grpc-status") != "7" || answer.Header.Get("grpc-message") != "You cannot consume this service" {
		t.Errorf("status %d, headers %v", answer.Status, answer.Header)
	}
}
