package extauth

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	gocmp "github.com/google/go-cmp/cmp"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// hosts are those of the tests' services: one that answers, one where nobody listens, one without a cluster.
var hosts = []string{"auth.test", "down.test", "unknown.test"}

var used = builtin.Use{Plugin: "check", Instance: "i", Services: catalogtest.Services(hosts...)}

func TestConfig(t *testing.T) {
	const service = `service: {host: auth.test, port: 80}`
	for _, c := range []struct {
		config string
		want   []string
	}{
		{`{` + service + `}`, nil},
		{`{service: {host: auth.test, port: 81}, protocol: grpc, with_request_body: {max_request_bytes: 1}}`, nil},
		{`{}`, []string{"service: is required"}},
		{`{service: {host: auth.test}}`, []string{"service.port: is required"}},
		{`{service: {host: gone.test, port: 80}}`, []string{`service: there is no Service test/gone, nor a ServiceEntry with the host "gone.test"`}},
		{`{service: {host: auth.test, port: 82}}`, []string{`service: ServiceEntry / has no port 82; its ports: 80, 81`}},
		{`{service: {host: 'a|b', port: 80}}`, []string{`service.host: "a|b" does not match ^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?$`}},
		{`{service: {host: auth.test, port: 80}, protocol: grpc}`, []string{"warning service.port: port 80 of auth.test is not declared to be gRPC, and gateways speak HTTP/1.1 to it: give the port appProtocol grpc, or a name such as grpc-check"}},
		{`{` + service + `, timeout: soon}`, []string{`timeout: "soon" is no duration such as 250ms or 1.5s`}},
		{`{` + service + `, timeout: 6m}`, []string{`timeout: 6m is not between 1ms and 5m`}},
		{`{` + service + `, timeout: 0s}`, []string{`timeout: 0s is not between 1ms and 5m`}},
		{`{` + service + `, path_prefix: check}`, []string{`path_prefix: "check" does not match ^(/[-A-Za-z0-9._~!$&()*+,;=:@/%]*)?$`}},
		{`{` + service + `, upstream_headers: [x-user, Content-Length]}`, []string{"upstream_headers[1]: would overwrite the header content-length, which says how a request is sent"}},
		{`{` + service + `, upstream_headers: ['ho*']}`, []string{"upstream_headers[0]: would overwrite the header host, which says how a request is sent"}},
		{`{` + service + `, upstream_headers: ['*']}`, []string{"upstream_headers[0]: would overwrite the header content-length, which says how a request is sent"}},
		{`{` + service + `, upstream_headers: [':path']}`, []string{`upstream_headers[0]: ":path" is no valid http header name`}},
		{`{` + service + `, upstream_headers: [connection, 'transfer-*', TE, upgrade, trailer, x-te]}`, []string{
			"upstream_headers[0]: would overwrite the header connection, which says how a request is sent",
			"upstream_headers[1]: would overwrite the header transfer-encoding, which says how a request is sent",
			"upstream_headers[2]: would overwrite the header te, which says how a request is sent",
			"upstream_headers[3]: would overwrite the header upgrade, which says how a request is sent",
			"upstream_headers[4]: would overwrite the header trailer, which says how a request is sent",
		}},
		{`{` + service + `, client_headers_on_success: [x-note, Host, 'CONTENT-*', '*'], client_headers: ['*']}`, []string{
			"client_headers_on_success[2]: would add to the header content-length, which says how a response is sent",
			"client_headers_on_success[3]: would add to the header content-length, which says how a response is sent",
		}},
		{`{` + service + `, allowed_headers: ['x-*-y', 'a b', ''], disallowed_headers: ["x\n"], headers_to_remove: ['*-user']}`, []string{
			`allowed_headers[0]: "x-*-y" does not match ^[^*]*\*?$`,
			`allowed_headers[1]: "a b" is no valid http header name`,
			`allowed_headers[2]: "" is no valid http header name`,
			`disallowed_headers[0]: "x\n" is no valid http header name`,
			`headers_to_remove[0]: "*-user" does not match ^[^*]*\*?$`,
		}},
		{`{` + service + `, protocol: https}`, []string{`protocol: "https" is not allowed, allowed are "http", "grpc"`}},
		{`{` + service + `, with_request_body: {max_request_bytes: 0}}`, []string{"with_request_body.max_request_bytes: 0 is too small, at least 1"}},
		{`{` + service + `, failure_mode_allow: "false"}`, []string{"failure_mode_allow: must be a boolean, not a string"}},
		{`{service: {name: auth, namespace: a, port: 80}}`, []string{
			"service.host: is required",
			"service.name: unknown field, known ones are host, port",
			"service.namespace: unknown field, known ones are host, port",
		}},
		{`{` + service + `, headers_to_remove: [Host, 'h*', '*', x-host]}`, []string{
			`headers_to_remove[0]: "Host" has host, which cannot be removed`,
			`headers_to_remove[1]: "h*" has host, which cannot be removed`,
			`headers_to_remove[2]: "*" has host, which cannot be removed`,
		}},
		{`{` + service + `, status_on_error: 200}`, []string{"status_on_error: 200 is not allowed, allowed are 400, 401, 403, 404, 429, 500, 502, 503, 504"}},
		{`{` + service + `, with_request_body: {}}`, []string{"with_request_body.max_request_bytes: is required"}},
		{`{service: {host: auth.test, port: 81}, protocol: grpc, path_prefix: /a, client_headers: [a]}`, []string{
			"warning path_prefix: has no meaning with gRPC, where the service's answer says it",
			"warning client_headers: has no meaning with gRPC, where the service's answer says it",
		}},
	} {
		_, got := catalogtest.Build(t, Builtin, used, c.config)
		if diff := gocmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.config, diff)
		}
	}
}

