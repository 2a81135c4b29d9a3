// Package gateway runs a real Envoy as the pod of an Istio gateway, and answers questions about it by its admin port.
package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/istio-plugins/istio-plugins/e2e/loopback"
	"github.com/istio-plugins/istio-plugins/e2e/process"
)

const (
	// connectTimeout bounds one attempt to reach istiod, which is on the same machine.
	connectTimeout = time.Second
	// startTimeout bounds the time from the start of Envoy until it has its first listeners; it takes about 0.3 s.
	startTimeout = 20 * time.Second
	// stopGrace is what Envoy gets to end before it is killed; it takes about 0.1 s.
	stopGrace = 5 * time.Second
)

// Node is how a gateway's pod presents itself to istiod.
type Node struct {
	Name, Namespace string
	Labels          map[string]string
	// TrustedProxies is numTrustedProxies of its gatewayTopology.
	TrustedProxies int
	// IstioVersion that its proxy claims to be, for example 1.31.0.
	IstioVersion string
}

// Ingress is the gateway of Istio's own installation.
func Ingress() Node {
	return Node{Name: "gateway-1", Namespace: "istio-system", Labels: map[string]string{"istio": "ingressgateway"}, IstioVersion: "1.31.0"}
}

func (n Node) id() string {
	return fmt.Sprintf("router~127.0.0.1~%s.%s~%s.svc.cluster.local", n.Name, n.Namespace, n.Namespace)
}

func (n Node) metadata() (*structpb.Struct, error) {
	labels := map[string]any{}
	for key, value := range n.Labels {
		labels[key] = value
	}
	return structpb.NewStruct(map[string]any{
		"NAME":          n.Name,
		"NAMESPACE":     n.Namespace,
		"LABELS":        labels,
		"ISTIO_VERSION": n.IstioVersion,
		"CLUSTER_ID":    "Kubernetes",
		"MESH_ID":       "cluster.local",
		"INSTANCE_IPS":  "127.0.0.1",
		"PROXY_CONFIG":  map[string]any{"gatewayTopology": map[string]any{"numTrustedProxies": n.TrustedProxies}},
	})
}

// Options say which Envoy to run and how.
type Options struct {
	// Envoy is the program.
	Envoy string
	// XDS is istiod's address, host:port.
	XDS  string
	Node Node
	// Certificates is the port of 127.0.0.1 that serves the certificates of TLS servers (package certificates); 0 where there are
	// none.
	Certificates int
	// Wasm is a module that is loaded at the start and does nothing; empty for none. A gateway that is to get Wasm
	// plugins while it runs needs one.
	Wasm string
	// Dir is an existing folder for the bootstrap and the log.
	Dir string
	// Detached gateways live on when this program ends.
	Detached bool
}

// Gateway is a running Envoy.
type Gateway struct {
	// Admin is the address of Envoy's admin interface, host:port.
	Admin string

	process *process.Process
	// grace is what it gets to end before it is killed.
	grace time.Duration
}

// Start returns when Envoy has received its first listeners, which may be none.
func Start(ctx context.Context, o Options) (*Gateway, error) {
	host, portText, err := net.SplitHostPort(o.XDS)
	if err != nil {
		return nil, err
	}
	xdsPort, err := strconv.Atoi(portText)
	if err != nil {
		return nil, err
	}
	adminPort := loopback.Port()
	config, err := bootstrap(o, adminPort, host, xdsPort)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(o.Dir, "envoy-bootstrap.json")
	if err := os.WriteFile(file, config, 0o644); err != nil {
		return nil, err
	}
	// Without hot restart Envoys need no shared memory, and any number of them runs side by side.
	cmd := exec.Command(o.Envoy, "-c", file, "--disable-hot-restart", "--concurrency", "2", "--log-level", "warning",
		"--drain-time-s", "1")
	p, err := process.Start("envoy", filepath.Join(o.Dir, "envoy.log"), cmd, o.Detached)
	if err != nil {
		return nil, err
	}
	g := &Gateway{Admin: loopback.Address(adminPort), process: p, grace: stopGrace}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := p.Await(ctx, g.ready); err != nil {
		p.Kill()
		return nil, err
	}
	return g, nil
}

// Stop ends Envoy.
func (g *Gateway) Stop() { g.process.Stop(g.grace) }

// Kill ends Envoy as kill -9 does.
func (g *Gateway) Kill() { g.process.Kill() }

// PID is the id of Envoy's process.
func (g *Gateway) PID() int { return g.process.PID() }

// LogFile holds Envoy's log.
func (g *Gateway) LogFile() string { return g.process.LogFile }

func (g *Gateway) ready(ctx context.Context) error {
	_, err := g.Get(ctx, "/ready", nil)
	return err
}

// Counters are Envoy's counters and gauges whose name matches the regular expression.
func (g *Gateway) Counters(ctx context.Context, pattern string) (map[string]uint64, error) {
	text, err := g.Get(ctx, "/stats", url.Values{"format": {"json"}, "filter": {pattern}})
	if err != nil {
		return nil, err
	}
	var dump struct {
		Stats []struct {
			Name  string
			Value json.RawMessage
		}
	}
	if err := json.Unmarshal(text, &dump); err != nil {
		return nil, fmt.Errorf("envoy's stats: %w", err)
	}
	counters := map[string]uint64{}
	for _, stat := range dump.Stats {
		// Histograms and text readouts are no numbers.
		if value, err := strconv.ParseUint(string(stat.Value), 10, 64); err == nil {
			counters[stat.Name] = value
		}
	}
	return counters, nil
}

// ConfigDump is what Envoy runs with, as JSON; resource names a part of it such as dynamic_route_configs, and is empty
// for all of it.
func (g *Gateway) ConfigDump(ctx context.Context, resource string) ([]byte, error) {
	query := url.Values{}
	if resource != "" {
		query.Set("resource", resource)
	}
	return g.Get(ctx, "/config_dump", query)
}

// Get asks the admin interface.
func (g *Gateway) Get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	target := url.URL{Scheme: "http", Host: g.Admin, Path: path, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("envoy's admin answers %s to %s: %s", response.Status, path, text)
	}
	return text, nil
}
