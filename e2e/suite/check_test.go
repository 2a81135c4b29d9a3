package suite

import (
	"net/http"
	"strings"
	"testing"

	"github.com/istio-plugins/istio-plugins/e2e/echo"
)

func TestProblems(t *testing.T) {
	two, text := 2, "exactly this"
	answer := Answer{
		Status:     200,
		GRPCStatus: 5,
		Headers:    http.Header{"X-A": {"1", "2"}},
		Trailers:   http.Header{"X-T": {"end"}},
		Body:       "the body",
		Upstream:   []echo.Request{{Method: "GET", Path: "/x", Headers: map[string][]string{"x-chain": {"a,b"}}}},
	}
	there := &Upstream{}
	for name, c := range map[string]struct {
		expect Expect
		want   string
	}{
		"nothing wrong":                           {Expect{Status: 200, Upstream: there, Headers: map[string]Values{"x-a": {"1", "2"}}, Absent: []string{"x-b"}}, ""},
		"a comma separates values":                {Expect{Status: 200, Upstream: &Upstream{Headers: map[string]Values{"x-chain": {"a", "b"}}}}, ""},
		"another status":                          {Expect{Status: 503, Upstream: there}, "status is 200, not 503"},
		"another gRPC status":                     {Expect{Status: 200, GRPCStatus: &two, Upstream: there}, "gRPC status is 5, not 2"},
		"values in another order":                 {Expect{Status: 200, Upstream: there, Headers: map[string]Values{"X-a": {"2", "1"}}}, `header X-a is ["1" "2"], not ["2" "1"]`},
		"a header that must not be there":         {Expect{Status: 200, Upstream: there, Absent: []string{"X-A"}}, "header X-A is there"},
		"another trailer":                         {Expect{Status: 200, Upstream: there, Trailers: map[string]Values{"x-t": {"begin"}}}, "trailer x-t is"},
		"another body":                            {Expect{Status: 200, Upstream: there, Body: &text}, "body is"},
		"a part of the body is missing":           {Expect{Status: 200, Upstream: there, BodyContains: []string{"ghost"}}, `does not contain "ghost"`},
		"the upstream must not be reached":        {Expect{Status: 200}, "the request arrived at the upstream"},
		"another method at the upstream":          {Expect{Status: 200, Upstream: &Upstream{Method: "PUT"}}, `method is "GET", not "PUT"`},
		"another path at the upstream":            {Expect{Status: 200, Upstream: &Upstream{Path: "/y"}}, `path is "/x", not "/y"`},
		"a header that the upstream must not see": {Expect{Status: 200, Upstream: &Upstream{Absent: []string{"x-chain"}}}, "upstream: header x-chain is there"},
		"another body at the upstream":            {Expect{Status: 200, Upstream: &Upstream{Body: &text}}, "upstream: body is"},
	} {
		t.Run(name, func(t *testing.T) {
			got := strings.Join(c.expect.Problems(answer), "; ")
			if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	if got := (Expect{Status: 200, Upstream: there}).Problems(Answer{Status: 200}); len(got) != 1 {
		t.Errorf("a request that did not arrive at the upstream is no problem: %q", got)
	}
}

func TestLoadRefusesACaseThatShowsNothing(t *testing.T) {
	for _, c := range []Case{
		{},
		{Steps: []Step{{}}},
		{Steps: []Step{{Requests: []Request{{Name: "without host", Expect: Expect{Status: 200}}}}}},
		{Steps: []Step{{Requests: []Request{{Name: "without status", Host: "a"}}}}},
		{Steps: []Step{{Restart: "istio", Requests: []Request{{Name: "a", Host: "a", Expect: Expect{Status: 200}}}}}},
	} {
		if err := c.check(); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}
