package install

import (
	"slices"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// right is one thing that the controller may do. Without a namespace it may do it in all of them, without a name with any
// object.
type right struct{ verb, group, resource, namespace, name string }

// rights are what the installed Roles grant.
func (w *world) rights(t *testing.T) []right {
	t.Helper()
	ours := metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=istio-plugins"}
	all, err := w.Clientset.RbacV1().ClusterRoles().List(t.Context(), ours)
	if err != nil {
		t.Fatal(err)
	}
	some, err := w.Clientset.RbacV1().Roles(rootNamespace).List(t.Context(), ours)
	if err != nil {
		t.Fatal(err)
	}
	var out []right
	for _, role := range all.Items {
		out = append(out, expand(role.Rules, "")...)
	}
	for _, role := range some.Items {
		out = append(out, expand(role.Rules, role.Namespace)...)
	}
	if len(out) == 0 {
		t.Fatal("there are no Roles")
	}
	return out
}

func expand(rules []rbacv1.PolicyRule, namespace string) []right {
	var out []right
	for _, rule := range rules {
		names := rule.ResourceNames
		if len(names) == 0 {
			names = []string{""}
		}
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					for _, name := range names {
						out = append(out, right{verb, group, resource, namespace, name})
					}
				}
			}
		}
	}
	return out
}

// checkRights fails where the controller may do what it has not done, or has tried what it may not do.
func (w *world) checkRights(t *testing.T) {
	t.Helper()
	for _, r := range w.rights(t) {
		if !w.network.made(r) {
			t.Errorf("the controller never needed to %s %s of group %q (namespace %q, name %q), but may", r.verb, r.resource, r.group, r.namespace, r.name)
		}
	}
	for _, c := range slices.Compact(w.network.forbidden()) {
		t.Errorf("the controller may not, but wants to: %s", c)
	}
}
