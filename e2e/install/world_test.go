package install

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/istio-plugins/istio-plugins/e2e/controller"
	"github.com/istio-plugins/istio-plugins/e2e/echo"
	"github.com/istio-plugins/istio-plugins/e2e/gateway"
	"github.com/istio-plugins/istio-plugins/e2e/loopback"
	"github.com/istio-plugins/istio-plugins/e2e/stack"
	"github.com/istio-plugins/istio-plugins/e2e/suite"
)

const (
	bin           = "../../.bin"
	rootNamespace = "istio-system"
	// settleTimeout bounds the time until a change is in effect; nothing takes two seconds.
	settleTimeout = 60 * time.Second
	pollEvery     = 20 * time.Millisecond
)

// world is a cluster with Istio and a gateway, and without anything of ours.
type world struct {
	*stack.Stack
	Clientset *kubernetes.Clientset
	dynamic   dynamic.Interface
	network   *network
	gateway   *gateway.Gateway
	upstream  *echo.Server
	// port is the gateway's.
	port int
	// program is the image's.
	program string
	// apiServer is the API server's URL for pods.
	apiServer string
	// dir and manifests are absolute paths.
	dir, manifests string
	pods           int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{dir: t.TempDir(), port: loopback.Port(), network: newNetwork(t), program: programOf(t, filepath.Join(bin, "image.tar"))}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	w.manifests = filepath.Join(root, "manifests")
	crds, err := stack.CRDs(root)
	if err != nil {
		t.Fatal(err)
	}
	// Ours are installed by the test. HTTPRoutes are looked at where there are some.
	crds = slices.DeleteFunc(crds, func(path string) bool { return path == filepath.Join(root, "crds") })
	crds = append(crds, filepath.Join(filepath.Dir(crds[1]), "gateway.networking.k8s.io_httproutes.yaml"))
	w.Stack, err = stack.Start(t.Context(), stack.Options{
		Bin: bin, Dir: w.dir, CRDs: crds, APIServer: []string{"--egress-selector-config-file=" + w.network.egress},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	if w.Clientset, err = kubernetes.NewForConfig(w.Config); err != nil {
		t.Fatal(err)
	}
	if w.dynamic, err = dynamic.NewForConfig(w.Config); err != nil {
		t.Fatal(err)
	}
	w.apiServer = w.network.apiServer(t, w.Config.Host)
	if w.upstream, err = echo.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.upstream.Stop)
	envoy, err := filepath.Abs(filepath.Join(bin, "envoy-1.40.0"))
	if err != nil {
		t.Fatal(err)
	}
	if w.gateway, err = gateway.Start(t.Context(), gateway.Options{Envoy: envoy, XDS: w.XDS(), Node: gateway.Ingress(), Dir: w.dir}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.gateway.Stop)
	w.apply(t, istio)
	return w
}

// istio is what an Istio installation has, and the stack has not, and a gateway with an upstream.
const istio = `
apiVersion: v1
kind: Service
metadata: {name: istiod, namespace: istio-system}
spec: {clusterIP: None, ports: [{name: https-dns, port: 15012}, {name: http-monitoring, port: 15014}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: istiod-1, namespace: istio-system, labels: {kubernetes.io/service-name: istiod}}
addressType: IPv4
ports: [{name: https-dns, port: ${ISTIOD_PORT}}, {name: http-monitoring, port: ${METRICS_PORT}}]
endpoints: [{addresses: [` + istiodAddress + `]}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: ${PORT}, name: http, protocol: HTTP}, bind: 127.0.0.1, hosts: ['*']}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: echo, namespace: upstream}
spec:
  hosts: [echo.test]
  resolution: STATIC
  location: MESH_EXTERNAL
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1, ports: {http: ${ECHO_PORT}}}]
`

// apply writes the objects of a YAML text, in which ${PORT} and the like stand for ports.
func (w *world) apply(t *testing.T, text string) {
	t.Helper()
	_, istiodPort, err := net.SplitHostPort(w.TLSXDS())
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := url.Parse(w.Metrics())
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{"METRICS_PORT": metrics.Port(), "PORT": strconv.Itoa(w.port), "ECHO_PORT": strconv.Itoa(w.upstream.Port()), "ISTIOD_PORT": istiodPort}
	objects, err := suite.Parse([]byte(os.Expand(text, func(name string) string { return values[name] })))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Apply(t.Context(), objects); err != nil {
		t.Fatal(err)
	}
}

// kubectl returns what it prints. It must succeed.
func (w *world) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := w.tryKubectl(t, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (w *world) tryKubectl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "kubectl"), append([]string{"--kubeconfig", w.Kubeconfig}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// install applies an overlay, a second time without any change.
func (w *world) install(t *testing.T, overlay string) {
	t.Helper()
	w.kubectl(t, "apply", "--server-side", "-k", overlay)
	before := w.versions(t, overlay)
	w.kubectl(t, "apply", "--server-side", "-k", overlay)
	if diff := cmp.Diff(before, w.versions(t, overlay)); diff != "" {
		t.Errorf("the second kubectl apply -k %s changed something:\n%s", overlay, diff)
	}
}

// versions of the objects of an overlay. Whoever holds the Lease changes it all the time.
func (w *world) versions(t *testing.T, overlay string) []string {
	t.Helper()
	out := w.kubectl(t, "get", "-k", overlay, "-o", `jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{"\n"}{end}`)
	return slices.DeleteFunc(strings.Split(out, "\n"), func(line string) bool { return strings.HasPrefix(line, "Lease/") })
}

// overlay writes a kustomization of a user, in which ${MANIFESTS} stands for ours.
func (w *world) overlay(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	// Symbolic links do not count for kustomize, and folders must be relative.
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifests, err := filepath.Rel(dir, w.manifests)
	if err != nil {
		t.Fatal(err)
	}
	text = strings.ReplaceAll(text, "${MANIFESTS}", manifests)
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// file is one with a text.
func (w *world) file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "objects.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// await returns when done returns nil.
func await(t *testing.T, done func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settleTimeout)
	defer cancel()
	for {
		err := done(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(pollEvery):
		}
	}
}

// ask sends a GET to the gateway, with a header unless its name is empty, and returns the answer without its body.
func (w *world) ask(ctx context.Context, host, header, value string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+loopback.Address(w.port)+"/", nil)
	if err != nil {
		return nil, err
	}
	request.Host, request.Close = host, true
	if header != "" {
		request.Header.Set(header, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	return response, response.Body.Close()
}

func (w *world) status(ctx context.Context, host string) (int, error) {
	response, err := w.ask(ctx, host, "", "")
	if err != nil {
		return 0, err
	}
	return response.StatusCode, nil
}

// awaitStatus returns when the host answers with a status.
func (w *world) awaitStatus(t *testing.T, host string, want int) {
	t.Helper()
	await(t, func(ctx context.Context) error {
		got, err := w.status(ctx, host)
		if err == nil && got != want {
			err = fmt.Errorf("%s answers %d, not %d", host, got, want)
		}
		return err
	})
}

// hammer sends requests to a host until the function that it returns is called. Each must be answered by one of the statuses.
func (w *world) hammer(t *testing.T, host string, statuses ...int) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	for range 2 {
		wait.Go(func() {
			for sent := 1; ctx.Err() == nil; sent++ {
				got, err := w.status(t.Context(), host)
				if err != nil || !slices.Contains(statuses, got) {
					t.Errorf("%s, request %d: %d, %v; expected is %v", host, sent, got, err, statuses)
					return
				}
			}
		})
	}
	return func() {
		cancel()
		wait.Wait()
	}
}

// settled returns the generated objects, once they are those of a fresh compile: the controller has nothing left to do.
func (w *world) settled(t *testing.T) map[string]string {
	t.Helper()
	text, err := exec.CommandContext(t.Context(), w.program, "compile", "--kubeconfig", w.Kubeconfig).Output()
	if err != nil {
		t.Fatal(err)
	}
	wanted, err := suite.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := (controller.World{Stack: w.Stack}).AwaitGenerated(t.Context(), wanted); err != nil {
		t.Fatal(err)
	}
	return w.generated(t)
}

// generated are the versions of the generated objects, by kind and name, which a write changes.
func (w *world) generated(t *testing.T) map[string]string {
	t.Helper()
	list, err := controller.List(t.Context(), w.Stack)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for key, o := range list {
		out[key] = string(o.GetUID()) + "/" + o.GetResourceVersion()
	}
	return out
}

// everything is all that is in the cluster, but for Events, which the API server removes itself.
func (w *world) everything(t *testing.T) []string {
	t.Helper()
	lists, err := discovery.ServerPreferredResources(w.Clientset.Discovery())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, list := range lists {
		group, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list.APIResources {
			if !slices.Contains(r.Verbs, "list") || r.Name == "events" || r.Name == "componentstatuses" {
				continue
			}
			objects, err := w.dynamic.Resource(group.WithResource(r.Name)).List(t.Context(), metav1.ListOptions{})
			if meta.IsNoMatchError(err) {
				continue
			}
			if err != nil {
				t.Fatal(errors.Join(err, fmt.Errorf("list %s of %s", r.Name, group)))
			}
			for _, o := range objects.Items {
				out = append(out, fmt.Sprintf("%s.%s %s/%s", r.Name, group.Group, o.GetNamespace(), o.GetName()))
			}
		}
	}
	return out
}
