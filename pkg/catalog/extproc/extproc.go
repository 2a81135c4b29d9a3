// Package extproc is the built-in ext-proc: a service sees and changes requests and responses. schema.yaml documents it. A
// Plugin with extProc is the same, with the service fixed.
package extproc

import (
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/callout"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

//go:embed schema.yaml
var schema []byte

// Builtin is the plugin.
var Builtin = &builtin.Builtin{
	Name:    "ext-proc",
	Schema:  builtin.MustSchema(schema),
	Answers: true,
	Build:   build,
	Failing: callout.Failing,
}

type settings struct {
	Service            callout.Service `json:"service"`
	MessageTimeout     string          `json:"message_timeout"`
	FailureModeAllow   *bool           `json:"failure_mode_allow"`
	StatusOnError      int32           `json:"status_on_error"`
	ProcessingMode     mode            `json:"processing_mode"`
	AllowModeOverride  bool            `json:"allow_mode_override"`
	ObservabilityMode  bool            `json:"observability_mode"`
	AllowedHeaders     []string        `json:"allowed_headers"`
	DisallowedHeaders  []string        `json:"disallowed_headers"`
	RequestAttributes  []string        `json:"request_attributes"`
	ResponseAttributes []string        `json:"response_attributes"`
	MetadataNamespaces []string        `json:"metadata_namespaces"`
}

// mode says what the service sees, in Envoy's words.
type mode struct {
	RequestHeaders   string `json:"request_header_mode"`
	RequestBody      string `json:"request_body_mode"`
	RequestTrailers  string `json:"request_trailer_mode"`
	ResponseHeaders  string `json:"response_header_mode"`
	ResponseBody     string `json:"response_body_mode"`
	ResponseTrailers string `json:"response_trailer_mode"`
}

const duplex = "FULL_DUPLEX_STREAMED"

func build(use builtin.Use, v config.Value) ([]part.Part, []builtin.Problem) {
	var s settings
	builtin.DecodeInto(v, &s)
	open := use.FailOpen
	if s.FailureModeAllow != nil {
		open = *s.FailureModeAllow
	}
	cluster, problems := callout.Cluster(use, s.Service, true)
	timeout, wrong := callout.Timeout("message_timeout", s.MessageTimeout)
	problems = slices.Concat(problems, wrong, check(s, open))
	if slices.ContainsFunc(problems, func(p builtin.Problem) bool { return !p.Warning }) {
		return nil, problems
	}
	filter := part.Native{Config: processor(s, open, cluster, timeout)}
	failure := callout.Failure{Details: failures, Status: s.StatusOnError, Message: "External processing failed"}
	return callout.Parts(use, filter, failure, nil), problems
}

// failures are Envoy's words for a service that cannot be asked, and for one whose answer makes no sense.
var failures = []string{"ext_proc_error", "spurious_message", "unhandled_message", "header_mutation_", "mismatch_between_content_length"}

// check holds the rules that go beyond the schema: what Envoy would refuse, or what does not do what it says.
func check(s settings, open bool) []builtin.Problem {
	var problems []builtin.Problem
	refuse := func(path, message string) {
		problems = append(problems, builtin.Problem{Path: path, Message: message})
	}
	warn := func(path, message string) {
		problems = append(problems, builtin.Problem{Path: path, Message: message, Warning: true})
	}
	m := s.ProcessingMode
	for _, direction := range []struct{ name, body, trailers string }{
		{"request", m.RequestBody, m.RequestTrailers}, {"response", m.ResponseBody, m.ResponseTrailers},
	} {
		path := "processing_mode." + direction.name + "_body_mode"
		if direction.body == duplex {
			if direction.trailers != "SEND" {
				refuse(path, duplex+" needs "+direction.name+"_trailer_mode SEND")
			}
			if open {
				refuse(path, duplex+" cannot be let pass on failure: set failure_mode_allow to false")
			}
			if s.AllowModeOverride {
				refuse(path, duplex+" and allow_mode_override exclude each other")
			}
		}
		if s.ObservabilityMode && direction.body != "NONE" && direction.body != "STREAMED" {
			refuse(path, "observability_mode needs NONE or STREAMED, not "+direction.body)
		}
	}
	for _, list := range []struct {
		field string
		names []string
	}{{"request_attributes", s.RequestAttributes}, {"response_attributes", s.ResponseAttributes}} {
		for i, name := range list.names {
			// Envoy reads them as expressions, in which these are no names.
			if words := strings.Split(name, "."); slices.ContainsFunc(words, func(w string) bool { return slices.Contains([]string{"in", "true", "false", "null"}, w) }) {
				refuse(builtin.Path(list.field, strconv.Itoa(i)), fmt.Sprintf("%q is no attribute of Envoy", name))
			}
		}
	}
	if s.ObservabilityMode && !open {
		warn("observability_mode",
			"requests may still be refused where the service cannot be asked: set failure_mode_allow to true if they should not be")
	}
	if m == (mode{"SKIP", "NONE", "SKIP", "SKIP", "NONE", "SKIP"}) {
		warn("processing_mode", "sends nothing to the service")
	}
	return problems
}

// mutations are what the service may change: by Envoy's own rules all but host, method and scheme. A length is its own to
// write only where it may replace a buffered body, and has to.
func mutations(s settings) *mutationv3.HeaderMutationRules {
	kept := []string{"transfer-encoding", "connection", "upgrade"}
	const buffered = "BUFFERED"
	if s.ProcessingMode.RequestBody != buffered && s.ProcessingMode.ResponseBody != buffered && !s.AllowModeOverride {
		kept = append(kept, "content-length")
	}
	return &mutationv3.HeaderMutationRules{DisallowExpression: callout.Untouched(kept...)}
}

// processor is the filter. The route is the one that the plugins were chosen by, so that the service cannot change it.
func processor(s settings, open bool, cluster string, timeout time.Duration) *extprocv3.ExternalProcessor {
	m := s.ProcessingMode
	headers := func(mode string) extprocv3.ProcessingMode_HeaderSendMode {
		return extprocv3.ProcessingMode_HeaderSendMode(extprocv3.ProcessingMode_HeaderSendMode_value[mode])
	}
	bodies := func(mode string) extprocv3.ProcessingMode_BodySendMode {
		return extprocv3.ProcessingMode_BodySendMode(extprocv3.ProcessingMode_BodySendMode_value[mode])
	}
	f := &extprocv3.ExternalProcessor{
		GrpcService:       callout.GRPC(cluster, 0),
		FailureModeAllow:  open,
		StatusOnError:     &typev3.HttpStatus{Code: typev3.StatusCode(s.StatusOnError)},
		MessageTimeout:    durationpb.New(timeout),
		RouteCacheAction:  extprocv3.ExternalProcessor_RETAIN,
		MutationRules:     mutations(s),
		AllowModeOverride: s.AllowModeOverride,
		ObservabilityMode: s.ObservabilityMode,
		ProcessingMode: &extprocv3.ProcessingMode{
			RequestHeaderMode: headers(m.RequestHeaders), RequestBodyMode: bodies(m.RequestBody), RequestTrailerMode: headers(m.RequestTrailers),
			ResponseHeaderMode: headers(m.ResponseHeaders), ResponseBodyMode: bodies(m.ResponseBody), ResponseTrailerMode: headers(m.ResponseTrailers),
		},
		RequestAttributes:  s.RequestAttributes,
		ResponseAttributes: s.ResponseAttributes,
	}
	if len(s.AllowedHeaders) > 0 {
		s.AllowedHeaders = append(slices.Clone(s.AllowedHeaders), ":*") // method, path and the like tell what it is about
	}
	if allowed, disallowed := callout.Headers(s.AllowedHeaders), callout.Headers(s.DisallowedHeaders); allowed != nil || disallowed != nil {
		f.ForwardRules = &extprocv3.HeaderForwardingRules{AllowedHeaders: allowed, DisallowedHeaders: disallowed}
	}
	if len(s.MetadataNamespaces) > 0 {
		f.MetadataOptions = &extprocv3.MetadataOptions{
			ForwardingNamespaces: &extprocv3.MetadataOptions_MetadataNamespaces{Untyped: s.MetadataNamespaces},
		}
	}
	return f
}
