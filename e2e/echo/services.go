package echo

import (
	"bytes"
	"context"
	"math"
	"strings"
	"sync"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	extproc "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	ratelimit "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	envoytype "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
)

// authorizer refuses paths that contain `refuse`, and tells the upstream that it has seen the others.
type authorizer struct {
	auth.UnimplementedAuthorizationServer
}

// Check implements the service that plugins with extAuth ask.
func (authorizer) Check(_ context.Context, r *auth.CheckRequest) (*auth.CheckResponse, error) {
	if strings.Contains(r.GetAttributes().GetRequest().GetHttp().GetPath(), "refuse") {
		return &auth.CheckResponse{
			Status: &rpcstatus.Status{Code: int32(codes.PermissionDenied)},
			HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: &auth.DeniedHttpResponse{
				Status: &envoytype.HttpStatus{Code: envoytype.StatusCode_PaymentRequired}, Body: "refused", Headers: seen(&core.HeaderValue{Value: "yes"}),
			}},
		}, nil
	}
	return &auth.CheckResponse{
		Status:       &rpcstatus.Status{},
		HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: &auth.OkHttpResponse{Headers: seen(&core.HeaderValue{Value: "yes"})}},
	}, nil
}

// processor marks requests and responses, and takes secrets out of bodies.
type processor struct {
	extproc.UnimplementedExternalProcessorServer
}

// Process implements the service that plugins with extProc ask.
func (processor) Process(stream extproc.ExternalProcessor_ProcessServer) error {
	for {
		r, err := stream.Recv()
		if err != nil {
			return nil // the request is over
		}
		headers := &extproc.HeadersResponse{Response: &extproc.CommonResponse{HeaderMutation: &extproc.HeaderMutation{SetHeaders: seen(&core.HeaderValue{RawValue: []byte("yes")})}}}
		out := &extproc.ProcessingResponse{Response: &extproc.ProcessingResponse_RequestHeaders{RequestHeaders: headers}}
		switch message := r.GetRequest().(type) {
		case *extproc.ProcessingRequest_ResponseHeaders:
			out.Response = &extproc.ProcessingResponse_ResponseHeaders{ResponseHeaders: headers}
		case *extproc.ProcessingRequest_ResponseBody:
			body := bytes.ReplaceAll(message.ResponseBody.GetBody(), []byte("secret"), []byte("******"))
			out.Response = &extproc.ProcessingResponse_ResponseBody{ResponseBody: &extproc.BodyResponse{Response: &extproc.CommonResponse{
				BodyMutation: &extproc.BodyMutation{Mutation: &extproc.BodyMutation_Body{Body: body}},
			}}}
		}
		if err := stream.Send(out); err != nil {
			return nil
		}
	}
}

// seen is a header that says so. ext_authz reads the text, ext_proc the bytes.
func seen(h *core.HeaderValue) []*core.HeaderValueOption {
	h.Key = "x-seen"
	return []*core.HeaderValueOption{{Header: h, AppendAction: core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD}}
}

// counter counts by descriptor, for good.
type counter struct {
	ratelimit.UnimplementedRateLimitServiceServer
	mu     sync.Mutex
	counts map[string]uint32
}

// ShouldRateLimit implements the service that plugins with rate-limiting-global ask.
func (c *counter) ShouldRateLimit(_ context.Context, r *ratelimit.RateLimitRequest) (*ratelimit.RateLimitResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := &ratelimit.RateLimitResponse{OverallCode: ratelimit.RateLimitResponse_OK}
	for _, d := range r.GetDescriptors() {
		key := r.GetDomain()
		for _, e := range d.GetEntries() {
			key += "\x00" + e.GetKey() + "\x00" + e.GetValue()
		}
		c.counts[key]++
		out.Statuses = append(out.Statuses, &ratelimit.RateLimitResponse_DescriptorStatus{
			Code:           ratelimit.RateLimitResponse_OK,
			CurrentLimit:   &ratelimit.RateLimitResponse_RateLimit{RequestsPerUnit: math.MaxUint32},
			LimitRemaining: math.MaxUint32 - c.counts[key],
		})
	}
	return out, nil
}
