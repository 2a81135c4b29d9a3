package lua

import (
	"strings"

	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// Slots cuts a run of adjacent Lua parts into those that can share one Lua filter. Two things in Envoy need a cut:
//
// A body cannot be read after a call in the same filter ("cannot call body() after body has been streamed"), so a part that
// calls a service and waits is the last of its slot, and later ones read the body in a filter of their own. Responses, for
// which that part comes first, are buffered before the call.
//
// A second importPublicKey in the same filter run returns the first key, so a slot has one part that imports; the runtime
// makes a second import an error.
//
// Both are recognised by the name of the function in the source. That may cut once too often; a source that puts the name
// together makes its own chain fail.
func Slots(run []part.Lua) [][]part.Lua {
	var slots [][]part.Lua
	from, imported := 0, false
	for i, l := range run {
		imports := strings.Contains(l.Source, "importPublicKey")
		if imports && imported {
			slots = append(slots, run[from:i])
			from, imported = i, false
		}
		imported = imported || imports
		if len(l.Services) > 0 && strings.Contains(l.Source, "pdk.call") {
			slots = append(slots, run[from:i+1])
			from, imported = i+1, false
		}
	}
	if from < len(run) {
		slots = append(slots, run[from:])
	}
	return slots
}