// A service speaks HTTP and gRPC, and answers as the request's path says.
type service struct {
	authv3.UnimplementedAuthorizationServer
	address string
	mu      sync.Mutex
	asked   map[string][]string // header lines and body, by path
	calls   map[string]*authv3.AttributeContext
	// deadlines of the calls
	deadlines map[string]time.Time
}

func serve(t testing.TB) *service {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &service{address: listener.Addr().String(), asked: map[string][]string{}, calls: map[string]*authv3.AttributeContext{}, deadlines: map[string]time.Time{}}
	rpc := grpc.NewServer()
	authv3.RegisterAuthorizationServer(rpc, s)
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get("content-type"), "application/grpc") {
			rpc.ServeHTTP(w, r)
			return
		}
		s.answer(w, r)
	})}
	go func() { _ = server.Serve(listener) }() // until Close
	t.Cleanup(func() { _ = server.Close() })
	return s
}

func (s *service) answer(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	lines := []string{r.Method + " " + r.Host + " " + string(body), fmt.Sprint("length ", r.ContentLength), "uri " + r.RequestURI}
	for name, values := range r.Header {
		for _, v := range values {
			lines = append(lines, strings.ToLower(name)+": "+v)
		}
	}
	slices.Sort(lines[1:])
	s.mu.Lock()
	s.asked[r.URL.Path] = lines
	s.mu.Unlock()
	h := w.Header()
	switch _, how, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/check"), "/"); how {
	case "deny":
		h.Set("www-authenticate", "Own")
		h.Set("x-why", "because")
		h.Set("x-inner", "1")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, "no, "+r.URL.Path)
	case "redirect":
		h.Set("location", "https://login.test/")
		w.WriteHeader(http.StatusFound)
	case "created":
		w.WriteHeader(http.StatusCreated)
	case "empty":
		w.WriteHeader(http.StatusForbidden)
	case "fail":
		w.WriteHeader(http.StatusInternalServerError)
	case "hang":
		<-r.Context().Done()
	case "break":
		panic(http.ErrAbortHandler) // closes the connection
	case "large":
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, large)
	default:
		h.Set("x-user", "anna")
		h.Set("x-note", "seen")
	}
}

