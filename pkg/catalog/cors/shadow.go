package cors

import (
	"fmt"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	rbacfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// metadataNamespace is where the first chunk writes the normalised origin, under the instance. handler.lua has it, too.
const metadataNamespace = "istio-plugins.cors"

// shadowPrefix comes before the keys that the filter writes to the metadata namespace envoy.filters.http.rbac, which
// all rbac filters of a chain share.
func shadowPrefix(instance string) string { return "istio-plugins.cors." + instance + "." }

// shadow is an rbac filter that refuses nothing. It has a policy for each expression and writes down whether one
// matched: shadow rules alone, without rules, only do that.
func shadow(instance string, expressions []expression) *rbacfilterv3.RBAC {
	policies := make(map[string]*rbacv3.Policy, len(expressions))
	for i, e := range expressions {
		policies[fmt.Sprintf("%03d", i)] = &rbacv3.Policy{
			Permissions: []*rbacv3.Permission{{Rule: &rbacv3.Permission_Any{Any: true}}},
			Principals:  []*rbacv3.Principal{matches(instance, e)},
		}
	}
	return &rbacfilterv3.RBAC{
		ShadowRules:           &rbacv3.RBAC{Action: rbacv3.RBAC_ALLOW, Policies: policies},
		ShadowRulesStatPrefix: shadowPrefix(instance),
	}
}

// matches is true where the published origin, or its host, matches as a whole.
func matches(instance string, e expression) *rbacv3.Principal {
	subject := "origin"
	if e.hostOnly {
		subject = "host"
	}
	key := func(k string) *matcherv3.MetadataMatcher_PathSegment {
		return &matcherv3.MetadataMatcher_PathSegment{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: k}}
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_SourcedMetadata{SourcedMetadata: &rbacv3.SourcedMetadata{
		MetadataMatcher: &matcherv3.MetadataMatcher{
			Filter: metadataNamespace,
			Path:   []*matcherv3.MetadataMatcher_PathSegment{key(instance), key(subject)},
			Value: &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
				MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{
					EngineType: &matcherv3.RegexMatcher_GoogleRe2{GoogleRe2: &matcherv3.RegexMatcher_GoogleRE2{}},
					Regex:      anyCase(e.regex),
				}},
			}}},
		},
		MetadataSource: rbacv3.MetadataSource_DYNAMIC,
	}}}
}
