package controller_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/istio-plugins/istio-plugins/e2e/controller"
)

const (
	// settleTimeout bounds the time until a change is in effect; it takes about half a second.
	settleTimeout = 30 * time.Second
	// clients send at the same time.
	clients = 4
)

func newBed(t *testing.T) *controller.Bed {
	t.Helper()
	if testing.Short() {
		t.Skip("starts the whole stack: not with -short")
	}
	b, err := controller.NewBed(t.Context(), controller.BedOptions{Bin: "../../.bin", Root: "../..", Envoy: "envoy-1.40.0", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Stop)
	return b
}

func start(t *testing.T, b *controller.Bed, flags ...string) *controller.Controller {
	t.Helper()
	c, err := b.Start(t.Context(), flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Stop()
		log, err := os.ReadFile(c.LogFile())
		if err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the controller's log:\n%s", log)
		}
		if strings.Contains(string(log), secret) {
			t.Error("a secret is in the controller's log")
		}
	})
	return c
}

func apply(t *testing.T, b *controller.Bed, text string) {
	t.Helper()
	if err := b.Apply(t.Context(), text); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, b *controller.Bed, text string) {
	t.Helper()
	if err := b.Delete(t.Context(), text); err != nil {
		t.Fatal(err)
	}
}

// await returns how long it took until the host answers with a status.
func await(t *testing.T, b *controller.Bed, host string, status int) time.Duration {
	t.Helper()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), settleTimeout)
	defer cancel()
	if err := b.Await(ctx, host, status); err != nil {
		t.Fatal(err)
	}
	return time.Since(begin)
}

// hammer sends requests to a host until the function that it returns is called. Every answer must have one of the
// statuses; half of the clients keep their connection, which must never be closed on them.
func hammer(t *testing.T, b *controller.Bed, host string, statuses ...int) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	for i := range clients {
		wait.Go(func() {
			keep := i%2 == 0
			dials := 0
			transport := &http.Transport{DisableKeepAlives: !keep, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				dials++
				return (&net.Dialer{}).DialContext(ctx, network, address)
			}}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport}
			for sent := 0; ctx.Err() == nil; sent++ {
				status, err := status(t.Context(), client, b.Port, host)
				if err != nil || !slices.Contains(statuses, status) {
					t.Errorf("%s, request %d: %d, %v; expected is %v", host, sent+1, status, err, statuses)
					return
				}
				if keep && dials > 1 {
					t.Errorf("%s, request %d: the connection was closed", host, sent+1)
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

// status reads the whole answer, so that the connection can be used again.
func status(ctx context.Context, client *http.Client, port int, host string) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", port), nil)
	if err != nil {
		return 0, err
	}
	request.Host = host
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}

const secret = "open-sesame"

// plugins that the routes of these tests use, of every mechanism that needs no file.
const plugins = `
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: limit, namespace: shop}
spec: {builtin: rate-limiting, config: {minute: 1000000, limit_by: ip}}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: hello, namespace: shop}
spec:
  lua: {inline: "local config = ...\nreturn {response = function(h) h:headers():add('x-hello', config.who) end}"}
  config: {who: one}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: stamp, namespace: shop}
spec:
  envoy:
    typedConfig:
      "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
      mutations: {response_mutations: [{append: {header: {key: x-stamp, value: one}}}]}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Consumer
metadata: {name: alice, namespace: shop}
spec: {username: alice, credentials: [alice-key]}
---
apiVersion: v1
kind: Secret
metadata: {name: alice-key, namespace: shop, labels: {plugins.istio.io/credential: key-auth}}
stringData: {key: ` + secret + `}
`

// TestLife: what an owner does to a route, in many orders, while requests flow. Each change takes effect, no request
// fails through it, nothing else changes, and no connection is drained.
func TestLife(t *testing.T) {
	b := newBed(t)
	start(t, b)
	// Neighbours: one that is protected, one that runs nothing.
	apply(t, b, plugins)
	apply(t, b, controller.Route("guarded", "key-auth")+controller.Route("open", "")+controller.Route("edited", ""))
	await(t, b, "guarded.test", http.StatusUnauthorized)
	await(t, b, "open.test", http.StatusOK)
	await(t, b, "edited.test", http.StatusOK)
	awaitQuiet(t, b)
	// Connections that are there before the listener first has the filters may be drained by them; from now on none is.
	for host, statuses := range map[string][]int{"guarded.test": {401}, "open.test": {200}, "edited.test": {200, 401}} {
		// The test's context ends before its clean-up.
		defer hammer(t, b, host, statuses...)()
	}
	before, err := b.Gateway.Counters(t.Context(), `^listener_manager\.listener_(modified|removed|added)$`)
	if err != nil {
		t.Fatal(err)
	}

	var took []time.Duration
	for _, step := range []struct {
		name, plugins string
		status        int
		// header and value of the answer.
		header, value string
	}{
		{"annotate", "key-auth", 401, "", ""},
		{"un-annotate", "", 200, "x-hello", ""},
		{"a Lua plugin", "hello", 200, "x-hello", "one"},
		{"its config in the annotation", "[{name: hello, config: {who: two}}]", 200, "x-hello", "two"},
		{"a native filter", "stamp", 200, "x-stamp", "one"},
		{"a built-in of several parts", "limit, hello", 200, "ratelimit-limit", "1000000"},
		{"another order", "hello, stamp, limit", 200, "x-stamp", "one"},
		{"all of them", "hello, stamp, limit, key-auth", 401, "x-hello", "one"},
		{"only the last", "key-auth", 401, "x-hello", ""},
		{"nothing", "", 200, "x-stamp", ""},
	} {
		begin := time.Now()
		apply(t, b, controller.Route("edited", step.plugins))
		awaitHeader(t, b, "edited.test", step.status, step.header, step.value)
		took = append(took, time.Since(begin))
		t.Logf("%6d ms  %s", time.Since(begin).Milliseconds(), step.name)
	}
	// Edits of Plugins themselves.
	apply(t, b, controller.Route("edited", "hello, stamp"))
	awaitHeader(t, b, "edited.test", 200, "x-hello", "one")
	for _, edit := range []struct{ name, from, to, header, value string }{
		{"the config of a Lua plugin", "who: one", "who: three", "x-hello", "three"},
		{"a native filter", "value: one", "value: three", "x-stamp", "three"},
		{"the source of a Lua plugin", "'x-hello', config.who", "'x-hello', 'new'", "x-hello", "new"},
	} {
		if !strings.Contains(plugins, edit.from) {
			t.Fatalf("no Plugin holds %q", edit.from)
		}
		begin := time.Now()
		apply(t, b, strings.Replace(plugins, edit.from, edit.to, 1))
		awaitHeader(t, b, "edited.test", 200, edit.header, edit.value)
		took = append(took, time.Since(begin))
		t.Logf("%6d ms  %s", time.Since(begin).Milliseconds(), edit.name)
	}
	slices.Sort(took)
	t.Logf("from apply to effect: median %d ms, most %d ms", took[len(took)/2].Milliseconds(), took[len(took)-1].Milliseconds())

	after, err := b.Gateway.Counters(t.Context(), `^listener_manager\.listener_(modified|removed|added)$`)
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range after {
		if n != before[name] {
			t.Errorf("%s went from %d to %d: a listener has changed", name, before[name], n)
		}
	}
}

// awaitQuiet returns when no listener is on its way in or out: the first plugins of a gateway change it.
func awaitQuiet(t *testing.T, b *controller.Bed) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settleTimeout)
	defer cancel()
	for {
		draining, err := b.Gateway.Counters(ctx, `^listener_manager\.total_(listeners_draining|listeners_warming|filter_chains_draining)$`)
		if err != nil {
			t.Fatal(err)
		}
		busy := uint64(0)
		for _, n := range draining {
			busy += n
		}
		if busy == 0 {
			return
		}
	}
}

