package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/istio-plugins/istio-plugins/e2e/echo"
	"github.com/istio-plugins/istio-plugins/e2e/gateway"
	"github.com/istio-plugins/istio-plugins/e2e/loopback"
	"github.com/istio-plugins/istio-plugins/e2e/stack"
	"github.com/istio-plugins/istio-plugins/e2e/suite"
)

// Bed is a stack with a gateway for all hosts and an upstream, in which controllers are started and stopped.
type Bed struct {
	Stack    *stack.Stack
	Gateway  *gateway.Gateway
	Upstream *echo.Server
	// Port is the gateway's.
	Port int

	options BedOptions
	names   int
}

// BedOptions say what to run.
type BedOptions struct {
	// Bin is the folder of the programs, Root that of the repository.
	Bin, Root string
	// Envoy is its file's name in Bin; empty to start no gateway.
	Envoy string
	// Dir is an existing folder.
	Dir string
}

// base is what every bed has.
const base = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: ${PORT}, name: http, protocol: HTTP}, hosts: ['*']}]
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

// NewBed starts everything but a controller.
func NewBed(ctx context.Context, o BedOptions) (b *Bed, err error) {
	b = &Bed{options: o, Port: loopback.Port()}
	defer func() {
		if err != nil {
			b.Stop()
		}
	}()
	crds, err := stack.CRDs(o.Root)
	if err != nil {
		return b, err
	}
	if b.Stack, err = stack.Start(ctx, stack.Options{Bin: o.Bin, Dir: o.Dir, CRDs: crds}); err != nil {
		return b, err
	}
	if b.Upstream, err = echo.Start(); err != nil {
		return b, err
	}
	if err := b.Apply(ctx, base); err != nil || o.Envoy == "" {
		return b, err
	}
	return b, b.StartGateway(ctx)
}

// StartGateway starts Envoy, which must not run.
func (b *Bed) StartGateway(ctx context.Context) error {
	envoy, err := filepath.Abs(filepath.Join(b.options.Bin, b.options.Envoy))
	if err != nil {
		return err
	}
	b.Gateway, err = gateway.Start(ctx, gateway.Options{Envoy: envoy, XDS: b.Stack.XDS(), Node: gateway.Ingress(), Dir: b.options.Dir})
	return err
}

// Stop ends everything but controllers.
func (b *Bed) Stop() {
	if b.Gateway != nil {
		b.Gateway.Stop()
	}
	if b.Upstream != nil {
		b.Upstream.Stop()
	}
	if b.Stack != nil {
		b.Stack.Stop()
	}
}

// Start starts a controller, with flags besides those that say where things are.
func (b *Bed) Start(ctx context.Context, flags ...string) (*Controller, error) {
	return b.StartWith(ctx, Options{Flags: flags})
}

// StartWith starts a controller with options of its own.
func (b *Bed) StartWith(ctx context.Context, o Options) (*Controller, error) {
	program, err := filepath.Abs(filepath.Join(b.options.Bin, "istio-plugins"))
	if err != nil {
		return nil, err
	}
	b.names++
	o.Program, o.Dir, o.Name = program, b.options.Dir, "controller-"+strconv.Itoa(b.names)
	return Start(ctx, b.Stack, o)
}

// Objects reads YAML, in which ${PORT} and ${ECHO_PORT} stand for the gateway's port and the upstream's.
func (b *Bed) Objects(text string) ([]*unstructured.Unstructured, error) {
	values := map[string]string{"PORT": strconv.Itoa(b.Port), "ECHO_PORT": strconv.Itoa(b.Upstream.Port())}
	return suite.Parse([]byte(os.Expand(text, func(name string) string { return values[name] })))
}

// Apply writes the objects of a YAML text, as a user would.
func (b *Bed) Apply(ctx context.Context, text string) error {
	list, err := b.Objects(text)
	if err != nil {
		return err
	}
	return b.Stack.Apply(ctx, list)
}

// Delete removes the objects of a YAML text.
func (b *Bed) Delete(ctx context.Context, text string) error {
	list, err := b.Objects(text)
	if err != nil {
		return err
	}
	return b.Stack.Delete(ctx, list)
}

// Route is a VirtualService of namespace shop with the host <name>.test, and this annotation if it is not empty.
func Route(name, plugins string) string {
	annotations := ""
	if plugins != "" {
		annotations = fmt.Sprintf(", annotations: {istio.io/plugins: %q}", plugins)
	}
	return fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: %[1]s, namespace: shop%[2]s}
spec:
  hosts: [%[1]s.test]
  gateways: [istio-system/public]
  http: [{route: [{destination: {host: echo.test}}]}]
`, name, annotations)
}

// Ask sends a GET to the gateway on a new connection and returns the answer, whose body has been read and closed.
func (b *Bed) Ask(ctx context.Context, host string, headers ...string) (*http.Response, error) {
	return ask(ctx, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, b.Port, host, headers...)
}

func ask(ctx context.Context, client *http.Client, port int, host string, headers ...string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+loopback.Address(port)+"/", nil)
	if err != nil {
		return nil, err
	}
	request.Host = host
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	return response, response.Body.Close()
}

// Await returns when the host answers with a status, or when ctx ends.
func (b *Bed) Await(ctx context.Context, host string, status int) error {
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for {
		response, err := ask(ctx, client, b.Port, host)
		if err == nil && response.StatusCode == status {
			return nil
		}
		if ctx.Err() != nil {
			got := "no answer"
			if response != nil {
				got = response.Status
			}
			return fmt.Errorf("%s answers %s, not %d: %w", host, got, status, errors.Join(err, ctx.Err()))
		}
	}
}
