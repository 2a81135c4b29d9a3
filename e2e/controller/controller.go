// Package controller runs the real `istio-plugins controller` beside a stack, as a process of its own that knows nothing but
// a kubeconfig and where istiod is.
package controller

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/istio-plugins/istio-plugins/e2e/loopback"
	"github.com/istio-plugins/istio-plugins/e2e/process"
	"github.com/istio-plugins/istio-plugins/e2e/stack"
)

const (
	// startTimeout bounds the time until everything has been applied; it takes about a second.
	startTimeout = 30 * time.Second
	// stopGrace is what the controller gets to end.
	stopGrace = 15 * time.Second
)

// Options say which controller to run.
type Options struct {
	// Program is istio-plugins.
	Program string
	// Kubeconfig of the API server; the stack's if it is empty.
	Kubeconfig string
	// Flags besides those that say where things are.
	Flags []string
	// Webhooks are asked by the API server.
	Webhooks bool
	// Dir is an existing folder for the log.
	Dir string
	// Detached controllers live on when this program ends.
	Detached bool
	// Name of the log file, for one of several controllers; controller if it is empty.
	Name string
}

// Controller is a running controller.
type Controller struct {
	// Metrics and Health are addresses, host:port.
	Metrics, Health string

	process *process.Process
}

// Start returns when the controller is ready: everything has been applied, or another one has the lease.
func Start(ctx context.Context, s *stack.Stack, o Options) (*Controller, error) {
	if o.Kubeconfig == "" {
		o.Kubeconfig = s.Kubeconfig
	}
	if o.Name == "" {
		o.Name = "controller"
	}
	c := &Controller{Metrics: loopback.Address(loopback.Port()), Health: loopback.Address(loopback.Port())}
	flags := []string{
		"controller", "--kubeconfig", o.Kubeconfig, "--istiod", s.XDS() + "=" + s.Debug() + "=" + s.Metrics(),
		"--metrics-address", c.Metrics, "--health-address", c.Health, "--log-level", "debug",
	}
	if o.Webhooks {
		address := loopback.Address(loopback.Port())
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		flags = append(flags, "--webhook-url", "https://"+address, "--webhook-host", host, "--webhook-port", port)
	} else {
		flags = append(flags, "--webhooks=false")
	}
	cmd := exec.Command(o.Program, append(flags, o.Flags...)...)
	// Wherever the test runs, this is not a pod.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "KUBE") })
	p, err := process.Start(o.Name, filepath.Join(o.Dir, o.Name+".log"), cmd, o.Detached)
	if err != nil {
		return nil, err
	}
	c.process = p
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := p.Await(ctx, c.Ready); err != nil {
		p.Kill()
		return nil, err
	}
	return c, nil
}

// Stop ends the controller in order, Kill at once.
func (c *Controller) Stop() { c.process.Stop(stopGrace) }

// Kill ends the controller as kill -9 does.
func (c *Controller) Kill() { c.process.Kill() }

// PID is the id of the controller's process.
func (c *Controller) PID() int { return c.process.PID() }

// Ended is closed when the controller has ended.
func (c *Controller) Ended() <-chan struct{} { return c.process.Ended() }

// LogFile holds the controller's log.
func (c *Controller) LogFile() string { return c.process.LogFile }

// Ready says whether the controller is.
func (c *Controller) Ready(ctx context.Context) error {
	response, err := get(ctx, "http://"+c.Health+"/readyz")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("/readyz answers %s", response.Status)
	}
	return nil
}

// Numbers are the controller's metrics, by name.
func (c *Controller) Numbers(ctx context.Context) (map[string]*dto.MetricFamily, error) {
	response, err := get(ctx, "http://"+c.Metrics+"/metrics")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(response.Body)
}

// Writes are how many generated objects the controller has written or deleted so far, whatever the API server said.
func (c *Controller) Writes(ctx context.Context) (int, error) {
	numbers, err := c.Numbers(ctx)
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for _, m := range numbers["istio_plugins_writes_total"].GetMetric() {
		sum += m.GetCounter().GetValue()
	}
	return int(sum), nil
}

func get(ctx context.Context, url string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return http.DefaultClient.Do(request)
}
