package extproc

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	procv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// hosts are those of the tests' services: one that answers, one where nobody listens, one without a cluster.
var hosts = []string{"proc.test", "down.test", "unknown.test"}

func use(failOpen bool) builtin.Use {
	return builtin.Use{Plugin: "proc", Instance: "i", FailOpen: failOpen, Services: catalogtest.Services(hosts...)}
}

const service = `service: {host: proc.test, port: 81}`

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		config   string
		failOpen bool
		want     []string
	}{
		{config: `{` + service + `}`},
		{config: `{` + service + `, processing_mode: {request_body_mode: BUFFERED}, request_attributes: [source.address, request.path]}`},
		{config: `{` + service + `, processing_mode: {request_body_mode: FULL_DUPLEX_STREAMED, request_trailer_mode: SEND}}`},
		{config: `{}`, want: []string{"service: is required"}},
		{config: `{service: {host: gone.test, port: 81}}`, want: []string{`service: there is no Service test/gone, nor a ServiceEntry with the host "gone.test"`}},
		{config: `{service: {host: proc.test, port: 80}}`, want: []string{"warning service.port: port 80 of proc.test is not declared to be gRPC, and gateways speak HTTP/1.1 to it: give the port appProtocol grpc, or a name such as grpc-check"}},
		{config: `{` + service + `, message_timeout: soon}`, want: []string{`message_timeout: "soon" is no duration such as 250ms or 1.5s`}},
		{config: `{` + service + `, processing_mode: {request_body_mode: ALL}}`, want: []string{`processing_mode.request_body_mode: "ALL" is not allowed, allowed are "NONE", "STREAMED", "BUFFERED", "BUFFERED_PARTIAL", "FULL_DUPLEX_STREAMED"`}},
		{config: `{` + service + `, processing_mode: {response_body_mode: FULL_DUPLEX_STREAMED}}`, want: []string{"processing_mode.response_body_mode: FULL_DUPLEX_STREAMED needs response_trailer_mode SEND"}},
		{config: `{` + service + `, processing_mode: {request_body_mode: FULL_DUPLEX_STREAMED, request_trailer_mode: SEND}}`, failOpen: true,
			want: []string{"processing_mode.request_body_mode: FULL_DUPLEX_STREAMED cannot be let pass on failure: set failure_mode_allow to false"}},
		{config: `{` + service + `, failure_mode_allow: false, processing_mode: {request_body_mode: FULL_DUPLEX_STREAMED, request_trailer_mode: SEND}}`, failOpen: true},
		{config: `{` + service + `, allow_mode_override: true, processing_mode: {request_body_mode: FULL_DUPLEX_STREAMED, request_trailer_mode: SEND}}`,
			want: []string{"processing_mode.request_body_mode: FULL_DUPLEX_STREAMED and allow_mode_override exclude each other"}},
		{config: `{` + service + `, observability_mode: true, failure_mode_allow: true, processing_mode: {request_body_mode: BUFFERED}}`, want: []string{"processing_mode.request_body_mode: observability_mode needs NONE or STREAMED, not BUFFERED"}},
		{config: `{` + service + `, processing_mode: {request_header_mode: SKIP, response_header_mode: SKIP}}`, want: []string{"warning processing_mode: sends nothing to the service"}},
		{config: `{` + service + `, allowed_headers: ['*', 'x-*'], disallowed_headers: ['x-*-y', '']}`, want: []string{
			`disallowed_headers[0]: "x-*-y" does not match ^[^*]*\*?$`, `disallowed_headers[1]: "" is no valid http header name`}},
		{config: `{` + service + `, observability_mode: true, processing_mode: {response_body_mode: FULL_DUPLEX_STREAMED, response_trailer_mode: SEND}}`, want: []string{
			"processing_mode.response_body_mode: observability_mode needs NONE or STREAMED, not FULL_DUPLEX_STREAMED",
			"warning observability_mode: requests may still be refused where the service cannot be asked: set failure_mode_allow to true if they should not be"}},
		{config: `{` + service + `, status_on_error: 200}`, want: []string{"status_on_error: 200 is not allowed, allowed are 400, 401, 403, 404, 429, 500, 502, 503, 504"}},
		{config: `{` + service + `, processing_mode: {trailers: SEND}}`, want: []string{
			"processing_mode.trailers: unknown field, known ones are request_body_mode, request_header_mode, request_trailer_mode, response_body_mode, response_header_mode, response_trailer_mode"}},
		{config: `{` + service + `, request_attributes: [source.in]}`, want: []string{`request_attributes[0]: "source.in" is no attribute of Envoy`}},
		{config: `{` + service + `, response_attributes: [user.name]}`, want: []string{`response_attributes[0]: "user.name" does not match ^(request|response|connection|upstream|source|destination|metadata|filter_state|xds)(\.[a-z_][a-z0-9_]*)*$`}},
	} {
		_, got := catalogtest.Build(t, Builtin, use(c.failOpen), c.config)
		if diff := gocmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.config, diff)
		}
	}
}

