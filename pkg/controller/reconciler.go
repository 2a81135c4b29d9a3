package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/emit"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/istiod"
	"github.com/istio-plugins/istio-plugins/pkg/mechanism"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// reconciler brings the generated objects from what they are to what they should be. It reads everything that package
// cluster reads, and writes generated objects, nothing else.
type reconciler struct {
	options  snapshot.Options
	compiler compile.Compiler
	inputs   *inputs
	writer   *writer
	accepted *acceptance
	metrics  *metrics
	pulse    *pulse
	// compared remembers what was found equal, by keyOf.
	compared map[string]comparison
	// recalled says that what an earlier controller knew of refusals is known here.
	recalled bool
	// unfinished says that something is left to clean once gateways no longer need it.
	unfinished atomic.Bool
	// publish gives the outcome of a pass to whoever reports it.
	publish func(*outcome)
}

// outcome is what a pass came to.
type outcome struct {
	snapshot *snapshot.Snapshot
	result   *compile.Result
	// failed are the workloads for which something could not be written, with the reason.
	failed map[string]error
	// held are the workloads whose Wasm plugins are not written yet.
	held map[string]bool
}

// Reconcile makes one pass over everything. There is one key, since what one object asks for may concern any gateway.
func (r *reconciler) Reconcile(ctx context.Context, _ reconcile.Request) (ctrl.Result, error) {
	since := r.pulse.begin()
	defer r.pulse.end()
	s, err := r.inputs.read(ctx, r.options)
	if err != nil {
		return ctrl.Result{}, err
	}
	begin := time.Now()
	result := r.compiler.Compile(s)
	r.metrics.compiled(time.Since(begin), result)
	begin = time.Now()
	r.writer.guard(result.Objects)
	p := r.pass(s, result)
	p.accepted.know(p.gateways, p.fresh, p.hasWasmPlugins(), p.fetches)
	if !r.recalled {
		p.recall(ctx, s)
		r.recalled = true
	}
	err = p.run(ctx)
	if ctx.Err() != nil {
		return ctrl.Result{}, ctx.Err()
	}
	if p.wrote > 0 {
		r.metrics.applied(time.Since(begin), since)
		log.FromContext(ctx).Info("gateways are being changed", "written", p.wrote, "objects", len(result.Objects), "took", time.Since(begin).Round(time.Millisecond))
	}
	r.publish(&outcome{snapshot: s, result: result, failed: p.failed, held: p.held})
	unfinished := p.left > 0 || len(p.held) > 0
	r.unfinished.Store(unfinished)
	if unfinished && err == nil {
		// Where istiod cannot be asked, time must do.
		return ctrl.Result{RequeueAfter: cleanAfter}, nil
	}
	return ctrl.Result{}, err
}

// pass is the work of one pass.
type pass struct {
	*reconciler
	live *emit.Live
	// there are the objects as they are, and in the course of the pass become; wanted as they should be. By keyOf.
	there, wanted map[string]emit.Object
	// versions of what is there, by keyOf.
	versions map[string]string
	gateways gateways
	// suspects are what gateways may refuse, and whose it is.
	suspects map[emit.Entry]finding.Object
	// fresh gateways do not have the fixed filters yet.
	fresh map[string]bool
	// held workloads get their Wasm plugins later.
	held map[string]bool
	// fetches says that gateways fetch Wasm modules.
	fetches bool
	// failed workloads are left as they are: the later stages need what an earlier one could not write.
	failed map[string]error
	// wrote and left count objects: those that were written or deleted, and those that gateways must first let go.
	wrote, left int
}

// gateways are the workloads of a mesh, by ID.
type gateways map[string]istiod.Workload

func (r *reconciler) pass(s *snapshot.Snapshot, result *compile.Result) *pass {
	p := &pass{
		reconciler: r, live: emit.NewLive(s.EnvoyFilters), gateways: gateways{},
		there: map[string]emit.Object{}, wanted: map[string]emit.Object{}, failed: map[string]error{}, fresh: map[string]bool{}, suspects: map[emit.Entry]finding.Object{},
		held: map[string]bool{}, versions: map[string]string{},
	}
	add := func(into map[string]emit.Object, o emit.Object) {
		if key := keyOf(objectOf(o)); o.Name() != istiod.MarkName {
			into[key] = o
		}
	}
	for _, o := range s.EnvoyFilters {
		add(p.there, emit.Object{EnvoyFilter: o})
	}
	for _, o := range s.WasmPlugins {
		add(p.there, emit.Object{WasmPlugin: o})
	}
	for key, o := range p.there {
		p.versions[key] = objectOf(o).GetResourceVersion()
	}
	for _, o := range result.Objects {
		add(p.wanted, o)
	}
	for _, w := range result.Topology.Workloads {
		p.gateways[w.ID] = istiod.Workload{Selector: w.Selector, Parts: map[string]string{}}
		_, there := p.there["EnvoyFilter/"+emit.SkeletonName(w)]
		p.fresh[w.ID] = !there
	}
	p.suspect(s, result)
	return p
}

