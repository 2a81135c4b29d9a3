package consumer_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/consumer"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// user is a Consumer of namespace shop, named as its username.
func user(name string, credentials ...string) *pluginsv1alpha1.Consumer {
	return userIn("shop", name, credentials...)
}

func userIn(namespace, name string, credentials ...string) *pluginsv1alpha1.Consumer {
	return &pluginsv1alpha1.Consumer{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       pluginsv1alpha1.ConsumerSpec{Username: name, Credentials: credentials},
	}
}

// secret is a credential Secret of namespace shop; data are keys and values in turn.
func secret(name, kind string, data ...string) *corev1.Secret {
	return secretIn("shop", name, kind, data...)
}

func secretIn(namespace, name, kind string, data ...string) *corev1.Secret {
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{pluginsv1alpha1.CredentialLabel: kind}},
		Data:       map[string][]byte{},
	}
	for i := 0; i < len(data); i += 2 {
		s.Data[data[i]] = []byte(data[i+1])
	}
	return s
}

// created gives a Secret its age, which those from files do not have.
func created(s *corev1.Secret, seconds int64) *corev1.Secret {
	s.CreationTimestamp = metav1.Unix(seconds, 0)
	return s
}

// kongs is a Secret with the label of Kong's ingress controller alone.
func kongs(name, kind string, data ...string) *corev1.Secret {
	s := secret(name, kind, data...)
	s.Labels = map[string]string{pluginsv1alpha1.KongCredentialLabel: kind}
	return s
}

// both is a Secret with our label and Kong's.
func both(name, ours, kong string, data ...string) *corev1.Secret {
	s := secret(name, ours, data...)
	s.Labels[pluginsv1alpha1.KongCredentialLabel] = kong
	return s
}

// grant lets Plugins of a namespace use Consumers of another; without names all of them.
func grant(owner, user string, names ...string) *gatewayv1.ReferenceGrant {
	g := &gatewayv1.ReferenceGrant{
		ObjectMeta: metav1.ObjectMeta{Namespace: owner, Name: "consumers"},
		Spec: gatewayv1.ReferenceGrantSpec{
			From: []gatewayv1.ReferenceGrantFrom{{Group: "plugins.istio.io", Kind: "Plugin", Namespace: gatewayv1.Namespace(user)}},
		},
	}
	if len(names) == 0 {
		g.Spec.To = []gatewayv1.ReferenceGrantTo{{Group: "plugins.istio.io", Kind: "Consumer"}}
	}
	for _, n := range names {
		name := gatewayv1.ObjectName(n)
		g.Spec.To = append(g.Spec.To, gatewayv1.ReferenceGrantTo{Group: "plugins.istio.io", Kind: "Consumer", Name: &name})
	}
	return g
}

// keys are the accepted keys as `key=consumer`.
func keys(c *builtin.Credentials) []string {
	var out []string
	for _, credential := range c.All {
		out = append(out, fmt.Sprintf("%s=%s", credential.Data["key"], credential.Consumer.Name))
	}
	return out
}

func problems(ps []builtin.Problem) []string {
	var out []string
	for _, p := range ps {
		out = append(out, fmt.Sprintf("warning=%v %s: %s", p.Warning, p.Path, p.Message))
	}
	return out
}

