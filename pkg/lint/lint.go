// Package lint finds plain mistakes around plugins: everything runs as it is written, but hardly as it is meant. It
// judges what a compilation has found out, and reports nothing that a compilation reports. Where it cannot be sure, it is
// silent: a false alarm costs more than a missed hint. The one entry point is Check.
package lint

import (
	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/consumer"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// checks in no particular order: findings are sorted in the end. A new one is a file and a line here.
var checks = []func(*snapshot.Snapshot, *compile.Result) []finding.Finding{
	unusedPlugins,
	unusedCredentials,
	pluginOrder,
	unreachableRoutes,
	corsPolicies,
	landings,
}

// Check returns the findings about a snapshot and what it compiles to, without those of the compilation itself.
func Check(s *snapshot.Snapshot, r *compile.Result) []finding.Finding {
	var out []finding.Finding
	for _, check := range checks {
		out = append(out, check(s, r)...)
	}
	for i := range out {
		out[i].Source = s.Where(out[i].Object, out[i].Place)
	}
	return finding.Sort(out)
}

func unusedCredentials(s *snapshot.Snapshot, _ *compile.Result) []finding.Finding {
	return consumer.Unused(s)
}
