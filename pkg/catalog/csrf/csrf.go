// Package csrf is the built-in csrf: it refuses what other sites make a browser send. schema.yaml documents it.
package csrf

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	csrfv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/csrf/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/jsonreply"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/re2"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

//go:embed schema.yaml
var schema []byte

// Builtin is csrf.
var Builtin = &builtin.Builtin{
	Name:   "csrf",
	Schema: builtin.MustSchema(schema),
	Build:  build,
	Guards: true,
}

type settings struct {
	AdditionalOrigins []match     `json:"additional_origins"`
	Percentage        json.Number `json:"percentage"`
	Shadow            bool        `json:"shadow"`
}

// match is a condition on a host with its port.
type match struct {
	Exact  *string `json:"exact"`
	Prefix *string `json:"prefix"`
	Suffix *string `json:"suffix"`
	Regex  *string `json:"regex"`
}

func build(use builtin.Use, v config.Value) ([]part.Part, []builtin.Problem) {
	var s settings
	builtin.DecodeInto(v, &s)
	var problems []builtin.Problem
	for i, m := range s.AdditionalOrigins {
		problems = append(problems, m.check(fmt.Sprintf("additional_origins[%d]", i))...)
	}
	if slices.ContainsFunc(problems, func(p builtin.Problem) bool { return !p.Warning }) {
		return nil, problems
	}
	filter := part.Native{Config: policy(s, "istio-plugins.csrf."+use.Key()+".")}
	return jsonreply.Around(use, filter, http.StatusForbidden, "Invalid origin"), problems
}

// check says what is wrong with m, and what lets more pass than it seems to.
func (m match) check(path string) []builtin.Problem {
	var problems []builtin.Problem
	add := func(field, message string, warning bool) {
		problems = append(problems, builtin.Problem{Path: path + field, Message: message, Warning: warning})
	}
	kinds := 0
	for _, kind := range []struct {
		field string
		text  *string
	}{{".exact", m.Exact}, {".prefix", m.Prefix}, {".suffix", m.Suffix}, {".regex", m.Regex}} {
		if kind.text == nil {
			continue
		}
		kinds++
		if kind.field != ".regex" && strings.ContainsAny(*kind.text, "/*") {
			const message = "%q is no host: it is written without scheme, path and `*`, and its port only if that is not the scheme's own"
			add(kind.field, fmt.Sprintf(message, *kind.text), false)
		}
	}
	if kinds != 1 {
		add("", fmt.Sprintf("needs one of exact, prefix, suffix, regex, and has %d", kinds), false)
		return problems
	}
	switch {
	case m.Regex != nil:
		if err := re2.Check(*m.Regex, func(text string) string { return text }); err != nil {
			add(".regex", err.Error(), false)
		}
	case m.Suffix != nil && !strings.HasPrefix(*m.Suffix, "."):
		add(".suffix", "allows also hosts of others that end so, unless it begins with a dot", true)
	case m.Prefix != nil && !strings.HasSuffix(*m.Prefix, ":"):
		add(".prefix", "allows also hosts of others that begin so, unless it ends with the colon before a port", true)
	}
	return problems
}

// policy is the filter. Its runtime keys are the instance's own: who sets one for another filter must not change this
// one. All requests are counted, also those of which the share is not enforced.
func policy(s settings, keys string) *csrfv3.CsrfPolicy {
	enforced := percentage(s.Percentage)
	if s.Shadow {
		enforced = percentage("0")
	}
	p := &csrfv3.CsrfPolicy{
		FilterEnabled: &corev3.RuntimeFractionalPercent{DefaultValue: enforced, RuntimeKey: keys + "enabled"},
		ShadowEnabled: &corev3.RuntimeFractionalPercent{DefaultValue: percentage("100"), RuntimeKey: keys + "shadow_enabled"},
	}
	for _, m := range s.AdditionalOrigins {
		p.AdditionalOrigins = append(p.AdditionalOrigins, m.matcher())
	}
	return p
}

// matcher compares without case, as hosts are; an expression says itself how.
func (m match) matcher() *matcherv3.StringMatcher {
	switch {
	case m.Exact != nil:
		return &matcherv3.StringMatcher{IgnoreCase: true, MatchPattern: &matcherv3.StringMatcher_Exact{Exact: *m.Exact}}
	case m.Prefix != nil:
		return &matcherv3.StringMatcher{IgnoreCase: true, MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: *m.Prefix}}
	case m.Suffix != nil:
		return &matcherv3.StringMatcher{IgnoreCase: true, MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: *m.Suffix}}
	}
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{
		EngineType: &matcherv3.RegexMatcher_GoogleRe2{GoogleRe2: &matcherv3.RegexMatcher_GoogleRE2{}},
		Regex:      *m.Regex,
	}}}
}

// percentage is exact: the schema allows four decimals, and Envoy counts in millionths.
func percentage(n json.Number) *typev3.FractionalPercent {
	p, ok := new(big.Rat).SetString(n.String())
	if !ok {
		panic("schema and Go type disagree: " + n.String() + " is no number")
	}
	millionths := p.Mul(p, big.NewRat(10_000, 1))
	return &typev3.FractionalPercent{Numerator: uint32(millionths.Num().Uint64()), Denominator: typev3.FractionalPercent_MILLION}
}
