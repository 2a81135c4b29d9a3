package controller

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/istio-plugins/istio-plugins/pkg/emit"
	"github.com/istio-plugins/istio-plugins/pkg/istiod"
	"github.com/istio-plugins/istio-plugins/pkg/manifest"
)

const (
	// settleTimeout is how long a pass waits for gateways to take a change's first half before it makes the second. They
	// take 0.2 s. One that takes longer may answer some requests with 503 for a moment; all others must not wait for it.
	settleTimeout = 2 * time.Second
	// unseen is how long a change is left alone where istiod cannot be asked. istiod collects changes for 0.1 s, and for
	// as long as there are more, but at most 10 s (PILOT_DEBOUNCE_AFTER and _MAX).
	unseen = time.Second
	// cleanAfter is the same before what gateways may still ask for is removed.
	cleanAfter = 10 * time.Second
	// Verdicts that may change are asked for again after pollFirst, then ever less often up to pollLast; all are after refresh.
	pollFirst = 20 * time.Millisecond
	pollLast  = 5 * time.Second
	refresh   = 30 * time.Second
	// A new mark is written after markAgainFirst for a gateway that has connected, or has asked for more, since the last
	// one, or has refused something, then ever later up to markAgainLast; and after that for one that does not answer. Each
	// makes istiod push.
	markAgainFirst = 200 * time.Millisecond
	markAgainLast  = 30 * time.Second
	// fetchAgain is the longest time between two marks while there are Wasm modules to be fetched. Istio's agent tries when
	// istiod pushes and only then, and does not tell when it failed.
	fetchAgain = 5 * time.Minute
)

// acceptance knows what gateways have accepted of what was written. One goroutine, watch, asks istiod. Workloads are told
// by their IDs.
type acceptance struct {
	// istiod is nil where there is none to ask.
	istiod *istiod.Client
	client client.Client
	// revision of the control plane that is asked.
	revision string
	clock    clock.Clock
	log      logr.Logger
	// changed are called when there are new verdicts.
	changed []func()
	// wake ends the wait of watch.
	wake chan struct{}

	mu       sync.Mutex
	gateways gateways
	known    map[string]verdict
	// installed is when workloads got the fixed filters, until their gateways have them.
	installed map[string]time.Time
	// news is closed, and made anew, when known changes.
	news chan struct{}
	// wasm says that WasmPlugins are among the generated objects.
	wasm bool
	// fetches says that gateways fetch Wasm modules.
	fetches bool
}

// verdict is what is known of a workload.
type verdict struct {
	istiod.Verdict
	// written is when something was written for it last.
	written time.Time
	// due says that something was written that no mark covers yet.
	due bool
	// half says that a change's first half may be on its way to the gateways.
	half bool
}

func newAcceptance(i *istiod.Client, c client.Client, revision string, clk clock.Clock, log logr.Logger) *acceptance {
	return &acceptance{
		istiod: i, client: c, revision: revision, clock: clk, log: log,
		wake: make(chan struct{}, 1), known: map[string]verdict{}, installed: map[string]time.Time{}, news: make(chan struct{}),
	}
}

// know notes which workloads there are, and which of them are fresh: about to get the fixed filters. What the gateways of a new one have accepted is asked for.
func (a *acceptance) know(all gateways, fresh map[string]bool, wasm, fetches bool) {
	a.mu.Lock()
	a.gateways, a.wasm, a.fetches = all, wasm, fetches
	for id := range fresh {
		if fresh[id] {
			a.installed[id] = a.clock.Now()
		}
	}
	maps.DeleteFunc(a.known, func(id string, _ verdict) bool { _, there := all[id]; return !there })
	var added []string
	for id := range all {
		if _, ok := a.known[id]; !ok {
			added = append(added, id)
		}
	}
	a.mu.Unlock()
	a.prepared(added) // perhaps by another controller, which went no further
}

// expect notes what is about to be written, so that a refusal can be told whose it is.
func (a *acceptance) expect(ctx context.Context, ids []string) {
	if a.istiod == nil || len(ids) == 0 {
		return
	}
	a.mu.Lock()
	workloads := make([]istiod.Workload, 0, len(ids))
	for _, id := range ids {
		workloads = append(workloads, a.gateways[id])
	}
	a.mu.Unlock()
	a.istiod.Expect(ctx, workloads...)
}

// prepared notes that the first half of a change was written for workloads.
func (a *acceptance) prepared(ids []string) {
	a.wrote(ids)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range ids {
		v := a.known[id]
		v.half = true
		a.known[id] = v
	}
}

// recall notes a refusal that an earlier controller knew of.
func (a *acceptance) recall(id string, state istiod.State, message string, parts []string) {
	if a.istiod == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.istiod.Recall(a.gateways[id], state, message, parts)
}

