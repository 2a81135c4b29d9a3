package dispatch

import (
	"strings"
	"time"

	xdscore "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcher "github.com/cncf/xds/go/xds/type/matcher/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	matching "github.com/envoyproxy/go-control-plane/envoy/extensions/common/matching/v3"
	skip "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/matcher/action/v3"
	setstate "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	composite "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/composite/v3"
	fault "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	filterlua "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	setfilterstate "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	inputs "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	hashing "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/input_matchers/consistent_hashing/v3"
	envoytype "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// fetchTimeout is how long a starting gateway waits for a table before it listens without: the table's routes then
// answer 500. It is finite so that one table that nobody serves cannot keep a gateway down.
const fetchTimeout = 15 * time.Second

func toAny(m proto.Message) *anypb.Any {
	a := &anypb.Any{}
	if err := anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		panic(err) // a message that was built can be encoded
	}
	return a
}

func typeURL(m proto.Message) string {
	return "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName())
}

// stateInput reads filter state; a request on which it is not set matches nothing.
func stateInput(key string) *xdscore.TypedExtensionConfig {
	return &xdscore.TypedExtensionConfig{
		Name:        "envoy.matching.inputs.filter_state",
		TypedConfig: toAny(&inputs.FilterStateInput{Key: key}),
	}
}

// portInput reads the port of the listener, as text.
func portInput() *xdscore.TypedExtensionConfig {
	return &xdscore.TypedExtensionConfig{
		Name:        "envoy.matching.inputs.destination_port",
		TypedConfig: toAny(&inputs.DestinationPortInput{}),
	}
}

func act(m proto.Message) *xdsmatcher.Matcher_OnMatch {
	return &xdsmatcher.Matcher_OnMatch{OnMatch: &xdsmatcher.Matcher_OnMatch_Action{
		Action: &xdscore.TypedExtensionConfig{Name: "istio-plugins", TypedConfig: toAny(m)},
	}}
}

func further(m *xdsmatcher.Matcher) *xdsmatcher.Matcher_OnMatch {
	return &xdsmatcher.Matcher_OnMatch{OnMatch: &xdsmatcher.Matcher_OnMatch_Matcher{Matcher: m}}
}

// exact looks the input up in a map.
func exact(input *xdscore.TypedExtensionConfig, entries map[string]*xdsmatcher.Matcher_OnMatch, otherwise *xdsmatcher.Matcher_OnMatch) *xdsmatcher.Matcher {
	return &xdsmatcher.Matcher{
		MatcherType: &xdsmatcher.Matcher_MatcherTree_{MatcherTree: &xdsmatcher.Matcher_MatcherTree{
			Input:    input,
			TreeType: &xdsmatcher.Matcher_MatcherTree_ExactMatchMap{ExactMatchMap: &xdsmatcher.Matcher_MatcherTree_MatchMap{Map: entries}},
		}},
		OnNoMatch: otherwise,
	}
}

// prefix looks the longest known prefix of the input up.
func prefix(input *xdscore.TypedExtensionConfig, entries map[string]*xdsmatcher.Matcher_OnMatch) *xdsmatcher.Matcher {
	return &xdsmatcher.Matcher{
		MatcherType: &xdsmatcher.Matcher_MatcherTree_{MatcherTree: &xdsmatcher.Matcher_MatcherTree{
			Input:    input,
			TreeType: &xdsmatcher.Matcher_MatcherTree_PrefixMatchMap{PrefixMatchMap: &xdsmatcher.Matcher_MatcherTree_MatchMap{Map: entries}},
		}},
	}
}

// byHash picks one of n by the xxHash64 of the input: a binary tree of thresholds.
func byHash(input *xdscore.TypedExtensionConfig, n int, leaf func(i int) *xdsmatcher.Matcher_OnMatch) *xdsmatcher.Matcher_OnMatch {
	var between func(low, high int) *xdsmatcher.Matcher_OnMatch
	between = func(low, high int) *xdsmatcher.Matcher_OnMatch {
		if high-low == 1 {
			return leaf(low)
		}
		middle := (low + high) / 2
		return further(&xdsmatcher.Matcher{
			MatcherType: &xdsmatcher.Matcher_MatcherList_{MatcherList: &xdsmatcher.Matcher_MatcherList{
				Matchers: []*xdsmatcher.Matcher_MatcherList_FieldMatcher{{
					Predicate: &xdsmatcher.Matcher_MatcherList_Predicate{
						MatchType: &xdsmatcher.Matcher_MatcherList_Predicate_SinglePredicate_{
							SinglePredicate: &xdsmatcher.Matcher_MatcherList_Predicate_SinglePredicate{
								Input: input,
								Matcher: &xdsmatcher.Matcher_MatcherList_Predicate_SinglePredicate_CustomMatch{
									CustomMatch: &xdscore.TypedExtensionConfig{
										Name: "envoy.matching.matchers.consistent_hashing",
										TypedConfig: toAny(&hashing.ConsistentHashing{
											Threshold: uint32(middle), Modulo: uint32(n),
										}),
									},
								},
							},
						},
					},
					OnMatch: between(middle, high),
				}},
			}},
			OnNoMatch: between(low, middle),
		})
	}
	return between(0, n)
}

