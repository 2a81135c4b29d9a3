// Package ratelimiting is the built-in rate-limiting: a limit of requests per identity and window of time, counted
// inside one gateway process.
//
// Envoy's local_ratelimit counts, Lua says who is counted and words the answer. There is one local_ratelimit per
// window, shortest first, and not one for all: a single filter charges the slowest bucket first, so requests that the
// minute refuses would still eat the budget of the hour. With a filter each, a refusal ends the request before the
// longer windows are asked.
package ratelimiting

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	localratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

//go:embed schema.yaml
var schema []byte

//go:embed limits.lua
var common string

//go:embed handler.lua
var handler string

// Builtin is rate-limiting.
var Builtin = &builtin.Builtin{
	Name:    "rate-limiting",
	Schema:  builtin.MustSchema(schema),
	Answers: true,
	Build:   build,
}

const (
	// namespace of the dynamic metadata in which the identity is handed from Lua to the counting filters.
	namespace = "istio-plugins.rate-limiting"
	// marker is the response header by which a counting filter tells Lua that it refused. Lua removes it.
	marker = "x-istio-plugins-rate-limited"
	// nobody is counted where the identity is missing, which only a failure of the Lua part can cause: it is then
	// one identity for all, not a way around the limit.
	nobody = "none"
)

// Settings are the config of a rate limiter, wherever it counts.
type Settings struct {
	Second        json.Number `json:"second"`
	Minute        json.Number `json:"minute"`
	Hour          json.Number `json:"hour"`
	Day           json.Number `json:"day"`
	Month         json.Number `json:"month"`
	Year          json.Number `json:"year"`
	LimitBy       string      `json:"limit_by"`
	HeaderName    string      `json:"header_name"`
	Path          string      `json:"path"`
	Policy        string      `json:"policy"`
	Hide          bool        `json:"hide_client_headers"`
	ErrorCode     json.Number `json:"error_code"`
	ErrorMessage  string      `json:"error_message"`
	Scope         string      `json:"scope"`
	MaxIdentities json.Number `json:"max_identities"`
}

// Window is a limit that is set.
type Window struct {
	Name   string
	Length time.Duration
	Limit  uint32
}

// Windows that are set, shortest first. A month is 30 days and a year 365, as in Kong.
func (s Settings) Windows() []Window {
	const day = 24 * time.Hour
	var set []Window
	for _, w := range []struct {
		name   string
		length time.Duration
		limit  json.Number
	}{
		{"second", time.Second, s.Second},
		{"minute", time.Minute, s.Minute},
		{"hour", time.Hour, s.Hour},
		{"day", day, s.Day},
		{"month", 30 * day, s.Month},
		{"year", 365 * day, s.Year},
	} {
		if w.limit != "" {
			set = append(set, Window{w.name, w.length, whole(w.limit)})
		}
	}
	return set
}

// whole reads a number that the schema has found to be a whole one; it may be written as 5, 5.0 or 5e0.
func whole(n json.Number) uint32 {
	f, err := n.Float64()
	if err != nil {
		panic(fmt.Sprintf("schema and Go type disagree: %v", err))
	}
	return uint32(f)
}

func build(use builtin.Use, v config.Value) ([]part.Part, []builtin.Problem) {
	var s Settings
	builtin.DecodeInto(v, &s)
	windows := s.Windows()
	problems := slices.Concat(Check(s, windows), checkLocal(s, windows))
	for _, p := range problems {
		if !p.Warning {
			return nil, problems
		}
	}
	id := use.Key()
	parts := []part.Part{use.Lua(Source(handler), LuaConfig(s, windows, id))}
	for _, w := range windows {
		parts = append(parts, part.Native{Config: counter(w, id, whole(s.MaxIdentities), use.FailOpen), State: StateOf(s.Scope)})
	}
	return parts, problems
}

// Source is a handler with limits.lua in front.
func Source(handler string) string {
	return "local limits = (function(...)\n" + common + "end)(...)\n" + handler
}

