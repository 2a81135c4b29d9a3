// Package install installs the project as its users do, by `kubectl apply -k`, upgrades it and removes it, on a real API
// server with a real gateway that serves all the time. The controller runs with the rights that the manifests give it.
package install

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/istio-plugins/istio-plugins/e2e/controller"
)

func TestInstall(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the whole stack: not with -short")
	}
	w := newWorld(t)
	w.apply(t, plain)
	w.awaitStatus(t, "guarded.test", http.StatusOK)
	before := w.everything(t)

	// Each part builds on the one before.
	for _, part := range []struct {
		name string
		run  func(*testing.T, *world)
	}{
		{"overlays", testOverlays},
		{"pod security", testPodSecurity},
		{"another root namespace", testNamespace},
		{"rights", testRights},
		{"upgrade", testUpgrade},
		{"two replicas", testReplicas},
		{"removal", testRemoval},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(t, w) }) {
			return
		}
	}
	if left := slices.DeleteFunc(w.everything(t), func(o string) bool { return slices.Contains(before, o) }); len(left) > 0 {
		t.Errorf("after the removal there is still:\n%s", strings.Join(left, "\n"))
	}
}

// plain are routes as they are before anybody thinks of plugins.
const plain = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: guarded, namespace: shop}
spec: {hosts: [guarded.test], gateways: [istio-system/public], http: [{route: [{destination: {host: echo.test}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: open, namespace: shop}
spec: {hosts: [open.test], gateways: [istio-system/public], http: [{route: [{destination: {host: echo.test}}]}]}
`

// annotated are the routes with plugins of all kinds, and what these refer to.
const annotated = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: guarded, namespace: shop, annotations: {istio.io/plugins: "key-auth, hello, stamp"}}
spec: {hosts: [guarded.test], gateways: [istio-system/public], http: [{route: [{destination: {host: echo.test}}]}]}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: hello, namespace: shop}
spec: {lua: {configMapRef: {name: hello, key: hello.lua}}, config: {key: {secretKeyRef: {name: hello, key: key}}}}
---
apiVersion: v1
kind: Secret
metadata: {name: hello, namespace: shop}
stringData: {key: open-sesame}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: hello, namespace: shop}
data: {hello.lua: "return {response = function(h) h:headers():add('x-hello', 'one') end}"}
---
apiVersion: plugins.istio.io/v1alpha1
kind: ClusterPlugin
metadata: {name: stamp}
spec:
  envoy:
    typedConfig:
      "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
      mutations: {response_mutations: [{append: {header: {key: x-stamp, value: one}}}]}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Consumer
metadata: {name: alice, namespace: shop}
spec: {username: alice, credentials: [alice-key]}
---
apiVersion: v1
kind: Secret
metadata: {name: alice-key, namespace: shop, labels: {plugins.istio.io/credential: key-auth}}
stringData: {key: open-sesame}
`

// mistake is what the webhooks refuse.
const mistake = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: mistake, namespace: shop, annotations: {istio.io/plugins: "[{name: cors, rout: [api]}]"}}
spec: {hosts: [mistake.test], gateways: [istio-system/public], http: [{name: api, route: [{destination: {host: echo.test}}]}]}
`

// elsewhere is a gateway that no pod belongs to, with a Wasm plugin that has a pull secret.
const elsewhere = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: elsewhere, namespace: istio-system}
spec:
  selector: {istio: elsewhere}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: elsewhere, namespace: shop, annotations: {istio.io/plugins: filter}}
spec: {hosts: [elsewhere.test], gateways: [istio-system/elsewhere], http: [{route: [{destination: {host: echo.test}}]}]}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: filter, namespace: shop}
spec: {wasm: {url: "oci://images.test/filter:1.0", imagePullSecret: pull}}
`

// testOverlays: each overlay can be applied, and again, and removed.
func testOverlays(t *testing.T, w *world) {
	crds := filepath.Join(w.manifests, "../crds")
	w.install(t, crds)
	w.awaitServed(t)
	for _, name := range []string{"no-webhook", "ha", "default"} {
		overlay := filepath.Join(w.manifests, name)
		w.install(t, overlay)
		if name == "default" {
			break // which stays
		}
		w.kubectl(t, "delete", "-k", overlay)
	}
}

// testPodSecurity: where Kubernetes refuses every pod that is not restricted, it takes the controller's, without a warning.
func testPodSecurity(t *testing.T, w *world) {
	patch := `{"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}`
	if _, err := w.Clientset.CoreV1().Namespaces().Patch(t.Context(), rootNamespace, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	deployment, err := w.Clientset.AppsV1().Deployments(rootNamespace).Get(t.Context(), "istio-plugins", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	create := func(spec corev1.PodSpec) error {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "istio-plugins-", Labels: deployment.Spec.Template.Labels}, Spec: spec}
		_, err := w.Clientset.CoreV1().Pods(rootNamespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	if err := create(deployment.Spec.Template.Spec); err != nil {
		t.Error(err)
	}
	loose := deployment.Spec.Template.Spec.DeepCopy()
	loose.SecurityContext.SeccompProfile = nil
	if err := create(*loose); err == nil || !strings.Contains(err.Error(), "violates PodSecurity") {
		t.Errorf("the API server does not check pods: %v", err)
	}
}

// testNamespace: where Istio's root namespace is another one, `namespace:` in a kustomization of Istio is all it takes.
func testNamespace(t *testing.T, w *world) {
	overlay := w.overlay(t, "namespace: istio-other\ncomponents: [${MANIFESTS}/component]\n")
	if out := w.kubectl(t, "kustomize", overlay); strings.Contains(out, rootNamespace) {
		t.Errorf("something still is in %s:\n%s", rootNamespace, out)
	}
}

// testRights: the controller does everything that it can do, with the rights that it has; and it has no others.
func testRights(t *testing.T, w *world) {
	p := w.startPod(t)
	w.apply(t, annotated)
	w.awaitStatus(t, "guarded.test", http.StatusUnauthorized)
	// istiod's word is known, so the way to istiod and the token are right.
	w.awaitCondition(t, "plugin/hello", "Programmed")
	w.awaitCondition(t, "clusterplugin/stamp", "Programmed")
	w.awaitCondition(t, "consumer/alice", "Accepted")
	// The API server asks the webhooks, so their certificate, their Service and its port are right.
	await(t, func(context.Context) error {
		if out, err := w.tryKubectl(t, "create", "--dry-run=server", "-f", w.file(t, mistake)); err == nil || !strings.Contains(out, "did you mean") {
			return fmt.Errorf("a wrong annotation is not refused: %v: %s", err, out)
		}
		return nil
	})
	usual := slices.Sorted(maps.Keys(w.settled(t)))
	w.apply(t, elsewhere)
	w.awaitCondition(t, "plugin/filter", "Accepted")
	w.settled(t)

	// What somebody adds to a generated object is removed.
	for i, patch := range []string{
		`{"spec": {"workloadSelector": {"labels": {"added": "by-hand"}}}}`,
		`{"spec": {"selector": {"matchLabels": {"added": "by-hand"}}}}`,
	} {
		w.mend(t, controller.Generated[i].Resource, patch)
	}
	// An error comes, goes and comes again: the Event of an object that has not changed is counted.
	for range 2 {
		w.kubectl(t, "delete", "-n", "shop", "plugin/hello")
		w.awaitStatus(t, "guarded.test", http.StatusServiceUnavailable)
		w.apply(t, annotated)
		w.awaitStatus(t, "guarded.test", http.StatusUnauthorized)
	}
	// What nothing wants any more is deleted.
	w.kubectl(t, "delete", "-n", "shop", "virtualservice/elsewhere", "plugin/filter")
	w.kubectl(t, "delete", "-n", rootNamespace, "gateways.networking.istio.io/elsewhere")
	await(t, func(context.Context) error {
		if diff := cmp.Diff(usual, slices.Sorted(maps.Keys(w.generated(t)))); diff != "" {
			return fmt.Errorf("not all that was generated for a Gateway has gone with it: %s", diff)
		}
		return nil
	})
	w.awaitRights(t)
	p.stop()
	for _, c := range w.network.forbidden() {
		t.Errorf("the controller wants to, but may not: %s", c)
	}
}

// awaitCondition returns when the condition of an object is True.
func (w *world) awaitCondition(t *testing.T, object, condition string) {
	t.Helper()
	await(t, func(context.Context) error {
		out := w.kubectl(t, "get", object, "-n", "shop", "-o", fmt.Sprintf("jsonpath={.status.conditions[?(@.type==%q)]['status', 'reason', 'message']}", condition))
		if !strings.HasPrefix(out, "True") {
			return fmt.Errorf("%s is not %s: %s", object, condition, out)
		}
		return nil
	})
}

// mend patches a generated object by hand, and waits until it is as before.
func (w *world) mend(t *testing.T, resource, patch string) {
	t.Helper()
	names := strings.Fields(w.kubectl(t, "get", resource, "-n", rootNamespace, "-l", "istio-plugins/generated=true", "-o", "name"))
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasSuffix(name, "-mark") })
	if len(names) == 0 {
		t.Fatalf("there are no generated %s", resource)
	}
	spec := func() string { return w.kubectl(t, "get", names[0], "-n", rootNamespace, "-o", "jsonpath={.spec}") }
	before := spec()
	w.kubectl(t, "patch", names[0], "-n", rootNamespace, "--type=merge", "-p", patch)
	await(t, func(context.Context) error {
		if now := spec(); now != before {
			return fmt.Errorf("%s is not as before: %s", names[0], now)
		}
		return nil
	})
}

// testUpgrade: another image and another flag change no generated object, and nobody notices.
func testUpgrade(t *testing.T, w *world) {
	old := w.startPod(t)
	leader := w.awaitLeader(t, "")
	defer w.hammer(t, "guarded.test", http.StatusUnauthorized)()
	defer w.hammer(t, "open.test", http.StatusOK)()
	before := w.settled(t)
	w.install(t, w.overlay(t, `
resources: [${MANIFESTS}/default]
images: [{name: istio-plugins, newName: images.test/istio-plugins, newTag: v2}]
patches:
- target: {kind: Deployment, name: istio-plugins}
  patch: |
    - {op: add, path: /spec/template/spec/containers/0/args/-, value: --log-level=debug}
`))
	out := w.kubectl(t, "get", "deployment/istio-plugins", "-n", rootNamespace, "-o", "jsonpath={.spec.template.spec.containers[0]['image', 'args']}")
	if !strings.Contains(out, "images.test/istio-plugins:v2") || !strings.Contains(out, "--log-level=debug") {
		t.Errorf("the Deployment is not the new one: %s", out)
	}
	// As a Deployment does it: the old pod ends when the new one is ready.
	next := w.startPod(t)
	old.stop()
	w.awaitLeader(t, leader)
	await(t, next.ready)
	if after := w.generated(t); !maps.Equal(before, after) {
		t.Errorf("the generated objects are others: %v, not %v", after, before)
	}
	w.edit(t, "upgraded")
	next.stop()
	w.install(t, filepath.Join(w.manifests, "default"))
}

// testReplicas: the second replica takes over when the first one ends.
func testReplicas(t *testing.T, w *world) {
	w.install(t, filepath.Join(w.manifests, "ha"))
	one, two := w.startPod(t), w.startPod(t)
	leader := w.awaitLeader(t, "")
	defer w.hammer(t, "guarded.test", http.StatusUnauthorized)()
	w.edit(t, "first")
	one.stop()
	w.awaitLeader(t, leader)
	w.edit(t, "second")
	two.stop()
	w.kubectl(t, "delete", "-k", filepath.Join(w.manifests, "ha"))
	w.install(t, filepath.Join(w.manifests, "default"))
}

// awaitLeader returns the holder of the Lease, once it is another than before.
func (w *world) awaitLeader(t *testing.T, before string) string {
	t.Helper()
	var holder string
	await(t, func(ctx context.Context) error {
		lease, err := w.Clientset.CoordinationV1().Leases(rootNamespace).Get(ctx, "istio-plugins", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" || *lease.Spec.HolderIdentity == before {
			return errors.New("nobody has taken the Lease")
		}
		holder = *lease.Spec.HolderIdentity
		return nil
	})
	return holder
}

// edit changes a plugin, and returns when those who have a key see the change.
func (w *world) edit(t *testing.T, text string) {
	t.Helper()
	w.apply(t, strings.ReplaceAll(annotated, "'one'", "'"+text+"'"))
	await(t, func(ctx context.Context) error {
		response, err := w.ask(ctx, "guarded.test", "apikey", "open-sesame")
		if err == nil && (response.StatusCode != http.StatusOK || response.Header.Get("x-hello") != text) {
			err = fmt.Errorf("with a key the route answers %d, x-hello: %s", response.StatusCode, response.Header.Get("x-hello"))
		}
		return err
	})
}

// testRemoval: a protected route stays protected until its owner takes the protection away, whatever is removed before.
func testRemoval(t *testing.T, w *world) {
	crds, overlay := filepath.Join(w.manifests, "../crds"), filepath.Join(w.manifests, "default")
	p := w.startPod(t)
	w.awaitLeader(t, "")

	// In the wrong order: with their definitions all Plugins are gone, and routes that name one answer 503.
	stop := w.hammer(t, "guarded.test", http.StatusUnauthorized, http.StatusServiceUnavailable)
	w.kubectl(t, "delete", "-k", crds)
	w.awaitStatus(t, "guarded.test", http.StatusServiceUnavailable)
	w.kubectl(t, "apply", "--server-side", "-k", crds)
	w.awaitServed(t)
	w.apply(t, annotated)
	w.awaitStatus(t, "guarded.test", http.StatusUnauthorized)
	stop()

	// First the controller. Its pods end some time after their Deployment has gone, and their rights before.
	stop = w.hammer(t, "guarded.test", http.StatusUnauthorized)
	before := w.settled(t)
	w.kubectl(t, "delete", "-k", overlay)
	p.stop()
	if after := w.generated(t); len(after) == 0 || !maps.Equal(before, after) {
		t.Errorf("the generated objects are others: %v, not %v", after, before)
	}
	stop()
	// Then, if the owner wants the routes open, the generated objects; at last the definitions.
	w.kubectl(t, "delete", "envoyfilters,wasmplugins", "-n", rootNamespace, "-l", "istio-plugins/generated=true")
	w.awaitStatus(t, "guarded.test", http.StatusOK)
	w.kubectl(t, "delete", "-k", crds)

	w.apply(t, plain)
	w.kubectl(t, "delete", "-n", "shop", "secret/alice-key", "secret/hello", "configmap/hello")
}

// awaitServed returns when kubectl and others can use our kinds.
func (w *world) awaitServed(t *testing.T) {
	t.Helper()
	await(t, func(context.Context) error {
		out, err := w.tryKubectl(t, "get", "plugins,clusterplugins,consumers", "-A")
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
}
