package faults

import (
	"net/http"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// apiServerRefuses lets the API server answer a change's writes with errors, or not at all.
func apiServerRefuses(t *testing.T, w *world) {
	r := w.start(t)
	w.converged(t)
	load := startLoad(t, w.Port, false, w.clients()...)
	// most bounds the writes of one edit, which takes a handful, and is tried again with pauses.
	const most = 20
	for _, f := range []struct {
		name  string
		fault fault
		count int
	}{
		{"conflict", refuses(http.StatusConflict, metav1.StatusReasonConflict), 3},
		{"too many requests", refuses(http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, "Retry-After", "1"), 3},
		{"internal error", refuses(http.StatusInternalServerError, metav1.StatusReasonInternalError), 3},
		{"timeout", refuses(http.StatusGatewayTimeout, metav1.StatusReasonTimeout), 3},
		{"forbidden", refuses(http.StatusForbidden, metav1.StatusReasonForbidden), 3},
		// What was written need not be written again.
		{"answer lost", loses, 2},
		{"no answer", hangs, 1},
	} {
		rule := r.add(rule{applies: generated, fault: f.fault, count: f.count})
		before := r.written("envoyfilters")
		w.edit(t)
		within(t, f.name, rule.applied)
		w.converged(t)
		if n := r.written("envoyfilters") - before; n > most {
			t.Errorf("%s: one edit took %d writes", f.name, n)
		}
	}
	w.settled(t, r)
	load.stop(t)
}

// reportsRefused lets the API server refuse what is written besides generated objects.
func reportsRefused(t *testing.T, w *world) {
	r := w.start(t)
	w.converged(t)
	load := startLoad(t, w.Port, false, w.clients()...)
	others := func(c call) bool { return c.writes() && !generated(c) }
	rule := r.add(rule{applies: others, fault: refuses(http.StatusInternalServerError, metav1.StatusReasonInternalError), count: 4})
	w.edit(t)
	w.apply(t, base) // with it, a status that is to be written
	within(t, "refusals", rule.applied)
	w.settled(t, r)
	load.stop(t)
}

// watchesBreak cuts watches in the middle of edits, and keeps new ones away for a while.
func watchesBreak(t *testing.T, w *world) {
	r := w.start(t)
	w.converged(t)
	load := startLoad(t, w.Port, false, w.clients()...)
	stop := w.keepEditing(t, false)
	for _, f := range []fault{
		refuses(http.StatusInternalServerError, metav1.StatusReasonInternalError),
		refuses(http.StatusGone, metav1.StatusReasonExpired),
		hangs,
	} {
		written := r.add(rule{applies: generated, fault: passes, count: 1})
		within(t, "a write", written.applied)
		written.end()
		again := r.add(rule{applies: watches, fault: f, count: 1})
		// After the cut before, all of them may be waiting to be tried again.
		for end := time.Now().Add(timeout); r.cutWatches() == 0; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the controller has no watch within %s", timeout)
			}
		}
		within(t, "a watch is tried again", again.began)
	}
	r.cutWatches() // those that hang
	stop()
	w.settled(t, r)
	load.stop(t)
}
