package faults

import (
	"context"
	"net/http"
	"testing"
)

// controllerKilled kills the controller as soon as the API server has taken the first write of an edit, the second, and so
// on, and edits once more while there is none.
func controllerKilled(t *testing.T, w *world) {
	load := startLoad(t, w.Port, false, w.clients()...)
	killed := 0
	for killedAt(t, w, killed) {
		killed++
	}
	t.Logf("killed after %d writes", killed)
	if killed < 3 {
		t.Errorf("an edit took %d writes: there was too little to interrupt", killed)
	}
	r := w.start(t)
	if n := r.writesSoFar(t); n != 0 {
		t.Errorf("a start without a change took %d writes", n)
	}
	w.settled(t, r)
	load.stop(t)
}

// killedAt kills the controller at a write of an edit; false if the edit takes fewer.
func killedAt(t *testing.T, w *world, write int) bool {
	r := w.start(t)
	w.converged(t)
	kill := r.add(rule{applies: generated, fault: then(r.Kill), after: write, count: 1})
	w.edit(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	converged := make(chan error, 1)
	go func() { converged <- w.convergence(ctx) }()
	select {
	case <-kill.applied:
		cancel()
		<-converged
		w.edit(t)
		return true
	case err := <-converged:
		kill.end()
		if err != nil {
			t.Fatal(err)
		}
		r.alive(t)
		r.Stop()
		return false
	}
}

// istiodKilled kills istiod while a change waits for gateways, and starts it again when the controller has gone on. Gateways
// then get both halves of a change at once, in no order: the edited route may be refused for a moment.
func istiodKilled(t *testing.T, w *world) {
	r := w.start(t)
	w.converged(t)
	load := startLoad(t, w.Port, false, w.clients(http.StatusServiceUnavailable)...)
	stop := w.keepEditing(t, false)
	for range 2 {
		kill := r.add(rule{applies: generated, fault: then(w.Stack.KillIstiod), count: 1})
		within(t, "a write", kill.applied)
		more := r.add(rule{applies: generated, fault: passes, after: 2, count: 1})
		within(t, "a write without istiod", more.applied)
		if err := w.Stack.StartIstiod(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	w.settled(t, r)
	load.stop(t)
}

// envoyKilled kills Envoy in the middle of changes. The next one serves nothing until it has everything; nothing waits for it
// until then, so that it may get both halves of a change at once, too.
func envoyKilled(t *testing.T, w *world) {
	r := w.start(t)
	w.converged(t)
	load := startLoad(t, w.Port, true, w.clients(http.StatusServiceUnavailable)...)
	stop := w.keepEditing(t, false)
	for n := range 3 {
		kill := r.add(rule{applies: generated, fault: then(w.Gateway.Kill), after: n, count: 1})
		within(t, "a write", kill.applied)
		if err := w.StartGateway(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	w.settled(t, r)
	load.stop(t)
}

// apiServerKilled kills the API server between two writes of a change.
func apiServerKilled(t *testing.T, w *world) {
	r := w.start(t)
	w.converged(t)
	load := startLoad(t, w.Port, false, w.clients()...)
	stop := w.keepEditing(t, true)
	kill := r.add(rule{applies: generated, fault: then(w.Stack.KillAPIServer), after: 1, count: 1})
	within(t, "a write", kill.applied)
	if err := w.Stack.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	w.settled(t, r)
	load.stop(t)
}

// allKilled ends everything in the middle of a change. Gateways come back to half of it, without a controller.
func allKilled(t *testing.T, w *world) {
	r := w.start(t)
	w.converged(t)
	load := startLoad(t, w.Port, true, w.clients(http.StatusServiceUnavailable)...)
	kill := r.add(rule{applies: generated, fault: then(func() {
		r.Kill()
		w.Stack.KillAPIServer()
		w.Stack.KillIstiod()
		w.Gateway.Kill()
	}), count: 1})
	w.edit(t)
	within(t, "a write", kill.applied)
	for _, start := range []func(context.Context) error{w.Stack.StartAPIServer, w.Stack.StartIstiod, w.StartGateway} {
		if err := start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	w.edit(t)
	w.settled(t, w.start(t))
	load.stop(t)
}
