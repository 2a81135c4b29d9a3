// Package cluster has a real API server answer the commands that read a cluster: compile, explain, lint and diff.
package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/istio-plugins/istio-plugins/e2e/stack"
	"github.com/istio-plugins/istio-plugins/e2e/suite"
)

// servedTimeout bounds the time until the API server serves new kinds; it takes about a second.
const servedTimeout = time.Minute

func TestCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("starts an API server: not with -short")
	}
	definitions, err := stack.CRDs("../..")
	if err != nil {
		t.Fatal(err)
	}
	// Istio's first. The Gateway API's stay away: not every cluster has them.
	s, err := stack.Start(t.Context(), stack.Options{Bin: "../../.bin", Dir: t.TempDir(), CRDs: definitions[:1], WithoutIstiod: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	c := newCluster(t, s)
	// The order matters: each goes on where the one before has ended.
	t.Run("without CRDs", c.testWithoutCRDs)
	t.Run("empty", c.testEmpty)
	t.Run("reads what files have", c.testReads)
	t.Run("names", c.testNames)
	t.Run("rights", c.testRights)
	t.Run("diff", c.testDiff)
	t.Run("pages", c.testPages)
}

// cluster is an API server, and kubectl's kubeconfig for it, whose context has namespace demo.
type cluster struct {
	*stack.Stack
	objects []*unstructured.Unstructured
}

func newCluster(t *testing.T, s *stack.Stack) *cluster {
	t.Helper()
	config, err := clientcmd.LoadFromFile(s.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	own := config.Contexts[config.CurrentContext]
	own.Namespace = "demo"
	for _, user := range []string{"reader", "nobody"} {
		as := config.AuthInfos[own.AuthInfo].DeepCopy()
		as.Impersonate = user
		config.AuthInfos[user] = as
		config.Contexts[user] = &clientcmdapi.Context{Cluster: own.Cluster, AuthInfo: user, Namespace: "demo"}
	}
	stranger := clientcmdapi.NewAuthInfo()
	stranger.Token = "none"
	config.AuthInfos["stranger"] = stranger
	config.Contexts["stranger"] = &clientcmdapi.Context{Cluster: own.Cluster, AuthInfo: "stranger"}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", file)
	return &cluster{Stack: s, objects: read(t, "objects.yaml")}
}

func read(t *testing.T, file string) []*unstructured.Unstructured {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(text))
}

func parse(t *testing.T, text string) []*unstructured.Unstructured {
	t.Helper()
	objects, err := suite.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func (c *cluster) apply(t *testing.T, objects []*unstructured.Unstructured) {
	t.Helper()
	if err := c.Apply(t.Context(), objects); err != nil {
		t.Fatal(err)
	}
}

// program is istio-plugins, seen from this folder.
const program = "../../.bin/istio-plugins"

// command runs istio-plugins.
func command(ctx context.Context, stdin string, args ...string) (code int, stdout, stderr string) {
	cmd := exec.CommandContext(ctx, program, args...)
	var out, err bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &err
	if problem := cmd.Run(); problem != nil && !errors.As(problem, new(*exec.ExitError)) {
		return -1, "", problem.Error()
	}
	return cmd.ProcessState.ExitCode(), out.String(), err.String()
}

// run runs a command, and checks its exit code.
func run(t *testing.T, want int, stdin string, args ...string) (stdout, stderr string) {
	t.Helper()
	code, stdout, stderr := command(t.Context(), stdin, args...)
	if code != want {
		t.Errorf("%v: exit code %d, want %d\n%.2000s%s", args, code, want, stdout, stderr)
	}
	return stdout, stderr
}

// await runs a command until it succeeds, and returns what it prints then.
func await(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr string
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, servedTimeout, true, func(ctx context.Context) (bool, error) {
		var code int
		code, stdout, stderr = command(ctx, "", args...)
		return code == 0, nil
	})
	if err != nil {
		t.Fatalf("%v: %v: %s%s", args, err, stdout, stderr)
	}
	return stdout
}

// says checks that a command fails with this sentence.
func says(t *testing.T, sentence string, args ...string) {
	t.Helper()
	if out, err := run(t, 2, "", args...); out != "" || !strings.Contains(err, sentence) {
		t.Errorf("%v: %q, %q is not in %q", args, out, sentence, err)
	}
}

func (c *cluster) testWithoutCRDs(t *testing.T) {
	says(t, "the cluster has no kind Plugin.plugins.istio.io: install the CRDs", "lint")
	for _, file := range []string{"plugins", "clusterplugins", "consumers"} {
		c.apply(t, read(t, "../../crds/plugins.istio.io_"+file+".yaml"))
	}
	await(t, "lint")
}

func (c *cluster) testEmpty(t *testing.T) {
	for _, name := range []string{"lint", "compile"} {
		if out, err := run(t, 0, "", name); out != "" || err != "" {
			t.Errorf("%s: %s%s", name, out, err)
		}
	}
	says(t, "there is no demo/shop", "explain", "demo/shop")
}

// testReads holds what a cluster compiles to against what its objects do as a file.
func (c *cluster) testReads(t *testing.T) {
	c.apply(t, c.objects)
	stored := make([]*unstructured.Unstructured, len(c.objects))
	for i, o := range c.objects {
		var err error
		if stored[i], err = c.Get(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	file, err := suite.Print(stored)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := run(t, 0, string(file), "compile", "-f", "-")
	got, _ := run(t, 0, "", "compile")
	if got != want || want == "" {
		t.Errorf("the cluster compiles to %d bytes, its objects to %d", len(got), len(want))
	}
	if again, _ := run(t, 0, "", "compile"); again != got {
		t.Error("the second time it is something else")
	}
	if out, _ := run(t, 0, "", "lint"); out != "" {
		t.Errorf("lint: %s", out)
	}
	c.apply(t, parse(t, virtualService("broken", "key-aut")))
	if out, _ := run(t, 1, "", "lint"); !strings.Contains(out, "error PluginNotFound virtualservice/demo/broken") {
		t.Errorf("lint: %s", out)
	}
	if _, err := run(t, 1, "", "compile"); !strings.Contains(err, "error PluginNotFound virtualservice/demo/broken") {
		t.Errorf("compile: %s", err)
	}
	run(t, 1, "", "explain", "broken")
	if err := c.Delete(t.Context(), parse(t, virtualService("broken", ""))); err != nil {
		t.Fatal(err)
	}
}

func virtualService(name, plugins string) string {
	return fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: %s, namespace: demo, annotations: {istio.io/plugins: %q}}
spec:
  hosts: [%s.example.com]
  gateways: [istio-system/public]
  http: [{route: [{destination: {host: shop}}]}]
`, name, plugins, name)
}

func (c *cluster) testNames(t *testing.T) {
	want, _ := run(t, 0, "", "explain", "demo/shop")
	if !strings.Contains(want, "minute: 100") || !strings.Contains(want, "entry 1 of gateway/istio-system/public") {
		t.Errorf("explain: %s", want)
	}
	for _, args := range [][]string{{"shop"}, {"virtualservice/shop"}, {"shop", "-n", "demo"}, {"shop.demo", "-n", "other"}, {"shop", "--context", "e2e"}, {"shop", "--kubeconfig", os.Getenv("KUBECONFIG")}} {
		if got, _ := run(t, 0, "", append([]string{"explain"}, args...)...); got != want {
			t.Errorf("explain %v: %s", args, got)
		}
	}
	says(t, "there is no shop", "explain", "shop", "-n", "other")
	says(t, "the kubeconfig has no such context", "explain", "shop", "--context", "other")
}

// testRights gives the rights that help names, and no others.
func (c *cluster) testRights(t *testing.T) {
	says(t, "the cluster does not know you", "lint", "--context", "stranger")
	says(t, "the cluster does not let you read what is needed; ask for the rights that --help lists", "lint", "--context", "nobody")
	list := func(group string, resources ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{Verbs: []string{"list"}, APIGroups: []string{group}, Resources: resources}
	}
	everywhere := []rbacv1.PolicyRule{
		list("networking.istio.io", "virtualservices", "gateways", "serviceentries"),
		list("plugins.istio.io", "plugins", "clusterplugins", "consumers"),
		list("gateway.networking.k8s.io", "referencegrants", "httproutes"),
		list("", "services", "secrets"),
		{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"configmaps", "secrets"}},
	}
	inRoot := []rbacv1.PolicyRule{list("networking.istio.io", "envoyfilters"), list("extensions.istio.io", "wasmplugins")}
	named := metav1.ObjectMeta{Name: "reader"}
	namedInRoot := metav1.ObjectMeta{Name: "reader", Namespace: "istio-system"}
	to := []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "reader"}}
	c.apply(t, []*unstructured.Unstructured{
		object(t, "ClusterRole", &rbacv1.ClusterRole{ObjectMeta: named, Rules: everywhere}),
		object(t, "ClusterRoleBinding", &rbacv1.ClusterRoleBinding{ObjectMeta: named, Subjects: to, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "reader"}}),
		object(t, "Role", &rbacv1.Role{ObjectMeta: namedInRoot, Rules: inRoot}),
		object(t, "RoleBinding", &rbacv1.RoleBinding{ObjectMeta: namedInRoot, Subjects: to, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "reader"}}),
	})
	want, _ := run(t, 0, "", "compile")
	// The API server's authorizer learns of new roles by a watch.
	if got := await(t, "compile", "--context", "reader"); got != want {
		t.Error("with these rights alone the cluster compiles to something else")
	}
	run(t, 0, "", "diff", "--context", "reader", "-f", "objects.yaml")
}

func object(t *testing.T, kind string, o any) *unstructured.Unstructured {
	t.Helper()
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{Object: fields}
	u.SetAPIVersion(rbacv1.SchemeGroupVersion.String())
	u.SetKind(kind)
	unstructured.RemoveNestedField(u.Object, "metadata", "creationTimestamp")
	return u
}

// testDiff says before each change what it will do, makes it, and looks whether it did.
func (c *cluster) testDiff(t *testing.T) {
	if out, err := run(t, 0, "", "diff", "-f", "objects.yaml"); out != "" || err != "" {
		t.Errorf("what is there already: %s%s", out, err)
	}
	says(t, "nothing to compare", "diff")
	if _, err := run(t, 2, "{apiVersion: plugins.istio.io/v1alpha1, kind: Plugin, metadata: {name: x}, spec: {}}", "diff", "-f", "-"); !strings.Contains(err, "stdin:1: Kubernetes would refuse plugin/demo/x: spec: ") {
		t.Errorf("an object that is malformed: %s", err)
	}
	for _, change := range []struct {
		name, text string
		// want is in the text that diff prints.
		want []string
	}{
		{"a config", `
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: limit}
spec: {builtin: rate-limiting, config: {minute: 60}}
`, []string{"virtualservice/demo/shop\n", "~ limit (rate-limiting, plugin/demo/limit)", "- minute: 100", "+ minute: 60", ": plugin/demo/limit"}},
		{"a new VirtualService and a Plugin with a source in the cluster", virtualService("blog", "other, nothing") + `
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: other}
spec: {lua: {configMapRef: {name: sources, key: greet.lua}}}
`, []string{"virtualservice/demo/blog\n", "+ will answer 503: PluginNotFound", "+ bindings", "+ error PluginNotFound virtualservice/demo/blog"}},
		{"a repair", virtualService("blog", "other"), []string{"- answered 503: PluginNotFound", "+ other (Lua, plugin/demo/other)", "- error PluginNotFound virtualservice/demo/blog"}},
		{"another key", `
apiVersion: v1
kind: Secret
metadata: {name: alice-key, labels: {plugins.istio.io/credential: key-auth}}
stringData: {key: also not to be shown}
`, []string{"virtualservice/demo/shop\n", "~ key-auth", "such as consumers, changes"}},
		{"a value from a Secret", "{apiVersion: v1, kind: Secret, metadata: {name: greeting}, stringData: {text: also not to be shown}}",
			[]string{"virtualservice/demo/shop\n", "~ greet (Lua, plugin/demo/greet)", "+ text: (hidden, changed)"}},
		{"a source", "{apiVersion: v1, kind: ConfigMap, metadata: {name: sources}, data: {greet.lua: 'return {} -- another'}}",
			[]string{"virtualservice/demo/blog\n", "its Lua source changes"}},
		{"a Gateway", `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public, namespace: istio-system, annotations: {istio.io/plugins: bot-detection}}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
