package faults

import (
	"net/http"
	"sync"
	"testing"

	"github.com/istio-plugins/istio-plugins/e2e/controller"
)

// leaderLost cuts the leader of three controllers off, while a write of it is on its way. Another one takes over; then the
// write arrives, from the time before a route was protected.
func leaderLost(t *testing.T, w *world) {
	late := func(plugins string) { w.apply(t, controller.Route("late", plugins)) }
	tag := `{name: tag, config: {edit: "1"}}`
	late("[]")
	leader := w.start(t, "--leader-elect")
	w.converged(t)
	waiting := []*running{w.start(t, "--leader-elect"), w.start(t, "--leader-elect")}
	load := startLoad(t, w.Port, false, w.clients()...)
	released := make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	t.Cleanup(release) // or the proxy would wait for it
	held := leader.add(rule{applies: func(c call) bool { return generated(c) && isBindings(c.name) }, fault: isLate(released), count: 1})
	late("[" + tag + "]")
	within(t, "a write", held.began)
	leader.add(rule{applies: func(call) bool { return true }, fault: aborts})
	late("[key-auth, " + tag + "]")
	w.edit(t)
	for _, r := range waiting {
		if n := r.written("envoyfilters"); n != 0 {
			t.Errorf("a controller without the lease has written %d times", n)
		}
	}
	within(t, "the end of the leader", leader.Ended())
	w.converged(t)
	protected := startLoad(t, w.Port, false, client{name: "late, no key", host: "late.test", may: []int{http.StatusUnauthorized}})
	release()
	within(t, "the late write", held.applied)
	now, next := waiting[0], waiting[1]
	if now.written("envoyfilters") == 0 {
		now, next = next, now
	}
	w.settled(t, now)
	if n := next.written("envoyfilters"); n != 0 {
		t.Errorf("a controller without the lease has written %d times", n)
	}
	now.Stop() // in order, so that nobody waits for the end of the lease
	w.edit(t)
	w.settled(t, next)
	protected.stop(t)
	load.stop(t)
	w.delete(t, controller.Route("late", ""))
}
