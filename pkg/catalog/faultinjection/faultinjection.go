// Package faultinjection is the built-in fault-injection: it delays, aborts or slows down a share of requests.
// schema.yaml documents it.
//
// Envoy's fault filter does it all but the words of an abort: its answer is a fixed text, and Lua around it makes it JSON.
package faultinjection

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	faultcommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/jsonreply"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

//go:embed schema.yaml
var schema []byte

// Builtin is the plugin.
var Builtin = &builtin.Builtin{
	Name:   "fault-injection",
	Schema: builtin.MustSchema(schema),
	Build:  build,
}

// Envoy counts a delay in whole milliseconds and takes less than one for none. The upper limit is ours: nobody waits
// longer, and a typing error should not look like a hanging gateway.
const (
	shortestDelay = time.Millisecond
	longestDelay  = 24 * time.Hour
)

type settings struct {
	Delay *struct {
		FixedDelay string      `json:"fixed_delay"`
		Percentage json.Number `json:"percentage"`
	} `json:"delay"`
	Abort *struct {
		HTTPStatus *uint32     `json:"http_status"`
		GRPCStatus *uint32     `json:"grpc_status"`
		Percentage json.Number `json:"percentage"`
	} `json:"abort"`
	Headers               []match `json:"headers"`
	MaxActiveFaults       *uint32 `json:"max_active_faults"`
	ResponseRateLimitKbps *uint64 `json:"response_rate_limit_kbps"`
}

// match is a condition on one header.
type match struct {
	Name    string  `json:"name"`
	Exact   *string `json:"exact"`
	Prefix  *string `json:"prefix"`
	Present *bool   `json:"present"`
}

func build(use builtin.Use, v config.Value) ([]part.Part, []builtin.Problem) {
	var s settings
	builtin.DecodeInto(v, &s)
	delay, problems := check(s)
	if slices.ContainsFunc(problems, func(p builtin.Problem) bool { return !p.Warning }) {
		return nil, problems
	}
	filter := part.Native{Config: fault(s, delay, use.Key())}
	if s.Abort == nil {
		return []part.Part{filter}, problems
	}
	status := http.StatusOK // of an abort by a gRPC status
	if s.Abort.HTTPStatus != nil {
		status = int(*s.Abort.HTTPStatus)
	}
	return jsonreply.Around(use, filter, status, "fault filter abort"), problems
}

// check holds the rules that go beyond the schema, and reads the delay.
func check(s settings) (delay time.Duration, problems []builtin.Problem) {
	refuse := func(path, format string, args ...any) {
		problems = append(problems, builtin.Problem{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	if s.Delay == nil && s.Abort == nil {
		refuse("", "needs delay or abort")
	}
	if s.Delay != nil {
		d, err := time.ParseDuration(s.Delay.FixedDelay)
		switch delay = d; {
		case err != nil:
			refuse("delay.fixed_delay", "%q is no duration such as 250ms or 1.5s", s.Delay.FixedDelay)
		case d < shortestDelay || d > longestDelay:
			refuse("delay.fixed_delay", "%s is not between %s and %s", s.Delay.FixedDelay, shortestDelay, "24h")
		case d%time.Millisecond != 0:
			refuse("delay.fixed_delay", "%s has a fraction of a millisecond", s.Delay.FixedDelay)
		}
	}
	if s.Abort != nil {
		byHTTP, byGRPC := s.Abort.HTTPStatus != nil, s.Abort.GRPCStatus != nil
		switch {
		case byHTTP && byGRPC:
			refuse("abort", "has http_status and grpc_status, one of them is needed")
		case !byHTTP && !byGRPC:
			refuse("abort", "needs http_status or grpc_status")
		case byGRPC:
			problems = append(problems, builtin.Problem{Path: "abort.grpc_status", Warning: true,
				Message: "a request that is not gRPC is answered 200, use http_status for those"})
		}
	}
	for i, h := range s.Headers {
		kinds := 0
		for _, set := range []bool{h.Exact != nil, h.Prefix != nil, h.Present != nil} {
			if set {
				kinds++
			}
		}
		if kinds != 1 {
			refuse(fmt.Sprintf("headers[%d]", i), "needs one of exact, prefix, present, and has %d", kinds)
		}
	}
	return delay, problems
}

// fault is the filter. Its runtime keys are the instance's own: who sets the default ones for another filter must not
// change this one. Downstream cluster stats would let a client's header make metrics.
func fault(s settings, delay time.Duration, id string) *faultv3.HTTPFault {
	key := func(name string) string { return "istio-plugins.fault." + id + "." + name }
	f := &faultv3.HTTPFault{
		DelayPercentRuntime:             key("delay_percent"),
		DelayDurationRuntime:            key("delay_duration"),
		AbortPercentRuntime:             key("abort_percent"),
		AbortHttpStatusRuntime:          key("abort_http_status"),
		AbortGrpcStatusRuntime:          key("abort_grpc_status"),
		MaxActiveFaultsRuntime:          key("max_active_faults"),
		ResponseRateLimitPercentRuntime: key("response_rate_limit_percent"),
		DisableDownstreamClusterStats:   true,
	}
	if s.Delay != nil {
		f.Delay = &faultcommonv3.FaultDelay{
			FaultDelaySecifier: &faultcommonv3.FaultDelay_FixedDelay{FixedDelay: durationpb.New(delay)},
			Percentage:         percentage(s.Delay.Percentage),
		}
	}
	if s.Abort != nil {
		f.Abort = &faultv3.FaultAbort{Percentage: percentage(s.Abort.Percentage)}
		if s.Abort.HTTPStatus != nil {
			f.Abort.ErrorType = &faultv3.FaultAbort_HttpStatus{HttpStatus: *s.Abort.HTTPStatus}
		} else {
			f.Abort.ErrorType = &faultv3.FaultAbort_GrpcStatus{GrpcStatus: *s.Abort.GRPCStatus}
		}
	}
	for _, h := range s.Headers {
		f.Headers = append(f.Headers, headerMatcher(h))
	}
	if s.MaxActiveFaults != nil {
		f.MaxActiveFaults = wrapperspb.UInt32(*s.MaxActiveFaults)
	}
	if s.ResponseRateLimitKbps != nil {
		f.ResponseRateLimit = &faultcommonv3.FaultRateLimit{
			LimitType: &faultcommonv3.FaultRateLimit_FixedLimit_{FixedLimit: &faultcommonv3.FaultRateLimit_FixedLimit{
				LimitKbps: *s.ResponseRateLimitKbps,
			}},
			Percentage: percentage("100"),
		}
	}
	return f
}

func headerMatcher(h match) *routev3.HeaderMatcher {
	m := &routev3.HeaderMatcher{Name: h.Name}
	text := func(pattern *matcherv3.StringMatcher) {
		m.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: pattern}
	}
	switch {
	case h.Exact != nil:
		text(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: *h.Exact}})
	case h.Prefix != nil:
		text(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: *h.Prefix}})
	default:
		m.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: *h.Present}
	}
	return m
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