// suspect tells what is a user's own among what gateways may refuse: Wasm plugins, and filters that are written as Envoy's
// configuration. What is made of built-in plugins was tried. A part is named by its Plugin and its place.
func (p *pass) suspect(s *snapshot.Snapshot, result *compile.Result) {
	users := map[finding.Object]bool{}
	note := func(object finding.Object, spec *pluginsv1alpha1.PluginSpec) {
		p.fetches = p.fetches || mechanism.Fetches(spec)
		if spec.Wasm != nil || spec.Envoy != nil {
			users[object] = true
		}
	}
	for _, x := range s.Plugins {
		note(finding.Object{Kind: "Plugin", Namespace: x.Namespace, Name: x.Name}, &x.Spec)
	}
	for _, x := range s.ClusterPlugins {
		note(finding.Object{Kind: "ClusterPlugin", Name: x.Name}, &x.Spec)
	}
	if len(users) == 0 {
		return
	}
	for _, o := range result.Origins() {
		if len(o.Causes) > 0 && users[o.Causes[0].Object] {
			p.suspects[emit.Entry{Resource: o.Resource, Key: o.Entry}] = o.Causes[0].Object
		}
	}
}

// expect tells of the suspects that are there, or are about to be written.
func (p *pass) expect(ctx context.Context, objects []emit.Object) {
	ids := concerned(objects)
	for _, id := range ids {
		clear(p.gateways[id].Parts)
	}
	planned := map[string]emit.Object{}
	for _, o := range objects {
		planned[keyOf(objectOf(o))] = o
	}
	if len(p.suspects) > 0 {
		for key, wanted := range p.wanted {
			o, ok := planned[key]
			if !ok {
				o, ok = p.there[key]
			}
			if !ok || !slices.Contains(ids, workloadOf(o)) {
				continue
			}
			o.Resources = wanted.Resources // which what was read does not tell
			for e, content := range emit.Entries(o) {
				if plugin, ok := p.suspects[e]; ok {
					p.gateways[workloadOf(o)].Parts[partOf(plugin)+e.Resource+" "+e.Key] = digest(content)
				}
			}
		}
	}
	p.accepted.expect(ctx, ids)
}

// recall takes the refusals of what is there from the status of the Plugins: gateways acknowledge what they have refused
// when they are sent it again.
func (p *pass) recall(ctx context.Context, s *snapshot.Snapshot) {
	refused := map[string]refusal{} // by partOf
	note := func(object finding.Object, generation int64, status pluginsv1alpha1.PluginStatus) {
		if r, ok := refusalOf(generation, status); ok {
			refused[partOf(object)] = r
		}
	}
	for _, x := range s.Plugins {
		note(finding.Object{Kind: "Plugin", Namespace: x.Namespace, Name: x.Name}, x.Generation, x.Status)
	}
	for _, x := range s.ClusterPlugins {
		note(finding.Object{Kind: "ClusterPlugin", Name: x.Name}, x.Generation, x.Status)
	}
	if len(refused) == 0 {
		return
	}
	p.expect(ctx, slices.Collect(maps.Values(p.there)))
	var ids []string
	for id, w := range p.gateways {
		var all refusal
		var blamed []string
		for _, part := range slices.Sorted(maps.Keys(w.Parts)) {
			for plugin, r := range refused {
				if strings.HasPrefix(part, plugin) {
					all = all.and(r)
					blamed = append(blamed, part)
				}
			}
		}
		if len(blamed) > 0 {
			p.accepted.recall(id, all.state, all.message, blamed)
			ids = append(ids, id)
		}
	}
	// A mark that was made before knows nothing of them.
	p.accepted.wrote(ids)
}

// partOf begins the names of a Plugin's parts.
func partOf(plugin finding.Object) string { return plugin.String() + " " }

func digest(m proto.Message) string {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err) // it was built here
	}
	return fmt.Sprintf("%016x", xxhash.Sum64(raw))
}

// run goes through the stages.
func (p *pass) run(ctx context.Context) error {
	p.accepted.prepared(p.apply(ctx, emit.Prepare))
	// Also what an earlier pass has prepared, which may have got no further. Where the fixed filters are not there yet,
	// nothing asks for the tables.
	p.accepted.settle(ctx, slices.DeleteFunc(concerned(p.plan(emit.Switch)), func(id string) bool { return p.fresh[id] }))
	clear(p.held)
	p.accepted.wrote(p.apply(ctx, emit.Switch))
	p.accepted.wrote(p.apply(ctx, emit.Clean))
	p.prune(ctx)
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(p.failed)) {
		errs = append(errs, fmt.Errorf("gateway %s: %w", id, p.failed[id]))
	}
	return errors.Join(errs...)
}

