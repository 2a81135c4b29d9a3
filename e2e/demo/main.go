// Command demo shows samples/quickstart on the real thing: it starts etcd, kube-apiserver, istiod and Envoy on this
// machine, applies and compiles the sample, and asks each route with curl. `make demo` builds what it needs and runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/istio-plugins/istio-plugins/e2e/controller"
	"github.com/istio-plugins/istio-plugins/e2e/echo"
	"github.com/istio-plugins/istio-plugins/e2e/gateway"
	"github.com/istio-plugins/istio-plugins/e2e/loopback"
	"github.com/istio-plugins/istio-plugins/e2e/process"
	"github.com/istio-plugins/istio-plugins/e2e/stack"
	"github.com/istio-plugins/istio-plugins/e2e/suite"
)

const (
	// envoy is the newest version that the Makefile provides.
	envoy = "envoy-1.40.0"
	// settleTimeout bounds the time until the gateway does what the sample says. It takes about a second.
	settleTimeout = 30 * time.Second
	// pollEvery is the time between two looks whether it does.
	pollEvery = 100 * time.Millisecond
	// stopGrace is what the upstream gets to end.
	stopGrace = time.Second
)

func main() {
	var d demo
	flag.StringVar(&d.bin, "bin", "../.bin", "folder of istio-plugins, Envoy, pilot-discovery and kube-apiserver")
	flag.StringVar(&d.kubectl, "kubectl", "kubectl", "the kubectl to use")
	flag.StringVar(&d.requests, "case", "cases/quickstart/requests.yaml", "the case to show")
	flag.BoolVar(&d.keep, "keep", false, "leave everything running")
	upstream := flag.Bool("upstream", false, "be the upstream, nothing else")
	flag.Parse()
	// An interrupt ends the demo in order.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := d.run
	if *upstream {
		run = serveUpstream
	}
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo is one run of the demo.
type demo struct {
	bin, kubectl, requests string
	keep                   bool

	begin time.Time
	dir   string
	// stops end what was started, last first; pids are its processes in the same order.
	stops []func()
	pids  []int
	stack *stack.Stack
	ports suite.Ports
}

func (d *demo) run(ctx context.Context) (err error) {
	d.begin, d.ports = time.Now(), suite.Ports{}
	if d.bin, err = filepath.Abs(d.bin); err != nil {
		return err
	}
	if d.dir, err = os.MkdirTemp("", "istio-plugins-demo-"); err != nil {
		return err
	}
	done := false
	defer func() {
		if !d.keep || !done {
			d.clean()
		}
	}()
	c, err := suite.Read(d.requests)
	if err != nil {
		return err
	}
	upstreamPort, err := d.startUpstream()
	if err != nil {
		return err
	}
	if err := d.startStack(ctx); err != nil {
		return err
	}
	if err := d.startGateway(ctx); err != nil {
		return err
	}
	if err := d.startController(ctx); err != nil {
		return err
	}
	file, err := d.write(c, upstreamPort)
	if err != nil {
		return err
	}
	if err := d.apply(ctx, file); err != nil {
		return err
	}
	for _, step := range c.Steps {
		if err := d.show(ctx, step.Requests); err != nil {
			return err
		}
	}
	if err := d.kubectlGet(ctx); err != nil {
		return err
	}
	d.explain(file)
	done = true
	return nil
}

// progress prints what happens next, and when.
func (d *demo) progress(what string) {
	fmt.Printf("%5.1fs  %s\n", time.Since(d.begin).Seconds(), what)
}

// startUpstream runs this program as the upstream: it has to live on with -keep.
func (d *demo) startUpstream() (port string, err error) {
	d.progress("an upstream, which answers with the request as it arrived")
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	ready, write, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer ready.Close()
	cmd := exec.Command(self, "-upstream")
	cmd.ExtraFiles = []*os.File{write}
	p, err := process.Start("upstream", filepath.Join(d.dir, "upstream.log"), cmd, d.keep)
	write.Close()
	if err != nil {
		return "", err
	}
	d.onEnd(func() { p.Stop(stopGrace) }, p.PID())
	if _, err := fmt.Fscan(ready, &port); err != nil {
		return "", fmt.Errorf("the upstream does not start, see %s: %w", p.LogFile, err)
	}
	return port, nil
}

// serveUpstream tells its port to the file that startUpstream gave it, and serves until it is ended.
func serveUpstream(ctx context.Context) error {
	server, err := echo.Start()
	if err != nil {
		return err
	}
	defer server.Stop()
	const firstExtraFile = 3
	ready := os.NewFile(firstExtraFile, "ready")
	if _, err := fmt.Fprintln(ready, server.Port()); err != nil {
		return err
	}
	if err := ready.Close(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (d *demo) startStack(ctx context.Context) error {
	crds, err := stack.CRDs("..")
	if err != nil {
		return err
	}
	d.stack, err = stack.Start(ctx, stack.Options{
		Bin: d.bin, Dir: d.dir, Progress: d.progress, Detached: d.keep, CRDs: crds,
	})
	if err != nil {
		return err
	}
	d.onEnd(d.stack.Stop, d.stack.PIDs()...)
	return nil
}

func (d *demo) startGateway(ctx context.Context) error {
	d.progress("the gateway: " + envoy)
	g, err := gateway.Start(ctx, gateway.Options{
		Envoy: filepath.Join(d.bin, envoy), XDS: d.stack.XDS(), Node: gateway.Ingress(), Dir: d.dir, Detached: d.keep,
	})
	if err != nil {
		return err
	}
	d.onEnd(g.Stop, g.PID())
	return nil
}

// write copies the sample into one file. Only the ports of its Gateways differ: 80 is not for everybody, and may be taken.
func (d *demo) write(c suite.Case, upstreamPort string) (file string, err error) {
	var objects []*unstructured.Unstructured
	for _, path := range c.Input {
		list, err := suite.Variables{"ECHO_PORT": upstreamPort}.Objects(filepath.Join(c.Dir, path))
		if err != nil {
			return "", err
		}
		objects = append(objects, list...)
	}
	for _, o := range objects {
		d.ports.Complete(o)
	}
	text, err := suite.Print(namespacesFirst(objects))
	if err != nil {
		return "", err
	}
	file = filepath.Join(d.dir, "quickstart.yaml")
	return file, os.WriteFile(file, text, 0o644)
}

func namespacesFirst(objects []*unstructured.Unstructured) []*unstructured.Unstructured {
	var namespaces, others []*unstructured.Unstructured
	for _, o := range objects {
		if o.GetKind() == "Namespace" {
			namespaces = append(namespaces, o)
		} else {
			others = append(others, o)
		}
	}
	return append(namespaces, others...)
}

func (d *demo) startController(ctx context.Context) error {
	d.progress("istio-plugins controller")
	c, err := controller.Start(ctx, d.stack, controller.Options{
		Program: filepath.Join(d.bin, "istio-plugins"), Dir: d.dir, Detached: d.keep,
	})
	if err != nil {
		return err
	}
	d.onEnd(c.Stop, c.PID())
	return nil
}

// apply does what a user does. The controller does the rest.
func (d *demo) apply(ctx context.Context, file string) error {
	d.progress("kubectl apply --server-side -f quickstart.yaml")
	applied, err := d.runKubectl(ctx, "apply", "--server-side", "-f", file)
	if err != nil {
		return err
	}
	fmt.Print(indent(applied))
	return nil
}

// kubectlGet shows what the controller says of the plugins.
func (d *demo) kubectlGet(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	if _, err := d.runKubectl(wait, "wait", "--for=condition=Programmed", "plugins", "--all", "-A", "--timeout="+settleTimeout.String()); err != nil {
		return err
	}
	output, err := d.runKubectl(ctx, "get", "plugins", "-A")
	if err != nil {
		return err
	}
	fmt.Printf("\n$ kubectl get plugins -A\n%s", indent(output))
	return nil
}

// runKubectl returns what kubectl prints.
func (d *demo) runKubectl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, d.kubectl, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+d.stack.Kubeconfig)
	cmd.Stderr = os.Stderr
	output, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w", args[0], err)
	}
	return string(output), nil
}