func TestCredentials(t *testing.T) {
	for _, c := range []struct {
		name      string
		consumers []*pluginsv1alpha1.Consumer
		secrets   []*corev1.Secret
		keys      []string
		findings  []string
	}{
		{
			name:      "a consumer authenticates with each of its keys",
			consumers: []*pluginsv1alpha1.Consumer{user("alice", "a1", "a2")},
			secrets:   []*corev1.Secret{secret("a1", "key-auth", "key", "one"), secret("a2", "key-auth", "key", "two")},
			keys:      []string{"one=alice", "two=alice"},
		},
		{
			name:      "a Secret named twice is one credential",
			consumers: []*pluginsv1alpha1.Consumer{user("alice", "a1", "a1")},
			secrets:   []*corev1.Secret{secret("a1", "key-auth", "key", "one")},
			keys:      []string{"one=alice"},
		},
		{
			name:      "a missing Secret spoils itself only",
			consumers: []*pluginsv1alpha1.Consumer{user("alice", "gone", "a1")},
			secrets:   []*corev1.Secret{secret("a1", "key-auth", "key", "one"), secretIn("other", "gone", "key-auth", "key", "two")},
			keys:      []string{"one=alice"},
			findings: []string{
				"error InvalidCredential consumer/shop/alice:spec.credentials[0]: namespace shop has no Secret \"gone\" with the label plugins.istio.io/credential; it authenticates nobody; create it, or label it with `kubectl label secret -n shop gone plugins.istio.io/credential=<type>`",
			},
		},
		{
			name:      "Kong's label counts, unless ours says otherwise",
			consumers: []*pluginsv1alpha1.Consumer{user("alice", "a1", "a2")},
			secrets:   []*corev1.Secret{kongs("a1", "key-auth", "key", "one"), both("a2", "basic-auth", "key-auth", "key", "two")},
			keys:      []string{"one=alice"},
			findings: []string{
				`error InvalidCredential consumer/shop/alice:spec.credentials[1]: Secret "a2" of type basic-auth lacks username and password; it authenticates nobody; add it to the Secret's data`,
			},
		},
		{
			name:      "a username that no client can send",
			consumers: []*pluginsv1alpha1.Consumer{user("alice", "a1", "a2", "a3", "a4")},
			secrets: []*corev1.Secret{
				secret("a1", "basic-auth", "username", "a:b", "password", "p"), secret("a2", "basic-auth", "username", "alice\n", "password", "p"),
				secret("a3", "basic-auth", "username", "\xff", "password", "p"), secret("a4", "basic-auth", "username", "ärger 1", "password", "p:\xff\x00"),
			},
			findings: []string{
				`error InvalidCredential consumer/shop/alice:spec.credentials[0]: Secret "a1" of type basic-auth is malformed: username has a colon, at which clients end it; it authenticates nobody; correct the Secret's data`,
				`error InvalidCredential consumer/shop/alice:spec.credentials[1]: Secret "a2" of type basic-auth is malformed: username has a control character, such as a line break; write it for example with ` + "`printf` instead of `echo`" + `; it authenticates nobody; correct the Secret's data`,
				`error InvalidCredential consumer/shop/alice:spec.credentials[2]: Secret "a3" of type basic-auth is malformed: username is no UTF-8; it authenticates nobody; correct the Secret's data`,
			},
		},
		{
			name: "names and groups that no header can hold",
			consumers: []*pluginsv1alpha1.Consumer{
				user("alice", "a1", "a2", "a3", "a4"),
				{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "bob"}, Spec: pluginsv1alpha1.ConsumerSpec{Username: "bob", Groups: []string{"a,b", "", "c\nd", "e f"}}},
			},
			secrets: []*corev1.Secret{
				secret("a1", "hmac-auth", "username", `a"b`, "secret", "s"), secret("a2", "hmac-auth", "username", "alice\n", "secret", "s"),
				secret("a3", "jwt", "key", "issuer\n", "secret", "s"), secret("a4", "acl", "group", "a,b"),
			},
			findings: []string{
				`error InvalidCredential consumer/shop/alice:spec.credentials[0]: Secret "a1" of type hmac-auth is malformed: username has a quote, at which it would end; it authenticates nobody; correct the Secret's data`,
				`error InvalidCredential consumer/shop/alice:spec.credentials[1]: Secret "a2" of type hmac-auth is malformed: username has a control character, such as a line break; write it for example with ` + "`printf` instead of `echo`" + `; it authenticates nobody; correct the Secret's data`,
				`error InvalidCredential consumer/shop/alice:spec.credentials[2]: Secret "a3" of type jwt is malformed: key has a control character, such as a line break; write it for example with ` + "`printf` instead of `echo`" + `; it authenticates nobody; correct the Secret's data`,
				`error InvalidCredential consumer/shop/alice:spec.credentials[3]: Secret "a4" of type acl is malformed: group has a comma, which separates groups in X-Consumer-Groups; it authenticates nobody; correct the Secret's data`,
				`error InvalidObject consumer/shop/bob:spec.groups[0]: the group has a comma, which separates groups in X-Consumer-Groups; the consumer is not in this group; rename it`,
				`error InvalidObject consumer/shop/bob:spec.groups[2]: the group has a control character, such as a line break; write it for example with ` + "`printf` instead of `echo`" + `; the consumer is not in this group; rename it`,
			},
		},
		{
			name:      "an unknown type offers the nearest one",
			consumers: []*pluginsv1alpha1.Consumer{user("alice", "a1")},
			secrets:   []*corev1.Secret{secret("a1", "keyauth", "key", "one")},
			findings: []string{
				`error InvalidCredential consumer/shop/alice:spec.credentials[0]: Secret "a1" has the unknown credential type "keyauth", did you mean "key-auth"?; it authenticates nobody; the types are acl, basic-auth, hmac-auth, jwt, key-auth`,
			},
		},
		{
			name:      "a key that is absent or empty is missing",
			consumers: []*pluginsv1alpha1.Consumer{user("alice", "a1", "a2", "a3")},
			secrets:   []*corev1.Secret{secret("a1", "key-auth", "Key", "one"), secret("a2", "key-auth", "key", ""), secret("a3", "basic-auth", "username", "")},
			findings: []string{
				`error InvalidCredential consumer/shop/alice:spec.credentials[0]: Secret "a1" of type key-auth lacks key; it authenticates nobody; add it to the Secret's data`,
				`error InvalidCredential consumer/shop/alice:spec.credentials[1]: Secret "a2" of type key-auth lacks key; it authenticates nobody; add it to the Secret's data`,
				`error InvalidCredential consumer/shop/alice:spec.credentials[2]: Secret "a3" of type basic-auth lacks username and password; it authenticates nobody; add it to the Secret's data`,
			},
		},
		{
			name:      "white space at the end is kept, with a warning",
			consumers: []*pluginsv1alpha1.Consumer{user("alice", "a1")},
			secrets:   []*corev1.Secret{secret("a1", "key-auth", "key", "one\n")},
			keys:      []string{"one\n=alice"},
			findings: []string{
				"warning CredentialWarning consumer/shop/alice:spec.credentials[0]: key in Secret \"a1\" ends in white space; the white space is part of the value, which a client can hardly send; write the value without a line break, for example with `printf` instead of `echo`",
			},
		},
		{
			name:      "a ttl needs a time that it counts from",
			consumers: []*pluginsv1alpha1.Consumer{user("alice", "a1", "a2", "a3", "a4", "a5")},
			secrets: []*corev1.Secret{
				secret("a1", "key-auth", "key", "one", "ttl", "60"), secret("a2", "key-auth", "key", "two", "ttl", "1m"),
				secret("a3", "key-auth", "key", "three", "ttl", "0"), created(secret("a4", "key-auth", "key", "four", "ttl", "60"), 1_000_000),
				secret("a5", "jwt", "key", "five", "secret", "s", "ttl", "60"),
			},
			keys: []string{"three=alice", "four=alice"},
			findings: []string{
				`warning CredentialWarning consumer/shop/alice:spec.credentials[0]: ttl in Secret "a1" counts from the Secret's creation, which its file does not tell; it authenticates nobody; compile from a cluster, or do without ttl`,
				`error InvalidCredential consumer/shop/alice:spec.credentials[1]: Secret "a2" of type key-auth is malformed: ttl must be a whole number of seconds; it authenticates nobody; correct the Secret's data`,
			},
		},
		{
			name:      "equal keys of two consumers authenticate neither, their other keys stay",
			consumers: []*pluginsv1alpha1.Consumer{user("bob", "b1", "b2"), user("alice", "a1")},
			secrets:   []*corev1.Secret{secret("a1", "key-auth", "key", "one"), secret("b1", "key-auth", "key", "one"), secret("b2", "key-auth", "key", "two")},
			keys:      []string{"two=bob"},
			findings: []string{
				`error CredentialConflict consumer/shop/alice:spec.credentials[0]: Secret "a1" has the same key as that of bob (Secret "b1"); none of them authenticates anybody; give each credential a key of its own`,
				`error CredentialConflict consumer/shop/bob:spec.credentials[0]: Secret "b1" has the same key as that of alice (Secret "a1"); none of them authenticates anybody; give each credential a key of its own`,
			},
		},
		{
			name:      "one Secret of two consumers is a conflict",
			consumers: []*pluginsv1alpha1.Consumer{user("alice", "a1"), user("bob", "a1")},
			secrets:   []*corev1.Secret{secret("a1", "key-auth", "key", "one")},
			findings: []string{
				`error CredentialConflict consumer/shop/alice:spec.credentials[0]: Secret "a1" has the same key as that of bob (Secret "a1"); none of them authenticates anybody; give each credential a key of its own`,
				`error CredentialConflict consumer/shop/bob:spec.credentials[0]: Secret "a1" has the same key as that of alice (Secret "a1"); none of them authenticates anybody; give each credential a key of its own`,
			},
		},
		{
			name:      "equal values in another namespace or type are no conflict",
			consumers: []*pluginsv1alpha1.Consumer{user("alice", "a1", "a2"), userIn("partner", "bob", "b1")},
			secrets:   []*corev1.Secret{secret("a1", "key-auth", "key", "one"), secret("a2", "jwt", "key", "one", "secret", "s"), secretIn("partner", "b1", "key-auth", "key", "one")},
			keys:      []string{"one=alice"},
		},
		{
			name: "a consumer without username and custom_id is refused whole",
			consumers: []*pluginsv1alpha1.Consumer{{
				ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "alice"},
				Spec:       pluginsv1alpha1.ConsumerSpec{Credentials: []string{"a1"}},
			}},
			secrets: []*corev1.Secret{secret("a1", "key-auth", "key", "one")},
			findings: []string{
				`error InvalidObject consumer/shop/alice:spec: neither username nor custom_id is set; none of its credentials is accepted; set one of them`,
			},
		},
		{
			name: "a consumer whom no header can name is refused whole",
			consumers: []*pluginsv1alpha1.Consumer{
				{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "alice"}, Spec: pluginsv1alpha1.ConsumerSpec{Username: "alice\n", Credentials: []string{"a1"}}},
				{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "bob"}, Spec: pluginsv1alpha1.ConsumerSpec{Username: "bob", CustomID: "1\x7f", Credentials: []string{"b1"}}},
				{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "carol"}, Spec: pluginsv1alpha1.ConsumerSpec{Username: "Cärol, the 1st", Credentials: []string{"c1"}}},
			},
			secrets: []*corev1.Secret{secret("a1", "key-auth", "key", "one"), secret("b1", "key-auth", "key", "two"), secret("c1", "key-auth", "key", "three")},
			keys:    []string{"three=carol"},
			findings: []string{
				"error InvalidObject consumer/shop/alice:spec.username: username has a control character, such as a line break, which no header can hold; none of its credentials is accepted; write it in one line, in YAML without `|`",
				"error InvalidObject consumer/shop/bob:spec.custom_id: custom_id has a control character, such as a line break, which no header can hold; none of its credentials is accepted; write it in one line, in YAML without `|`",
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			index, findings := consumer.New(&snapshot.Snapshot{Consumers: c.consumers, Secrets: c.secrets})
			var got []string
			for _, f := range findings {
				got = append(got, f.String())
			}
			if diff := cmp.Diff(c.findings, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
			credentials, ps := index.In("shop", nil, "key-auth")
			if diff := cmp.Diff(c.keys, keys(credentials)); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
			if len(ps) > 0 {
				t.Errorf("problems: %v", problems(ps))
			}
		})
	}
}

