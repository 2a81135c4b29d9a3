package suite

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/istio-plugins/istio-plugins/e2e/echo"
)

// Answer is what the client saw, and what had arrived at the upstream.
type Answer struct {
	Status     int
	GRPCStatus int
	Headers    http.Header
	Trailers   http.Header
	Body       string
	Upstream   []echo.Request
}

// Problems says in which points the answer is not as expected; none if it is.
func (e Expect) Problems(a Answer) []string {
	var problems []string
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if a.Status != e.Status {
		add("status is %d, not %d, with body %q", a.Status, e.Status, short(a.Body))
	}
	if e.GRPCStatus != nil && a.GRPCStatus != *e.GRPCStatus {
		add("gRPC status is %d, not %d", a.GRPCStatus, *e.GRPCStatus)
	}
	problems = append(problems, different("header", lower(a.Headers), e.Headers, e.Absent)...)
	problems = append(problems, different("trailer", lower(a.Trailers), e.Trailers, nil)...)
	if e.Body != nil && a.Body != *e.Body {
		add("body is %q, not %q", short(a.Body), short(*e.Body))
	}
	for _, part := range e.BodyContains {
		if !strings.Contains(a.Body, part) {
			add("body %q does not contain %q", short(a.Body), part)
		}
	}
	return append(problems, e.Upstream.problems(a.Upstream)...)
}

func (u *Upstream) problems(arrived []echo.Request) []string {
	switch {
	case u == nil && len(arrived) == 0:
		return nil
	case u == nil:
		return []string{fmt.Sprintf("the request arrived at the upstream: %+v", arrived)}
	case len(arrived) != 1:
		return []string{fmt.Sprintf("%d requests arrived at the upstream, not 1", len(arrived))}
	}
	r := arrived[0]
	var problems []string
	equal := func(what, got, want string) {
		if want != "" && got != want {
			problems = append(problems, fmt.Sprintf("upstream: %s is %q, not %q", what, short(got), short(want)))
		}
	}
	equal("method", r.Method, u.Method)
	equal("host", r.Host, u.Host)
	equal("path", r.Path, u.Path)
	if u.Body != nil && r.Body != *u.Body {
		problems = append(problems, fmt.Sprintf("upstream: body is %q, not %q", short(r.Body), short(*u.Body)))
	}
	for _, name := range u.Same {
		got, first := split(r.Headers[strings.ToLower(name)]), split(r.Headers[strings.ToLower(u.Same[0])])
		if len(got) == 0 || !slices.Equal(got, first) {
			problems = append(problems, fmt.Sprintf("upstream: header %s is %q, %s is %q", name, got, u.Same[0], first))
		}
	}
	return append(problems, different("upstream: header", r.Headers, u.Headers, u.Absent)...)
}

// different compares headers. One that is sent n times and one that holds the n values with commas between them mean the
// same, and proxies change one into the other, so both are read as n values.
func different(what string, got map[string][]string, want map[string]Values, absent []string) []string {
	var problems []string
	for name, values := range want {
		if g := split(got[strings.ToLower(name)]); !slices.Equal(g, split(values)) {
			problems = append(problems, fmt.Sprintf("%s %s is %q, not %q", what, name, g, []string(values)))
		}
	}
	for _, name := range absent {
		if values, ok := got[strings.ToLower(name)]; ok {
			problems = append(problems, fmt.Sprintf("%s %s is there, with %q", what, name, values))
		}
	}
	slices.Sort(problems)
	return problems
}

func split(values []string) []string {
	var all []string
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			all = append(all, strings.TrimSpace(part))
		}
	}
	return all
}

func lower(h http.Header) map[string][]string {
	out := map[string][]string{}
	for name, values := range h {
		out[strings.ToLower(name)] = values
	}
	return out
}

func short(text string) string {
	const most = 300
	if len(text) <= most {
		return text
	}
	return text[:most] + "…"
}
