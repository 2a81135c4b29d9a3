package consumer

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// The number of credentials of one type that one plugin reads. Each costs about 150 bytes in a generated object, of
// which Kubernetes stores 1.5 MiB, and the table is in memory once per worker of the gateway.
const (
	plannedCredentials = 5_000
	maxCredentials     = 10_000
)

// Index answers who may authenticate in a namespace. It may be used by several goroutines at once.
type Index struct {
	// made is the snapshot it was made of, as far as it was read, findings what is wrong with that.
	made     snapshot.Snapshot
	findings []finding.Finding

	namespaces map[string][]*entry
	grants     map[grantKey]granted

	// answered remembers answers, since every route with an authentication plugin asks the same few questions.
	mu       sync.Mutex
	answered map[question]answer
}

var _ builtin.Consumers = (*Index)(nil)

type question struct{ namespace, from, kind string }

type answer struct {
	credentials *builtin.Credentials
	problems    []builtin.Problem
}

func newIndex(entries []*entry, grants []*gatewayv1.ReferenceGrant) *Index {
	ix := &Index{namespaces: map[string][]*entry{}, grants: grantsOf(grants), answered: map[question]answer{}}
	for _, e := range entries {
		ix.namespaces[e.object.Namespace] = append(ix.namespaces[e.object.Namespace], e)
	}
	return ix
}

// Next is New of a later snapshot, and the same Index where nothing has changed. It may be called on nil.
func (ix *Index) Next(s *snapshot.Snapshot) (*Index, []finding.Finding) {
	if ix != nil &&
		snapshot.SameObjects(ix.made.Consumers, s.Consumers, sameConsumer) &&
		snapshot.SameObjects(ix.made.Secrets, s.Secrets, snapshot.Same) &&
		snapshot.SameObjects(ix.made.ReferenceGrants, s.ReferenceGrants, snapshot.Same) {
		return ix, ix.findings
	}
	return New(s)
}

// sameConsumer does not compare the status, with which an object's version changes, too.
func sameConsumer(a, b *pluginsv1alpha1.Consumer) bool {
	return snapshot.Same(a, b) || identity(a.ObjectMeta) == identity(b.ObjectMeta) && reflect.DeepEqual(a.Spec, b.Spec)
}

// In implements builtin.Consumers. Problems have the path of the field consumers_from, or none.
func (ix *Index) In(namespace string, from []string, credentialType string) (*builtin.Credentials, []builtin.Problem) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	q := question{namespace, strings.Join(from, "+"), credentialType}
	a, known := ix.answered[q]
	if !known {
		a = ix.answer(namespace, from, credentialType)
		ix.answered[q] = a
	}
	return a.credentials, a.problems
}

func (ix *Index) answer(namespace string, from []string, kind string) answer {
	seen, problems := ix.visible(namespace, from)
	ambiguous, warnings := shared(seen, kind)
	problems = append(problems, warnings...)
	found := &builtin.Credentials{ID: setID(namespace, from, kind)}
	for _, e := range seen {
		found.Consumers = append(found.Consumers, e.consumer)
		for _, c := range e.claims {
			if c.kind.name != kind || ambiguous[c.unique()] {
				continue
			}
			found.All = append(found.All, builtin.Credential{
				ID: identity(c.secret.ObjectMeta), Data: c.secret.Data, Ends: c.ends(), Consumer: e.consumer,
			})
		}
	}
	return answer{found, append(problems, tooMany(len(found.All), kind)...)}
}

// visible are the entries that plugins of a namespace see: its own, then those of the other namespaces as far as they
// are granted.
func (ix *Index) visible(namespace string, from []string) ([]*entry, []builtin.Problem) {
	entries := slices.Clone(ix.namespaces[namespace])
	var problems []builtin.Problem
	for i, other := range from {
		if other == namespace || slices.Contains(from[:i], other) {
			continue
		}
		grant := ix.grants[grantKey{owner: other, user: namespace}]
		if grant.nothing() {
			problems = append(problems, builtin.Problem{
				Path: fmt.Sprintf("consumers_from[%d]", i),
				Message: fmt.Sprintf("namespace %s does not grant its Consumers to namespace %s; it needs a ReferenceGrant from %s Plugin in %s to %s Consumer",
					other, namespace, pluginsv1alpha1.GroupVersion.Group, namespace, pluginsv1alpha1.GroupVersion.Group),
				Missing: true,
			})
			continue
		}
		for _, e := range ix.namespaces[other] {
			if grant.has(e.object.Name) {
				entries = append(entries, e)
			}
		}
	}
	return entries, problems
}

// shared finds the credentials that several namespaces have. Like those of one namespace they authenticate nobody,
// but only where both namespaces are read.
func shared(entries []*entry, kind string) (map[string]bool, []builtin.Problem) {
	owners := map[string][]*claim{}
	var twice []string
	for _, e := range entries {
		for _, c := range e.claims {
			if c.kind.name != kind {
				continue
			}
			if len(owners[c.unique()]) == 1 {
				twice = append(twice, c.unique())
			}
			owners[c.unique()] = append(owners[c.unique()], c)
		}
	}
	ambiguous := make(map[string]bool, len(twice))
	var problems []builtin.Problem
	for _, value := range twice {
		ambiguous[value] = true
		var names []string
		for _, c := range owners[value] {
			names = append(names, c.consumer.object.Namespace+"/"+c.consumer.object.Name)
		}
		problems = append(problems, builtin.Problem{
			Path:    "consumers_from",
			Message: fmt.Sprintf("the consumers %s have a %s credential with the same %s, which authenticates none of them", strings.Join(names, ", "), kind, owners[value][0].kind.unique),
			Warning: true,
		})
	}
	return ambiguous, problems
}

func tooMany(count int, kind string) []builtin.Problem {
	switch {
	case count > maxCredentials:
		return []builtin.Problem{{Message: fmt.Sprintf("%d %s credentials are more than a gateway holds (%d); ask an external service instead, by a Plugin with extAuth", count, kind, maxCredentials)}}
	case count > plannedCredentials:
		return []builtin.Problem{{Message: fmt.Sprintf("%d %s credentials are more than the %d that a gateway is planned for; above %d they are refused", count, kind, plannedCredentials, maxCredentials), Warning: true}}
	}
	return nil
}

// setID names the set of credentials. The asking namespace comes first and alone decides what the others grant, so
// equal ids are equal sets.
func setID(namespace string, from []string, kind string) string {
	others := slices.Sorted(slices.Values(from))
	others = slices.DeleteFunc(slices.Compact(others), func(n string) bool { return n == namespace })
	return kind + "/" + strings.Join(append([]string{namespace}, others...), "+")
}