// server changes what it sees, or fails, as the request's path says.
type server struct {
	procv3.UnimplementedExternalProcessorServer
	address string
	mu      sync.Mutex
	seen    map[string][]string // what of a request arrived, by path
}

func serve(t testing.TB) *server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &server{address: listener.Addr().String(), seen: map[string][]string{}}
	rpc := grpc.NewServer()
	procv3.RegisterExternalProcessorServer(rpc, p)
	go func() { _ = rpc.Serve(listener) }() // until Stop
	t.Cleanup(rpc.Stop)
	return p
}

func set(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header: &corev3.HeaderValue{Key: name, RawValue: []byte(value)}, AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// streamed is a piece of a body that is exchanged in both directions at once, in the place of another.
func streamed(text string, of *procv3.HttpBody) *procv3.BodyMutation {
	return &procv3.BodyMutation{Mutation: &procv3.BodyMutation_StreamedResponse{
		StreamedResponse: &procv3.StreamedBodyResponse{Body: []byte(text), EndOfStream: of.GetEndOfStream()},
	}}
}

func header(h *corev3.HeaderMap, name string) string {
	for _, v := range h.GetHeaders() {
		if v.GetKey() == name {
			return cmp.Or(v.GetValue(), string(v.GetRawValue()))
		}
	}
	return ""
}

// Process implements the service.
func (p *server) Process(stream procv3.ExternalProcessor_ProcessServer) error {
	path := ""
	note := func(what string) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.seen[path] = append(p.seen[path], what)
	}
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) || err != nil {
			return nil
		}
		out := &procv3.ProcessingResponse{}
		switch m := r.Request.(type) {
		case *procv3.ProcessingRequest_RequestHeaders:
			h := m.RequestHeaders.GetHeaders()
			path = header(h, ":path")
			note("request headers x-a=" + header(h, "x-a") + " x-b=" + header(h, "x-b"))
			for _, attributes := range r.GetAttributes() {
				note("path attribute " + attributes.GetFields()["request.path"].GetStringValue())
			}
			if other := header(h, "other"); other != "" {
				note("other=" + other)
			}
			for _, metadata := range r.GetMetadataContext().GetFilterMetadata() {
				note("metadata " + metadata.GetFields()["color"].GetStringValue())
			}
			switch path {
			case "/override":
				out.ModeOverride = &extprocv3.ProcessingMode{ResponseHeaderMode: extprocv3.ProcessingMode_SKIP}
			case "/slow": // longer than Envoy waits unless it is told to
				select {
				case <-time.After(300 * time.Millisecond):
				case <-stream.Context().Done():
				}
			}
			switch path {
			case "/answer":
				out.Response = &procv3.ProcessingResponse_ImmediateResponse{ImmediateResponse: &procv3.ImmediateResponse{
					Status: &typev3.HttpStatus{Code: typev3.StatusCode_PaymentRequired}, Body: []byte("pay"),
					Headers: &procv3.HeaderMutation{SetHeaders: []*corev3.HeaderValueOption{set("x-why", "because")}},
				}}
			case "/hang":
				<-stream.Context().Done()
				return nil
			case "/close":
				return nil
			case "/nothing": // is no answer
			case "/spurious":
				out.Response = &procv3.ProcessingResponse_ResponseHeaders{ResponseHeaders: &procv3.HeadersResponse{}}
			case "/newline", "/length", "/chunked", "/elsewhere":
				mutation := &procv3.HeaderMutation{SetHeaders: []*corev3.HeaderValueOption{map[string]*corev3.HeaderValueOption{
					"/newline": set("x-new", "a\nb"), "/length": set("content-length", "2"), "/chunked": set("transfer-encoding", "chunked"),
					"/elsewhere": set(":path", envoytest.OtherRoute),
				}[path]}}
				out.Response = &procv3.ProcessingResponse_RequestHeaders{RequestHeaders: &procv3.HeadersResponse{
					Response: &procv3.CommonResponse{HeaderMutation: mutation},
				}}
			case "/break":
				return errors.New("broken")
			default:
				out.Response = &procv3.ProcessingResponse_RequestHeaders{RequestHeaders: &procv3.HeadersResponse{Response: &procv3.CommonResponse{
					HeaderMutation: &procv3.HeaderMutation{
						SetHeaders: []*corev3.HeaderValueOption{set("x-new", "1"), set("host", "evil.test"), set(":method", "DELETE")}, RemoveHeaders: []string{"x-a"},
					},
				}}}
			}
		case *procv3.ProcessingRequest_RequestBody:
			if len(m.RequestBody.GetBody()) < 100 {
				note("request body " + string(m.RequestBody.GetBody()))
			}
			if path == "/hang-request" {
				<-stream.Context().Done()
				return nil
			}
			if strings.HasPrefix(path, "/duplex") {
				out.Response = &procv3.ProcessingResponse_RequestBody{RequestBody: &procv3.BodyResponse{Response: &procv3.CommonResponse{
					BodyMutation: streamed(strings.ToUpper(string(m.RequestBody.GetBody())), m.RequestBody),
				}}}
				break
			}
			out.Response = &procv3.ProcessingResponse_RequestBody{RequestBody: &procv3.BodyResponse{Response: &procv3.CommonResponse{
				BodyMutation: &procv3.BodyMutation{Mutation: &procv3.BodyMutation_Body{Body: []byte(strings.ToUpper(string(m.RequestBody.GetBody())))}},
			}}}
		case *procv3.ProcessingRequest_ResponseHeaders:
			note("response headers")
			for _, attributes := range r.GetAttributes() {
				note(fmt.Sprint("response attribute ", attributes.GetFields()["response.code"].GetNumberValue()))
			}
			if path == "/late" {
				return errors.New("broken")
			}
			out.Response = &procv3.ProcessingResponse_ResponseHeaders{ResponseHeaders: &procv3.HeadersResponse{Response: &procv3.CommonResponse{
				HeaderMutation: &procv3.HeaderMutation{SetHeaders: []*corev3.HeaderValueOption{set("x-done", "1")}},
			}}}
		case *procv3.ProcessingRequest_ResponseBody:
			note("response body")
			switch path {
			case "/hang-response":
				<-stream.Context().Done()
				return nil
			case "/duplex":
				out.Response = &procv3.ProcessingResponse_ResponseBody{ResponseBody: &procv3.BodyResponse{Response: &procv3.CommonResponse{
					BodyMutation: streamed(strings.ToLower(string(m.ResponseBody.GetBody())), m.ResponseBody),
				}}}
			case "/same":
				out.Response = &procv3.ProcessingResponse_ResponseBody{ResponseBody: &procv3.BodyResponse{}}
			}
			if out.Response != nil {
				break
			}
			out.Response = &procv3.ProcessingResponse_ResponseBody{ResponseBody: &procv3.BodyResponse{Response: &procv3.CommonResponse{
				HeaderMutation: &procv3.HeaderMutation{SetHeaders: []*corev3.HeaderValueOption{set("content-length", "8")}},
				BodyMutation:   &procv3.BodyMutation{Mutation: &procv3.BodyMutation_Body{Body: []byte("replaced")}},
			}}}
		case *procv3.ProcessingRequest_RequestTrailers:
			note("request trailers t=" + header(m.RequestTrailers.GetTrailers(), "t"))
			out.Response = &procv3.ProcessingResponse_RequestTrailers{RequestTrailers: &procv3.TrailersResponse{}}
		case *procv3.ProcessingRequest_ResponseTrailers:
			note("response trailers t=" + header(m.ResponseTrailers.GetTrailers(), "t"))
			out.Response = &procv3.ProcessingResponse_ResponseTrailers{ResponseTrailers: &procv3.TrailersResponse{}}
		}
		if err := stream.Send(out); err != nil {
			return nil
		}
	}
}