// Check holds the rules across fields, most of them Kong's.
func Check(s Settings, windows []Window) []builtin.Problem {
	var problems []builtin.Problem
	refuse := func(path, format string, args ...any) {
		problems = append(problems, builtin.Problem{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	if len(windows) == 0 {
		refuse("", "needs at least one of second, minute, hour, day, month, year")
	}
	for i := 1; i < len(windows); i++ {
		if shorter, w := windows[i-1], windows[i]; w.Limit < shorter.Limit {
			refuse(w.Name, "%d is less than the %d of %s, so the limit per %s could never be reached", w.Limit, shorter.Limit, shorter.Name, shorter.Name)
		}
	}
	if s.LimitBy == "header" && s.HeaderName == "" {
		refuse("header_name", "is required where limit_by is header")
	}
	if s.LimitBy == "path" && s.Path == "" {
		refuse("path", "is required where limit_by is path")
	}
	return problems
}

// checkLocal holds those of counting in one process.
func checkLocal(s Settings, windows []Window) []builtin.Problem {
	var problems []builtin.Problem
	if s.Policy != "local" {
		problems = append(problems, builtin.Problem{Path: "policy",
			Message: fmt.Sprintf("%q is not possible: this plugin counts inside one gateway process; a counter that all gateways share is rate-limiting-global", s.Policy)})
	}
	for _, w := range windows {
		if w.Name == "month" || w.Name == "year" {
			problems = append(problems, builtin.Problem{Path: w.Name, Warning: true,
				Message: "a restart of the gateway or a change of this config starts the " + w.Name + " anew"})
		}
	}
	return problems
}

// LuaConfig is what limits.lua and a handler get.
func LuaConfig(s Settings, windows []Window, id string) config.Value {
	list := make([]any, len(windows))
	for i, w := range windows {
		list[i] = map[string]any{"name": w.Name, "seconds": int64(w.Length / time.Second)}
	}
	return config.Value{
		"namespace":           namespace,
		"id":                  id,
		"marker":              marker,
		"windows":             list,
		"limit_by":            s.LimitBy,
		"header_name":         s.HeaderName,
		"path":                s.Path,
		"per_route":           s.Scope == "route",
		"hide_client_headers": s.Hide,
		"error_code":          int64(whole(s.ErrorCode)),
		"error_message":       s.ErrorMessage,
	}
}

// StateOf says who shares the buckets. Scope route is a part of the identity, not of the filter.
func StateOf(scope string) part.State {
	if scope == "plugin" {
		return part.PerPlugin
	}
	return part.PerAttachment
}

// counter is the filter that counts one window. Its own status and body never reach a client: Lua writes the answer.
func counter(w Window, id string, identities uint32, failOpen bool) *localratelimitv3.LocalRateLimit {
	const entry = "identity"
	absent := nobody
	if failOpen {
		absent = "" // then Envoy makes no descriptor and does not count
	}
	return &localratelimitv3.LocalRateLimit{
		StatPrefix:     "istio_plugins",
		FilterEnabled:  always(),
		FilterEnforced: always(),
		RateLimits: []*routev3.RateLimit{{
			Actions: []*routev3.RateLimit_Action{{
				ActionSpecifier: &routev3.RateLimit_Action_Metadata{Metadata: &routev3.RateLimit_Action_MetaData{
					DescriptorKey: entry,
					DefaultValue:  absent,
					MetadataKey: &metadatav3.MetadataKey{
						Key: namespace,
						Path: []*metadatav3.MetadataKey_PathSegment{{
							Segment: &metadatav3.MetadataKey_PathSegment_Key{Key: id},
						}},
					},
				}},
			}},
		}},
		Descriptors: []*commonv3.LocalRateLimitDescriptor{{
			// An entry without a value stands for any: each identity has a bucket of its own.
			Entries: []*commonv3.RateLimitDescriptor_Entry{{Key: entry}},
			TokenBucket: &typev3.TokenBucket{
				MaxTokens:     w.Limit,
				TokensPerFill: wrapperspb.UInt32(w.Limit),
				FillInterval:  durationpb.New(w.Length),
			},
		}},
		MaxDynamicDescriptors:           wrapperspb.UInt32(identities),
		AlwaysConsumeDefaultTokenBucket: wrapperspb.Bool(false),
		EnableXRatelimitHeaders:         commonv3.XRateLimitHeadersRFCVersion_DRAFT_VERSION_03,
		RateLimitedAsResourceExhausted:  true,
		ResponseHeadersToAdd: []*corev3.HeaderValueOption{{
			Header: &corev3.HeaderValue{Key: marker, Value: id + "." + w.Name},
		}},
	}
}

// always is 100 %; both switches of the filter default to 0.
func always() *corev3.RuntimeFractionalPercent {
	return &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{Numerator: 100}}
}
