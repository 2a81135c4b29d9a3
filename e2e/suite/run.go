package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/istio-plugins/istio-plugins/e2e/certificates"
	"github.com/istio-plugins/istio-plugins/e2e/echo"
	"github.com/istio-plugins/istio-plugins/e2e/gateway"
	"github.com/istio-plugins/istio-plugins/e2e/loopback"
)

const (
	// settleTimeout bounds the time from a change until it is in effect. In the memory of one process it takes about 0.1 s,
	// with an API server about 0.5 s, more on a busy machine.
	settleTimeout = 30 * time.Second
	// retryEvery is the time between two looks for something that is not there yet.
	retryEvery = 50 * time.Millisecond
	// looksBeforePush is how often a case that refuses configurations looks for a change until it lets istiod push again.
	looksBeforePush = 60
	// successesInARow is how often all requests of a step must be answered as expected: each of Envoy's workers takes a
	// change at its own time.
	successesInARow = 2
)

// World is where istiod and the objects live.
type World interface {
	// XDS is istiod's address.
	XDS() string
	// Apply creates objects, or changes those that are there.
	Apply(context.Context, []*unstructured.Unstructured) error
	// Delete removes objects that are there.
	Delete(context.Context, []*unstructured.Unstructured) error
}

// Restarter is a World whose istiod is a process of its own.
type Restarter interface {
	RestartIstiod(context.Context) error
}

// Controlled is a World in which a controller makes the generated objects.
type Controlled interface {
	// Stored are the objects as they are in the world, with what it has added, such as ids.
	Stored(context.Context, []*unstructured.Unstructured) ([]*unstructured.Unstructured, error)
	// AwaitGenerated returns when the generated objects are these and no others.
	AwaitGenerated(context.Context, []*unstructured.Unstructured) error
}

// Settler is a World that has something to do when a change has reached the gateway.
type Settler interface {
	Settled(context.Context) error
}

// Programs are what a run needs besides the world.
type Programs struct {
	Compiler Compiler
	// Envoy is the version under test.
	Envoy string
	// TagWasm is testdata/tag.wat, compiled.
	TagWasm string
}

// Run runs one case in a world that no other case uses at the same time.
func Run(t *testing.T, c Case, w World, p Programs) {
	r := start(t, c, w, p)
	r.put(t, filepath.Join(c.Dir, "..", "base.yaml"))
	for _, path := range c.Input {
		r.put(t, filepath.Join(c.Dir, path))
	}
	for i, step := range c.Steps {
		name := step.Name
		if name == "" {
			name = "step " + strconv.Itoa(i+1)
		}
		if !t.Run(name, func(t *testing.T) { r.step(t, step) }) {
			// The later steps build on this one.
			return
		}
	}
	r.nothingBroke(t)
	if !c.Refuses {
		r.nothingRejected(t)
	}
}

// run is the state of a case's run.
type run struct {
	c        Case
	world    World
	programs Programs
	dir      string
	upstream *echo.Server
	// certificates of the gateway's TLS servers.
	certificates *certificates.Server
	// labels of the gateway's pod.
	labels    map[string]string
	gateway   *gateway.Gateway
	variables Variables
	ports     Ports

	// given are the user's objects, generated those of the compiler; markers those of the marker.
	given, generated objects
	markers          []*unstructured.Unstructured
	// unseen are keys of given objects that are kept from the compiler.
	unseen     map[string]bool
	markerPort int
	changes    int
}

func start(t *testing.T, c Case, w World, p Programs) *run {
	r := &run{c: c, world: w, programs: p, dir: t.TempDir(), markerPort: loopback.Port(), ports: Ports{}, labels: gateway.Ingress().Labels, unseen: map[string]bool{}}
	var err error
	if r.upstream, err = echo.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.upstream.Stop)
	if r.certificates, err = certificates.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.certificates.Stop)
	certificate, err := r.certificates.For("login.example.com", "login.test")
	if err != nil {
		t.Fatal(err)
	}
	byTLS, err := r.upstream.ServeTLS(certificate)
	if err != nil {
		t.Fatal(err)
	}
	r.variables = Variables{"ECHO_PORT": strconv.Itoa(r.upstream.Port()), "ECHO_TLS_PORT": strconv.Itoa(byTLS), "TAG_WASM": p.TagWasm}
	// The context of the test has ended when its clean-up runs.
	t.Cleanup(func() { r.clear(t) })
	r.startGateway(t)
	t.Cleanup(func() { r.gateway.Stop() })
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the objects, Envoy's configuration, counters and log are in %s", r.dump(t))
		}
	})
	return r
}

