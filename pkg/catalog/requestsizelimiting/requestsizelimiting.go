// Package requestsizelimiting is the built-in request-size-limiting: it refuses requests with too large a body.
// schema.yaml documents it.
//
// A length that the request tells is compared in Lua, and nothing is held. For one that it does not tell there are three
// parts:
//
//	Lua     notes that the body is held, and words the answer if it becomes too much for the next part
//	buffer  holds the body, only of such requests; it ends those that it cannot hold
//	Lua     compares the length, and notes that the body is complete
//
// buffer alone would not do: it does not count what arrives last, and a limit below Envoy's own would hold for the
// response, too.
package requestsizelimiting

import (
	_ "embed"

	xdscore "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcher "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	matchingv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/matching/v3"
	bufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	compositev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/composite/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

//go:embed schema.yaml
var schema []byte

//go:embed handler.lua
var handler string

//go:embed arrived.lua
var arrived string

// Builtin is the plugin.
var Builtin = &builtin.Builtin{
	Name:   "request-size-limiting",
	Schema: builtin.MustSchema(schema),
	Build:  build,
}

// units are bytes, as Kong counts them: its megabytes are 1024 kilobytes.
var units = map[string]int64{"bytes": 1, "kilobytes": 1 << 10, "megabytes": 1 << 20}

// leastHeld is Envoy's own limit for what it buffers. A lower one would be set for other plugins of the chain and for the
// response, too.
const leastHeld = 1 << 20

type settings struct {
	Size                 int64  `json:"allowed_payload_size"`
	Unit                 string `json:"size_unit"`
	RequireContentLength bool   `json:"require_content_length"`
	UnknownLength        string `json:"unknown_length"`
	UnknownLengthMax     int64  `json:"unknown_length_max"`
}

func build(use builtin.Use, v config.Value) ([]part.Part, []builtin.Problem) {
	var s settings
	builtin.DecodeInto(v, &s)
	limit := s.Size * units[s.Unit]
	front := config.Value{"limit": limit, "require_content_length": s.RequireContentLength}
	if s.RequireContentLength || s.UnknownLength == "allow" {
		return []part.Part{use.Lua(handler, front)}, nil
	}
	id := use.Key()
	front["held"] = id
	held := min(limit, s.UnknownLengthMax)
	return []part.Part{
		use.Lua(handler, front),
		part.Native{Config: hold(uint32(max(held, leastHeld)))},
		use.Lua(arrived, config.Value{"limit": held, "held": id}),
	}, nil
}

// hold holds the body of a request without Content-Length until it is complete. An upgrade has no body, and its stream
// does not end before the upstream has answered. Envoy takes `upgrade` away from requests that are none.
func hold(most uint32) *matchingv3.ExtensionWithMatcher {
	return &matchingv3.ExtensionWithMatcher{
		ExtensionConfig: &corev3.TypedExtensionConfig{Name: "envoy.filters.http.composite", TypedConfig: packed(&compositev3.Composite{})},
		XdsMatcher: &xdsmatcher.Matcher{MatcherType: &xdsmatcher.Matcher_MatcherList_{MatcherList: &xdsmatcher.Matcher_MatcherList{
			Matchers: []*xdsmatcher.Matcher_MatcherList_FieldMatcher{{
				Predicate: not(either(header("content-length", "[0-9]+"), header("upgrade", ".+"))),
				OnMatch:   run("envoy.filters.http.buffer", &bufferv3.Buffer{MaxRequestBytes: wrapperspb.UInt32(most)}),
			}},
		}}},
	}
}

type predicate = xdsmatcher.Matcher_MatcherList_Predicate

// header is true where a header has a value that matches as a whole.
func header(name, regex string) *predicate {
	return &predicate{MatchType: &xdsmatcher.Matcher_MatcherList_Predicate_SinglePredicate_{
		SinglePredicate: &xdsmatcher.Matcher_MatcherList_Predicate_SinglePredicate{
			Input: &xdscore.TypedExtensionConfig{
				Name: "envoy.matching.inputs.request_headers", TypedConfig: packed(&matcherv3.HttpRequestHeaderMatchInput{HeaderName: name}),
			},
			Matcher: &xdsmatcher.Matcher_MatcherList_Predicate_SinglePredicate_ValueMatch{ValueMatch: &xdsmatcher.StringMatcher{
				MatchPattern: &xdsmatcher.StringMatcher_SafeRegex{SafeRegex: &xdsmatcher.RegexMatcher{
					EngineType: &xdsmatcher.RegexMatcher_GoogleRe2{GoogleRe2: &xdsmatcher.RegexMatcher_GoogleRE2{}}, Regex: regex,
				}},
			}},
		},
	}}
}

func either(these ...*predicate) *predicate {
	return &predicate{MatchType: &xdsmatcher.Matcher_MatcherList_Predicate_OrMatcher{
		OrMatcher: &xdsmatcher.Matcher_MatcherList_Predicate_PredicateList{Predicate: these},
	}}
}

func not(this *predicate) *predicate {
	return &predicate{MatchType: &xdsmatcher.Matcher_MatcherList_Predicate_NotMatcher{NotMatcher: this}}
}

func run(name string, filter proto.Message) *xdsmatcher.Matcher_OnMatch {
	return &xdsmatcher.Matcher_OnMatch{OnMatch: &xdsmatcher.Matcher_OnMatch_Action{Action: &xdscore.TypedExtensionConfig{
		Name: "hold",
		TypedConfig: packed(&compositev3.ExecuteFilterAction{
			TypedConfig: &corev3.TypedExtensionConfig{Name: name, TypedConfig: packed(filter)},
		}),
	}}}
}

func packed(m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	if err != nil {
		panic(err) // a message that was built can be encoded
	}
	return a
}
