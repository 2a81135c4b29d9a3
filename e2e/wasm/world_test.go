package wasm

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/istio-plugins/istio-plugins/e2e/controller"
	"github.com/istio-plugins/istio-plugins/e2e/echo"
	"github.com/istio-plugins/istio-plugins/e2e/gateway"
	"github.com/istio-plugins/istio-plugins/e2e/loopback"
	"github.com/istio-plugins/istio-plugins/e2e/stack"
)

const (
	// timeout bounds what is awaited, as on a busy machine; a change takes about a second.
	timeout       = 60 * time.Second
	rootNamespace = "istio-system"
	// neighbourPause is between two requests to a neighbour.
	neighbourPause = 20 * time.Millisecond
)

// world is a bed whose gateway was started by Istio's agent, with registries.
type world struct {
	*controller.Bed
	kube kubernetes.Interface
	// open speaks HTTP; trusted and unknown speak TLS with certificates that nobody trusts, which the agent is told to
	// overlook for trusted.
	open, trusted, unknown *images
	// agent is how the gateway is started.
	agent gateway.AgentOptions
	// stop ends the watch of neighbours.
	stop func()
}

func startWorld(t *testing.T) *world {
	bin, err := filepath.Abs("../../.bin")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"istio-plugins", "envoy-1.40.0", "pilot-discovery", "pilot-agent", "kube-apiserver"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			t.Fatalf("%v: `make .bin/%s` provides it", err, name)
		}
	}
	w := &world{
		open:    startRegistry(t, (*httptest.Server).Start),
		trusted: startRegistry(t, (*httptest.Server).StartTLS),
		unknown: startRegistry(t, (*httptest.Server).StartTLS),
	}
	dir := t.TempDir()
	if w.Bed, err = controller.NewBed(t.Context(), controller.BedOptions{Bin: bin, Root: "../..", Dir: dir}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	if w.kube, err = kubernetes.NewForConfig(w.Stack.Config); err != nil {
		t.Fatal(err)
	}
	w.startAgent(t, bin, dir)
	c, err := w.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Stop()
		for _, file := range []string{c.LogFile(), w.Gateway.LogFile()} {
			log, err := os.ReadFile(file)
			if err != nil {
				t.Error(err)
			}
			if bytes.Contains(log, []byte(password)) || bytes.Contains(log, []byte(base64.StdEncoding.EncodeToString([]byte(user+":"+password)))) {
				t.Errorf("%s holds the password", filepath.Base(file))
			}
			if t.Failed() {
				t.Logf("the end of %s:\n%s", filepath.Base(file), log[max(0, len(log)-8<<10):])
			}
		}
	})
	return w
}

// startAgent starts the gateway as in a pod: with a token of its service account, and istiod's root certificate.
func (w *world) startAgent(t *testing.T, bin, dir string) {
	t.Helper()
	node := gateway.Ingress()
	accounts := w.kube.CoreV1().ServiceAccounts(node.Namespace)
	if _, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: node.Name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"istio-ca"}}}
	token, err := accounts.CreateToken(t.Context(), node.Name, request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var roots *corev1.ConfigMap
	retry(t, func(ctx context.Context) (err error) {
		roots, err = w.kube.CoreV1().ConfigMaps(node.Namespace).Get(ctx, "istio-ca-root-cert", metav1.GetOptions{})
		return err
	})
	template, err := stack.BootstrapTemplate()
	if err != nil {
		t.Fatal(err)
	}
	w.agent = gateway.AgentOptions{
		Agent: filepath.Join(bin, "pilot-agent"), Envoy: filepath.Join(bin, "envoy-1.40.0"), Template: template,
		XDS: w.Stack.TLSXDS(), RootCert: roots.Data["root-cert.pem"], Token: token.Status.Token, Node: node,
		InsecureRegistries: []string{w.trusted.host()}, Dir: dir,
		Concurrency: 1, // each worker has modules of its own
	}
	if w.Gateway, err = gateway.StartAgent(t.Context(), w.agent); err != nil {
		t.Fatal(err)
	}
}

// watchNeighbours sends requests to routes that have nothing to do with what goes wrong, until stop or the end of the test.
// Each must be served, after its plugins.
func (w *world) watchNeighbours(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	for name, ran := range map[string]string{"plain": "", "lua": "lua ", "neighbour": is("neighbour")} {
		wait.Go(func() {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			for n := 0; ; n++ {
				a, err := w.ask(ctx, client, name)
				switch {
				case ctx.Err() != nil:
					t.Logf("%d requests to %s.test", n, name)
					return
				case err != nil || a.status != http.StatusOK || (ran != "") != (len(a.ran) == 1) || ran != "" && !strings.HasPrefix(a.ran[0], ran):
					t.Errorf("request %d to %s.test: %v, %v", n, name, a, err)
				}
				select {
				case <-ctx.Done():
				case <-time.After(neighbourPause):
				}
			}
		})
	}
	w.stop = sync.OnceFunc(func() { cancel(); wait.Wait() })
	t.Cleanup(w.stop)
}

// restartGateway starts the gateway anew, with an agent that has fetched nothing yet.
func (w *world) restartGateway(t *testing.T) {
	t.Helper()
	w.stop()
	w.Gateway.Stop()
	var err error
	if w.Gateway, err = gateway.StartAgent(t.Context(), w.agent); err != nil {
		t.Fatal(err)
	}
}

func (w *world) apply(t *testing.T, texts ...string) {
	t.Helper()
	if err := w.Apply(t.Context(), strings.Join(texts, "---\n")); err != nil {
		t.Fatal(err)
	}
}