// Check implements the gRPC service.
func (s *service) Check(ctx context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	path := r.GetAttributes().GetRequest().GetHttp().GetPath()
	s.mu.Lock()
	s.calls[path] = r.GetAttributes()
	s.deadlines[path], _ = ctx.Deadline()
	s.mu.Unlock()
	option := func(name, value string) *corev3.HeaderValueOption {
		return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: value}, AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD}
	}
	allowed := &authv3.OkHttpResponse{
		Headers: []*corev3.HeaderValueOption{option("x-user", "anna")}, HeadersToRemove: []string{"x-secret"},
		ResponseHeadersToAdd: []*corev3.HeaderValueOption{option("x-note", "seen")},
	}
	switch path {
	case "/deny":
		return &authv3.CheckResponse{
			Status: &statuspb.Status{Code: int32(codes.PermissionDenied)},
			HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
				Status: &typev3.HttpStatus{Code: typev3.StatusCode_PaymentRequired}, Body: "pay",
				Headers: []*corev3.HeaderValueOption{option("x-why", "because")},
			}},
		}, nil
	case "/hang":
		<-ctx.Done()
		return nil, ctx.Err()
	case "/break":
		return nil, status.Error(codes.Unauthenticated, "who are you?")
	case "/newline":
		allowed.Headers = []*corev3.HeaderValueOption{option("x-user", "an\nna")}
	case "/length":
		allowed.Headers = []*corev3.HeaderValueOption{option("content-length", "2"), option("x-user", "anna")}
	case "/chunked":
		allowed.Headers = []*corev3.HeaderValueOption{option("Transfer-Encoding", "chunked")}
	}
	return &authv3.CheckResponse{Status: &statuspb.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: allowed}}, nil
}

func onEach(t *testing.T, texts map[string]string, test func(*testing.T, *envoytest.Envoy, *service)) {
	onEachBehind(t, nil, texts, test)
}

// onEachBehind has other parts in front of the plugin.
func onEachBehind(t *testing.T, front []part.Part, texts map[string]string, test func(*testing.T, *envoytest.Envoy, *service)) {
	chains := map[string][]part.Part{}
	for name, text := range texts {
		chains[name] = slices.Concat(front, catalogtest.Parts(t, Builtin, used, text))
	}
	s := serve(t)
	down := envoytest.Nobody
	catalogtest.OnEachWith(t, envoytest.Config{
		Chains:        chains,
		Clusters:      map[string]string{"outbound|80||auth.test": s.address, "outbound|80||down.test": down},
		HTTP2Clusters: map[string]string{"outbound|81||auth.test": s.address, "outbound|81||down.test": down},
	}, func(t *testing.T, envoy *envoytest.Envoy) { test(t, envoy, s) })
}

