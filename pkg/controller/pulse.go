package controller

import (
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// pause is between two passes: the first change after a quiet time is acted on at once, the changes that follow it are
// collected.
const pause = 100 * time.Millisecond

// pulse decides when the next pass begins.
type pulse struct {
	mu sync.Mutex
	// ended is when the last pass did, first the first event that none has seen yet.
	ended, first time.Time
	running      bool
}

// wake asks for a pass.
func (p *pulse) wake(q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.first.IsZero() {
		p.first = now
	}
	wait := pause
	if !p.running {
		wait = p.ended.Add(pause).Sub(now)
	}
	q.AddAfter(reconcile.Request{}, max(wait, 0))
}

// begin is the start of a pass. It returns when the first event was that it is about; the zero time, if there was none.
func (p *pulse) begin() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	since := p.first
	p.first, p.running = time.Time{}, true
	return since
}

func (p *pulse) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended, p.running = time.Now(), false
}