// A key ends when its ttl is over, counted from the creation of its Secret.
func TestTTL(t *testing.T) {
	index, findings := consumer.New(&snapshot.Snapshot{
		Consumers: []*pluginsv1alpha1.Consumer{user("alice", "a1", "a2", "a3", "a4")},
		Secrets: []*corev1.Secret{
			created(secret("a1", "key-auth", "key", "one", "ttl", "60"), 1_000_000), created(secret("a2", "key-auth", "key", "two"), 1_000_000),
			created(secret("a3", "key-auth", "key", "three", "ttl", "0"), 1_000_000), created(secret("a4", "key-auth", "key", "four", "ttl", "4294967295"), 1_000_000),
		},
	})
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	credentials, _ := index.In("shop", nil, "key-auth")
	var got []int64
	for _, c := range credentials.All {
		if c.Ends.IsZero() {
			got = append(got, 0)
			continue
		}
		got = append(got, c.Ends.Unix())
	}
	if diff := cmp.Diff([]int64{1_000_060, 0, 0, 4_295_967_295}, got); diff != "" {
		t.Errorf("ends (-want +got):\n%s", diff)
	}
}

// What must be unique is what a client says first.
func TestConflictsOfEachType(t *testing.T) {
	for kind, c := range map[string]struct{ unique, other string }{
		"key-auth": {"key", "ttl"}, "basic-auth": {"username", "password"}, "hmac-auth": {"username", "secret"}, "jwt": {"key", "secret"},
	} {
		of := func(name, unique, other string) *corev1.Secret {
			return created(secret(name, kind, c.unique, unique, c.other, other), 1)
		}
		usable := func(secrets ...*corev1.Secret) (int, []string) {
			index, findings := consumer.New(&snapshot.Snapshot{Consumers: []*pluginsv1alpha1.Consumer{user("alice", "a"), user("bob", "b")}, Secrets: secrets})
			credentials, _ := index.In("shop", nil, kind)
			var problems []string
			for _, f := range findings {
				problems = append(problems, string(f.Reason)+": "+f.Problem)
			}
			return len(credentials.All), problems
		}
		if n, findings := usable(of("a", "one", "1"), of("b", "two", "1")); n != 2 || findings != nil {
			t.Errorf("%s: %d of two are usable, %v", kind, n, findings)
		}
		want := []string{
			fmt.Sprintf(`CredentialConflict: Secret "a" has the same %s as that of bob (Secret "b")`, c.unique),
			fmt.Sprintf(`CredentialConflict: Secret "b" has the same %s as that of alice (Secret "a")`, c.unique),
		}
		if n, findings := usable(of("a", "one", "1"), of("b", "one", "2")); n != 0 || !slices.Equal(findings, want) {
			t.Errorf("%s: %d of two that are equal are usable, %v", kind, n, findings)
		}
	}
}