func (p *pass) hasWasmPlugins() bool {
	for _, o := range p.wanted {
		if o.WasmPlugin != nil {
			return true
		}
	}
	return false
}

// plan is what is not as it should be at a stage.
func (p *pass) plan(stage emit.Stage) []emit.Object {
	var planned []emit.Object
	for _, key := range slices.Sorted(maps.Keys(p.wanted)) {
		wanted := p.wanted[key]
		id := workloadOf(wanted)
		if there, ok := p.there[key]; ok && p.equal(key, wanted, there) {
			continue // then it is so at every stage
		}
		if p.fresh[id] || p.accepted.installing(id) {
			// A gateway asks for everything at once when it gets the filters, one by one, and a refusal is lost among the
			// answers. Wasm plugins come when it is done.
			without, some := emit.WithoutModules(wanted)
			if wanted = without; some {
				p.held[id] = true
			}
		}
		o, due := p.live.At(stage, wanted)
		if !due || p.failed[id] != nil {
			continue
		}
		if there, ok := p.there[key]; ok && emit.Equal(o, there) {
			continue
		}
		if stage == emit.Clean && !p.accepted.settled(id) {
			p.left++
			continue
		}
		planned = append(planned, o)
	}
	return planned
}

// concerned are the workloads of objects, each once.
func concerned(objects []emit.Object) []string {
	ids := map[string]bool{}
	for _, o := range objects {
		ids[workloadOf(o)] = true
	}
	return slices.Sorted(maps.Keys(ids))
}

// apply brings objects to a stage, and returns the workloads for which it has tried to write. A write that failed may have
// been done: its answer may be lost.
func (p *pass) apply(ctx context.Context, stage emit.Stage) []string {
	planned := p.plan(stage)
	p.expect(ctx, planned)
	ranks := map[int][]emit.Object{}
	for _, o := range planned {
		ranks[emit.Rank(o)] = append(ranks[emit.Rank(o)], o)
	}
	tried := map[string]bool{}
	for _, rank := range slices.Sorted(maps.Keys(ranks)) {
		objects := slices.DeleteFunc(ranks[rank], func(o emit.Object) bool { return p.failed[workloadOf(o)] != nil })
		failed := p.writer.write(ctx, objects, p.versions)
		for _, o := range objects {
			tried[workloadOf(o)] = true
			if err := failed[o.Name()]; err != nil {
				p.failed[workloadOf(o)] = fmt.Errorf("%s %s: %w", stage, o.Name(), err)
				continue
			}
			p.wrote++
			p.there[keyOf(objectOf(o))] = o
		}
	}
	return slices.Sorted(maps.Keys(tried))
}

// equal is emit.Equal, which need not look again at what it has seen.
func (p *pass) equal(key string, wanted, there emit.Object) bool {
	now := comparison{objectOf(wanted), objectOf(there).GetResourceVersion()}
	if now.version != "" && p.compared[key] == now {
		return true
	}
	if !emit.Equal(wanted, there) {
		return false
	}
	p.compared[key] = now
	return true
}

// comparison is a wanted object and the version of the one that is there, which have been found equal.
type comparison struct {
	wanted  client.Object
	version string
}

// prune deletes what nothing wants any more, and no gateway can still ask for: tables, then bindings, then the fixed
// filters, without which a route would be open.
func (p *pass) prune(ctx context.Context) {
	ranks := map[int][]emit.Object{}
	for _, key := range slices.Sorted(maps.Keys(p.there)) {
		o := p.there[key]
		id := workloadOf(o)
		if _, wanted := p.wanted[key]; wanted || p.failed[id] != nil {
			continue
		}
		// Without a Gateway there is no listener.
		if _, known := p.gateways[id]; known && !p.accepted.settled(id) {
			p.left++
			continue
		}
		ranks[emit.Rank(o)] = append(ranks[emit.Rank(o)], o)
	}
	for _, rank := range slices.Sorted(maps.Keys(ranks)) {
		failed := p.writer.delete(ctx, ranks[rank])
		for _, o := range ranks[rank] {
			if err := failed[o.Name()]; err != nil {
				p.failed[workloadOf(o)] = fmt.Errorf("delete %s: %w", o.Name(), err)
				return
			}
			p.wrote++
		}
	}
}

func workloadOf(o emit.Object) string { return emit.WorkloadID(objectOf(o).GetLabels()) }
