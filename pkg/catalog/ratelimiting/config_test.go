package ratelimiting

import (
	"testing"

	localratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// counterOf is the filter of a part, which has to pass Envoy's own rules.
func counterOf(t *testing.T, p part.Part) *localratelimitv3.LocalRateLimit {
	t.Helper()
	c := p.(part.Native).Config.(*localratelimitv3.LocalRateLimit)
	if err := c.ValidateAll(); err != nil {
		t.Error(err)
	}
	return c
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]struct {
		config string
		want   []string
	}{
		"a limit is needed":             {`{}`, []string{"needs at least one of second, minute, hour, day, month, year"}},
		"a longer window allows less":   {`{minute: 10, hour: 5}`, []string{"hour: 5 is less than the 10 of minute, so the limit per minute could never be reached"}},
		"also with a window between":    {`{second: 10, day: 5}`, []string{"day: 5 is less than the 10 of second, so the limit per second could never be reached"}},
		"equal limits are right":        {`{minute: 10, hour: 10}`, nil},
		"zero":                          {`{minute: 0}`, []string{"minute: 0 is too small, at least 1"}},
		"a fraction":                    {`{minute: 1.5}`, []string{"minute: must be an integer, not a number"}},
		"a whole number with a point":   {`{minute: 5.0}`, nil},
		"more than Envoy counts":        {`{minute: 4294967296}`, []string{"minute: 4294967296 is too large, at most 4294967295"}},
		"text":                          {`{minute: "5"}`, []string{"minute: must be an integer, not a string"}},
		"a month is warned of":          {`{month: 5}`, []string{"warning month: a restart of the gateway or a change of this config starts the month anew"}},
		"a year is warned of":           {`{year: 5}`, []string{"warning year: a restart of the gateway or a change of this config starts the year anew"}},
		"header without its name":       {`{minute: 1, limit_by: header}`, []string{"header_name: is required where limit_by is header"}},
		"path without its path":         {`{minute: 1, limit_by: path}`, []string{"path: is required where limit_by is path"}},
		"a path is absolute":            {`{minute: 1, limit_by: path, path: a}`, []string{`path: "a" does not match ^/`}},
		"a header name is a token":      {`{minute: 1, limit_by: header, header_name: "a b"}`, []string{`header_name: "a b" is no valid http header name`}},
		"an unknown limit_by":           {`{minute: 1, limit_by: user}`, []string{`limit_by: "user" is not allowed, allowed are "consumer", "credential", "ip", "service", "header", "path"`}},
		"redis":                         {`{minute: 1, policy: redis}`, []string{`policy: "redis" is not possible: this plugin counts inside one gateway process; a counter that all gateways share is rate-limiting-global`}},
		"cluster":                       {`{minute: 1, policy: cluster}`, []string{`policy: "cluster" is not possible: this plugin counts inside one gateway process; a counter that all gateways share is rate-limiting-global`}},
		"a status that is no refusal":   {`{minute: 1, error_code: 200}`, []string{"error_code: 200 is too small, at least 400"}},
		"an unknown scope":              {`{minute: 1, scope: gateway}`, []string{`scope: "gateway" is not allowed, allowed are "attachment", "route", "plugin"`}},
		"no identities":                 {`{minute: 1, max_identities: 0}`, []string{"max_identities: 0 is too small, at least 1"}},
		"a misspelt window":             {`{minutes: 1, hour: 2}`, []string{`minutes: unknown field, did you mean "minute"?`}},
		"Kong's fields without meaning": {`{minute: 1, fault_tolerant: true, redis: {host: a}}`, []string{"warning fault_tolerant: has no meaning here and is ignored", "warning redis: has no meaning here and is ignored"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, got := catalogtest.Build(t, Builtin, builtin.Use{Plugin: "limit", Instance: "a"}, c.config)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
		})
	}
}