func TestHTTP(t *testing.T) {
	texts := map[string]string{
		"plain": `{service: {host: auth.test, port: 80}}`,
		"lists": `{service: {host: auth.test, port: 80}, path_prefix: /check, allowed_headers: [X-A, 'x-b*'], disallowed_headers: [x-bad],
			upstream_headers: [x-user], headers_to_remove: [X-User], client_headers: [x-why], client_headers_on_success: ['x-n*']}`,
		"all":    `{service: {host: auth.test, port: 80}, allowed_headers: ['*']}`,
		"prefix": `{service: {host: auth.test, port: 80}, upstream_headers: ['x-*']}`,
		"remove": `{service: {host: auth.test, port: 80}, allowed_headers: ['*'], headers_to_remove: ['X-Consumer-*', cookie]}`,
		"large":  `{service: {host: auth.test, port: 80}, with_request_body: {max_request_bytes: 3000000}}`,
		"body":   `{service: {host: auth.test, port: 80}, with_request_body: {max_request_bytes: 8}}`,
		"begin":  `{service: {host: auth.test, port: 80}, with_request_body: {max_request_bytes: 8, allow_partial_message: true}}`,
		"twice":  `{service: {host: auth.test, port: 80}, status_on_error: 503}`,
	}
	onEach(t, texts, func(t *testing.T, envoy *envoytest.Envoy, s *service) {
		for _, c := range []struct {
			name, chain string
			request     envoytest.Request
			status      int
			refused     bool     // although the status is 200
			body        string   // where the upstream is not reached
			answer      []string // header lines; a name alone must not be there
			asked       []string // what the service got, the same
			upstream    []string
		}{
			{name: "allowed", chain: "plain", request: envoytest.Request{Path: "/ok1?a=b", Host: "shop.test", Header: []string{"authorization: t", "x-a: 1", "x-user: eve"}}, status: 200,
				asked: []string{"GET shop.test ", "uri /ok1?a=b", "length 0", "authorization: t", "x-a"}, upstream: []string{"x-user: eve"}, answer: []string{"x-note", "x-istio-plugins-details"}},
			{name: "refused", chain: "plain", request: envoytest.Request{Path: "/deny"}, status: 401, body: "no, /deny",
				answer: []string{"www-authenticate: Own", "x-why: because", "x-inner: 1", "x-istio-plugins-details"}},
			{name: "refused, HEAD", chain: "plain", request: envoytest.Request{Method: "HEAD", Path: "/deny"}, status: 401, answer: []string{"x-why: because"}},
			{name: "the path that is asked for is the one that is routed", chain: "plain", request: envoytest.Request{Path: "/x/%2e%2e/./d%65ny?a=b"}, status: 401, body: "no, /deny"},
			{name: "an identity that nobody has established", chain: "all", request: envoytest.Request{Path: "/deny", Header: []string{"x-consumer-username: admin", "x-user: admin", "authorization: x"}}, status: 401, body: "no, /deny"},
			{name: "HTTP/2, refused", chain: "plain", request: envoytest.Request{HTTP2: true, Path: "/deny"}, status: 401, body: "no, /deny"},
			{name: "a preflight, refused", chain: "plain", request: envoytest.Request{Method: "OPTIONS", Path: "/deny", Header: []string{"origin: https://a.test", "access-control-request-method: GET"}}, status: 401, body: "no, /deny"},
			{name: "refused without a body", chain: "plain", request: envoytest.Request{Path: "/empty"}, status: 403},
			{name: "sent elsewhere", chain: "plain", request: envoytest.Request{Path: "/redirect"}, status: 302, answer: []string{"location: https://login.test/"}},
			{name: "another success is none", chain: "plain", request: envoytest.Request{Path: "/created"}, status: 201},
			{name: "OPTIONS is asked for, too", chain: "plain", request: envoytest.Request{Method: "OPTIONS", Path: "/deny"}, status: 401, body: "no, /deny"},
			{name: "the service fails", chain: "plain", request: envoytest.Request{Path: "/fail"}, status: 403, body: unavailable,
				answer: []string{"content-type: application/json; charset=utf-8", "x-istio-plugins-details"}},
			{name: "the service fails, another status", chain: "twice", request: envoytest.Request{Path: "/fail"}, status: 503, body: unavailable},
			{name: "no answer", chain: "plain", request: envoytest.Request{Path: "/break"}, status: 403, body: unavailable},
			{name: "a large refusal", chain: "plain", request: envoytest.Request{Path: "/large"}, status: 401, body: large},
			{name: "a gRPC call, refused", chain: "plain", request: envoytest.Request{Method: "POST", HTTP2: true, Path: "/deny", Header: []string{"content-type: application/grpc"}}, status: 200,
				refused: true, answer: []string{"grpc-status: 16", "grpc-message: no, /deny"}},
			{name: "upstream headers by their begin", chain: "prefix", request: envoytest.Request{Path: "/ok10", Header: []string{"x-user: eve", "x-other: 1"}}, status: 200,
				upstream: []string{"x-user: anna", "x-note: seen", "x-other: 1"}},
			{name: "headers that are taken out", chain: "remove", request: envoytest.Request{Path: "/ok12", Header: []string{"x-consumer-id: 1", "X-CONSUMER-NAME: 2", "x-consumer-id: 3", "x-consumer: 4", "cookie: a", "cookie: b"}}, status: 200,
				asked: []string{"x-consumer-id", "x-consumer-name", "cookie", "x-consumer: 4"}, upstream: []string{"x-consumer-id", "x-consumer-name", "cookie", "x-consumer: 4"}},
			{name: "the service fails, HEAD", chain: "plain", request: envoytest.Request{Method: "HEAD", Path: "/fail"}, status: 403},
			{name: "lists, allowed", chain: "lists", request: envoytest.Request{Path: "/ok2", Header: []string{"x-a: 1", "x-a: 2", "x-bcd: 3", "x-bad: 4", "x-c: 5", "x-user: eve"}}, status: 200,
				asked:    []string{"x-a: 1", "x-a: 2", "x-bcd: 3", "x-bad", "x-c", "x-user"},
				upstream: []string{"x-user: anna", "x-bad: 4", "x-note"}, answer: []string{"x-note: seen", "x-user"}},
			{name: "lists, refused", chain: "lists", request: envoytest.Request{Path: "/deny"}, status: 401, body: "no, /check/deny",
				answer: []string{"x-why: because", "www-authenticate: Own", "x-inner"}},
			{name: "all headers", chain: "all", request: envoytest.Request{Path: "/ok3", Header: []string{"x-c: 5", "cookie: a=b"}}, status: 200, asked: []string{"x-c: 5", "cookie: a=b"}},
			{name: "a body", chain: "body", request: envoytest.Request{Method: "POST", Path: "/ok4", Body: "12345678", Host: "shop.test"}, status: 200, asked: []string{"POST shop.test 12345678"}},
			{name: "a body of unknown length", chain: "body", request: envoytest.Request{Method: "POST", Path: "/ok5", Body: "1234", UnknownLength: true, Host: "shop.test"}, status: 200, asked: []string{"POST shop.test 1234"}},
			{name: "a large body", chain: "large", request: envoytest.Request{Method: "POST", Path: "/ok11", Body: large, Host: "shop.test"}, status: 200, asked: []string{"POST shop.test " + large}},
			{name: "too large a body", chain: "body", request: envoytest.Request{Method: "POST", Path: "/ok6", Body: "123456789"}, status: 413, body: "Payload Too Large"},
			{name: "the begin of a body", chain: "begin", request: envoytest.Request{Method: "POST", Path: "/ok7", Body: "123456789", Host: "shop.test"}, status: 200,
				asked: []string{"POST shop.test 12345678", "x-envoy-auth-partial-body: true"}},
			{name: "no body is asked for", chain: "plain", request: envoytest.Request{Method: "POST", Path: "/ok8", Body: "123456789", Host: "shop.test"}, status: 200, asked: []string{"POST shop.test "}},
			{name: "a details header of the upstream's", chain: "plain", request: envoytest.Request{Path: "/ok9", Header: []string{envoytest.EchoHeader + ": x-istio-plugins-details: ext_authz_error"}}, status: 200, answer: []string{"x-istio-plugins-details"}},
		} {
			t.Run(c.name, func(t *testing.T) {
				got := envoy.Gateway(c.chain).Do(t, c.request)
				if got.Status != c.status || (got.Upstream != nil) != (c.status == 200 && !c.refused) {
					t.Fatalf("%d %.99q, upstream %v; want %d", got.Status, got.Body, got.Upstream, c.status)
				}
				if got.Upstream == nil && c.request.Method != "HEAD" && got.Body != c.body {
					t.Errorf("body %.99q, want %.99q", got.Body, c.body)
				}
				// Envoy 1.37.0 drops all headers of a refusal: envoyproxy/envoy#43475.
				if !strings.Contains(t.Name(), "1.37.0") || got.Upstream != nil {
					expect(t, "the client", lines(got.Header), c.answer)
				}
				if got.Upstream != nil {
					expect(t, "the upstream", got.Upstream.Header, c.upstream)
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				path, _, _ := strings.Cut(c.request.Path, "?")
				if c.chain == "lists" {
					path = "/check" + path
				}
				expect(t, "the service", s.asked[path], c.asked)
			})
		}
	})
}

// large is more than Envoy holds in memory unless it is told to.
var large = strings.Repeat("large,", 300_000)

const unavailable = `{"message":"Authorization service unavailable"}`

func lines(h http.Header) []string {
	var out []string
	for name, values := range h {
		for _, v := range values {
			out = append(out, strings.ToLower(name)+": "+v)
		}
	}
	return out
}

// expect looks for lines; a header's name alone must not be there.
func expect(t *testing.T, who string, got, want []string) {
	t.Helper()
	for _, w := range want {
		if strings.Contains(w, " ") {
			if !slices.Contains(got, w) {
				t.Errorf("%s has no %q: %q", who, w, got)
			}
		} else if slices.ContainsFunc(got, func(l string) bool { return strings.HasPrefix(l, w+":") }) {
			t.Errorf("%s has %q: %q", who, w, got)
		}
	}
}

func TestGRPC(t *testing.T) {
	onEach(t, map[string]string{
		"plain": `{service: {host: auth.test, port: 81}, protocol: grpc, headers_to_remove: [x-user]}`,
		"lists": `{service: {host: auth.test, port: 81}, protocol: grpc, allowed_headers: [x-a], with_request_body: {max_request_bytes: 100}}`,
	}, func(t *testing.T, envoy *envoytest.Envoy, s *service) {
		got := envoy.Gateway("plain").Get(t, "/ok?a=b", "x-user: eve", "x-secret: s", "x-a: 1", "x-a: 2")
		if got.Status != 200 || got.Header.Get("x-note") != "seen" {
			t.Fatalf("%d %q", got.Status, got.Body)
		}
		expect(t, "the upstream", got.Upstream.Header, []string{"x-user: anna", "x-secret", "x-a: 2"})
		headers := s.calls["/ok?a=b"].GetRequest().GetHttp().GetHeaders()
		if headers["x-a"] != "1,2" || headers["x-secret"] != "s" || headers["x-user"] != "" {
			t.Errorf("the service got %v", headers)
		}
		if got := envoy.Gateway("plain").Get(t, "/deny"); got.Status != 402 || got.Body != "pay" || got.Header.Get("x-why") != "because" || got.Upstream != nil {
			t.Errorf("refused: %d %q %v", got.Status, got.Body, got.Header)
		}
		envoy.Gateway("lists").Do(t, envoytest.Request{Method: "POST", Path: "/body", Body: "a\xffb", Header: []string{"x-a: 1", "x-b: 2"}})
		asked := s.calls["/body"].GetRequest().GetHttp()
		if string(asked.GetRawBody()) != "a\xffb" || asked.GetHeaders()["x-a"] != "1" || asked.GetHeaders()["x-b"] != "" {
			t.Errorf("the service got %v", asked)
		}
	})
}

// A WebSocket is a request whose body begins when it is answered.
func TestWebSockets(t *testing.T) {
	onEach(t, map[string]string{
		"http": `{service: {host: auth.test, port: 80}, with_request_body: {max_request_bytes: 100}, client_headers_on_success: [x-note]}`,
		"grpc": `{service: {host: auth.test, port: 81}, protocol: grpc, with_request_body: {max_request_bytes: 100, allow_partial_message: true}}`,
	}, func(t *testing.T, envoy *envoytest.Envoy, _ *service) {
		for chain, refused := range map[string]int{"http": 401, "grpc": 402} {
			got, back := envoy.Gateway(chain).Upgrade(t, "/ok", "hello")
			if got.Status != 101 || back != "hello" || got.Header.Get("x-note") != "seen" {
				t.Errorf("%s: %d %v %q", chain, got.Status, got.Header, back)
			}
			if got, _ := envoy.Gateway(chain).Upgrade(t, "/deny", "hello"); got.Status != refused || got.Upstream != nil {
				t.Errorf("%s: %d %v", chain, got.Status, got.Upstream)
			}
		}
	})
}

// What a gRPC service says of the length of a request would make the upstream take the rest of it for another request.
func TestWhatServicesCannotChange(t *testing.T) {
	onEach(t, map[string]string{"grpc": `{service: {host: auth.test, port: 81}, protocol: grpc}`}, func(t *testing.T, envoy *envoytest.Envoy, _ *service) {
		for _, path := range []string{"/length", "/chunked"} {
			for range 2 { // on one connection to the upstream
				got := envoy.Gateway("grpc").Do(t, envoytest.Request{Method: "POST", Path: path, Body: "text"})
				if got.Status != 200 || got.Upstream == nil || got.Upstream.Method != "POST" || got.Upstream.Body != "text" {
					t.Fatalf("%s: %d, upstream %v", path, got.Status, got.Upstream)
				}
				if got.Upstream.Value("content-length") != "4" || path == "/length" && got.Upstream.Value("x-user") != "anna" {
					t.Errorf("%s: upstream %v", path, got.Upstream)
				}
			}
		}
	})
}

// Each of several asks its own service, and what it says of a failure is its own.
func TestSeveral(t *testing.T) {
	chain := func(first, second string) []part.Part {
		a, b := used, used
		a.Instance, b.Instance = "a", "b"
		return slices.Concat(catalogtest.Parts(t, Builtin, a, first), catalogtest.Parts(t, Builtin, b, second))
	}
	const (
		asked = `{service: {host: auth.test, port: 80}, status_on_error: 500, upstream_headers: [x-user]}`
		down  = `{service: {host: down.test, port: 80}, status_on_error: 502}`
		gone  = `{service: {host: down.test, port: 80}, status_on_error: 503}`
		open  = `{service: {host: down.test, port: 80}, failure_mode_allow: true}`
	)
	s := serve(t)
	catalogtest.OnEachWith(t, envoytest.Config{
		Chains: map[string][]part.Part{
			"asked, asked": chain(asked, asked), "asked, down": chain(asked, down), "down, asked": chain(down, asked),
			"down, gone": chain(down, gone), "open, gone": chain(open, gone), "asked, open": chain(asked, open),
		},
		Clusters: map[string]string{"outbound|80||auth.test": s.address, "outbound|80||down.test": envoytest.Nobody},
	}, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct {
			chain, path string
			status      int
			body        string
		}{
			{"asked, asked", "/ok", 200, ""}, {"asked, asked", "/fail", 500, unavailable}, {"asked, asked", "/deny", 401, "no, /deny"},
			{"asked, down", "/ok", 502, unavailable}, {"asked, down", "/fail", 500, unavailable}, {"asked, down", "/deny", 401, "no, /deny"},
			{"down, asked", "/ok", 502, unavailable}, {"down, asked", "/deny", 502, unavailable}, {"down, gone", "/", 502, unavailable},
			{"open, gone", "/", 503, unavailable}, {"asked, open", "/ok", 200, ""}, {"asked, open", "/fail", 500, unavailable},
		} {
			got := envoy.Gateway(c.chain).Get(t, c.path)
			if got.Status != c.status || c.body != "" && got.Body != c.body || (got.Upstream != nil) != (c.status == 200) {
				t.Errorf("%s%s: %d %q, want %d %q", c.chain, c.path, got.Status, got.Body, c.status, c.body)
			}
			if got.Header.Get("x-istio-plugins-details") != "" {
				t.Errorf("%s%s: %v", c.chain, c.path, got.Header)
			}
		}
	})
}