func onEach(t *testing.T, texts map[string]string, test func(*testing.T, *envoytest.Envoy, *server)) {
	chains := map[string][]part.Part{}
	for name, text := range texts {
		chains[name] = catalogtest.Parts(t, Builtin, use(false), text)
	}
	onEachChain(t, chains, test)
}

func onEachChain(t *testing.T, chains map[string][]part.Part, test func(*testing.T, *envoytest.Envoy, *server)) {
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			p := serve(t)
			test(t, envoytest.Start(t, version, envoytest.Config{
				Chains:        chains,
				HTTP2Clusters: map[string]string{"outbound|81||proc.test": p.address, "outbound|81||down.test": envoytest.Nobody},
			}), p)
		})
	}
}

func TestProcesses(t *testing.T) {
	onEach(t, map[string]string{
		"plain":  `{` + service + `, message_timeout: 5s, request_attributes: [request.path]}`,
		"lists":  `{` + service + `, message_timeout: 5s, allowed_headers: ['x-*'], disallowed_headers: [x-b]}`,
		"bodies": `{` + service + `, message_timeout: 5s, processing_mode: {request_body_mode: BUFFERED, response_body_mode: BUFFERED}}`,
		"skips":  `{` + service + `, message_timeout: 5s, processing_mode: {request_header_mode: SKIP}}`,
	}, func(t *testing.T, envoy *envoytest.Envoy, p *server) {
		got := envoy.Gateway("plain").Do(t, envoytest.Request{Path: "/plain", Host: "shop.test", Header: []string{"x-a: 1"}})
		if got.Status != 200 || got.Header.Get("x-done") != "1" || got.Header.Get("x-istio-plugins-details") != "" {
			t.Fatalf("%d %v", got.Status, got.Header)
		}
		if up := got.Upstream; up.Value("x-new") != "1" || up.Value("x-a") != "" || up.Host != "shop.test" || up.Method != http.MethodGet {
			t.Errorf("the upstream got %v", up)
		}
		if got := envoy.Gateway("plain").Get(t, "/answer"); got.Status != 402 || got.Body != "pay" || got.Header.Get("x-why") != "because" || got.Upstream != nil {
			t.Errorf("the service's own answer: %d %q %v", got.Status, got.Body, got.Header)
		}
		envoy.Gateway("lists").Get(t, "/lists", "x-a: 1", "x-b: 2")
		got = envoy.Gateway("bodies").Do(t, envoytest.Request{Method: "POST", Path: "/bodies", Body: "text"})
		if got.Status != 200 || got.Upstream.Body != "TEXT" || got.Body != "replaced" {
			t.Errorf("bodies: %d %q, upstream %q", got.Status, got.Body, got.Upstream.Body)
		}
		// The upstream announces its answer by a 103, which is none.
		got = envoy.Gateway("bodies").Get(t, "/early", envoytest.EchoStatus+": 103", envoytest.EchoHeader+": link: </a>")
		if got.Status != 200 || got.Body != "replaced" || got.Header.Get("x-done") != "1" {
			t.Errorf("an early hint: %d %q %v", got.Status, got.Body, got.Header)
		}
		if got := envoy.Gateway("bodies").Do(t, envoytest.Request{Method: "HEAD", Path: "/head"}); got.Status != 200 || got.Body != "" {
			t.Errorf("HEAD: %d %q", got.Status, got.Body)
		}
		if got := envoy.Gateway("skips").Get(t, "/skips", "x-a: 1"); got.Upstream.Value("x-a") != "1" || got.Header.Get("x-done") != "1" {
			t.Errorf("skipped: %d %v", got.Status, got.Header)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		for path, want := range map[string][]string{
			"/plain":  {"request headers x-a=1 x-b=", "path attribute /plain", "response headers"},
			"/lists":  {"request headers x-a=1 x-b=", "response headers"},
			"/bodies": {"request headers x-a= x-b=", "request body text", "response headers", "response body"},
			"/early":  {"request headers x-a= x-b=", "response headers", "response body"},
		} {
			if diff := gocmp.Diff(want, p.seen[path]); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
		}
	})
}

// What the service is told, and when it is asked, is what the config says.
func TestAsks(t *testing.T) {
	painted := part.Lua{Plugin: "paint", Source: `return {request = function(handle)
		handle:streamInfo():dynamicMetadata():set("paint", "color", "red")
	end}`}
	chains := map[string][]part.Part{}
	for name, text := range map[string]string{
		"allowed":  `{` + service + `, message_timeout: 5s, allowed_headers: [x-a]}`,
		"metadata": `{` + service + `, message_timeout: 5s, metadata_namespaces: [paint]}`,
		"trailers": `{` + service + `, message_timeout: 5s, processing_mode: {request_trailer_mode: SEND, response_trailer_mode: SEND}}`,
		"requests": `{` + service + `, message_timeout: 5s, processing_mode: {response_header_mode: SKIP}}`,
		"override": `{` + service + `, message_timeout: 5s, allow_mode_override: true}`,
		"codes":    `{` + service + `, message_timeout: 5s, response_attributes: [response.code]}`,
		"patient":  `{` + service + `, message_timeout: 5s}`,
	} {
		chains[name] = append([]part.Part{painted}, catalogtest.Parts(t, Builtin, use(false), text)...)
	}
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			p := serve(t)
			envoy := envoytest.Start(t, version, envoytest.Config{Chains: chains, HTTP2Clusters: map[string]string{"outbound|81||proc.test": p.address}})
			for _, c := range []struct {
				chain, path string
				want        []string
			}{
				{"allowed", "/allowed", []string{"request headers x-a=1 x-b=", "response headers"}},
				{"metadata", "/metadata", []string{"request headers x-a=1 x-b=", "other=2", "metadata red", "response headers"}},
				{"trailers", "/trailers", []string{"request headers x-a=1 x-b=", "other=2", "request trailers t=3", "response headers", "response trailers t=4"}},
				{"requests", "/requests", []string{"request headers x-a=1 x-b=", "other=2"}},
				{"override", "/override", []string{"request headers x-a=1 x-b=", "other=2"}},
				{"patient", "/override", []string{"request headers x-a=1 x-b=", "other=2", "response headers"}},
				{"codes", "/codes", []string{"request headers x-a=1 x-b=", "other=2", "response headers", "response attribute 418"}},
				{"patient", "/slow", []string{"request headers x-a=1 x-b=", "other=2", "response headers"}},
			} {
				t.Run(c.chain+c.path, func(t *testing.T) {
					got := envoy.Gateway(c.chain).Do(t, envoytest.Request{
						Method: "POST", Path: c.path, Body: "text", Trailer: []string{"t: 3"},
						Header: []string{"x-a: 1", "other: 2", envoytest.EchoStatus + ": 418", envoytest.EchoTrailer + ": t: 4"},
					})
					if got.Status != 418 || got.Upstream == nil || got.Trailer.Get("t") != "4" {
						t.Errorf("%d %q, upstream %v", got.Status, got.Body, got.Upstream)
					}
					p.mu.Lock()
					defer p.mu.Unlock()
					seen := p.seen[c.path]
					delete(p.seen, c.path)
					if diff := gocmp.Diff(c.want, seen); diff != "" {
						t.Errorf("the service saw (-want +got):\n%s", diff)
					}
				})
			}
		})
	}
}