// plugin is a Plugin of namespace shop that runs a module, with more fields of spec.wasm. Its config is its name.
func plugin(name, url string, fields ...string) string {
	return fmt.Sprintf(`---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: %[1]s, namespace: shop}
spec:
  wasm: {%[2]s}
  config: {is: %[1]s}
`, name, strings.Join(append([]string{fmt.Sprintf("url: %q", url)}, fields...), ", "))
}

// lua is a Plugin of namespace shop that tells its edit.
func lua(edit string) string {
	return fmt.Sprintf(`---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: lua, namespace: shop}
spec:
  lua: {inline: 'return {request = function(handle) handle:headers():add("x-chain", "lua %s") end}'}
`, edit)
}

// failOpen is the same Plugin with that policy.
func failOpen(plugin string) string { return plugin + "  failurePolicy: FailOpen\n" }

// pullSecret is a Secret of the root namespace with a password for a registry.
func pullSecret(name, registry, password string) string {
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	config := fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, registry, auth)
	return fmt.Sprintf(`---
apiVersion: v1
kind: Secret
metadata: {name: %s, namespace: %s}
type: kubernetes.io/dockerconfigjson
stringData: {.dockerconfigjson: '%s'}
`, name, rootNamespace, config)
}

// answer is what a request came to.
type answer struct {
	status int
	// ran says which plugins the request has passed: x-chain as the upstream saw it, and x-again.
	ran []string
}

func (a answer) String() string { return fmt.Sprintf("%d after %q", a.status, a.ran) }

// ask sends a GET to <name>.test.
func (w *world) ask(ctx context.Context, client *http.Client, name string, headers ...string) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+loopback.Address(w.Port)+"/", nil)
	if err != nil {
		return answer{}, err
	}
	request.Host = name + ".test"
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	a := answer{status: response.StatusCode}
	if a.status != http.StatusOK {
		return a, nil
	}
	var seen echo.Request
	if err := json.NewDecoder(response.Body).Decode(&seen); err != nil {
		return a, err
	}
	a.ran = seen.Headers["x-chain"]
	for _, value := range seen.Headers["x-again"] {
		a.ran = append(a.ran, again+value)
	}
	return a, nil
}

// await returns when <name>.test answers with a status after these plugins.
func (w *world) await(t *testing.T, name string, status int, ran ...string) {
	t.Helper()
	retry(t, func(ctx context.Context) error {
		a, err := w.ask(ctx, http.DefaultClient, name)
		if err == nil && (a.status != status || !slices.Equal(a.ran, ran)) {
			err = fmt.Errorf("%s.test answers %v, not %v", name, a, answer{status: status, ran: ran})
		}
		return err
	})
}

// is is the config of a Plugin that plugin made, as the module tells it.
func is(name string) string { return fmt.Sprintf(`{"is":%q}`, name) }

// awaitProgrammed returns when a Plugin has the condition Programmed with this status and reason, and with a text in its
// message.
func (w *world) awaitProgrammed(t *testing.T, name, status, reason, text string) {
	t.Helper()
	w.awaitCondition(t, name, func(c metav1.Condition) bool {
		return string(c.Status) == status && c.Reason == reason && strings.Contains(c.Message, text)
	})
}

// awaitRejected returns when a Plugin's status says that the gateway has refused it, or perhaps it: an acknowledgement that
// follows at once hides what was refused.
func (w *world) awaitRejected(t *testing.T, name string) {
	t.Helper()
	w.awaitCondition(t, name, func(c metav1.Condition) bool {
		return c.Reason == "Rejected" && strings.Contains(c.Message, "Unable to create Wasm plugin") ||
			c.Reason == "MaybeRejected"
	})
}

// awaitCondition returns when a Plugin's condition Programmed is about what it is now, and as wanted.
func (w *world) awaitCondition(t *testing.T, name string, wanted func(metav1.Condition) bool) {
	t.Helper()
	objects, err := w.Objects(plugin(name, "-"))
	if err != nil {
		t.Fatal(err)
	}
	retry(t, func(ctx context.Context) error {
		o, err := w.Stack.Get(ctx, objects[0])
		if err != nil {
			return err
		}
		raw, err := json.Marshal(o.Object["status"])
		if err != nil {
			return err
		}
		var s struct{ Conditions []metav1.Condition }
		if err := json.Unmarshal(raw, &s); err != nil {
			return err
		}
		for _, c := range s.Conditions {
			if c.Type == "Programmed" && c.ObservedGeneration == o.GetGeneration() && wanted(c) {
				return nil
			}
		}
		return fmt.Errorf("the status of %s is %s", name, raw)
	})
}

// module compiles a file of testdata, or of e2e's, with texts of it replaced.
func module(t *testing.T, file string, oldNew ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	source, target := filepath.Join(dir, "m.wat"), filepath.Join(dir, "m.wasm")
	changed := strings.NewReplacer(oldNew...).Replace(string(text))
	if len(oldNew) > 0 && changed == string(text) {
		t.Fatalf("%s has none of %q", file, oldNew)
	}
	if err := os.WriteFile(source, []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("wat2wasm", source, "-o", target).CombinedOutput(); err != nil {
		t.Fatalf("wat2wasm, of Debian's package wabt: %v: %s", err, out)
	}
	binary, err := os.ReadFile(target)
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// retry calls done until it returns nil.
func retry(t *testing.T, done func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := done(ctx)
		if err == nil {
			return
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%v: %v", ctx.Err(), last)
		case <-tick.C:
		}
	}
}
