// Package botdetection is the built-in bot-detection: it refuses crawlers and scripts by their User-Agent. schema.yaml
// documents it, and agents.txt is the built-in list.
//
// Lua has no regular expressions, and Envoy's have to match the whole of a valid text. So there are three parts:
//
//	Lua     writes the agent to dynamic metadata, without blanks around it and in ASCII
//	rbac    matches it by RE2, in shadow mode: it decides nothing and only writes down whether its policy matched
//	Lua     reads that, and refuses
package botdetection

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/re2"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

//go:embed schema.yaml
var schema []byte

//go:embed agent.lua
var agent string

//go:embed handler.lua
var handler string

//go:embed agents.txt
var agents string

// Builtin is bot-detection.
var Builtin = &builtin.Builtin{
	Name:   "bot-detection",
	Schema: builtin.MustSchema(schema),
	Build:  build,
	Guards: true,
}

// known are the expressions of the built-in list.
var known = strings.Fields(comments(agents))

// comments takes lines away that are comments.
func comments(text string) string {
	lines := slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool { return strings.HasPrefix(line, "#") })
	return strings.Join(lines, "\n")
}

type settings struct {
	Allow []string `json:"allow"`
	Deny  []string `json:"deny"`
}

func build(use builtin.Use, v config.Value) ([]part.Part, []builtin.Problem) {
	var s settings
	builtin.DecodeInto(v, &s)
	problems := append(check("allow", s.Allow), check("deny", s.Deny)...)
	if len(problems) > 0 {
		return nil, problems
	}
	id := use.Key()
	prefix := "istio-plugins.bot-detection." + id + "."
	return []part.Part{
		use.Lua(agent, config.Value{"namespace": namespace, "key": id}),
		part.Native{Config: judge(id, prefix, s)},
		use.Lua(handler, config.Value{"result": prefix + "shadow_engine_result"}),
	}, nil
}

func check(list string, expressions []string) []builtin.Problem {
	var problems []builtin.Problem
	for i, e := range expressions {
		if err := re2.Check(e, anywhere); err != nil {
			problems = append(problems, builtin.Problem{Path: fmt.Sprintf("%s[%d]", list, i), Message: err.Error()})
		}
	}
	return problems
}

// anywhere makes an expression match a text that holds what it matches: Envoy matches whole texts only.
func anywhere(expression string) string { return "(?s:.*)(?:" + expression + ")(?s:.*)" }

// namespace is that of the dynamic metadata in which the agent is handed to the rbac filter.
const namespace = "istio-plugins.bot-detection"

// judge has one policy, for an agent that is denied and not allowed, and notes `<prefix>shadow_engine_result`: denied
// where it matches. Without rules it lets every request pass. A request without an agent matches nothing.
func judge(key, prefix string, s settings) *rbacv3.RBAC {
	denied := append(principals(key, s.Deny), matches(key, "(?:"+strings.Join(known, "|")+")"))
	bot := []*rbacconfigv3.Principal{{
		Identifier: &rbacconfigv3.Principal_OrIds{OrIds: &rbacconfigv3.Principal_Set{Ids: denied}},
	}}
	if len(s.Allow) > 0 {
		allowed := &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_OrIds{OrIds: &rbacconfigv3.Principal_Set{Ids: principals(key, s.Allow)}}}
		bot = append(bot, &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_NotId{NotId: allowed}})
	}
	return &rbacv3.RBAC{
		ShadowRulesStatPrefix: prefix,
		ShadowRules: &rbacconfigv3.RBAC{
			Action: rbacconfigv3.RBAC_DENY,
			Policies: map[string]*rbacconfigv3.Policy{"bot": {
				Permissions: []*rbacconfigv3.Permission{{Rule: &rbacconfigv3.Permission_Any{Any: true}}},
				Principals:  []*rbacconfigv3.Principal{{Identifier: &rbacconfigv3.Principal_AndIds{AndIds: &rbacconfigv3.Principal_Set{Ids: bot}}}},
			}},
		},
	}
}

func principals(key string, expressions []string) []*rbacconfigv3.Principal {
	out := make([]*rbacconfigv3.Principal, len(expressions))
	for i, e := range expressions {
		out[i] = matches(key, e)
	}
	return out
}

// matches is true where the agent that the first part has published holds what the expression matches.
func matches(key, expression string) *rbacconfigv3.Principal {
	return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_SourcedMetadata{SourcedMetadata: &rbacconfigv3.SourcedMetadata{
		MetadataMatcher: &matcherv3.MetadataMatcher{
			Filter: namespace,
			Path: []*matcherv3.MetadataMatcher_PathSegment{{
				Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: key},
			}},
			Value: &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
				MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{
					EngineType: &matcherv3.RegexMatcher_GoogleRe2{GoogleRe2: &matcherv3.RegexMatcher_GoogleRE2{}},
					Regex:      anywhere(expression),
				}},
			}}},
		},
		MetadataSource: rbacconfigv3.MetadataSource_DYNAMIC,
	}}}
}
