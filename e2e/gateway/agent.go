package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/istio-plugins/istio-plugins/e2e/loopback"
	"github.com/istio-plugins/istio-plugins/e2e/process"
)

// istiodName is in the certificate that istiod makes itself.
const istiodName = "istiod.istio-system.svc"

// AgentOptions say how Istio's agent starts Envoy.
type AgentOptions struct {
	// Agent is pilot-agent, Envoy the program that it starts, Template what it makes Envoy's bootstrap from.
	Agent, Envoy, Template string
	// XDS is the address of istiod's TLS port. RootCert has signed its certificate, and Token says who asks.
	XDS, RootCert, Token string
	Node                 Node
	// InsecureRegistries are those whose certificates the agent does not check.
	InsecureRegistries []string
	// Concurrency is how many workers Envoy has.
	Concurrency int
	// Dir is an existing folder for what the agent writes, and for the log.
	Dir string
}

// inContainer gives the agent what its container would: a /var/lib of its own, where it keeps Wasm modules, and process 1,
// with which all others end.
const inContainer = `mount -t tmpfs none /var/lib && mkdir -p /var/lib/istio/data && exec "$@"`

// unshare starts a program in such a container.
func unshare(program ...string) *exec.Cmd {
	return exec.Command("unshare", append([]string{
		"--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", inContainer, "sh",
	}, program...)...)
}

// AgentError says why this machine lets no agent start: it must allow user namespaces.
func AgentError() error {
	if out, err := unshare("true").CombinedOutput(); err != nil {
		return fmt.Errorf("unshare: %w: %s", err, out)
	}
	return nil
}

// StartAgent returns when the Envoy that Istio's agent has started is ready.
func StartAgent(ctx context.Context, o AgentOptions) (*Gateway, error) {
	dir := filepath.Join(o.Dir, "agent")
	for file, text := range map[string]string{
		"var/run/secrets/tokens/istio-token":  o.Token,
		"var/run/secrets/istio/root-cert.pem": o.RootCert,
	} {
		file = filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	labels, err := json.Marshal(o.Node.Labels)
	if err != nil {
		return nil, err
	}
	admin, health := loopback.Port(), loopback.Port()
	config, err := json.Marshal(map[string]any{
		"discoveryAddress": o.XDS, "binaryPath": o.Envoy, "proxyAdminPort": admin, "statusPort": loopback.Port(), "concurrency": o.Concurrency,
		"proxyStatsMatcher": map[string]any{"inclusionRegexps": []string{".*"}},
	})
	if err != nil {
		return nil, err
	}
	cmd := unshare(o.Agent, "proxy", "router", "--domain", o.Node.Namespace+".svc.cluster.local", "--proxyLogLevel", "warning")
	cmd.Dir = dir // of its relative paths
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir,
		"PROXY_CONFIG=" + string(config), "ISTIO_BOOTSTRAP=" + o.Template, "ISTIOD_SAN=" + istiodName,
		"POD_NAME=" + o.Node.Name, "POD_NAMESPACE=" + o.Node.Namespace, "INSTANCE_IP=127.0.0.1", "SERVICE_ACCOUNT=" + o.Node.Name,
		"ISTIO_META_CLUSTER_ID=Kubernetes", "ISTIO_METAJSON_LABELS=" + string(labels),
		"ENVOY_STATUS_PORT=" + strconv.Itoa(health), "ENVOY_PROMETHEUS_PORT=" + strconv.Itoa(loopback.Port()),
		"WASM_INSECURE_REGISTRIES=" + strings.Join(o.InsecureRegistries, ","),
	}
	p, err := process.Start("pilot-agent", filepath.Join(o.Dir, "agent.log"), cmd, false)
	if err != nil {
		return nil, err
	}
	// unshare passes no signal on, and what it started ends with it.
	g := &Gateway{Admin: loopback.Address(admin), process: p, grace: 0}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := p.Await(ctx, func(ctx context.Context) error {
		return process.Answers(ctx, http.DefaultClient, "http://"+loopback.Address(health)+"/healthz/ready")
	}); err != nil {
		p.Kill()
		return nil, err
	}
	return g, nil
}
