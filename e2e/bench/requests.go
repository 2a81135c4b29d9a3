package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"istio.io/istio/pkg/test"

	"github.com/istio-plugins/istio-plugins/e2e/loopback"
)

//go:embed load.lua
var loadScript string

// connections of the load, all kept alive.
const connections = "8"

// requestCase is a row of the table.
type requestCase struct {
	name  string
	world world
	// plain sends the requests to routes without the chain.
	plain bool
	// rival is the row that does the same by typed_per_filter_config, or -1.
	rival int
}

// loaded is a gateway under load.
type loaded struct {
	*envoy
	port int
	// script is wrk's, and requests the file with what it sends.
	script, requests string
}

func requestCases() []requestCase {
	lua2, mixed, long := repeat(2, luaStep), []step{luaStep, nativeStep, luaStep}, repeat(4, luaStep, nativeStep)
	return []requestCase{
		{name: "no plugins on the gateway", rival: -1},
		{name: "a route without plugins, plugins on 1,000 others", world: world{chain: lua2, attachment: dispatched, plain: 1000}, plain: true, rival: -1},
		{name: "Lua, Lua: typed_per_filter_config, one script", world: world{chain: lua2, attachment: namedScripts}, rival: -1},
		{name: "Lua, Lua: plugins", world: world{chain: lua2, attachment: dispatched}, rival: 2},
		{name: "Lua, Lua, configs per route: typed_per_filter_config, filter_context", world: world{chain: lua2, attachment: scriptContext, ownValues: true}, rival: -1},
		{name: "Lua, Lua, configs per route: typed_per_filter_config, source_code", world: world{chain: lua2, attachment: routeScripts, ownValues: true}, rival: -1},
		{name: "Lua, Lua, configs per route: plugins", world: world{chain: lua2, attachment: dispatched, ownValues: true}, rival: 4},
		{name: "Lua, native, Lua: typed_per_filter_config", world: world{chain: mixed, attachment: namedScripts}, rival: -1},
		{name: "Lua, native, Lua: plugins", world: world{chain: mixed, attachment: dispatched}, rival: 7},
		{name: "8 steps, Lua and native in turn: typed_per_filter_config", world: world{chain: long, attachment: namedScripts}, rival: -1},
		{name: "8 steps, Lua and native in turn: plugins", world: world{chain: long, attachment: dispatched}, rival: 9},
	}
}

func measureRequests(ctx context.Context, s setup) error {
	rounds, seconds := 9, 2
	if s.short {
		rounds, seconds = 5, 1
	}
	script, err := writeScript(s)
	if err != nil {
		return err
	}
	return test.Wrap(func(t test.Failer) {
		cases := requestCases()
		gateways := make([]loaded, len(cases))
		for i := range cases {
			cases[i].world.routes, cases[i].world.port = 1000, loopback.Port()
			gateways[i] = startLoaded(ctx, t, s, cases[i], script)
		}
		cost := make([][]float64, len(cases))
		for range rounds {
			for i, g := range gateways {
				c, err := g.load(ctx, seconds)
				if err != nil {
					t.Fatalf("%s: %v", cases[i].name, err)
				}
				cost[i] = append(cost[i], c)
			}
		}
		requestTable(s, cases, cost, seconds).print()
	})
}

func requestTable(s setup, cases []requestCase, cost [][]float64, seconds int) *table {
	out := &table{
		title: fmt.Sprintf("Envoy, CPU time of a request to one of 1,000 routes (%s)", filepath.Base(s.envoy)),
		method: fmt.Sprintf("direct responses, one worker, %s connections of wrk, %d interleaved rounds of %d s; CPU time of the process, medians; ratios round by round",
			connections, len(cost[0]), seconds),
		columns: []string{"", "us", "to no plugins", "to typed_per_filter_config"},
	}
	for i, c := range cases {
		rival := ""
		if c.rival >= 0 {
			rival = times(ratios(cost[i], cost[c.rival]))
		}
		out.add(c.name, fmt.Sprintf("%.1f", median(cost[i])), times(ratios(cost[i], cost[0])), rival)
	}
	return out
}

func writeScript(s setup) (string, error) {
	script := filepath.Join(s.dir, "load.lua")
	return script, os.WriteFile(script, []byte(loadScript), 0o600)
}

func startLoaded(ctx context.Context, t test.Failer, s setup, c requestCase, script string) loaded {
	e, err := startEnvoy(ctx, s, startIstiod(t, c.world))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.stop)
	if err := checkChain(ctx, e, c.world); err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	chained, plain := c.world.hosts()
	hosts := chained
	if c.plain {
		hosts = plain
	}
	requests := make([]string, len(hosts))
	for i, host := range hosts {
		requests[i] = request{}.wire(host)
	}
	l := loaded{envoy: e, port: c.world.port, script: script}
	if err := l.prepare(s, "requests", requests); err != nil {
		t.Fatal(err)
	}
	return l
}

// prepare writes the requests, to a file of this name and the port's.
func (l *loaded) prepare(s setup, name string, requests []string) error {
	l.requests = filepath.Join(s.dir, fmt.Sprintf("%s-%d", name, l.port))
	return os.WriteFile(l.requests, []byte(strings.Join(requests, "\x00")), 0o600)
}

// checkChain fails unless the gateway took all of its configuration, and each step of the chain has run on a request.
func checkChain(ctx context.Context, e *envoy, w world) error {
	if err := e.rejected(ctx); err != nil {
		return err
	}
	c := newClient(w)
	defer c.close()
	answer, err := c.ask(ctx, shown)
	if err != nil {
		return err
	}
	for place, s := range w.chain {
		want := common
		if w.ownValues && s == luaStep {
			want = own(shown)
		}
		if w.attachment == unattached {
			want = ""
		}
		if got := answer.Get(header(place)); got != want {
			return fmt.Errorf("step %d sets %q, not %q", place, got, want)
		}
	}
	return nil
}

// load is the CPU time of a request in microseconds.
func (l loaded) load(ctx context.Context, seconds int) (float64, error) {
	before, err := l.cpu()
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, "wrk", "-t", "1", "-c", connections, "-d", fmt.Sprintf("%ds", seconds), "-s", l.script,
		"http://"+loopback.Address(l.port), "--", l.requests)
	text, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("wrk: %w: %s", err, text)
	}
	after, err := l.cpu()
	if err != nil {
		return 0, err
	}
	var requests, errors int
	_, counts, _ := strings.Cut(string(text), "\nbench ")
	if _, err := fmt.Sscan(counts, &requests, &errors); err != nil {
		return 0, fmt.Errorf("wrk prints no counts: %s", text)
	}
	if requests == 0 || errors > 0 {
		return 0, fmt.Errorf("%d of %d requests failed: %s", errors, requests, text)
	}
	return float64(after-before) / float64(time.Microsecond) / float64(requests), nil
}
