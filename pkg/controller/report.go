package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/topology"
)

const (
	// reportPause is between two reports: a burst of changes is told once.
	reportPause = 100 * time.Millisecond
	// reportRetry is the pause after an API server that did not take a report.
	reportRetry = 5 * time.Second
	// maxEvents bounds the Events of one report, eventPause is the time to the next if there are more: one mistake may
	// concern 10,000 objects, and etcd must bear it.
	maxEvents  = 100
	eventPause = 10 * time.Second
	// maxNote is the longest note that the API server takes.
	maxNote = 1024
)

// reporter tells users what became of their objects: by the status of Plugins, ClusterPlugins and Consumers, and by Events
// on what is annotated. It writes nothing else.
type reporter struct {
	client   client.Client
	informed client.Reader
	accepted *acceptance
	events   events.EventRecorder
	metrics  *metrics
	log      logr.Logger

	wake chan struct{}
	mu   sync.Mutex
	last *outcome

	// told are the errors that an object has an Event for, by what they say.
	told map[finding.Object]map[string]bool
}

// An Event that comes again is counted by a patch of the first.
//
// +kubebuilder:rbac:groups=plugins.istio.io,resources=plugins/status;clusterplugins/status;consumers/status,verbs=patch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

func newReporter(c client.Client, informed client.Reader, a *acceptance, e events.EventRecorder, m *metrics, log logr.Logger) *reporter {
	r := &reporter{
		client: c, informed: informed, accepted: a, events: e, metrics: m, log: log,
		wake: make(chan struct{}, 1), told: map[finding.Object]map[string]bool{},
	}
	a.onChange(r.poke)
	return r
}

// publish hands over the outcome of a pass.
func (r *reporter) publish(o *outcome) {
	r.mu.Lock()
	r.last = o
	r.mu.Unlock()
	r.poke()
}

func (r *reporter) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run reports until ctx ends.
func (r *reporter) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		}
		r.mu.Lock()
		o := r.last
		r.mu.Unlock()
		if o == nil {
			continue
		}
		pause := reportPause
		if err := r.report(ctx, o); err != nil && ctx.Err() == nil {
			r.log.Error(err, "some status could not be written")
			pause = reportRetry
			r.poke()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

func (r *reporter) report(ctx context.Context, o *outcome) error {
	secrets := map[string]bool{}
	for _, u := range o.result.Plugins {
		for _, id := range u.Workloads {
			secrets[id] = secrets[id] || u.Secrets
		}
	}
	state := func(id string) gatewayState {
		return gatewayState{Verdict: r.accepted.of(id), failed: o.failed[id], held: o.held[id]}.veiled(secrets[id])
	}
	states := map[string]int{}
	for _, w := range o.result.Topology.Workloads {
		states[string(state(w.ID).State)]++
	}
	r.metrics.accepted(states)
	r.tell(o)

	uses := map[finding.Object]compile.PluginUse{}
	for _, u := range o.result.Plugins {
		uses[u.Object] = u
	}
	about := map[finding.Object][]finding.Finding{}
	for _, f := range o.result.Findings {
		about[f.Object] = append(about[f.Object], f)
	}
	var failed error
	write := func(object client.Object, before, after any) {
		if equality.Semantic.DeepEqual(before, after) {
			return
		}
		if err := r.write(ctx, object, after); err != nil {
			failed = err
		}
	}
	for _, p := range o.snapshot.Plugins {
		now := &pluginsv1alpha1.Plugin{}
		if r.is(ctx, p, now) {
			u := uses[finding.Object{Kind: "Plugin", Namespace: p.Namespace, Name: p.Name}]
			write(now, now.Status, pluginStatus(&p.Spec, p.Generation, now.Status, u, state))
		}
	}
	for _, p := range o.snapshot.ClusterPlugins {
		now := &pluginsv1alpha1.ClusterPlugin{}
		if r.is(ctx, p, now) {
			u := uses[finding.Object{Kind: "ClusterPlugin", Name: p.Name}]
			write(now, now.Status, pluginStatus(&p.Spec, p.Generation, now.Status, u, state))
		}
	}
	for _, c := range o.snapshot.Consumers {
		now := &pluginsv1alpha1.Consumer{}
		if r.is(ctx, c, now) {
			write(now, now.Status, consumerStatus(now, about))
		}
	}
	return failed
}

// is says whether an object is still the one that was compiled. A status of an older one would only have to be corrected.
func (r *reporter) is(ctx context.Context, seen, now client.Object) bool {
	err := r.informed.Get(ctx, client.ObjectKeyFromObject(seen), now)
	return err == nil && now.GetUID() == seen.GetUID() && now.GetGeneration() == seen.GetGeneration()
}

func (r *reporter) write(ctx context.Context, object client.Object, status any) error {
	gvk, err := r.client.GroupVersionKindFor(object)
	if err != nil {
		return err
	}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&struct {
		Status any `json:"status"`
	}{status})
	if err != nil {
		return err
	}
	u := &unstructured.Unstructured{Object: fields}
	u.SetGroupVersionKind(gvk)
	u.SetNamespace(object.GetNamespace())
	u.SetName(object.GetName())
	u.SetUID(object.GetUID()) // not one that was made anew under the same name
	err = r.client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.ForceOwnership, client.FieldOwner(fieldOwner))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("%s %s: %w", gvk.Kind, client.ObjectKeyFromObject(object), err)
	}
	r.log.V(1).Info("wrote a status", "kind", gvk.Kind, "object", client.ObjectKeyFromObject(object))
	return nil
}