// What a gRPC service learns besides the request: how long there is time, and what plugins in front have noted.
func TestContext(t *testing.T) {
	paint := part.Lua{Plugin: "paint", Source: `return {request = function(handle)
		handle:streamInfo():dynamicMetadata():set("plugins.istio.io", "color", "red")
		handle:streamInfo():dynamicMetadata():set("paint", "color", "blue")
	end}`}
	onEachBehind(t, []part.Part{paint}, map[string]string{
		"plain": `{service: {host: auth.test, port: 81}, protocol: grpc}`,
		"told":  `{service: {host: auth.test, port: 81}, protocol: grpc, timeout: 4m, metadata_namespaces: [paint]}`,
	}, func(t *testing.T, envoy *envoytest.Envoy, s *service) {
		for chain, want := range map[string]struct {
			color string
			long  bool
		}{"plain": {"plugins.istio.io red", false}, "told": {"paint blue", true}} {
			t.Run(chain, func(t *testing.T) {
				path := "/" + t.Name()
				if got := envoy.Gateway(chain).Get(t, path); got.Status != 200 {
					t.Fatalf("%d %q", got.Status, got.Body)
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				if long := time.Until(s.deadlines[path]) > time.Minute; long != want.long {
					t.Errorf("the service has time until %v", s.deadlines[path])
				}
				var colors []string
				for namespace, metadata := range s.calls[path].GetMetadataContext().GetFilterMetadata() {
					colors = append(colors, namespace+" "+metadata.GetFields()["color"].GetStringValue())
				}
				if !slices.Equal(colors, []string{want.color}) {
					t.Errorf("the service got %q, want %q", colors, want.color)
				}
			})
		}
	})
}

// Whatever keeps the service from answering refuses the request, unless the plugin says otherwise.
func TestFailures(t *testing.T) {
	texts := map[string]string{}
	for protocol, port := range map[string]string{"http": "80", "grpc": "81"} {
		for _, host := range hosts {
			text := "{service: {host: " + host + ", port: " + port + "}, protocol: " + protocol + ", timeout: 50ms"
			texts[protocol+" "+host] = text + "}"
			texts[protocol+" "+host+" open"] = text + ", failure_mode_allow: true, with_request_body: {max_request_bytes: 4}}"
		}
	}
	sure := `service: {host: auth.test, port: 81}, protocol: grpc, timeout: 10s`
	all := maps.Clone(texts)
	all["sure"], all["sure open"] = `{`+sure+`}`, `{`+sure+`, failure_mode_allow: true}`
	onEach(t, all, func(t *testing.T, envoy *envoytest.Envoy, _ *service) {
		for name := range texts {
			open := strings.HasSuffix(name, "open")
			for _, path := range []string{"/hang", "/break"} {
				got := envoy.Gateway(name).Get(t, path)
				if open && (got.Status != 200 || got.Upstream == nil) || !open && (got.Status != 403 || got.Body != unavailable || got.Upstream != nil) {
					t.Errorf("%s%s: %d %q", name, path, got.Status, got.Body)
				}
			}
		}
		// An answer that cannot be followed is one, but lets nothing pass.
		for _, name := range []string{"sure", "sure open"} {
			if got := envoy.Gateway(name).Get(t, "/newline"); got.Status != 403 || got.Body != unavailable || got.Upstream != nil {
				t.Errorf("%s: a header that cannot be sent: %d %q", name, got.Status, got.Body)
			}
		}
		// What the client does wrong is no failure of the service.
		if got := envoy.Gateway("http auth.test open").Do(t, envoytest.Request{Method: "POST", Path: "/a", Body: "12345"}); got.Status != 413 {
			t.Errorf("too large a body: %d", got.Status)
		}
		call := envoytest.Request{Method: "POST", Path: "/a.B/C", HTTP2: true, Header: []string{"content-type: application/grpc", "te: trailers"}, Body: "\x00\x00\x00\x00\x00"}
		if got := envoy.Gateway("grpc down.test").Do(t, call); got.Status != 200 || cmp.Or(got.Header.Get("grpc-status"), got.Trailer.Get("grpc-status")) != "7" || got.Body != "" {
			t.Errorf("a gRPC call: %d %q %v", got.Status, got.Body, got.Header)
		}
	})
}

// The Plugin's failurePolicy is the default of failure_mode_allow.
func TestFailurePolicy(t *testing.T) {
	for text, want := range map[string]bool{"": true, ", failure_mode_allow: false": false} {
		parts := catalogtest.Parts(t, Builtin, builtin.Use{Plugin: "check", FailOpen: true, Services: catalogtest.Services(hosts...)}, "{service: {host: auth.test, port: 80}"+text+"}")
		for _, p := range parts {
			if n, ok := p.(part.Native); ok {
				if f, ok := n.Config.(interface{ GetFailureModeAllow() bool }); ok && f.GetFailureModeAllow() != want {
					t.Errorf("%q: failure_mode_allow is %t", text, !want)
				}
			}
		}
	}
}