const failed = `{"message":"External processing failed"}`

// Whatever keeps the service from answering refuses the request, unless the plugin says otherwise.
func TestFailures(t *testing.T) {
	texts := map[string]string{}
	for _, host := range hosts {
		text := "{service: {host: " + host + ", port: 81}, message_timeout: 50ms"
		texts[host] = text + ", status_on_error: 502}"
		texts[host+" open"] = text + ", failure_mode_allow: true}"
	}
	texts["down.test observing, open"] = "{service: {host: down.test, port: 81}, observability_mode: true, failure_mode_allow: true}"
	texts["sure"] = "{" + service + ", message_timeout: 10s, status_on_error: 502}"
	texts["sure open"] = "{" + service + ", message_timeout: 10s, failure_mode_allow: true}"
	onEach(t, texts, func(t *testing.T, envoy *envoytest.Envoy, _ *server) {
		for name := range texts {
			paths := []string{"/"}
			switch {
			case strings.HasPrefix(name, "proc"):
				paths = []string{"/hang", "/break"}
			case strings.HasPrefix(name, "sure"):
				paths = []string{"/break"}
			}
			for _, path := range paths {
				got := envoy.Gateway(name).Get(t, path)
				if open := strings.HasSuffix(name, "open"); open && (got.Status != 200 || got.Upstream == nil) ||
					!open && (got.Status != 502 || got.Body != failed || got.Upstream != nil) {
					t.Errorf("%s %s: %d %q", name, path, got.Status, got.Body)
				}
			}
		}
		// What it says makes no sense. Envoy takes that for an answer where it cannot send it on.
		for path, open := range map[string]int{"/nothing": 200, "/spurious": 200, "/newline": 500} {
			if got := envoy.Gateway("sure").Get(t, path); got.Status != 502 || got.Body != failed || got.Upstream != nil {
				t.Errorf("%s: %d %q", path, got.Status, got.Body)
			}
			if got := envoy.Gateway("sure open").Get(t, path); got.Status != open || (got.Upstream != nil) != (open == 200) {
				t.Errorf("%s, open: %d %q", path, got.Status, got.Body)
			}
		}
		call := envoytest.Request{Method: "POST", Path: "/break", HTTP2: true, Header: []string{"content-type: application/grpc"}}
		if got := envoy.Gateway("sure").Do(t, call); got.Status != 200 || got.Header.Get("grpc-status") != "14" || got.Body != "" || got.Upstream != nil {
			t.Errorf("a gRPC call: %d %q %v", got.Status, got.Body, got.Header)
		}
		if got := envoy.Gateway("sure").Do(t, envoytest.Request{Method: "HEAD", Path: "/break"}); got.Status != 502 || got.Upstream != nil {
			t.Errorf("HEAD: %d %v", got.Status, got.Header)
		}
		// A service that ends its stream has no more to say about a request, and lets it pass.
		if got := envoy.Gateway("sure").Get(t, "/close"); got.Status != 200 {
			t.Errorf("a stream that ends: %d %q", got.Status, got.Body)
		}
		if got := envoy.Gateway("sure").Get(t, "/late"); got.Status != 502 || got.Body != "" {
			t.Errorf("a failure of the response: %d %q %v", got.Status, got.Body, got.Header)
		}
	})
}

