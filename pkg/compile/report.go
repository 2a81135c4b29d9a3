package compile

import (
	"fmt"
	"slices"

	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// report collects findings. Those about a plugin are given to it again for every route that they concern, and say in the
// end which routes that were.
type report struct {
	plain  []finding.Finding
	issues map[issueKey]*reported
}

// issueKey is equal for issues that say the same.
type issueKey struct {
	reason                          finding.Reason
	object                          finding.Object
	place, problem, traffic, remedy string
	skips                           bool
}

func keyOf(i *resolve.Issue) issueKey {
	return issueKey{i.Reason, i.Object, i.Place, i.Problem, i.Traffic, i.Remedy, i.Skips}
}

type reported struct {
	issue  *resolve.Issue
	routes map[string]bool
}

func newReport() *report { return &report{issues: map[issueKey]*reported{}} }

func (r *report) add(fs ...finding.Finding) { r.plain = append(r.plain, fs...) }

// hit notes that an issue concerns a route; without a name it concerns none that exists.
func (r *report) hit(i *resolve.Issue, route string) {
	known := r.issues[keyOf(i)]
	if known == nil {
		known = &reported{issue: i, routes: map[string]bool{}}
		r.issues[keyOf(i)] = known
	}
	if route != "" {
		known.routes[route] = true
	}
}

func (r *report) findings(s *snapshot.Snapshot) []finding.Finding {
	out := r.plain
	for _, known := range r.issues {
		f := known.issue.Finding
		if f.Traffic == "" {
			f.Traffic = effect(known.routes, known.issue.Skips, f.Severity())
		}
		out = append(out, f)
	}
	for i := range out {
		out[i].Source = s.Where(out[i].Object, out[i].Place)
	}
	return finding.Sort(out)
}

// remarks are what there is to say about one service.
type remarks struct {
	findings []finding.Finding
	notes    resolve.Notes
	hits     []hit
}

// hit is an issue that concerns a route; without a name it concerns none that exists.
type hit struct {
	issue *resolve.Issue
	route string
}

// say puts remarks into the report.
func (c *compilation) say(r *remarks) {
	c.report.add(r.findings...)
	c.notes.Add(&r.notes)
	for _, h := range r.hits {
		c.report.hit(h.issue, h.route)
	}
}

func effect(routes map[string]bool, skips bool, severity finding.Severity) string {
	if severity != finding.Error {
		return ""
	}
	names := make([]string, 0, len(routes))
	for name := range routes {
		names = append(names, name)
	}
	slices.Sort(names)
	switch {
	case len(names) == 0:
		return "no route runs it"
	case skips && len(names) == 1:
		return fmt.Sprintf("route %s runs without it", names[0])
	case skips:
		return fmt.Sprintf("%d routes run without it: %s", len(names), finding.Routes(names))
	case len(names) == 1:
		return fmt.Sprintf("route %s answers 503", names[0])
	}
	return fmt.Sprintf("%d routes answer 503: %s", len(names), finding.Routes(names))
}