`, []string{"- correlation-id", "+ bot-detection"}},
		{"a Secret without the label", `
apiVersion: v1
kind: Secret
metadata: {name: alice-key, labels: {}}
`, []string{"such as consumers, changes", "+ error InvalidCredential consumer/demo/alice"}},
	} {
		t.Run(change.name, func(t *testing.T) {
			before := generated(t)
			text, _ := run(t, 1, change.text, "diff", "-f", "-")
			for _, want := range change.want {
				if !strings.Contains(text, want) {
					t.Errorf("%q is missing", want)
				}
			}
			raw, _ := run(t, 1, change.text, "diff", "-f", "-", "-o", "json")
			if strings.Contains(text+raw, "not to be shown") {
				t.Error("a secret is shown")
			}
			unified, _ := run(t, 1, change.text, "diff", "-f", "-", "--objects")
			if cut, _, _ := strings.Cut(unified, "\n--- before/"); cut+"\n" != text && cut != text {
				t.Errorf("with --objects it is another text:\n%s", unified)
			}
			if t.Failed() {
				t.Log(text)
			}
			if again := generated(t); !slices.Equal(changed(before, again), nil) {
				t.Error("diff itself has changed something")
			}
			objects := parse(t, change.text)
			for _, o := range objects {
				if o.GetNamespace() == "" {
					o.SetNamespace("demo")
				}
			}
			c.apply(t, objects)
			if diff := cmp.Diff(changed(before, generated(t)), foretold(t, raw)); diff != "" {
				t.Errorf("it did something else (-did +foretold):\n%s", diff)
			}
			if out, _ := run(t, 0, change.text, "diff", "-f", "-"); out != "" {
				t.Errorf("once it is made it is still a change:\n%s", out)
			}
		})
	}
}

// generated is what the cluster compiles to, by kind and name.
func generated(t *testing.T) map[string]string {
	t.Helper()
	code, out, problem := command(t.Context(), "", "compile")
	if code != 0 && code != 1 {
		t.Fatal(problem)
	}
	objects := map[string]string{}
	for _, o := range parse(t, out) {
		raw, err := o.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		objects[o.GetKind()+" "+o.GetName()] = string(raw)
	}
	return objects
}

func changed(before, after map[string]string) []string {
	var out []string
	for name, text := range after {
		if before[name] != text {
			out = append(out, name)
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// foretold are the objects that a diff says will change.
func foretold(t *testing.T, raw string) []string {
	t.Helper()
	var d struct {
		Objects []struct{ Object struct{ Kind, Name string } }
	}
	if err := json.Unmarshal([]byte(raw), &d); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, o := range d.Objects {
		out = append(out, o.Object.Kind+" "+o.Object.Name)
	}
	slices.Sort(out)
	return out
}

// testPages reads more objects than a page has, each once.
func (c *cluster) testPages(t *testing.T) {
	const many = 1100
	c.apply(t, c.objects)
	var text strings.Builder
	for i := range many {
		text.WriteString(virtualService(fmt.Sprintf("many-%d", i), "-bot-detection, cors"))
	}
	c.apply(t, parse(t, text.String()))
	out, _ := run(t, 0, "", "compile", "-o", "json")
	for i := range many {
		if n := strings.Count(out, fmt.Sprintf(`virtual-service/many-%d"`, i)); n != 1 {
			t.Fatalf("many-%d is there %d times", i, n)
		}
	}
}
