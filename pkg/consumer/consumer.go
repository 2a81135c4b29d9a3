// Package consumer says who may authenticate: it turns Consumers, their credential Secrets and the ReferenceGrants
// of a snapshot into an Index that authentication plugins ask. No message of this package holds a Secret's value.
package consumer

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// claim is one credential that a Consumer names and that is complete in itself.
type claim struct {
	consumer *entry
	// place of the Secret's name in the Consumer.
	place  string
	secret *corev1.Secret
	kind   credentialType
}

// entry is a Consumer and what it can authenticate with.
type entry struct {
	object   finding.Object
	consumer builtin.Consumer
	claims   []*claim
}

// New resolves the Consumers of a snapshot. A credential that is missing, incomplete or not unique authenticates
// nobody and is reported on each Consumer that names it; the Consumer's other credentials stay usable.
func New(s *snapshot.Snapshot) (*Index, []finding.Finding) {
	secrets := labelled(s.Secrets)
	var findings []finding.Finding
	var entries []*entry
	for _, c := range sorted(s.Consumers) {
		e, problems := resolve(c, secrets)
		findings = append(findings, problems...)
		if e != nil {
			entries = append(entries, e)
		}
	}
	findings = append(findings, dropConflicts(entries)...)
	ix := newIndex(entries, s.ReferenceGrants)
	ix.made = snapshot.Snapshot{Consumers: s.Consumers, Secrets: s.Secrets, ReferenceGrants: s.ReferenceGrants}
	ix.findings = finding.Sort(findings)
	return ix, ix.findings
}

// Unused finds the credential Secrets that no Consumer of their namespace names. Those with Kong's label alone may serve
// Kong.
func Unused(s *snapshot.Snapshot) []finding.Finding {
	type name struct{ namespace, name string }
	named := map[name]bool{}
	for _, c := range s.Consumers {
		for _, secret := range c.Spec.Credentials {
			named[name{c.Namespace, secret}] = true
		}
	}
	var findings []finding.Finding
	for _, secret := range s.Secrets {
		if secret.Labels[pluginsv1alpha1.CredentialLabel] == "" || named[name{secret.Namespace, secret.Name}] {
			continue
		}
		findings = append(findings, finding.Finding{
			Reason:  finding.UnusedCredential,
			Object:  secretObject(secret.Namespace, secret.Name),
			Problem: fmt.Sprintf("no Consumer of namespace %s names this credential", secret.Namespace),
			Traffic: "it authenticates nobody",
			Remedy:  "name it under spec.credentials of a Consumer, or delete it",
		})
	}
	return finding.Sort(findings)
}

// resolve makes the entry of a Consumer; nil where the Consumer itself cannot be used.
func resolve(c *pluginsv1alpha1.Consumer, secrets map[finding.Object]*corev1.Secret) (*entry, []finding.Finding) {
	object := finding.Object{Kind: "Consumer", Namespace: c.Namespace, Name: c.Name}
	if c.Spec.Username == "" && c.Spec.CustomID == "" {
		return nil, []finding.Finding{{
			Reason:  finding.InvalidObject,
			Object:  object,
			Place:   "spec",
			Problem: "neither username nor custom_id is set",
			Traffic: "none of its credentials is accepted",
			Remedy:  "set one of them",
		}}
	}
	for _, field := range []struct{ name, value string }{{"username", c.Spec.Username}, {"custom_id", c.Spec.CustomID}} {
		if strings.ContainsFunc(field.value, unicode.IsControl) {
			return nil, []finding.Finding{{
				Reason:  finding.InvalidObject,
				Object:  object,
				Place:   "spec." + field.name,
				Problem: field.name + " has a control character, such as a line break, which no header can hold",
				Traffic: "none of its credentials is accepted",
				Remedy:  "write it in one line, in YAML without `|`",
			}}
		}
	}
	e := &entry{object: object}
	groups, findings := specGroups(object, c.Spec.Groups)
	for i, name := range c.Spec.Credentials {
		if slices.Contains(c.Spec.Credentials[:i], name) {
			continue
		}
		claim := &claim{consumer: e, place: fmt.Sprintf("spec.credentials[%d]", i)}
		if problem := claim.fill(name, secrets[secretObject(c.Namespace, name)]); problem != nil {
			findings = append(findings, *problem)
			continue
		}
		findings = append(findings, claim.warnings()...)
		if claim.ageless() {
			continue
		}
		if claim.kind.group != "" {
			groups = append(groups, string(claim.secret.Data[claim.kind.group]))
			continue
		}
		e.claims = append(e.claims, claim)
	}
	slices.Sort(groups)
	e.consumer = builtin.Consumer{
		ID:       identity(c.ObjectMeta),
		Name:     c.Name,
		Username: c.Spec.Username,
		CustomID: c.Spec.CustomID,
		Groups:   slices.Compact(groups),
	}
	return e, findings
}