func TestFindingsNeverHoldValues(t *testing.T) {
	const value = "v4lue-never-shown"
	for _, kind := range []string{"acl", "basic-auth", "hmac-auth", "jwt", "key-auth", "unknown"} {
		data := []string{"key", value + " ", "ttl", value, "username", value + "\n", "password", value + " ", "secret", value + " ", "algorithm", value, "group", value + " "}
		_, findings := consumer.New(&snapshot.Snapshot{
			Consumers: []*pluginsv1alpha1.Consumer{user("alice", "a1", "a2"), user("bob", "a2")},
			Secrets:   []*corev1.Secret{secret("a1", kind, data...), secret("a2", kind, data...)},
		})
		if len(findings) == 0 {
			t.Errorf("%s: no findings, so nothing was shown", kind)
		}
		for _, f := range findings {
			if strings.Contains(f.String(), value) {
				t.Errorf("%s: %s", kind, f)
			}
		}
	}
}

func TestIdentity(t *testing.T) {
	alice := user("alice", "a1", "staff")
	alice.Spec.CustomID = "crm-4711"
	alice.Spec.Groups = []string{"writers", "admins", "writers"}
	bob := user("bob", "b1")
	bob.UID = "11111111-2222-3333-4444-555555555555"
	withUID := secret("b1", "key-auth", "key", "two")
	withUID.UID = types.UID("66666666-7777-8888-9999-000000000000")
	index, findings := consumer.New(&snapshot.Snapshot{
		Consumers: []*pluginsv1alpha1.Consumer{bob, alice},
		Secrets:   []*corev1.Secret{withUID, secret("a1", "key-auth", "key", "one"), secret("staff", "acl", "group", "staff")},
	})
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	credentials, _ := index.In("shop", nil, "key-auth")

	id, err := uuid.Parse(credentials.Consumers[0].ID)
	if err != nil || id.Version() != 5 {
		t.Errorf("id of a Consumer without uid = %q, want a version 5 UUID", credentials.Consumers[0].ID)
	}
	want := []builtin.Consumer{
		{ID: id.String(), Name: "alice", Username: "alice", CustomID: "crm-4711", Groups: []string{"admins", "staff", "writers"}},
		{ID: string(bob.UID), Name: "bob", Username: "bob"},
	}
	if diff := cmp.Diff(want, credentials.Consumers); diff != "" {
		t.Errorf("consumers (-want +got):\n%s", diff)
	}
	if got := credentials.All[1].ID; got != string(withUID.UID) {
		t.Errorf("credential id = %q, want the Secret's uid", got)
	}
	if diff := cmp.Diff([]string{"admins", "staff", "writers"}, credentials.All[0].Consumer.Groups); diff != "" {
		t.Errorf("groups of the credential's consumer (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"writers", "admins", "writers"}, alice.Spec.Groups); diff != "" {
		t.Errorf("the input was modified:\n%s", diff)
	}
}

func TestOrderOfInputsHasNoMeaning(t *testing.T) {
	s := &snapshot.Snapshot{
		Consumers: []*pluginsv1alpha1.Consumer{user("alice", "a1", "x"), user("bob", "b1"), user("carol", "c1", "gone")},
		Secrets:   []*corev1.Secret{secret("a1", "key-auth", "key", "one"), secret("x", "key-auth", "key", "same"), secret("b1", "key-auth", "key", "same"), secret("c1", "key-auth", "key", "same")},
	}
	index, findings := consumer.New(s)
	credentials, _ := index.In("shop", nil, "key-auth")
	slices.Reverse(s.Consumers)
	slices.Reverse(s.Secrets)
	indexReversed, findingsReversed := consumer.New(s)
	reversed, _ := indexReversed.In("shop", nil, "key-auth")
	if diff := cmp.Diff(credentials, reversed); diff != "" {
		t.Errorf("credentials:\n%s", diff)
	}
	if diff := cmp.Diff(findings, findingsReversed); diff != "" {
		t.Errorf("findings:\n%s", diff)
	}
}

func TestConsumersFrom(t *testing.T) {
	objects := func(grants ...*gatewayv1.ReferenceGrant) *snapshot.Snapshot {
		return &snapshot.Snapshot{
			Consumers: []*pluginsv1alpha1.Consumer{
				user("alice", "a1"), userIn("partner", "bob", "b1"), userIn("partner", "carol", "c1"),
				userIn("third", "dave", "d1", "d2"),
			},
			Secrets: []*corev1.Secret{
				secret("a1", "key-auth", "key", "one"),
				secretIn("partner", "b1", "key-auth", "key", "two"), secretIn("partner", "c1", "key-auth", "key", "three"),
				secretIn("third", "d1", "key-auth", "key", "one"), secretIn("third", "d2", "key-auth", "key", "four"),
			},
			ReferenceGrants: grants,
		}
	}
	wrongKind := grant("partner", "shop")
	wrongKind.Spec.From[0].Kind = "VirtualService"
	wrongTarget := grant("partner", "shop")
	wrongTarget.Spec.To[0].Kind = "Plugin"
	const refused = "warning=false consumers_from[0]: namespace partner does not grant its Consumers to namespace shop; it needs a ReferenceGrant from plugins.istio.io Plugin in shop to plugins.istio.io Consumer"
	for _, c := range []struct {
		name     string
		grants   []*gatewayv1.ReferenceGrant
		from     []string
		keys     []string
		problems []string
	}{
		{"a namespace sees its own consumers", nil, nil, []string{"one=alice"}, nil},
		{"another namespace must grant", nil, []string{"partner"}, []string{"one=alice"}, []string{refused}},
		{"a grant opens all consumers", []*gatewayv1.ReferenceGrant{grant("partner", "shop")}, []string{"partner"}, []string{"one=alice", "two=bob", "three=carol"}, nil},
		{"a grant with names opens those", []*gatewayv1.ReferenceGrant{grant("partner", "shop", "carol")}, []string{"partner"}, []string{"one=alice", "three=carol"}, nil},
		{"grants add up", []*gatewayv1.ReferenceGrant{grant("partner", "shop", "carol"), grant("partner", "shop", "bob")}, []string{"partner"}, []string{"one=alice", "two=bob", "three=carol"}, nil},
		{"a grant to another namespace is none", []*gatewayv1.ReferenceGrant{grant("partner", "other")}, []string{"partner"}, []string{"one=alice"}, []string{refused}},
		{"a grant in another namespace is none", []*gatewayv1.ReferenceGrant{grant("shop", "shop")}, []string{"partner"}, []string{"one=alice"}, []string{refused}},
		{"a grant from another kind is none", []*gatewayv1.ReferenceGrant{wrongKind}, []string{"partner"}, []string{"one=alice"}, []string{refused}},
		{"a grant to another kind is none", []*gatewayv1.ReferenceGrant{wrongTarget}, []string{"partner"}, []string{"one=alice"}, []string{refused}},
		{"the own namespace needs no grant, repetition no second", []*gatewayv1.ReferenceGrant{grant("partner", "shop")}, []string{"shop", "partner", "partner"}, []string{"one=alice", "two=bob", "three=carol"}, nil},
		{"equal keys of two namespaces authenticate neither", []*gatewayv1.ReferenceGrant{grant("third", "shop")}, []string{"third"}, []string{"four=dave"},
			[]string{"warning=true consumers_from: the consumers shop/alice, third/dave have a key-auth credential with the same key, which authenticates none of them"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			index, _ := consumer.New(objects(c.grants...))
			for range 2 { // the second answer is the remembered one
				credentials, ps := index.In("shop", c.from, "key-auth")
				if diff := cmp.Diff(c.keys, keys(credentials)); diff != "" {
					t.Errorf("keys (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(c.problems, problems(ps)); diff != "" {
					t.Errorf("problems (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestIDNamesTheSetAndNotItsContent(t *testing.T) {
	empty, _ := consumer.New(&snapshot.Snapshot{})
	full, _ := consumer.New(&snapshot.Snapshot{Consumers: []*pluginsv1alpha1.Consumer{user("alice", "a1")}, Secrets: []*corev1.Secret{secret("a1", "key-auth", "key", "one")}})
	id := func(ix *consumer.Index, namespace string, from ...string) string {
		c, _ := ix.In(namespace, from, "key-auth")
		return c.ID
	}
	if a, b := id(empty, "shop"), id(full, "shop"); a != b {
		t.Errorf("%q and %q name the same set", a, b)
	}
	if a, b := id(full, "shop", "x", "y"), id(full, "shop", "y", "shop", "x"); a != b {
		t.Errorf("%q and %q name the same set", a, b)
	}
	// What partner grants to shop says nothing of what shop grants to partner.
	if a, b := id(full, "shop", "partner"), id(full, "partner", "shop"); a == b {
		t.Errorf("%q names two sets", a)
	}
}

func TestLimits(t *testing.T) {
	for _, c := range []struct {
		count int
		want  []string
	}{
		{5000, nil},
		{5001, []string{"warning=true : 5001 key-auth credentials are more than the 5000 that a gateway is planned for; above 10000 they are refused"}},
		{10001, []string{"warning=false : 10001 key-auth credentials are more than a gateway holds (10000); ask an external service instead, by a Plugin with extAuth"}},
	} {
		s := &snapshot.Snapshot{}
		for i := range c.count {
			name := fmt.Sprintf("c%05d", i)
			s.Consumers = append(s.Consumers, user(name, name))
			s.Secrets = append(s.Secrets, secret(name, "key-auth", "key", name))
		}
		index, _ := consumer.New(s)
		_, ps := index.In("shop", nil, "key-auth")
		if diff := cmp.Diff(c.want, problems(ps)); diff != "" {
			t.Errorf("%d credentials (-want +got):\n%s", c.count, diff)
		}
	}
}

func TestUnused(t *testing.T) {
	unlabelled := secret("tls", "")
	delete(unlabelled.Labels, pluginsv1alpha1.CredentialLabel)
	findings := consumer.Unused(&snapshot.Snapshot{
		Consumers: []*pluginsv1alpha1.Consumer{user("alice", "a1")},
		Secrets:   []*corev1.Secret{secret("a1", "key-auth"), secret("old", "key-auth"), secretIn("other", "a1", "key-auth"), unlabelled, kongs("kong", "key-auth")},
	})
	var got []string
	for _, f := range findings {
		got = append(got, f.Object.String())
	}
	if diff := cmp.Diff([]string{"secret/other/a1", "secret/shop/old"}, got); diff != "" {
		t.Error(diff)
	}
}