// wrote notes that something was written for workloads.
func (a *acceptance) wrote(ids []string) {
	if len(ids) == 0 {
		return
	}
	v := istiod.Verdict{State: istiod.Pending, Rest: istiod.Pending, Message: "it has just been written"}
	if a.istiod == nil {
		v = istiod.Verdict{State: istiod.Unknown, Rest: istiod.Unknown, Message: "the controller was not told where istiod is"}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range ids {
		a.known[id] = verdict{Verdict: v, written: a.clock.Now(), due: true, half: a.known[id].half}
	}
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// settled says whether gateways no longer need what was there before the last write.
func (a *acceptance) settled(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.known[id]
	switch v.Rest {
	case istiod.Accepted, istiod.NoGateway:
		return !v.due
	case istiod.Unknown:
		return a.clock.Since(v.written) >= cleanAfter
	}
	return false
}

// installing says whether gateways of a workload are about to get the fixed filters.
func (a *acceptance) installing(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	since, ok := a.installed[id]
	if ok && (a.known[id].Rest != istiod.Pending || a.clock.Since(since) > cleanAfter) {
		delete(a.installed, id)
		return false
	}
	return ok
}

// of is what is known of a workload.
func (a *acceptance) of(id string) istiod.Verdict {
	a.mu.Lock()
	defer a.mu.Unlock()
	if v, ok := a.known[id]; ok {
		return v.Verdict
	}
	return istiod.Verdict{State: istiod.Unknown, Rest: istiod.Unknown, Message: "no such gateway is known"}
}

// settle returns when the gateways of these workloads have the first halves of changes, or after some time.
func (a *acceptance) settle(ctx context.Context, ids []string) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	defer a.whole(ids)
	for {
		a.mu.Lock()
		news := a.news
		waiting := slices.ContainsFunc(ids, func(id string) bool {
			v := a.known[id]
			return v.half && (v.State == istiod.Pending || v.State == istiod.Unknown && a.clock.Since(v.written) < unseen)
		})
		a.mu.Unlock()
		if !waiting {
			return
		}
		timer := a.clock.NewTimer(unseen)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-news:
		case <-timer.C():
		}
		timer.Stop()
	}
}

// whole notes that the first halves of changes need no longer be waited for.
func (a *acceptance) whole(ids []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range ids {
		if v, ok := a.known[id]; ok {
			v.half = false
			a.known[id] = v
		}
	}
}

// watch keeps the verdicts up to date until ctx ends.
func (a *acceptance) watch(ctx context.Context) error {
	if a.istiod == nil {
		return nil
	}
	defer a.istiod.Close()
	var mark *istiod.Mark
	var marked time.Time
	pause, patience := refresh, markAgainFirst
	for {
		timer := a.clock.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-a.wake:
			pause = pollFirst
		case <-timer.C():
			pause = min(2*pause, pollLast)
		}
		timer.Stop()
		since := a.clock.Since(marked)
		switch again, pending := a.stuck(); {
		case mark == nil || a.due():
			patience = markAgainFirst
		case again && since > patience || pending && since > markAgainLast:
			patience = min(2*patience, markAgainLast)
		case since > fetchAgain && a.fetching():
		default:
			if !a.check(ctx, mark) {
				pause = refresh
			}
			continue
		}
		switch next, err := a.mark(ctx); {
		case err == nil:
			mark, marked, pause = next, a.clock.Now(), pollFirst
		case ctx.Err() == nil:
			a.log.Error(err, "the mark by which istiod's answers are understood could not be written")
		}
	}
}

// due says whether something was written that no mark covers.
func (a *acceptance) due() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, v := range a.known {
		if v.due {
			return true
		}
	}
	return false
}

// stuck says whether only another mark will bring an answer, and whether any answer is still to come.
func (a *acceptance) stuck() (again, pending bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, v := range a.known {
		again = again || v.MarkAgain || v.Rest == istiod.Rejected
		pending = pending || v.State == istiod.Pending
	}
	return again, pending
}

// fetching says whether gateways may lack a Wasm module without telling.
func (a *acceptance) fetching() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.fetches
}

// mark writes a new mark. What was written before is no longer due.
func (a *acceptance) mark(ctx context.Context) (*istiod.Mark, error) {
	a.mu.Lock()
	covered := map[string]time.Time{}
	for id, v := range a.known {
		covered[id] = v.written
	}
	wasm := a.wasm
	a.mu.Unlock()
	m, err := a.istiod.Mark(ctx, wasm)
	if err != nil {
		return nil, err
	}
	objects := []emit.Object{{EnvoyFilter: m.EnvoyFilter}}
	if m.WasmPlugin != nil {
		objects = append(objects, emit.Object{WasmPlugin: m.WasmPlugin})
	}
	for _, o := range objects {
		objectOf(o).SetLabels(emit.Labels(a.revision))
		u := &unstructured.Unstructured{Object: manifest.Of(o)}
		if err := a.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.ForceOwnership, client.FieldOwner(fieldOwner)); err != nil {
			return nil, err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, v := range a.known {
		if at, ok := covered[id]; ok && at.Equal(v.written) {
			v.due = false
			a.known[id] = v
		}
	}
	return m, nil
}

// check asks what has become of the mark, and says whether to ask again soon.
func (a *acceptance) check(ctx context.Context, m *istiod.Mark) (soon bool) {
	a.mu.Lock()
	ids := slices.Sorted(maps.Keys(a.gateways))
	workloads := make([]istiod.Workload, len(ids))
	for i, id := range ids {
		workloads[i] = a.gateways[id]
	}
	a.mu.Unlock()
	verdicts := a.istiod.Check(ctx, m, workloads...)
	if ctx.Err() != nil {
		return false
	}
	a.mu.Lock()
	changed := false
	for i, id := range ids {
		v, ok := a.known[id]
		if !ok || v.due {
			soon = soon || v.due
			continue // it is gone, or the answer is about less than was written
		}
		changed = changed || v.State != verdicts[i].State || v.Rest != verdicts[i].Rest || v.Message != verdicts[i].Message
		v.Verdict = verdicts[i]
		v.half = v.half && (v.State == istiod.Pending || v.State == istiod.Unknown)
		a.known[id] = v
		soon = soon || v.Rest != istiod.Accepted && v.Rest != istiod.NoGateway || v.MarkAgain
	}
	if changed {
		close(a.news)
		a.news = make(chan struct{})
	}
	calls := slices.Clone(a.changed)
	a.mu.Unlock()
	if changed {
		for _, call := range calls {
			call()
		}
	}
	return soon
}

// onChange has a function called when there are new verdicts.
func (a *acceptance) onChange(call func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.changed = append(a.changed, call)
}