// specGroups are the groups of a Consumer's spec that can be used.
func specGroups(object finding.Object, names []string) (groups []string, findings []finding.Finding) {
	for i, name := range names {
		if name == "" {
			continue // means nothing, and no plugin can ask for it
		}
		if err := checkGroup("the group", name); err != nil {
			findings = append(findings, finding.Finding{
				Reason: finding.InvalidObject, Object: object, Place: fmt.Sprintf("spec.groups[%d]", i),
				Problem: err.Error(), Traffic: "the consumer is not in this group", Remedy: "rename it",
			})
			continue
		}
		groups = append(groups, name)
	}
	return groups, findings
}

// fill completes the claim from its Secret, or says why that cannot be used.
func (c *claim) fill(name string, secret *corev1.Secret) *finding.Finding {
	if secret == nil {
		return c.invalid(name,
			fmt.Sprintf("namespace %s has no Secret %q with the label %s", c.consumer.object.Namespace, name, pluginsv1alpha1.CredentialLabel),
			fmt.Sprintf("create it, or label it with `kubectl label secret -n %s %s %s=<type>`", c.consumer.object.Namespace, name, pluginsv1alpha1.CredentialLabel))
	}
	label, _ := pluginsv1alpha1.CredentialType(secret.Labels)
	kind, known := typeNamed(label)
	if !known {
		problem := fmt.Sprintf("Secret %q has the unknown credential type %q", name, label)
		if near, ok := finding.Nearest(label, typeNames()); ok {
			problem += fmt.Sprintf(", did you mean %q?", near)
		}
		return c.invalid(name, problem, "the types are "+strings.Join(typeNames(), ", "))
	}
	if missing := kind.missing(secret.Data); len(missing) > 0 {
		return c.invalid(name,
			fmt.Sprintf("Secret %q of type %s lacks %s", name, kind.name, strings.Join(missing, " and ")),
			"add it to the Secret's data")
	}
	if kind.check != nil {
		if err := kind.check(secret.Data); err != nil {
			return c.invalid(name, fmt.Sprintf("Secret %q of type %s is malformed: %v", name, kind.name, err), "correct the Secret's data")
		}
	}
	c.secret, c.kind = secret, kind
	return nil
}

func (c *claim) invalid(secret, problem, remedy string) *finding.Finding {
	return &finding.Finding{
		Reason:  finding.InvalidCredential,
		Object:  c.consumer.object,
		Place:   c.place,
		Problem: problem,
		Traffic: "it authenticates nobody",
		Remedy:  remedy,
		Related: []finding.Object{secretObject(c.consumer.object.Namespace, secret)},
	}
}

// warnings are what looks like a mistake in a credential that is used as it is.
func (c *claim) warnings() []finding.Finding {
	var findings []finding.Finding
	warn := func(problem, traffic, remedy string) {
		findings = append(findings, finding.Finding{
			Reason:  finding.CredentialWarning,
			Object:  c.consumer.object,
			Place:   c.place,
			Problem: problem,
			Traffic: traffic,
			Remedy:  remedy,
			Related: []finding.Object{secretObject(c.secret.Namespace, c.secret.Name)},
		})
	}
	for _, key := range c.kind.required {
		if endsInSpace(c.secret.Data[key]) {
			warn(fmt.Sprintf("%s in Secret %q ends in white space", key, c.secret.Name),
				"the white space is part of the value, which a client can hardly send",
				"write the value without a line break, for example with `printf` instead of `echo`")
		}
	}
	if c.ageless() {
		warn(fmt.Sprintf("ttl in Secret %q counts from the Secret's creation, which its file does not tell", c.secret.Name),
			"it authenticates nobody",
			"compile from a cluster, or do without ttl")
	}
	return findings
}

