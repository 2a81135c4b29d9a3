package install

import (
	"context"
	"fmt"
	"strings"
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

// awaitRights returns when the controller has made use of all its rights.
func (w *world) awaitRights(t *testing.T) {
	t.Helper()
	await(t, func(context.Context) error {
		var unused []string
		for _, r := range w.rights(t) {
			if !w.network.made(r) {
				unused = append(unused, fmt.Sprintf("%s %s of group %q (namespace %q, name %q)", r.verb, r.resource, r.group, r.namespace, r.name))
			}
		}
		if len(unused) > 0 {
			return fmt.Errorf("the controller does not need to, but may: %s", strings.Join(unused, "; "))
		}
		return nil
	})
}
