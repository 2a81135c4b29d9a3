// Package faults breaks what a controller lives on, one thing after another, on the real stack and while clients send
// requests and users edit. Whatever breaks, these hold:
//   - nobody gets through a protected route without a key, and a route without plugins serves everybody;
//   - the end is what a fresh compile of the stored objects makes;
//   - everything comes to rest: a change that follows costs the writes that it needs, and no more;
//   - the controller does not end, and its log holds no secret.
package faults

import "testing"

// TestFaults runs in one stack: what one fault leaves behind is what the next one meets.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("the whole stack takes minutes: not with -short")
	}
	w := startWorld(t)
	first := w.start(t)
	w.converged(t)
	first.Stop()
	for _, f := range []struct {
		name string
		run  func(*testing.T, *world)
	}{
		{"controller killed", controllerKilled},
		{"istiod killed", istiodKilled},
		{"envoy killed", envoyKilled},
		{"api server killed", apiServerKilled},
		{"all killed", allKilled},
		{"api server refuses", apiServerRefuses},
		{"reports refused", reportsRefused},
		{"watches break", watchesBreak},
		{"hand interferes", handInterferes},
		{"secret vanishes", secretVanishes},
		{"config map vanishes", configMapVanishes},
		{"leader lost", leaderLost},
	} {
		t.Run(f.name, func(t *testing.T) { f.run(t, w) })
	}
}
