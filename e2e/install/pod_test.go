package install

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/istio-plugins/istio-plugins/e2e/loopback"
	"github.com/istio-plugins/istio-plugins/e2e/process"
)

const (
	// startTimeout bounds the time until a pod is ready; it takes about two seconds.
	startTimeout = 60 * time.Second
	// stopGrace is what Kubernetes gives a pod to end.
	stopGrace = 30 * time.Second
)

// pod is the Deployment's container, run as the kubelet would: the program of the image, with the arguments, the service
// account and the tokens of the pod template. Only its ports are others, since several pods share this machine's address.
type pod struct {
	*process.Process
	health, webhook, readiness string
}

// startPod returns when the pod is ready. Its service account's tokens are real, and so are the bounds of its rights.
func (w *world) startPod(t *testing.T) *pod {
	t.Helper()
	deployment, err := w.Clientset.AppsV1().Deployments(rootNamespace).Get(t.Context(), "istio-plugins", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	spec := deployment.Spec.Template.Spec
	container := spec.Containers[0]
	w.pods++
	name := "pod-" + strconv.Itoa(w.pods)
	dir := filepath.Join(w.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["cluster"] = &clientcmdapi.Cluster{Server: w.apiServer, InsecureSkipTLSVerify: true}
	config.AuthInfos["pod"] = &clientcmdapi.AuthInfo{Token: w.token(t, spec.ServiceAccountName)}
	config.Contexts["pod"] = &clientcmdapi.Context{Cluster: "cluster", AuthInfo: "pod"}
	config.CurrentContext = "pod"
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := clientcmd.WriteToFile(*config, kubeconfig); err != nil {
		t.Fatal(err)
	}
	p := &pod{health: loopback.Address(loopback.Port()), webhook: loopback.Address(loopback.Port())}
	host, port, err := net.SplitHostPort(p.webhook)
	if err != nil {
		t.Fatal(err)
	}
	args, variables := slices.Clone(container.Args), []string{}
	for name, value := range environment(t, container, rootNamespace) {
		variables = append(variables, name+"="+value)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "$("+name+")", value)
		}
	}
	args = append(args,
		"--kubeconfig", kubeconfig, "--istiod-token-file", w.istiodToken(t, dir, spec),
		"--metrics-address", loopback.Address(loopback.Port()), "--health-address", p.health, "--webhook-host", host, "--webhook-port", port)
	cmd := exec.Command(w.program, args...)
	cmd.Env = variables
	if p.Process, err = process.Start(name, filepath.Join(dir, "log"), cmd, false); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			text, err := os.ReadFile(p.LogFile)
			t.Logf("the log of %s, %v:\n%s", name, err, text)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	p.readiness = "http://" + p.health + container.ReadinessProbe.HTTPGet.Path
	if err := p.Await(ctx, p.ready); err != nil {
		t.Fatal(err)
	}
	if err := process.Answers(ctx, http.DefaultClient, "http://"+p.health+container.LivenessProbe.HTTPGet.Path); err != nil {
		t.Error(err)
	}
	w.network.serve(p.webhook)
	return p
}

func (p *pod) ready(ctx context.Context) error {
	return process.Answers(ctx, http.DefaultClient, p.readiness)
}

// stop ends the pod as the kubelet does.
func (p *pod) stop() { p.Stop(stopGrace) }

// environment of the container, by its names.
func environment(t *testing.T, c corev1.Container, namespace string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, variable := range c.Env {
		switch from := variable.ValueFrom; {
		case from != nil && from.FieldRef != nil && from.FieldRef.FieldPath == "metadata.namespace":
			out[variable.Name] = namespace
		case from != nil && from.ResourceFieldRef != nil && from.ResourceFieldRef.Resource == "limits.memory":
			out[variable.Name] = strconv.FormatInt(c.Resources.Limits.Memory().Value(), 10)
		default:
			t.Fatalf("this kubelet does not know the variable %+v", variable)
		}
	}
	return out
}

// token of a service account, as its pods get one.
func (w *world) token(t *testing.T, account string, audiences ...string) string {
	t.Helper()
	request, err := w.Clientset.CoreV1().ServiceAccounts(rootNamespace).CreateToken(t.Context(), account,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}

// istiodToken writes the token that the pod template projects, and returns its file. It must be where the program looks.
func (w *world) istiodToken(t *testing.T, dir string, spec corev1.PodSpec) string {
	t.Helper()
	mount, volume := spec.Containers[0].VolumeMounts[0], spec.Volumes[0]
	source := volume.Projected.Sources[0].ServiceAccountToken
	if at := filepath.Join(mount.MountPath, source.Path); mount.Name != volume.Name || at != "/var/run/secrets/tokens/istio-token" {
		t.Errorf("istiod's token is at %s", at)
	}
	file := filepath.Join(dir, source.Path)
	if err := os.WriteFile(file, []byte(w.token(t, spec.ServiceAccountName, source.Audience)), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// programOf unpacks the program of an image, which is all that the image has.
func programOf(t *testing.T, imageFile string) string {
	t.Helper()
	file, err := os.Open(imageFile)
	if err != nil {
		t.Fatalf("%v: `make image` makes it", err)
	}
	defer file.Close()
	index, err := layout.ImageIndexFromPath(extract(t, file))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	image, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != "65532:65532" || len(config.Config.Entrypoint) != 1 || len(config.Config.Cmd) > 0 {
		t.Errorf("the image's config is %+v", config.Config)
	}
	return filepath.Join(extract(t, layerOf(t, image)), config.Config.Entrypoint[0])
}

func layerOf(t *testing.T, image v1.Image) io.Reader {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	if len(layers) != 1 {
		t.Fatalf("the image has %d layers", len(layers))
	}
	files, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	content, err := io.ReadAll(files)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(content)
}

func extract(t *testing.T, r io.Reader) string {
	t.Helper()
	dir := t.TempDir()
	archive := tar.NewReader(r)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, header.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, header.FileInfo().Mode()); err != nil {
			t.Fatal(err)
		}
	}
}
