package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"

	networking "istio.io/api/networking/v1alpha3"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/pkg/networking/core"
	"istio.io/istio/pilot/pkg/xds"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/schema/gvk"
	"istio.io/istio/pkg/config/schema/kind"
	"istio.io/istio/pkg/test"
	"istio.io/istio/pkg/util/sets"
)

// generation is istiod's code with the objects of a world, without a server.
type generation struct {
	istiod *core.ConfigGenTest
	proxy  *model.Proxy
	// routes and tables are the names of what a gateway asks for.
	routes, tables sets.String
}

func newGeneration(t test.Failer, w world) generation {
	configs, err := w.configs()
	if err != nil {
		t.Fatal(err)
	}
	g := generation{istiod: core.NewConfigGenTest(t, core.TestOptions{Configs: configs}), routes: sets.New[string](), tables: tableNames(configs)}
	g.proxy = g.istiod.SetupProxy(&model.Proxy{
		Type: model.Router, ConfigNamespace: gatewayNamespace, ID: "gateway-1." + gatewayNamespace,
		Labels: map[string]string{"istio": "ingressgateway"},
		Metadata: &model.NodeMetadata{
			Namespace: gatewayNamespace, IstioVersion: "1.31.0", Labels: map[string]string{"istio": "ingressgateway"},
		},
	})
	g.routes.InsertAll(core.ExtractRoutesFromListeners(g.istiod.Listeners(g.proxy))...)
	return g
}

// tableNames are the ECDS resources that EnvoyFilters carry.
func tableNames(configs []config.Config) sets.String {
	names := sets.New[string]()
	for _, c := range configs {
		filter, ok := c.Spec.(*networking.EnvoyFilter)
		if !ok {
			continue
		}
		for _, p := range filter.ConfigPatches {
			if p.ApplyTo == networking.EnvoyFilter_EXTENSION_CONFIG {
				names.Insert(p.Patch.Value.Fields["name"].GetStringValue())
			}
		}
	}
	return names
}

func (g generation) request() *model.PushRequest {
	return &model.PushRequest{Push: g.istiod.PushContext(), Forced: true}
}

// listeners, routeTables and extensions generate what istiod answers to LDS, RDS and ECDS, as bytes on the wire.
func (g generation) listeners() (model.Resources, error) {
	r, _, err := xds.LdsGenerator{ConfigGenerator: g.istiod.ConfigGen}.Generate(g.proxy, nil, g.request())
	return r, err
}

func (g generation) routeTables() (model.Resources, error) {
	r, _, err := xds.RdsGenerator{ConfigGenerator: g.istiod.ConfigGen}.Generate(g.proxy, &model.WatchedResource{ResourceNames: g.routes}, g.request())
	return r, err
}

func (g generation) extensions() (model.Resources, error) {
	if len(g.tables) == 0 {
		return nil, nil
	}
	generator := &xds.EcdsGenerator{ConfigGenerator: g.istiod.ConfigGen}
	r, _, err := generator.Generate(g.proxy, &model.WatchedResource{ResourceNames: g.tables}, g.request())
	return r, err
}

// generationCase is a row of the table.
type generationCase struct {
	name  string
	world world
}

func measureIstiod(ctx context.Context, s setup) error {
	return test.Wrap(func(t test.Failer) {
		rounds := 15
		if s.short {
			rounds = 7
		}
		chain := []step{luaStep, nativeStep, luaStep}
		generationTable(ctx, t, rounds, 1000, chain, []generationCase{
			{"without plugins", world{}},
			{"plugins", world{attachment: dispatched}},
			{"typed_per_filter_config on virtual hosts", world{attachment: scriptContext}},
			{"typed_per_filter_config on routes", world{attachment: scriptContext, byRoute: true}},
		})
		generationTable(ctx, t, rounds, 10_000, chain, []generationCase{
			{"without plugins", world{}},
			{"plugins", world{attachment: dispatched}},
		})
		generationTable(ctx, t, rounds, 1000, chain, []generationCase{
			{"100 TLS servers, without plugins", world{tlsServers: 100}},
			{"100 TLS servers, plugins", world{tlsServers: 100, attachment: dispatched}},
			{"100 TLS servers, plugins in common tables", world{tlsServers: 100, attachment: sharedTables}},
			{"100 TLS servers, typed_per_filter_config", world{tlsServers: 100, attachment: scriptContext}},
		})
		editTable(ctx, t, rounds, chain)
	})
}