// What Envoy itself does with the forms that are accepted: it must load them all.
func TestModesLoad(t *testing.T) {
	texts := map[string]string{}
	for _, body := range []string{"NONE", "STREAMED", "BUFFERED", "BUFFERED_PARTIAL", "FULL_DUPLEX_STREAMED"} {
		texts[body] = `{` + service + `, processing_mode: {request_body_mode: ` + body + `, response_body_mode: ` + body + `, request_trailer_mode: SEND, response_trailer_mode: SEND}}`
	}
	texts["nothing"] = `{` + service + `, observability_mode: true, processing_mode: {response_body_mode: STREAMED}}`
	texts["override"] = `{` + service + `, allow_mode_override: true, failure_mode_allow: true, request_attributes: [metadata, xds.route_name], response_attributes: [response.code]}`
	onEach(t, texts, func(t *testing.T, envoy *envoytest.Envoy, _ *server) {
		if got := envoy.Gateway("nothing").Get(t, "/observed"); got.Status != 200 || got.Upstream.Value("x-new") != "" {
			t.Errorf("observability_mode: %d %v", got.Status, got.Upstream)
		}
	})
}

// Each of several asks its own service, and what it says of a failure is its own.
func TestSeveral(t *testing.T) {
	chain := func(texts ...string) []part.Part {
		var parts []part.Part
		for i, text := range texts {
			u := use(false)
			u.Instance = fmt.Sprint(i)
			parts = append(parts, catalogtest.Parts(t, Builtin, u, text)...)
		}
		return parts
	}
	const (
		works = `{` + service + `, message_timeout: 5s, status_on_error: 500}`
		down  = `{service: {host: down.test, port: 81}, message_timeout: 5s, status_on_error: 502}`
		gone  = `{service: {host: down.test, port: 81}, message_timeout: 5s, status_on_error: 503}`
	)
	onEachChain(t, map[string][]part.Part{
		"works, down": chain(works, down), "down, works": chain(down, works), "works, works": chain(works, works),
		"down, gone": chain(down, strings.Replace(gone, "}", "}, processing_mode: {response_header_mode: SKIP}", 1)),
	}, func(t *testing.T, envoy *envoytest.Envoy, _ *server) {
		for chain, want := range map[string]int{"works, down": 502, "down, works": 502, "down, gone": 502, "works, works": 200} {
			if got := envoy.Gateway(chain).Get(t, "/"); got.Status != want || want != 200 && got.Body != failed {
				t.Errorf("%s: %d %q, want %d", chain, got.Status, got.Body, want)
			}
		}
		if got := envoy.Gateway("works, works").Get(t, "/break"); got.Status != 500 || got.Body != failed {
			t.Errorf("both: %d %q", got.Status, got.Body)
		}
		if got := envoy.Gateway("works, works").Get(t, "/answer"); got.Status != 402 || got.Body != "pay" || got.Header.Get("x-done") != "1" {
			t.Errorf("the first answers, and the second sees it: %d %q %v", got.Status, got.Body, got.Header)
		}
	})
}