// show waits until the gateway answers as the case says, and then asks each route with curl.
func (d *demo) show(ctx context.Context, table []suite.Request) error {
	d.progress("until the gateway has it")
	wait, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for _, request := range table {
		if err := d.await(wait, request); err != nil {
			return err
		}
	}
	d.progress("ready")
	for _, request := range table {
		args := d.curl(request)
		fmt.Printf("\n# %s\n$ curl %s\n", request.Name, quote(args))
		output, err := exec.CommandContext(ctx, "curl", append([]string{"-sS"}, args...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("curl: %w: %s", err, output)
		}
		fmt.Print(indent(strings.ReplaceAll(string(output), "\r", "")))
	}
	return nil
}

// await returns when the request is answered with the expected status.
func (d *demo) await(ctx context.Context, request suite.Request) error {
	for {
		status, err := d.status(ctx, request)
		if err == nil && status == request.Expect.Status {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: status is %d (%v), not %d; see %s", request.Name, status, errors.Join(err, ctx.Err()), request.Expect.Status, d.dir)
		case <-time.After(pollEvery):
		}
	}
}

func (d *demo) status(ctx context.Context, request suite.Request) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url(request), nil)
	if err != nil {
		return 0, err
	}
	r.Host, r.Close = request.Host, true
	for name, values := range request.Headers {
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

func (d *demo) curl(request suite.Request) []string {
	args := []string{"-i", "-H", "host: " + request.Host}
	for name, values := range request.Headers {
		for _, value := range values {
			args = append(args, "-H", name+": "+value)
		}
	}
	return append(args, d.url(request))
}

func (d *demo) url(request suite.Request) string {
	return "http://" + loopback.Address(int(d.ports.Of(request.GatewayPort()))) + request.Path
}

// explain says how to look further.
func (d *demo) explain(file string) {
	if !d.keep {
		fmt.Printf("\n`make demo KEEP=1` leaves everything running, to look further.\n")
		return
	}
	var pids []string
	for i := len(d.pids) - 1; i >= 0; i-- {
		pids = append(pids, strconv.Itoa(d.pids[i]))
	}
	fmt.Printf(`
Everything is running. To look further:
  export KUBECONFIG=%[1]s
  kubectl get virtualservices,plugins,envoyfilters -A
  kubectl edit plugins -n shop shop-limit
  %[2]s explain -f %[3]s shop/api
Logs are in %[4]s. To end it:
  kill -9 %[5]s; rm -r %[4]s
`, d.stack.Kubeconfig, filepath.Join(d.bin, "istio-plugins"), file, d.dir, strings.Join(pids, " "))
}

// onEnd remembers how to end what was started; pids are in the order in which they are to be ended.
func (d *demo) onEnd(stop func(), pids ...int) {
	d.stops = append(d.stops, stop)
	for i := len(pids) - 1; i >= 0; i-- {
		d.pids = append(d.pids, pids[i])
	}
}

// clean ends everything in the reverse order of its start.
func (d *demo) clean() {
	for i := len(d.stops) - 1; i >= 0; i-- {
		d.stops[i]()
	}
	if err := os.RemoveAll(d.dir); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
	}
}

// quote writes arguments as a shell reads them; none of them holds a single quote.
func quote(args []string) string {
	var out []string
	for _, arg := range args {
		if strings.ContainsAny(arg, " ?&*$\"") {
			arg = "'" + arg + "'"
		}
		out = append(out, arg)
	}
	return strings.Join(out, " ")
}

func indent(text string) string {
	text = strings.TrimRight(text, "\n")
	if text == "" {
		return ""
	}
	return "    " + strings.ReplaceAll(text, "\n", "\n    ") + "\n"
}
