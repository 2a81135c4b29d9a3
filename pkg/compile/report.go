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
	issues map[*resolve.Issue]map[string]bool
	order  []*resolve.Issue
	// known keeps one issue for each thing to say.
	known map[string]*resolve.Issue
}

func newReport() *report {
	return &report{issues: map[*resolve.Issue]map[string]bool{}, known: map[string]*resolve.Issue{}}
}

func (r *report) add(fs ...finding.Finding) { r.plain = append(r.plain, fs...) }

// once returns the issue for a finding, the same for equal findings.
func (r *report) once(f finding.Finding, skips bool) *resolve.Issue {
	key := string(f.Reason) + "\x00" + f.Object.String() + "\x00" + f.Place + "\x00" + f.Problem
	if i := r.known[key]; i != nil {
		return i
	}
	i := &resolve.Issue{Finding: f, Skips: skips}
	r.known[key] = i
	return i
}

// hit notes that an issue concerns a route; without a name it concerns one that does not exist.
func (r *report) hit(i *resolve.Issue, route string) {
	if route == "" {
		r.see(i)
		return
	}
	if r.issues[i] == nil {
		r.issues[i] = map[string]bool{}
		r.order = append(r.order, i)
	}
	r.issues[i][route] = true
}

// see notes an issue that concerns no route yet.
func (r *report) see(i *resolve.Issue) {
	if r.issues[i] == nil {
		r.issues[i] = map[string]bool{}
		r.order = append(r.order, i)
	}
}

func (r *report) findings(s *snapshot.Snapshot) []finding.Finding {
	out := r.plain
	for _, i := range r.order {
		f := i.Finding
		if f.Traffic == "" {
			f.Traffic = effect(r.issues[i], i.Skips, f.Severity())
		}
		out = append(out, f)
	}
	for i := range out {
		out[i].Source = s.Where(out[i].Object, out[i].Place)
	}
	return finding.Sort(out)
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