// withMatcher is a composite filter that runs what the matcher finds, and nothing where it finds nothing.
func withMatcher(m *xdsmatcher.Matcher) proto.Message {
	return &matching.ExtensionWithMatcher{
		ExtensionConfig: &core.TypedExtensionConfig{
			Name:        "envoy.filters.http.composite",
			TypedConfig: toAny(&composite.Composite{}),
		},
		XdsMatcher: m,
	}
}

// inline runs a filter that is written where it is used.
func inline(name string, m proto.Message) *xdsmatcher.Matcher_OnMatch {
	return act(&composite.ExecuteFilterAction{TypedConfig: &core.TypedExtensionConfig{Name: name, TypedConfig: toAny(m)}})
}

// fetched runs a filter that comes by ECDS under a name, and is one of these types.
func fetched(name string, types ...proto.Message) *xdsmatcher.Matcher_OnMatch {
	urls := make([]string, len(types))
	for i, t := range types {
		urls[i] = typeURL(t)
	}
	return act(&composite.ExecuteFilterAction{DynamicConfig: &composite.DynamicConfig{
		Name: name,
		ConfigDiscovery: &core.ExtensionConfigSource{
			ConfigSource: &core.ConfigSource{
				ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}},
				ResourceApiVersion:    core.ApiVersion_V3,
				InitialFetchTimeout:   durationpb.New(fetchTimeout),
			},
			TypeUrls: urls,
		},
	}})
}

// nothing runs no filter at all.
func nothing() *xdsmatcher.Matcher_OnMatch { return act(&skip.SkipFilter{}) }

// deny answers 503 without a VM of its own, for what cannot happen unless a table is missing or late. The runtime keys
// are set because the default ones would let anybody who sets them switch it off for the whole gateway.
func deny() *xdsmatcher.Matcher_OnMatch {
	return inline("envoy.filters.http.fault", &fault.HTTPFault{
		Abort: &fault.FaultAbort{
			ErrorType:  &fault.FaultAbort_HttpStatus{HttpStatus: 503},
			Percentage: &envoytype.FractionalPercent{Numerator: 100},
		},
		AbortPercentRuntime:           "istio-plugins.deny.percent",
		AbortHttpStatusRuntime:        "istio-plugins.deny.status",
		MaxActiveFaultsRuntime:        "istio-plugins.deny.active",
		DisableDownstreamClusterStats: true,
	})
}

// state is one filter state to set, and its value as a format string.
type state struct {
	key, format string
	// omitEmpty leaves the state unset where the value is empty.
	omitEmpty bool
}

func setState(states []state) *setfilterstate.Config {
	c := &setfilterstate.Config{}
	for _, s := range states {
		c.OnRequestHeaders = append(c.OnRequestHeaders, &setstate.FilterStateValue{
			Key:        &setstate.FilterStateValue_ObjectKey{ObjectKey: s.key},
			FactoryKey: "envoy.string",
			Value: &setstate.FilterStateValue_FormatString{FormatString: &core.SubstitutionFormatString{
				OmitEmptyValues: s.omitEmpty,
				Format: &core.SubstitutionFormatString_TextFormatSource{TextFormatSource: &core.DataSource{
					Specifier: &core.DataSource_InlineString{InlineString: s.format},
				}},
			}},
			SkipIfEmpty: s.omitEmpty,
		})
	}
	return c
}

// literal writes text so that a format string yields it unchanged.
func literal(text string) string { return strings.ReplaceAll(text, "%", "%%") }

// luaFilter never clears the route: the plugins of the first route would go on, those of the new one would not start.
func luaFilter(source string) *filterlua.Lua {
	return &filterlua.Lua{
		ClearRouteCache:   wrapperspb.Bool(false),
		DefaultSourceCode: &core.DataSource{Specifier: &core.DataSource_InlineString{InlineString: source}},
	}
}