// ttl is how long the credential may be used, 0 for one without an end.
func (c *claim) ttl() time.Duration {
	if !c.kind.ttl {
		return 0
	}
	seconds, _ := strconv.ParseUint(string(c.secret.Data["ttl"]), 10, 32) // checkTTL has judged it; without one it is 0
	return time.Duration(seconds) * time.Second
}

// ageless says that the credential has an end and that nobody knows when. It must not be without one instead.
func (c *claim) ageless() bool { return c.ttl() > 0 && c.secret.CreationTimestamp.IsZero() }

// ends is when it may not be used any more, zero for one without an end. Gateways look at the clock.
func (c *claim) ends() time.Time {
	if c.ttl() == 0 {
		return time.Time{}
	}
	return c.secret.CreationTimestamp.Add(c.ttl())
}

// dropConflicts removes the claims of one namespace that cannot be told apart, and reports them on every Consumer
// that takes part. Namespaces do not see each other's credentials, so equal ones of two namespaces are no conflict
// until a plugin reads both (Index.In).
func dropConflicts(entries []*entry) []finding.Finding {
	var findings []finding.Finding
	for _, rivals := range conflicts(entries) {
		for _, c := range rivals {
			findings = append(findings, c.conflict(rivals))
			c.consumer.drop(c)
		}
	}
	return findings
}

// conflicts groups the claims that are equal in what must be unique, in the order of entries.
func conflicts(entries []*entry) [][]*claim {
	type identity struct{ namespace, kind, value string }
	groups := map[identity][]*claim{}
	var order []identity
	for _, e := range entries {
		for _, c := range e.claims {
			id := identity{e.object.Namespace, c.kind.name, c.unique()}
			if len(groups[id]) == 1 {
				order = append(order, id)
			}
			groups[id] = append(groups[id], c)
		}
	}
	rivals := make([][]*claim, 0, len(order))
	for _, id := range order {
		rivals = append(rivals, groups[id])
	}
	return rivals
}

func (c *claim) conflict(rivals []*claim) finding.Finding {
	var others []string
	var related []finding.Object
	for _, r := range rivals {
		if r == c {
			continue
		}
		others = append(others, fmt.Sprintf("%s (Secret %q)", r.consumer.object.Name, r.secret.Name))
		if r.consumer != c.consumer {
			related = append(related, r.consumer.object)
		}
		related = append(related, secretObject(r.secret.Namespace, r.secret.Name))
	}
	return finding.Finding{
		Reason:  finding.CredentialConflict,
		Object:  c.consumer.object,
		Place:   c.place,
		Problem: fmt.Sprintf("Secret %q has the same %s as that of %s", c.secret.Name, c.kind.unique, finding.Routes(others)),
		Traffic: "none of them authenticates anybody",
		Remedy:  fmt.Sprintf("give each credential a %s of its own", c.kind.unique),
		Related: related,
	}
}

func (c *claim) unique() string { return string(c.secret.Data[c.kind.unique]) }

func (e *entry) drop(c *claim) {
	e.claims = slices.DeleteFunc(e.claims, func(other *claim) bool { return other == c })
}

// idSpace is the namespace of the version 5 UUIDs that stand in for metadata.uid where an object has none, which is
// so for all that come from files.
var idSpace = uuid.NewSHA1(uuid.NameSpaceDNS, []byte(pluginsv1alpha1.GroupVersion.Group))

// identity is the object's uid, or the version 5 UUID of `<namespace>/<name>`.
func identity(o metav1.ObjectMeta) string {
	if o.UID != "" {
		return string(o.UID)
	}
	return uuid.NewSHA1(idSpace, []byte(o.Namespace+"/"+o.Name)).String()
}

func sorted(consumers []*pluginsv1alpha1.Consumer) []*pluginsv1alpha1.Consumer {
	return slices.SortedFunc(slices.Values(consumers), func(a, b *pluginsv1alpha1.Consumer) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

// labelled are the credentials among Secrets, by name.
func labelled(secrets []*corev1.Secret) map[finding.Object]*corev1.Secret {
	byName := make(map[finding.Object]*corev1.Secret, len(secrets))
	for _, s := range secrets {
		if _, ok := pluginsv1alpha1.CredentialType(s.Labels); ok {
			byName[secretObject(s.Namespace, s.Name)] = s
		}
	}
	return byName
}

func secretObject(namespace, name string) finding.Object {
	return finding.Object{Kind: "Secret", Namespace: namespace, Name: name}
}
