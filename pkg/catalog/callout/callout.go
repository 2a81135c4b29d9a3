// Package callout is what built-ins share that make Envoy ask a service: the service's cluster, timeouts, lists of headers,
// and the answer where the service could not be asked.
package callout

import (
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	mutationfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

//go:embed answer.lua
var answer string

// Service is a service as users name it.
type Service struct {
	Host string `json:"host"`
	Port uint32 `json:"port"`
}

// Cluster is istiod's cluster for a service.
func Cluster(use builtin.Use, s Service, grpc bool) (string, []builtin.Problem) {
	found, problems := Find(use, s, grpc)
	return found.Cluster(), problems
}

// Find finds a service. What a gateway may not know of it is a warning: it is refused there.
func Find(use builtin.Use, s Service, grpc bool) (part.Service, []builtin.Problem) {
	found := use.Services.Find(use.Home, s.Host, s.Port)
	if found.Missing != "" {
		return part.Service{}, []builtin.Problem{{Path: "service", Message: found.Missing, Missing: true}}
	}
	var problems []builtin.Problem
	if grpc && !found.HTTP2 {
		problems = append(problems, builtin.Problem{Path: "service.port", Warning: true,
			Message: fmt.Sprintf("port %d of %s is not declared to be gRPC, and gateways speak HTTP/1.1 to it: give the port appProtocol grpc, or a name such as grpc-check", s.Port, found.Host)})
	}
	if found.ExportedTo != "" {
		problems = append(problems, builtin.Problem{Path: "service.host", Warning: true,
			Message: fmt.Sprintf("%s is exported to these namespaces only: %s; gateways elsewhere cannot ask it", found.Host, found.ExportedTo)})
	}
	return part.Service{Host: found.Host, Port: s.Port}, problems
}

// URI returns a URL as Envoy sends it, and the service that it names.
func URI(text string) (string, Service, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return "", Service{}, errors.New("is no URL such as https://login.example.com/keys")
	}
	if u.User != nil {
		return "", Service{}, errors.New("has a username, which would not be sent")
	}
	port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return "", Service{}, fmt.Errorf("has the port %s, which is not between 1 and 65535", port)
	}
	return u.Scheme + "://" + u.Host + u.RequestURI(), Service{Host: u.Hostname(), Port: uint32(number)}, nil
}

// GRPC is the service of a cluster.
func GRPC(cluster string, timeout time.Duration) *corev3.GrpcService {
	s := &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
		EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: cluster},
	}}
	if timeout > 0 {
		s.Timeout = durationpb.New(timeout)
	}
	return s
}

// Failing is builtin.Builtin.Failing of what asks its service by a filter of Envoy.
const Failing = "what failure_mode_allow and status_on_error say if its service fails"

// Timeout reads how long a service may take. A client waits as long, and a typing error should not look like a hanging
// gateway.
func Timeout(path, text string) (time.Duration, []builtin.Problem) {
	return Duration(path, text, "1ms", "5m")
}

// Duration reads a duration between two others.
func Duration(path, text, least, most string) (time.Duration, []builtin.Problem) {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, []builtin.Problem{{Path: path, Message: fmt.Sprintf("%q is no duration such as 250ms or 1.5s", text)}}
	case d < limit(least) || d > limit(most):
		return 0, []builtin.Problem{{Path: path, Message: fmt.Sprintf("%s is not between %s and %s", text, least, most)}}
	}
	return d, nil
}

func limit(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		panic(err)
	}
	return d
}

// Headers matches names, of which one that ends with `*` stands for all that begin so; nil for none.
func Headers(names []string) *matcherv3.ListStringMatcher {
	if len(names) == 0 {
		return nil
	}
	list := &matcherv3.ListStringMatcher{}
	for _, name := range names {
		name = strings.ToLower(name)
		m := &matcherv3.StringMatcher{}
		switch prefix, wild := strings.CutSuffix(name, "*"); {
		case !wild:
			m.MatchPattern = &matcherv3.StringMatcher_Exact{Exact: name}
		case prefix == "":
			m.MatchPattern = &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: ".*"}}
		default:
			m.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: prefix}
		}
		list.Patterns = append(list.Patterns, m)
	}
	return list
}

// Matches says whether a list of Headers has a name.
func Matches(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool {
		n = strings.ToLower(n)
		prefix, wild := strings.CutSuffix(n, "*")
		return n == name || wild && strings.HasPrefix(name, prefix)
	})
}

// Untouched matches headers that a service must not write: they say how a message is sent, and with a wrong one its rest is
// read as somebody else's next message.
func Untouched(names ...string) *matcherv3.RegexMatcher {
	return &matcherv3.RegexMatcher{
		EngineType: &matcherv3.RegexMatcher_GoogleRe2{GoogleRe2: &matcherv3.RegexMatcher_GoogleRE2{}},
		Regex:      strings.Join(names, "|"),
	}
}

// removal takes out a header, or all that begin as a name that ends with `*`.
func removal(name string) *mutationv3.HeaderMutation {
	prefix, wild := strings.CutSuffix(name, "*")
	if !wild {
		return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Remove{Remove: name}}
	}
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_RemoveOnMatch_{RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{
		KeyMatcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix}},
	}}}
}

// detailsHeader tells the Lua part in front who answered. What comes from an upstream is overwritten.
const detailsHeader = "x-istio-plugins-details"

// Failure is the answer where a service could not be asked.
type Failure struct {
	// Details of Envoy, by how they begin, that tell this answer from others.
	Details []string
	Status  int32
	Message string
}

// Parts puts around a filter what makes its answer to a failure JSON: the filter's own is empty. The request headers in
// remove do not reach the filter.
func Parts(use builtin.Use, filter part.Native, f Failure, remove []string) []part.Part {
	mutations := &mutationfilterv3.Mutations{ResponseMutations: []*mutationv3.HeaderMutation{{
		Action: &mutationv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: detailsHeader, Value: "%RESPONSE_CODE_DETAILS%"},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}},
	}}}
	for _, name := range remove {
		mutations.RequestMutations = append(mutations.RequestMutations, removal(strings.ToLower(name)))
	}
	details := make([]any, len(f.Details))
	for i, d := range f.Details {
		details[i] = d
	}
	return []part.Part{
		use.Lua(answer, config.Value{
			"id": use.Key(), "header": detailsHeader, "failures": details, "status": strconv.Itoa(int(f.Status)), "message": f.Message,
		}),
		part.Native{Config: &mutationfilterv3.HeaderMutation{Mutations: mutations}},
		filter,
	}
}
