// Package envoy knows what the Envoy of Istio's gateways has and accepts: its HTTP filters, their types and their
// rules. It decodes and checks configurations; it never makes any.
package envoy

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	adaptiveconcurrency "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/adaptive_concurrency/v3"
	admissioncontrol "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/admission_control/v3"
	alternateprotocols "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/alternate_protocols_cache/v3"
	awslambda "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/aws_lambda/v3"
	awssigning "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/aws_request_signing/v3"
	bandwidthlimit "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/bandwidth_limit/v3"
	basicauth "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/basic_auth/v3"
	buffer "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	cache "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cache/v3"
	cdnloop "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cdn_loop/v3"
	compressor "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/compressor/v3"
	connectgrpc "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/connect_grpc_bridge/v3"
	credentialinjector "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/credential_injector/v3"
	csrf "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/csrf/v3"
	decompressor "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/decompressor/v3"
	extauthz "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	extproc "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	fault "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	gcpauthn "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/gcp_authn/v3"
	grpcfields "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_field_extraction/v3"
	grpchttp1 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_http1_bridge/v3"
	grpcreverse "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_http1_reverse_bridge/v3"
	grpctranscoder "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_json_transcoder/v3"
	grpcstats "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	grpcweb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	headermutation "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	headertometadata "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_to_metadata/v3"
	healthcheck "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	iptagging "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ip_tagging/v3"
	jsontometadata "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/json_to_metadata/v3"
	jwtauthn "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	localratelimit "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	oauth2 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/oauth2/v3"
	ratelimitquota "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rate_limit_quota/v3"
	ratelimit "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	rbac "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	setfilterstate "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	setmetadata "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_metadata/v3"
	statefulsession "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	tap "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/tap/v3"

	// Types that may stand inside the filters' configurations.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/brotli/compressor/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/brotli/decompressor/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/gzip/compressor/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/gzip/decompressor/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/zstd/compressor/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/zstd/decompressor/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/http/cache/simple_http_cache/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/http/injected_credentials/generic/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/http/injected_credentials/oauth2/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/cookie/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/header/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/input_matchers/ip/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// filter is what is known of one HTTP filter of Istio's proxy.
type filter struct {
	config proto.Message
	// stateful filters remember something between requests, such as a token bucket.
	stateful bool
}

// filters are the HTTP filters that a plugin may be: those which istio/proxy compiles in
// (bazel/extension_config/extensions_build_config.bzl of 2026-08, the same list for releases 1.29 to 1.31), less
// those in refused.
var filters = index([]filter{
	{config: &adaptiveconcurrency.AdaptiveConcurrency{}, stateful: true},
	{config: &admissioncontrol.AdmissionControl{}, stateful: true},
	{config: &alternateprotocols.FilterConfig{}},
	{config: &awslambda.Config{}},
	{config: &awssigning.AwsRequestSigning{}},
	{config: &bandwidthlimit.BandwidthLimit{}, stateful: true},
	{config: &basicauth.BasicAuth{}},
	{config: &buffer.Buffer{}},
	{config: &cache.CacheConfig{}, stateful: true},
	{config: &cdnloop.CdnLoopConfig{}},
	{config: &compressor.Compressor{}},
	{config: &connectgrpc.FilterConfig{}},
	{config: &credentialinjector.CredentialInjector{}},
	{config: &csrf.CsrfPolicy{}},
	{config: &decompressor.Decompressor{}},
	{config: &extauthz.ExtAuthz{}},
	{config: &extproc.ExternalProcessor{}},
	{config: &fault.HTTPFault{}, stateful: true},
	{config: &gcpauthn.GcpAuthnFilterConfig{}},
	{config: &grpcfields.GrpcFieldExtractionConfig{}},
	{config: &grpchttp1.Config{}},
	{config: &grpcreverse.FilterConfig{}},
	{config: &grpctranscoder.GrpcJsonTranscoder{}},
	{config: &grpcstats.FilterConfig{}},
	{config: &grpcweb.GrpcWeb{}},
	{config: &headermutation.HeaderMutation{}},
	{config: &headertometadata.Config{}},
	{config: &healthcheck.HealthCheck{}},
	{config: &iptagging.IPTagging{}},
	{config: &jsontometadata.JsonToMetadata{}},
	{config: &jwtauthn.JwtAuthentication{}},
	{config: &localratelimit.LocalRateLimit{}, stateful: true},
	{config: &oauth2.OAuth2{}},
	{config: &ratelimitquota.RateLimitQuotaFilterConfig{}, stateful: true},
	{config: &ratelimit.RateLimit{}},
	{config: &rbac.RBAC{}},
	{config: &setfilterstate.Config{}},
	{config: &setmetadata.Config{}},
	{config: &statefulsession.StatefulSession{}},
	{config: &tap.Tap{}},
})

// refused are filters that Istio's proxy has and that a plugin must not be, with the reason.
var refused = map[protoreflect.FullName]string{
	"envoy.extensions.filters.http.router.v3.Router":                       "it ends the chain; the gateway has its own",
	"envoy.extensions.filters.http.lua.v3.Lua":                             "Lua that does not compile would stop every gateway's updates; use spec.lua",
	"envoy.extensions.filters.http.wasm.v3.Wasm":                           "the gateway's agent does not see it here; use spec.wasm",
	"envoy.extensions.filters.http.cors.v3.Cors":                           "it takes its policy from routes only and has no effect here; use spec.builtin: cors",
	"envoy.extensions.filters.http.composite.v3.Composite":                 "filters inside it would escape all checks; attach them as plugins of their own",
	"envoy.extensions.common.matching.v3.ExtensionWithMatcher":             "filters inside it would escape all checks; attach them as plugins of their own",
	"envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig":  "it needs a cluster of its own, which istiod does not make",
	"envoy.extensions.filters.http.on_demand.v3.OnDemand":                  "it works before the route is known",
	"envoy.extensions.filters.http.original_src.v3.OriginalSrc":            "it needs privileges that a gateway does not have",
	"envoy.extensions.filters.http.kill_request.v3.KillRequest":            "it ends the gateway's process",
	"envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter": "it runs native code of the gateway's file system",
}

func index(list []filter) map[protoreflect.FullName]filter {
	out := make(map[protoreflect.FullName]filter, len(list))
	for _, f := range list {
		out[f.config.ProtoReflect().Descriptor().FullName()] = f
	}
	return out
}

// Stateful says whether a filter remembers something between requests.
func Stateful(m proto.Message) bool {
	return filters[m.ProtoReflect().Descriptor().FullName()].stateful
}

// FilterName is Envoy's well-known name of the filter with this configuration, for example envoy.filters.http.rbac.
func FilterName(m proto.Message) string {
	// envoy.extensions.filters.http.rbac.v3.RBAC
	parts := strings.Split(string(m.ProtoReflect().Descriptor().FullName()), ".")
	if i := slices.Index(parts, "http"); i >= 0 && i+1 < len(parts) {
		return "envoy.filters.http." + parts[i+1]
	}
	return string(m.ProtoReflect().Descriptor().Name())
}