func generationTable(ctx context.Context, t test.Failer, rounds, routes int, chain []step, cases []generationCase) {
	gens := make([]generation, len(cases))
	for i := range cases {
		w := &cases[i].world
		w.routes, w.chain, w.ownValues, w.port = routes, chain, true, 8080
		gens[i] = newGeneration(t, *w)
	}
	kinds := []func(generation) (model.Resources, error){generation.routeTables, generation.listeners, generation.extensions}
	took := make([][][]time.Duration, len(cases)) // by case, kind and round
	size := make([][]int, len(cases))
	for i := range cases {
		took[i], size[i] = make([][]time.Duration, len(kinds)), make([]int, len(kinds))
	}
	for range rounds {
		for i, g := range gens {
			for k, generate := range kinds {
				if ctx.Err() != nil {
					t.Fatal(ctx.Err())
				}
				runtime.GC() // what one leaves behind is not another's cost
				start := time.Now()
				resources, err := generate(g)
				took[i][k] = append(took[i][k], time.Since(start))
				if err != nil {
					t.Fatal(err)
				}
				size[i][k] = bytesOf(resources)
			}
		}
	}
	for i, g := range gens {
		checkGeneration(t, cases[i], g)
	}
	out := &table{
		title:   fmt.Sprintf("istiod, %d VirtualServices with three plugins each", routes),
		method:  fmt.Sprintf("istiod's own generators in this process, median of %d interleaved rounds; routes compared with the first row, round by round", rounds),
		columns: []string{"", "RDS", "to the first", "RDS size", "LDS", "LDS size", "ECDS", "ECDS size"},
	}
	for i, c := range cases {
		out.add(c.name, milliseconds(median(took[i][0])), times(ratios(took[i][0], took[0][0])), megabytes(float64(size[i][0])),
			milliseconds(median(took[i][1])), megabytes(float64(size[i][1])), milliseconds(median(took[i][2])), megabytes(float64(size[i][2])))
	}
	out.print()
}

func bytesOf(resources model.Resources) int {
	n := 0
	for _, r := range resources {
		n += len(r.GetResource().GetValue())
	}
	return n
}

// checkGeneration fails when istiod did not take the objects up: what it drops, and a patch that finds nothing, cost little.
func checkGeneration(t test.Failer, c generationCase, g generation) {
	switch c.world.attachment {
	case unattached:
	case dispatched, sharedTables:
		extensions, err := g.extensions()
		if err != nil {
			t.Fatal(err)
		}
		if len(extensions) != len(g.tables) {
			t.Fatalf("%s: istiod serves %d of %d tables", c.name, len(extensions), len(g.tables))
		}
	default:
		tables, err := g.routeTables()
		if err != nil {
			t.Fatal(err)
		}
		patched := 0
		for _, r := range tables {
			patched += bytes.Count(r.GetResource().GetValue(), []byte(scopedFilter(0)))
		}
		if patched != c.world.routes {
			t.Fatalf("%s: %d of %d routes are patched", c.name, patched, c.world.routes)
		}
	}
}

// editTable measures what one edited annotation costs istiod.
func editTable(ctx context.Context, t test.Failer, rounds int, chain []step) {
	out := &table{
		title:   "istiod, one annotation of 10,000 edited: one generated object changes",
		method:  fmt.Sprintf("the same; median of %d rounds. istiod answers any changed EnvoyFilter by generating RDS and LDS, too: see above", rounds),
		columns: []string{"push context", "ECDS"},
	}
	w := world{routes: 10_000, chain: chain, ownValues: true, attachment: dispatched, port: 8080}
	g := newGeneration(t, w)
	var contexts, tables []time.Duration
	for round := range rounds {
		if ctx.Err() != nil {
			t.Fatal(ctx.Err())
		}
		changed := editOne(t, g, w, round)
		old := g.istiod.PushContext()
		runtime.GC()
		start := time.Now()
		push := model.NewPushContext()
		push.InitContext(g.istiod.Env(), old, &model.PushRequest{
			ConfigsUpdated: sets.New(model.ConfigKey{Kind: kind.EnvoyFilter, Name: changed.Name, Namespace: changed.Namespace}),
			Reason:         model.NewReasonStats(model.ConfigUpdate),
		})
		g.istiod.Env().SetPushContext(push)
		contexts = append(contexts, time.Since(start))
		start = time.Now()
		if _, err := g.extensions(); err != nil {
			t.Fatal(err)
		}
		tables = append(tables, time.Since(start))
	}
	out.add(milliseconds(median(contexts)), milliseconds(median(tables)))
	out.print()
}

// editOne gives one VirtualService another annotation, and istiod what that changes.
func editOne(t test.Failer, g generation, w world, round int) config.Config {
	services := w.virtualServices()
	services[w.routes/2].Annotations["istio.io/plugins"] = annotation(w.chain, true, w.routes+round)
	generated, err := w.generated(services)
	if err != nil {
		t.Fatal(err)
	}
	changed := map[string]config.Config{}
	for _, c := range generated {
		old := g.istiod.Store().Get(gvk.EnvoyFilter, c.Name, c.Namespace)
		if old == nil {
			t.Fatalf("an edit makes a new object, %s", c.Name)
		}
		c.ResourceVersion, c.CreationTimestamp = old.ResourceVersion, old.CreationTimestamp
		if !c.Equals(old) {
			changed[c.Name] = c
		}
	}
	if len(changed) != 1 {
		t.Fatalf("an edit changes %d objects: %v", len(changed), slices.Sorted(maps.Keys(changed)))
	}
	for _, c := range changed {
		if _, err := g.istiod.Store().Update(c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	t.Fatal("an edit changes nothing")
	return config.Config{}
}