// tell makes an Event for each error that an annotated object did not have before, and one for each that it no longer has.
// What does not fit into this report is told in the next.
func (r *reporter) tell(o *outcome) {
	now := errorsByTarget(o)
	targets := annotated(o)
	left := maxEvents
	event := func(object finding.Object, kind, reason, note string) bool {
		if left--; left < 0 {
			return false
		}
		r.events.Eventf(targets[object], nil, kind, reason, "Compile", "%s", cut(note, maxNote))
		return true
	}
	told := map[finding.Object]map[string]bool{}
	note := func(object finding.Object, key string) {
		if told[object] == nil {
			told[object] = map[string]bool{}
		}
		told[object][key] = true
	}
	for _, object := range sortedObjects(now) {
		for _, f := range now[object] {
			key := keyOfFinding(f)
			if r.told[object][key] || event(object, corev1.EventTypeWarning, string(f.Reason), noteOf(object, f)) {
				note(object, key)
			}
		}
	}
	for _, object := range sortedObjects(r.told) {
		if targets[object] == nil {
			continue // it is gone
		}
		for _, key := range slices.Sorted(maps.Keys(r.told[object])) {
			still := slices.ContainsFunc(now[object], func(f finding.Finding) bool { return keyOfFinding(f) == key })
			if !still && !event(object, corev1.EventTypeNormal, "Resolved", "no longer: "+key) {
				note(object, key)
			}
		}
	}
	r.told = told
	if left < 0 {
		r.log.Info("there are more Events than one report makes, the rest follows", "made", maxEvents, "left", -left)
		time.AfterFunc(eventPause, r.poke)
	}
}

// keyOfFinding is what a finding says, without the routes, which may be others after each edit.
func keyOfFinding(f finding.Finding) string { return string(f.Reason) + ": " + f.Problem }

func noteOf(target finding.Object, f finding.Finding) string {
	place := f.Place
	if f.Object != target {
		place = f.Object.String() + " " + place
	}
	if place == "" {
		return f.Message()
	}
	return place + ": " + f.Message()
}

// errorsByTarget are the errors that concern an annotated object: those about itself, and those about the plugins for
// which its routes answer 503 or run with less than they should.
func errorsByTarget(o *outcome) map[finding.Object][]finding.Finding {
	out := map[finding.Object][]finding.Finding{}
	add := func(object finding.Object, f finding.Finding) {
		same := func(g finding.Finding) bool { return keyOfFinding(g) == keyOfFinding(f) }
		if f.Severity() == finding.Error && !slices.ContainsFunc(out[object], same) {
			out[object] = append(out[object], f)
		}
	}
	full := map[string]finding.Finding{} // with what traffic does
	for _, f := range o.result.Findings {
		full[f.Object.String()+f.Place+keyOfFinding(f)] = f
		if f.Object.Kind == "VirtualService" || f.Object.Kind == "Gateway" || f.Object.Kind == "HTTPRoute" {
			add(f.Object, f)
		}
	}
	for _, s := range o.result.Services {
		note := func(i *resolve.Issue) {
			if f, ok := full[i.Object.String()+i.Place+keyOfFinding(i.Finding)]; ok {
				add(s.VirtualService.Ref(), f)
			}
		}
		for _, g := range s.Groups {
			for _, route := range append([]compile.RouteChain{g.Default}, g.Named...) {
				if route.Refused != nil {
					note(route.Refused)
				}
			}
		}
	}
	return out
}

// annotated are the objects that Events may be made on.
func annotated(o *outcome) map[finding.Object]client.Object {
	out := map[finding.Object]client.Object{}
	for _, vs := range o.snapshot.VirtualServices {
		out[topology.ObjectOf(vs)] = vs
	}
	for _, g := range o.snapshot.Gateways {
		out[finding.Object{Kind: "Gateway", Namespace: g.Namespace, Name: g.Name}] = g
	}
	for _, h := range o.snapshot.HTTPRoutes {
		out[finding.Object{Kind: "HTTPRoute", Namespace: h.Namespace, Name: h.Name}] = h
	}
	return out
}

func sortedObjects[V any](m map[finding.Object]V) []finding.Object {
	return slices.SortedFunc(maps.Keys(m), func(a, b finding.Object) int {
		switch {
		case a.String() < b.String():
			return -1
		case a.String() > b.String():
			return 1
		}
		return 0
	})
}