// awaitHeader returns when the host answers with a status, and with a header of this value, or without it.
func awaitHeader(t *testing.T, b *controller.Bed, host string, status int, header, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settleTimeout)
	defer cancel()
	for {
		response, err := b.Ask(ctx, host)
		if err == nil && response.StatusCode == status && (header == "" || response.Header.Get(header) == value) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s answers %+v, %v; expected is %d with %s: %s", host, response, err, status, header, value)
		}
	}
}

// TestUnknownRoutesDenied: with --unknown-routes=deny a new VirtualService is never reachable without its plugins, from
// its first moment on. Clients hammer the hosts while they are made.
func TestUnknownRoutesDenied(t *testing.T) {
	const times, together = 200, 5
	b := newBed(t)
	start(t, b, "--unknown-routes", "deny")
	apply(t, b, plugins)
	apply(t, b, controller.Route("first", "key-auth"))
	await(t, b, "first.test", http.StatusUnauthorized)
	awaitQuiet(t, b)
	denied := 0
	for first := 0; first < times; first += together {
		var text string
		var seen []func() map[int]int
		for i := range together {
			name := fmt.Sprintf("new-%d", first+i)
			text += controller.Route(name, "key-auth")
			seen = append(seen, watchStatuses(t, b, name+".test"))
		}
		apply(t, b, text)
		for i := range together {
			await(t, b, fmt.Sprintf("new-%d.test", first+i), http.StatusUnauthorized)
		}
		for _, statuses := range seen {
			for status, n := range statuses() {
				switch status {
				case http.StatusServiceUnavailable:
					denied += n
				case http.StatusNotFound, http.StatusUnauthorized:
				default:
					t.Fatalf("a new route answered %d", status)
				}
			}
		}
	}
	t.Logf("%d VirtualServices, %d requests were answered 503 before their plugins were there", times, denied)
	if denied == 0 {
		t.Error("no request came before the plugins, so nothing was shown")
	}
}

// watchStatuses counts the answers of a host until the function that it returns is called.
func watchStatuses(t *testing.T, b *controller.Bed, host string) func() map[int]int {
	ctx, cancel := context.WithCancel(t.Context())
	seen := map[int]int{}
	var wait sync.WaitGroup
	wait.Go(func() {
		transport := &http.Transport{}
		defer transport.CloseIdleConnections()
		client := &http.Client{Transport: transport}
		for ctx.Err() == nil {
			got, err := status(t.Context(), client, b.Port, host)
			switch {
			case err == nil:
				seen[got]++
			case !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF):
				t.Errorf("%s: %v", host, err)
				return
			}
		}
	})
	return func() map[int]int {
		cancel()
		wait.Wait()
		return seen
	}
}