func (r *run) startGateway(t *testing.T) {
	node := gateway.Ingress()
	node.Labels, node.TrustedProxies = r.labels, r.c.TrustedProxies
	g, err := gateway.Start(t.Context(), gateway.Options{
		Envoy:        r.programs.Envoy,
		XDS:          r.world.XDS(),
		Node:         node,
		Certificates: r.certificates.Port(),
		Wasm:         r.programs.TagWasm,
		Dir:          r.dir,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.gateway = g
}

// put adds the user's objects of a file or folder, and returns their keys.
func (r *run) put(t *testing.T, path string) []string {
	list, err := r.variables.Objects(path)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, o := range list {
		r.ports.Complete(o)
		r.given.put(o)
		keys = append(keys, key(o))
	}
	return keys
}

func (r *run) step(t *testing.T, step Step) {
	gone := r.edit(t, step)
	before := r.counters(t, step.Unchanged)
	stop := r.meanwhile(t, step.Meanwhile, step.AtStart)
	// Also where the step ends early: its requests must not outlive it.
	defer stop()
	findings := r.change(t, gone)
	r.relabel(t, step.Labels)
	r.restart(t, step.Restart)
	r.await(t)
	r.listeners(t, step.Listeners)
	r.requests(t, step.Requests)
	stop()
	for name, count := range r.counters(t, step.Unchanged) {
		if count != before[name] {
			t.Errorf("Envoy's %s went from %d to %d, it must not change", name, before[name], count)
		}
	}
	checkFindings(t, findings, step.Findings)
}

// relabel makes the gateway another pod, with these labels.
func (r *run) relabel(t *testing.T, labels map[string]string) {
	if labels != nil {
		r.labels = labels
		r.restart(t, "gateway")
	}
}

func (r *run) restart(t *testing.T, what string) {
	istiod, restarts := r.world.(Restarter)
	switch {
	case what == "gateway":
		r.gateway.Stop()
		r.startGateway(t)
	case what == "istiod" && restarts:
		if err := istiod.RestartIstiod(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// edit changes the user's objects and returns those that are no longer there.
func (r *run) edit(t *testing.T, step Step) []*unstructured.Unstructured {
	for _, file := range step.Apply {
		for _, k := range r.put(t, filepath.Join(r.c.Dir, file)) {
			delete(r.unseen, k)
		}
	}
	for _, file := range step.Unseen {
		for _, k := range r.put(t, filepath.Join(r.c.Dir, file)) {
			r.unseen[k] = true
		}
	}
	var gone []*unstructured.Unstructured
	for _, k := range step.Delete {
		o, err := r.given.remove(k)
		if err != nil {
			t.Fatal(err)
		}
		gone = append(gone, o)
	}
	return gone
}

// change writes the user's objects, what the compiler makes of them, and the marker. It returns the findings.
func (r *run) change(t *testing.T, gone []*unstructured.Unstructured) string {
	ctx := t.Context()
	world, controlled := r.world.(Controlled)
	seen := slices.DeleteFunc(r.given.list(), func(o *unstructured.Unstructured) bool { return r.unseen[key(o)] })
	write := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if controlled {
		write(r.world.Apply(ctx, r.given.list()))
		write(r.world.Delete(ctx, gone))
		var err error
		seen, err = world.Stored(ctx, seen)
		write(err)
	}
	// The compiler reads its earlier objects too: the number of a Wasm plugin must not change while it is in use.
	list, findings, err := r.programs.Compiler.Compile(ctx, r.c.Flags, append(seen, r.generated.list()...))
	write(err)
	var generated objects
	generated.put(list...)
	stale := r.generated.without(&generated)
	r.generated = generated
	if controlled {
		write(world.AwaitGenerated(ctx, list))
	} else {
		write(r.world.Apply(ctx, r.given.list()))
		write(r.world.Delete(ctx, gone))
		write(r.world.Apply(ctx, list))
		write(r.world.Delete(ctx, stale))
	}
	write(r.mark(ctx))
	return findings
}

// mark writes the marker with a new number.
func (r *run) mark(ctx context.Context) error {
	r.changes++
	markers, err := markerAt(r.markerPort, r.changes)
	if err != nil {
		return err
	}
	r.markers = markers
	return r.world.Apply(ctx, markers)
}

// await returns when the latest change has reached Envoy.
func (r *run) await(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), settleTimeout)
	defer cancel()
	looks := 0
	err := retry(ctx, func() error {
		looks++
		if r.c.Refuses && looks%looksBeforePush == 0 {
			// Envoy may have refused the response that the marker was part of. It takes the next one.
			if err := r.mark(ctx); err != nil {
				return err
			}
		}
		return arrived(ctx, r.gateway, r.changes)
	})
	if err != nil {
		t.Fatal(err)
	}
	if w, ok := r.world.(Settler); ok {
		if err := w.Settled(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// listeners checks what the configuration of Envoy's listeners contains.
func (r *run) listeners(t *testing.T, want []string) {
	dump, err := r.gateway.ConfigDump(t.Context(), "dynamic_listeners")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range want {
		if !strings.Contains(string(dump), part) {
			t.Errorf("no listener of Envoy holds %q", part)
		}
	}
}

// requests returns when all are answered as expected, several times in a row.
func (r *run) requests(t *testing.T, table []Request) {
	ctx, cancel := context.WithTimeout(t.Context(), settleTimeout)
	defer cancel()
	row := 0
	err := retry(ctx, func() error {
		for _, request := range table {
			if err := r.send(ctx, request); err != nil {
				row = 0
				return err
			}
		}
		if row++; row < successesInARow {
			return fmt.Errorf("answered as expected %d times, not %d", row, successesInARow)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// meanwhile sends requests over and over until the function that it returns is called.
func (r *run) meanwhile(t *testing.T, table, atStart []Request) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	for i, request := range slices.Concat(table, atStart) {
		wait.Go(func() {
			sent := 0
			// A request that was cut off by the end of the step says nothing.
			for ; ctx.Err() == nil; sent++ {
				err := r.send(t.Context(), request)
				if i >= len(table) && unanswered(err) {
					sent--
					continue
				}
				if err != nil {
					t.Errorf("during the change, request %d: %v", sent+1, err)
					return
				}
			}
			t.Logf("%s: %d times during the change", request.Name, sent)
		})
	}
	return func() {
		cancel()
		wait.Wait()
	}
}

// unanswered says that nobody was there, or that who was there ended before the answer did.
func unanswered(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF)
}

// send sends one request and says what is not as expected.
func (r *run) send(ctx context.Context, request Request) error {
	answer, err := request.Send(ctx, int(r.ports.Of(request.GatewayPort())), r.upstream)
	if err != nil {
		return fmt.Errorf("%s: %w", request.Name, err)
	}
	if problems := request.Expect.Problems(answer); len(problems) > 0 {
		return fmt.Errorf("%s: %s", request.Name, strings.Join(problems, "; "))
	}
	return nil
}

// counters are the values of the named counters; one that Envoy has not is 0.
func (r *run) counters(t *testing.T, names []string) map[string]uint64 {
	values := map[string]uint64{}
	for _, name := range names {
		// Envoy names counters of a listener and its routes by the port, which the run has chosen.
		here := strings.ReplaceAll(name, fmt.Sprint(defaultPort), fmt.Sprint(r.ports.Of(defaultPort)))
		all, err := r.gateway.Counters(t.Context(), "^"+regexp.QuoteMeta(here)+"$")
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := all[here]; !ok && here != name {
			t.Fatalf("Envoy has no counter %s", here)
		}
		values[name] = all[here]
	}
	return values
}

// nothingRejected fails when Envoy refused any configuration: one bad resource keeps others of the same response away.
func (r *run) nothingRejected(t *testing.T) {
	rejected, err := r.gateway.Counters(t.Context(), `update_rejected$|config_fail$`)
	if err != nil {
		t.Fatal(err)
	}
	for name, count := range rejected {
		if count > 0 {
			t.Errorf("Envoy refused a configuration: %s is %d", name, count)
		}
	}
}

// nothingBroke fails when Envoy says that it found itself in a state that cannot be, or has crashed.
func (r *run) nothingBroke(t *testing.T) {
	log, err := os.ReadFile(r.gateway.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "[envoy_bug]") || strings.Contains(line, "[critical]") {
			t.Errorf("Envoy's log: %s", line)
			return
		}
	}
}

// clear removes all objects of the case, so that the next one can use the same world.
func (r *run) clear(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	generated := r.generated.list()
	if _, ok := r.world.(Controlled); ok {
		generated = nil // the controller's
	}
	for _, list := range [][]*unstructured.Unstructured{generated, r.given.list(), r.markers} {
		if err := r.world.Delete(ctx, list); err != nil {
			t.Error(err)
		}
	}
	if w, ok := r.world.(Controlled); ok {
		// What the controller remembers in its objects, such as the size of a pool, must not reach the next case.
		if err := w.AwaitGenerated(ctx, nil); err != nil {
			t.Error(err)
		}
	}
}

// dump writes what helps to understand a failure into a folder that outlives the test.
func (r *run) dump(t *testing.T) string {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	dir, err := os.MkdirTemp("", "istio-plugins-e2e-")
	if err != nil {
		return err.Error()
	}
	write := func(name string, text []byte, err error) {
		if err != nil {
			text = []byte(err.Error())
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Log(err)
		}
	}
	given, err := Print(r.given.list())
	write("given.yaml", given, err)
	generated, err := Print(r.generated.list())
	write("generated.yaml", generated, err)
	config, err := r.gateway.ConfigDump(ctx, "")
	write("config_dump.json", config, err)
	stats, err := r.gateway.Get(ctx, "/stats", nil)
	write("stats.txt", stats, err)
	log, err := os.ReadFile(r.gateway.LogFile())
	write("envoy.log", log, err)
	return dir
}

func checkFindings(t *testing.T, findings string, want []string) {
	for _, part := range want {
		if !strings.Contains(findings, part) {
			t.Errorf("no finding says %q, there are: %s", part, findings)
		}
	}
	if len(want) == 0 && strings.TrimSpace(findings) != "" {
		t.Errorf("there are findings, but the step expects none: %s", findings)
	}
}

// retry calls f until it returns nil. When the context ends it returns f's last error that has another cause.
func retry(ctx context.Context, f func() error) error {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	last := ctx.Err()
	for {
		err := f()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return last
		case <-tick.C:
		}
	}
}