// Responses pass all plugins, also the answer of one in front to a request that the service has not seen.
func TestAnswersOfOthers(t *testing.T) {
	refuse := part.Lua{Plugin: "refuse", Source: `return {request = function(handle) pdk.fail(handle, 401, "no") end}`}
	chains := map[string][]part.Part{}
	for name, text := range map[string]string{
		"seen":    `{` + service + `, message_timeout: 5s}`,
		"skipped": `{` + service + `, message_timeout: 5s, processing_mode: {response_header_mode: SKIP}}`,
		"down":    `{service: {host: down.test, port: 81}, message_timeout: 5s, status_on_error: 502}`,
		"open":    `{service: {host: down.test, port: 81}, message_timeout: 5s, failure_mode_allow: true}`,
	} {
		chains[name] = append([]part.Part{refuse}, catalogtest.Parts(t, Builtin, use(false), text)...)
	}
	onEachChain(t, chains, func(t *testing.T, envoy *envoytest.Envoy, p *server) {
		for chain, want := range map[string]int{"seen": 401, "skipped": 401, "down": 502, "open": 401} {
			got := envoy.Gateway(chain).Get(t, "/")
			if got.Status != want || want == 401 && got.Message() != "no" || (got.Header.Get("x-done") != "") != (chain == "seen") {
				t.Errorf("%s: %d %q %v", chain, got.Status, got.Body, got.Header)
			}
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if diff := gocmp.Diff(map[string][]string{"": {"response headers"}}, p.seen); diff != "" {
			t.Errorf("the service saw (-want +got):\n%s", diff)
		}
	})
}

// What a service says of the length of a body that it does not replace would make an upstream take the rest of it for
// another request; another path does not lead to another route.
func TestWhatServicesCannotChange(t *testing.T) {
	route := part.Lua{Plugin: "route", Source: `return {response = function(handle) pdk.set_header(handle, "x-route", pdk.route(handle)) end}`}
	chains := map[string][]part.Part{}
	for _, mode := range []string{"NONE", "STREAMED", "BUFFERED_PARTIAL"} {
		chains[mode] = append([]part.Part{route}, catalogtest.Parts(t, Builtin, use(false),
			`{`+service+`, message_timeout: 5s, processing_mode: {request_body_mode: `+mode+`}}`)...)
	}
	onEachChain(t, chains, func(t *testing.T, envoy *envoytest.Envoy, _ *server) {
		for mode := range chains {
			body := "text"
			if mode != "NONE" {
				body = "TEXT"
			}
			for _, path := range []string{"/length", "/chunked"} {
				for range 2 { // on one connection to the upstream
					got := envoy.Gateway(mode).Do(t, envoytest.Request{Method: "POST", Path: path, Body: "text"})
					if got.Status != 200 || got.Upstream == nil || got.Upstream.Method != "POST" || got.Upstream.Body != body {
						t.Fatalf("%s%s: %d, upstream %v", mode, path, got.Status, got.Upstream)
					}
					if length := got.Upstream.Value("content-length"); length == "2" {
						t.Errorf("%s%s: content-length %s", mode, path, length)
					}
				}
			}
			got := envoy.Gateway(mode).Get(t, "/elsewhere")
			if got.Status != 200 || got.Upstream.Path != envoytest.OtherRoute || got.Header.Get("x-route") != mode {
				t.Errorf("%s: another path: %d %v, upstream %v", mode, got.Status, got.Header, got.Upstream)
			}
		}
	})
}

// large is more than Envoy holds in memory.
var large = strings.Repeat("large,", 300_000)

func TestLargeBodies(t *testing.T) {
	texts := map[string]string{}
	for _, mode := range []string{"NONE", "STREAMED", "BUFFERED", "BUFFERED_PARTIAL"} {
		texts[mode] = `{` + service + `, message_timeout: 20s, processing_mode: {request_body_mode: ` + mode + `}}`
		texts[mode+" response"] = `{` + service + `, message_timeout: 20s, processing_mode: {response_body_mode: ` + mode + `}}`
	}
	onEach(t, texts, func(t *testing.T, envoy *envoytest.Envoy, _ *server) {
		for name := range texts {
			mode, response := strings.CutSuffix(name, " response")
			status, length := 200, len(large)
			switch {
			case mode == "BUFFERED" && response:
				status = 500
			case mode == "BUFFERED":
				status = 413
			}
			got := envoy.Gateway(name).Do(t, envoytest.Request{Method: "POST", Path: "/same", Body: large})
			if got.Status != status || (got.Upstream != nil) != (status != 413) {
				t.Fatalf("%s: %d %.40q, want %d", name, got.Status, got.Body, status)
			}
			if status == 200 && (len(got.Upstream.Body) != length || len(got.Body) < length) {
				t.Errorf("%s: the upstream got %d bytes, the client %d", name, len(got.Upstream.Body), len(got.Body))
			}
		}
	})
}

// A service that stops in the middle of a body: before anything was sent on there is an answer, afterwards a broken one.
func TestHangsInBody(t *testing.T) {
	text := func(more string) string {
		return `{` + service + `, message_timeout: 1s, status_on_error: 503` + more + `}`
	}
	onEach(t, map[string]string{
		"request":           text(`, processing_mode: {request_body_mode: STREAMED}`),
		"response buffered": text(`, processing_mode: {response_body_mode: BUFFERED}`),
		"response":          text(`, processing_mode: {response_header_mode: SKIP, response_body_mode: STREAMED}`),
		"open":              text(`, failure_mode_allow: true, processing_mode: {request_body_mode: BUFFERED, response_body_mode: BUFFERED}`),
	}, func(t *testing.T, envoy *envoytest.Envoy, _ *server) {
		for _, c := range []struct {
			chain, path, body string
			status            int
			upstream          bool
		}{
			{"request", "/hang-request", failed, 503, false},
			{"response buffered", "/hang-response", "", 504, true},
			{"open", "/hang-request", "", 200, true},
			{"open", "/hang-response", "", 200, true},
		} {
			t.Run(c.chain+c.path, func(t *testing.T) {
				t.Parallel()
				got := envoy.Gateway(c.chain).Do(t, envoytest.Request{Method: "POST", Path: c.path, Body: "text"})
				if got.Status != c.status || (got.Upstream != nil) != c.upstream || c.status != 200 && got.Body != c.body {
					t.Errorf("%d %q, upstream %v", got.Status, got.Body, got.Upstream)
				}
			})
		}
		t.Run("response", func(t *testing.T) {
			t.Parallel()
			got, err := http.Get(envoy.Gateway("response").URL + "/hang-response")
			if err != nil {
				return // broken before the begin arrived
			}
			defer got.Body.Close()
			if _, err := io.ReadAll(got.Body); got.StatusCode != 200 || err == nil {
				t.Errorf("%d, and all of the body", got.StatusCode)
			}
		})
	})
}

// Bodies are exchanged piece by piece, and a gRPC call, which may go on for ever, is one of several pieces.
func TestStreams(t *testing.T) {
	onEach(t, map[string]string{
		"streamed": `{` + service + `, message_timeout: 5s, processing_mode: {request_body_mode: STREAMED}}`,
		"duplex": `{` + service + `, message_timeout: 5s, processing_mode: {request_body_mode: FULL_DUPLEX_STREAMED, request_trailer_mode: SEND,
			response_body_mode: FULL_DUPLEX_STREAMED, response_trailer_mode: SEND}}`,
	}, func(t *testing.T, envoy *envoytest.Envoy, _ *server) {
		for _, chain := range []string{"streamed", "duplex"} {
			got := envoy.Gateway(chain).Do(t, envoytest.Request{
				Method: "POST", Path: "/" + chain, HTTP2: true, Body: "text", Trailer: []string{"t: 1"},
				Header: []string{"content-type: application/grpc", "te: trailers", envoytest.EchoHeader + ": content-type: application/grpc",
					envoytest.EchoBody + ": MESSAGE", envoytest.EchoTrailer + ": grpc-status: 0"},
			})
			body := map[string]string{"streamed": "MESSAGE", "duplex": "message"}[chain]
			if got.Status != 200 || got.Upstream.Body != "TEXT" || got.Body != body || got.Trailer.Get("grpc-status") != "0" {
				t.Errorf("%s: %d %q %v, upstream %v", chain, got.Status, got.Body, got.Trailer, got.Upstream)
			}
		}
	})
}

// A WebSocket is a request whose body begins when it is answered.
func TestWebSockets(t *testing.T) {
	onEach(t, map[string]string{
		"headers": `{` + service + `, message_timeout: 5s}`,
		"bodies":  `{` + service + `, message_timeout: 5s, processing_mode: {request_body_mode: STREAMED, response_body_mode: STREAMED}}`,
	}, func(t *testing.T, envoy *envoytest.Envoy, _ *server) {
		for chain, want := range map[string]string{"headers": "hello", "bodies": "HELLO"} {
			got, back := envoy.Gateway(chain).Upgrade(t, "/same", "hello")
			if got.Status != 101 || got.Header.Get("x-done") != "1" || back != want {
				t.Errorf("%s: %d %v, %q came back", chain, got.Status, got.Header, back)
			}
		}
	})
}
