// Package extauth is the built-in ext-auth: a service says whether a request may pass. schema.yaml documents it. A Plugin
// with extAuth is the same, with the service fixed.
package extauth

import (
	_ "embed"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/callout"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

//go:embed schema.yaml
var schema []byte

// Builtin is the plugin.
var Builtin = &builtin.Builtin{
	Name:    "ext-auth",
	Schema:  builtin.MustSchema(schema),
	Build:   build,
	Guards:  true,
	Failing: callout.Failing,
}

type settings struct {
	Service              callout.Service `json:"service"`
	Protocol             string          `json:"protocol"`
	PathPrefix           string          `json:"path_prefix"`
	Timeout              string          `json:"timeout"`
	AllowedHeaders       []string        `json:"allowed_headers"`
	DisallowedHeaders    []string        `json:"disallowed_headers"`
	HeadersToRemove      []string        `json:"headers_to_remove"`
	UpstreamHeaders      []string        `json:"upstream_headers"`
	ClientHeaders        []string        `json:"client_headers"`
	ClientHeadersOnAllow []string        `json:"client_headers_on_success"`
	WithRequestBody      *body           `json:"with_request_body"`
	FailureModeAllow     *bool           `json:"failure_mode_allow"`
	StatusOnError        int32           `json:"status_on_error"`
	MetadataNamespaces   []string        `json:"metadata_namespaces"`
}

type body struct {
	MaxRequestBytes     uint32 `json:"max_request_bytes"`
	AllowPartialMessage bool   `json:"allow_partial_message"`
}

func (s settings) grpc() bool { return s.Protocol == "grpc" }

func build(use builtin.Use, v config.Value) ([]part.Part, []builtin.Problem) {
	var s settings
	builtin.DecodeInto(v, &s)
	cluster, problems := callout.Cluster(use, s.Service, s.grpc())
	timeout, wrong := callout.Timeout("timeout", s.Timeout)
	problems = slices.Concat(problems, wrong, check(s))
	if slices.ContainsFunc(problems, func(p builtin.Problem) bool { return !p.Warning }) {
		return nil, problems
	}
	filter := part.Native{Config: authz(use, s, cluster, timeout)}
	failure := callout.Failure{
		Details: []string{"ext_authz_error", "ext_authz_invalid"}, Status: s.StatusOnError, Message: "Authorization service unavailable",
	}
	return callout.Parts(use, filter, failure, s.HeadersToRemove), problems
}

// transport are headers that would break a message if they came from a service's answer.
var transport = []string{"content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"}

// check holds the rules that go beyond the schema.
func check(s settings) []builtin.Problem {
	var problems []builtin.Problem
	for _, list := range []struct {
		field   string
		names   []string
		unsafe  []string
		message string
	}{
		{
			"upstream_headers", s.UpstreamHeaders, slices.Concat(transport, []string{"host"}),
			"would overwrite the header %s, which says how a request is sent",
		},
		{"client_headers_on_success", s.ClientHeadersOnAllow, transport, "would add to the header %s, which says how a response is sent"},
	} {
		for i, name := range list.names {
			bad := slices.IndexFunc(list.unsafe, func(header string) bool { return callout.Matches([]string{name}, header) })
			if bad >= 0 {
				problems = append(problems, builtin.Problem{
					Path: builtin.Path(list.field, strconv.Itoa(i)), Message: fmt.Sprintf(list.message, list.unsafe[bad]),
				})
			}
		}
	}
	for i, name := range s.HeadersToRemove {
		if callout.Matches([]string{name}, "host") {
			problems = append(problems, builtin.Problem{
				Path: builtin.Path("headers_to_remove", strconv.Itoa(i)), Message: fmt.Sprintf("%q has host, which cannot be removed", name),
			})
		}
	}
	if !s.grpc() {
		return problems
	}
	for _, field := range []struct {
		name string
		set  bool
	}{
		{"path_prefix", s.PathPrefix != ""},
		{"upstream_headers", len(s.UpstreamHeaders) > 0},
		{"client_headers", len(s.ClientHeaders) > 0},
		{"client_headers_on_success", len(s.ClientHeadersOnAllow) > 0},
	} {
		if field.set {
			problems = append(problems, builtin.Problem{Path: field.name, Warning: true, Message: "has no meaning with gRPC, where the service's answer says it"})
		}
	}
	return problems
}

// authz is the filter. A gRPC service gets headers in the field that all of them read, where repeated ones are joined; an
// HTTP service gets them as they came.
func authz(use builtin.Use, s settings, cluster string, timeout time.Duration) *extauthzv3.ExtAuthz {
	f := &extauthzv3.ExtAuthz{
		TransportApiVersion: corev3.ApiVersion_V3,
		FailureModeAllow:    use.FailOpen,
		StatusOnError:       &typev3.HttpStatus{Code: typev3.StatusCode(s.StatusOnError)},
		ValidateMutations:   true,
		EncodeRawHeaders:    !s.grpc(),
		AllowedHeaders:      callout.Headers(s.AllowedHeaders),
		DisallowedHeaders:   callout.Headers(s.DisallowedHeaders),
	}
	if s.FailureModeAllow != nil {
		f.FailureModeAllow = *s.FailureModeAllow
	}
	if b := s.WithRequestBody; b != nil {
		f.WithRequestBody = &extauthzv3.BufferSettings{
			MaxRequestBytes: b.MaxRequestBytes, AllowPartialMessage: b.AllowPartialMessage,
			PackAsBytes: s.grpc(), // a body that is no UTF-8 is no protobuf string
		}
	}
	if s.grpc() {
		f.Services = &extauthzv3.ExtAuthz_GrpcService{GrpcService: callout.GRPC(cluster, timeout)}
		f.MetadataContextNamespaces = s.MetadataNamespaces
		f.DecoderHeaderMutationRules = &mutationv3.HeaderMutationRules{
			AllowAllRouting: wrapperspb.Bool(true), AllowEnvoy: wrapperspb.Bool(true), DisallowExpression: callout.Untouched(transport...),
		}
		return f
	}
	f.Services = &extauthzv3.ExtAuthz_HttpService{HttpService: &extauthzv3.HttpService{
		ServerUri: &corev3.HttpUri{
			Uri:              "http://" + net.JoinHostPort(s.Service.Host, fmt.Sprint(s.Service.Port)),
			HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: cluster},
			Timeout:          durationpb.New(timeout),
		},
		PathPrefix: s.PathPrefix,
		AuthorizationResponse: &extauthzv3.AuthorizationResponse{
			AllowedUpstreamHeaders:        callout.Headers(s.UpstreamHeaders),
			AllowedClientHeaders:          callout.Headers(s.ClientHeaders),
			AllowedClientHeadersOnSuccess: callout.Headers(s.ClientHeadersOnAllow),
		},
	}}
	return f
}
