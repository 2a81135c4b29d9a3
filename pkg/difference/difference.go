// Package difference says what changes from one compilation to another: which routes run something else, what is found
// wrong now or no longer, and which generated objects change. It compares values and decides nothing itself, so it cannot
// disagree with what is compiled, and it shows no secret but in the unified diffs that one must ask for. The one entry
// point is Compare.
package difference

import (
	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/explain"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// Side is one of the two compilations.
type Side struct {
	Snapshot *snapshot.Snapshot
	Result   *compile.Result
	// Findings are all that is to be said about it, the compilation's and others.
	Findings []finding.Finding
}

// Difference is what changes. As JSON its parts are API: fields are added, never changed.
type Difference struct {
	Routes []RouteChange
	// Appear are the findings that there were not before, Vanish those that there are no longer.
	Appear, Vanish []finding.Finding
	Objects        []ObjectChange
	// Total is how many generated objects there will be.
	Total int
}

// Empty says that nothing changes.
func (d Difference) Empty() bool {
	return len(d.Routes) == 0 && len(d.Appear) == 0 && len(d.Vanish) == 0 && len(d.Objects) == 0
}

// Kind of change.
type Kind string

// The kinds. What has not changed is shown where its place matters.
const (
	Added     Kind = "added"
	Removed   Kind = "removed"
	Changed   Kind = "changed"
	Moved     Kind = "moved"
	Unchanged Kind = "unchanged"
)

// RouteChange is a change of what routes run. Routes that change alike are together.
type RouteChange struct {
	Routes []Route `json:"routes"`
	// Paths on which the routes are reached.
	Paths  []Path `json:"paths"`
	Before State  `json:"before"`
	After  State  `json:"after"`
	// Steps are the plugins that ran or will run, in the order in which they will. A route that answers 503 runs none.
	Steps []Step `json:"steps"`

	// names of the routes for people: a VirtualService of which all routes change has one name.
	names []string
}

// Route is one route of a VirtualService by its name in Envoy; an unnamed one is "".
type Route struct {
	VirtualService explain.Object `json:"virtualService"`
	Name           string         `json:"name"`
}

// OtherPorts are the ports of a Gateway that are not foreseen, where others are told apart.
const OtherPorts = "other"

// Path is a Gateway, and where ports matter a listener port of it, or OtherPorts.
type Path struct {
	Gateway explain.Object `json:"gateway"`
	Port    string         `json:"port,omitempty"`
}

// State says what becomes of a request.
type State struct {
	Serves Serves `json:"serves"`
	// Refused are the reasons for which it answers 503.
	Refused []explain.Reason `json:"refused,omitempty"`
}

// Serves is what becomes of a request.
type Serves string

// What becomes of a request.
const (
	// Runs: the route runs its plugins, if any.
	Runs Serves = "runs"
	// Refuses: the route answers 503.
	Refuses Serves = "refuses"
	// Absent: there is no such route on this path.
	Absent Serves = "absent"
)

// Step is one plugin of a chain.
type Step struct {
	// Change of the step. One that moved may have changed, too, which Differs says.
	Change Kind `json:"change"`
	// Plugin is the name, and Type what it is: a built-in's name, Lua, Wasm or Envoy.
	Plugin string `json:"plugin"`
	Type   string `json:"type"`
	// Object is the Plugin or ClusterPlugin; nil for a built-in by its bare name.
	Object *explain.Object `json:"object,omitempty"`
	// Differs says in what the plugin has changed.
	Differs []Aspect `json:"differs,omitempty"`
	// Before and After are how it was and will be set up; both nil for one that has not changed.
	Before *Setting `json:"before,omitempty"`
	After  *Setting `json:"after,omitempty"`
}

// Aspect is something about a plugin that changes what it does.
type Aspect string

// The aspects.
const (
	// Config is the merged config.
	Config Aspect = "config"
	// FailurePolicy is what happens when it is invalid or fails.
	FailurePolicy Aspect = "failurePolicy"
	// Skipped: it is invalid and skipped, or no longer.
	Skipped Aspect = "skipped"
	// Type: the Plugin is another built-in, or of another kind.
	Type Aspect = "type"
	// Source is the Lua source.
	Source Aspect = "source"
	// Module is the Wasm module and its settings.
	Module Aspect = "module"
	// References: the plugin itself is the same, and what it takes from Consumers and Secrets is not.
	References Aspect = "references"
)

// Setting is how a plugin is set up. Secrets in its config read (hidden), or (hidden, changed) where they are not the same
// as before.
type Setting struct {
	FailurePolicy string         `json:"failurePolicy"`
	Skipped       bool           `json:"skipped,omitempty"`
	Config        map[string]any `json:"config"`
}

// ObjectChange is a change of a generated object.
type ObjectChange struct {
	Change Kind           `json:"change"`
	Object explain.Object `json:"object"`
	// Entries that change, of tables, Lua runtimes and others. None if they only stand in another order.
	Entries []Entry `json:"entries"`
	// Diff is the unified diff of the object's YAML, if it was asked for. It shows secrets.
	Diff string `json:"diff,omitempty"`
}

// Entry is one thing in a generated object.
type Entry struct {
	Change Kind `json:"change"`
	// Resource is the name of the table, runtime or filter within its gateway; empty for selector, labels and annotations.
	Resource string `json:"resource"`
	// Key in the resource; empty for the whole.
	Key string `json:"key,omitempty"`
	// Of is the object that the entry comes from, as far as it is known.
	Of *explain.Object `json:"of,omitempty"`
}

// Compare says what changes from before to after. With unified, objects have unified diffs.
func Compare(before, after Side, unified bool) Difference {
	d := Difference{
		Routes:  routeChanges(before, after),
		Objects: objectChanges(before.Result, after.Result, unified),
		Total:   len(after.Result.Objects),
	}
	d.Appear, d.Vanish = without(after.Findings, before.Findings), without(before.Findings, after.Findings)
	return d
}

// without are the findings of all that say nothing of some. Where an object was read does not count.
func without(all, some []finding.Finding) []finding.Finding {
	known := map[string]bool{}
	for _, f := range some {
		known[f.String()] = true
	}
	var out []finding.Finding
	for _, f := range all {
		if !known[f.String()] {
			out = append(out, f)
		}
	}
	return out
}
