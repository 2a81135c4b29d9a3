package main

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"

	"istio.io/istio/pkg/test"

	"github.com/istio-plugins/istio-plugins/e2e/loopback"
)

// memoryCase is a row of a table.
type memoryCase struct {
	name  string
	world world
}

func measureMemory(ctx context.Context, s setup) error {
	sizes, tlsRoutes := []int{1000, 10_000}, 10_000
	if s.short {
		sizes, tlsRoutes = []int{1000}, 1000
	}
	for _, routes := range sizes {
		cases := []memoryCase{
			{"no plugins", world{}},
			{"plugins", world{attachment: dispatched}},
			{"typed_per_filter_config, one script", world{attachment: namedScripts}},
			{"plugins, configs per route", world{attachment: dispatched, ownValues: true}},
			{"typed_per_filter_config, filter_context per route", world{attachment: scriptContext, ownValues: true}},
		}
		if routes <= 1000 { // a VM for each filter, route and thread: gigabytes beyond
			cases = append(cases, memoryCase{"typed_per_filter_config, source_code per route", world{attachment: routeScripts, ownValues: true}})
		}
		if err := memoryTable(ctx, s, routes, 0, cases); err != nil {
			return err
		}
	}
	for _, servers := range []int{1, 10, 100} {
		if err := memoryTable(ctx, s, tlsRoutes, servers, serverCases(servers)); err != nil {
			return err
		}
	}
	return managerTable(ctx, s)
}

// serverCases compare gateways with TLS servers. One server has no tables of its own.
func serverCases(servers int) []memoryCase {
	cases := []memoryCase{
		{"no plugins", world{}},
		{"plugins, configs per route", world{attachment: dispatched, ownValues: true}},
	}
	if servers > 1 {
		cases = append(cases, memoryCase{"the same without tables for each server", world{attachment: sharedTables, ownValues: true}})
	}
	return append(cases, memoryCase{"typed_per_filter_config, filter_context per route", world{attachment: scriptContext, ownValues: true}})
}

func memoryTable(ctx context.Context, s setup, routes, servers int, cases []memoryCase) error {
	title := fmt.Sprintf("Envoy, memory with %d routes of two Lua plugins each", routes)
	if servers > 0 {
		title += fmt.Sprintf(" on %d TLS servers", servers)
	}
	out := &table{
		title: fmt.Sprintf("%s (%s)", title, filepath.Base(s.envoy)),
		method: "one worker, a new process for each row; allocated: by Envoy itself, which does not see Lua's VMs; resident: by the kernel; " +
			"used: after a request to every route",
		columns: []string{"", "allocated", "to the first", "resident", "to the first", "used: resident", "to the first"},
	}
	var firstFresh, firstUsed usage
	for i, c := range cases {
		c.world.routes, c.world.chain, c.world.tlsServers = routes, repeat(2, luaStep), servers
		fresh, used, err := weigh(ctx, s, c.world)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if i == 0 {
			firstFresh, firstUsed = fresh, used
		}
		out.add(c.name, megabytes(fresh.allocated), more(fresh.allocated-firstFresh.allocated),
			megabytes(fresh.resident), more(fresh.resident-firstFresh.resident),
			megabytes(used.resident), more(used.resident-firstUsed.resident))
	}
	out.print()
	return nil
}

func more(bytes float64) string { return fmt.Sprintf("%+.1f MB", bytes/1e6) }

// managerTable tells what each TLS server pays for the fixed filters and for tables that hold next to nothing: Envoy builds
// them for every HTTP connection manager.
func managerTable(ctx context.Context, s setup) error {
	const few, many = 10, 100
	out := &table{
		title:   fmt.Sprintf("Envoy, memory of a TLS server with one route in all (%s)", filepath.Base(s.envoy)),
		method:  fmt.Sprintf("a new process for each row and number of servers; the difference of %d and %d servers, for one server", many, few),
		columns: []string{"", "allocated", "resident"},
	}
	for _, c := range []memoryCase{
		{"no plugins", world{}},
		{"plugins", world{attachment: dispatched}},
		{"the same without tables for each server", world{attachment: sharedTables}},
	} {
		c.world.routes, c.world.chain = 1, []step{nativeStep}
		var weights [2]usage
		for i, servers := range []int{few, many} {
			c.world.tlsServers = servers
			var err error
			if weights[i], _, err = weigh(ctx, s, c.world); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
		each := func(of func(usage) float64) string {
			return fmt.Sprintf("%.0f kB", (of(weights[1])-of(weights[0]))/(many-few)/1e3)
		}
		out.add(c.name, each(func(u usage) float64 { return u.allocated }), each(func(u usage) float64 { return u.resident }))
	}
	out.print()
	return nil
}

// weigh is the memory of a gateway when it is new, and after each route has been used.
func weigh(ctx context.Context, s setup, w world) (fresh, used usage, err error) {
	w.port = loopback.Port()
	// istiod ends with this function.
	failed := test.Wrap(func(t test.Failer) {
		e, problem := startEnvoy(ctx, s, startIstiod(t, w))
		if problem != nil {
			t.Fatal(problem)
		}
		defer e.stop()
		fresh, used, err = weighRunning(ctx, e, w)
	})
	if failed != nil {
		err = failed
	}
	return fresh, used, err
}

func weighRunning(ctx context.Context, e *envoy, w world) (fresh, used usage, err error) {
	if fresh, err = e.memory(ctx); err != nil {
		return fresh, used, err
	}
	if err = checkChain(ctx, e, w); err != nil {
		return fresh, used, err
	}
	if err = checkTables(ctx, e, w); err != nil {
		return fresh, used, err
	}
	if err = askAll(ctx, w); err != nil {
		return fresh, used, err
	}
	used, err = e.memory(ctx)
	return fresh, used, err
}

// ownTables matches where a TLS server's filter names the first of its own tables of bindings, common those where it names
// the gateway's.
var (
	ownTables    = regexp.MustCompile(`"istio-plugins\.[0-9a-f]+\.tls-[0-9a-f]+\.bindings\.0"`)
	commonTables = regexp.MustCompile(`"istio-plugins\.[0-9a-f]+\.bindings\.0"`)
)

// manyServers is from how many TLS servers on each has tables of its own.
const manyServers = 9

// checkTables fails unless each TLS server uses the tables that its row is about: a patch that finds nothing is silent.
func checkTables(ctx context.Context, e *envoy, w world) error {
	if w.tlsServers == 0 {
		return nil
	}
	dump, err := e.get(ctx, "/config_dump?resource=dynamic_listeners")
	if err != nil {
		return err
	}
	own, common := len(ownTables.FindAll(dump, -1)), len(commonTables.FindAll(dump, -1))
	wantOwn, wantCommon := 0, 0
	switch {
	case w.attachment == dispatched && w.tlsServers >= manyServers:
		wantOwn = w.tlsServers
	case w.attachment == dispatched || w.attachment == sharedTables:
		wantCommon = w.tlsServers
	}
	if own != wantOwn || common != wantCommon {
		return fmt.Errorf("of %d TLS servers, %d use tables of their own, %d common ones; %d and %d should", w.tlsServers, own, common, wantOwn, wantCommon)
	}
	return nil
}

// askAll uses every route once.
func askAll(ctx context.Context, w world) error {
	c := newClient(w)
	defer c.close()
	for route := range w.routes {
		if _, err := c.ask(ctx, route); err != nil {
			return err
		}
	}
	return nil
}
