// Package echo is the upstream of the tests: a server that answers with the request as it arrived, and remembers it.
// One port speaks HTTP/1.1, HTTP/2 without TLS, gRPC and websocket.
package echo

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	extproc "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	ratelimit "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// IDHeader names a request, so that a test finds it again among those that the server has seen.
const IDHeader = "x-e2e-id"

// Request is what arrived at the upstream.
type Request struct {
	Protocol string `json:"protocol"`
	Method   string `json:"method"`
	Host     string `json:"host"`
	// Path with the query.
	Path string `json:"path"`
	// Headers by their lower-case name, values in order of arrival.
	Headers map[string][]string `json:"headers"`
	// Body is the text of a small body, and empty for a large one.
	Body       string `json:"body"`
	BodyLength int    `json:"bodyLength"`
	BodySHA256 string `json:"bodySHA256"`
}

// KeysPath is where OpenID providers like to publish their keys.
const KeysPath = "/.well-known/jwks.json"

// Keys are those that the key 2026 of the tests signs for.
const Keys = `{"keys":[{"kty":"EC","crv":"P-256","kid":"2026","use":"sig","alg":"ES256","x":"dBodD0t9HPNFtLE5dIj-vh-O2gdVZveWu6ZUXHC9qdw","y":"fsLLyVlqIj3Dw3yc0GejH8MDdKejEBk-kjFf8O2_nUc"}]}`

// bodyShown is the size up to which a body is repeated in the answer.
const bodyShown = 64 << 10

// Server is a running upstream.
type Server struct {
	http     *http.Server
	grpc     *grpc.Server
	listener net.Listener

	mu      sync.Mutex
	seen    map[string][]Request
	records []string
}

// Start serves on a free port of 127.0.0.1.
func Start() (*Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{listener: listener, seen: map[string][]Request{}}
	s.grpc = grpc.NewServer(grpc.UnknownServiceHandler(s.call))
	auth.RegisterAuthorizationServer(s.grpc, authorizer{})
	extproc.RegisterExternalProcessorServer(s.grpc, processor{})
	ratelimit.RegisterRateLimitServiceServer(s.grpc, &counter{counts: map[string]uint32{}})
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s.http = &http.Server{Handler: s, Protocols: protocols}
	go func() { _ = s.http.Serve(listener) }() // It returns when Stop closes the listener.
	return s, nil
}

// Port that the server listens on.
func (s *Server) Port() int { return s.listener.Addr().(*net.TCPAddr).Port }

// ServeTLS serves the same by TLS on another free port of 127.0.0.1, which it returns.
func (s *Server) ServeTLS(certificate tls.Certificate) (port int, err error) {
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		return 0, err
	}
	go func() { _ = s.http.Serve(listener) }() // It returns when Stop closes the listener.
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// Stop closes the server and its connections.
func (s *Server) Stop() {
	_ = s.http.Close()
	s.grpc.Stop()
}

// Seen are the requests that arrived with the id, in order of arrival.
func (s *Server) Seen(id string) []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[id]
}

func (s *Server) remember(r Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range r.Headers[IDHeader] {
		s.seen[id] = append(s.seen[id], r)
	}
}

// ServeHTTP answers 200 with the request as JSON. The query can ask for another answer: `status=404`, `body=text`, and
// any number of `header=name:value`. What is sent to /records is shown there, and KeysPath answers with Keys.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case websocket.IsWebSocketUpgrade(r):
		s.talk(w, r)
	case strings.HasPrefix(r.Header.Get("content-type"), "application/grpc"):
		s.grpc.ServeHTTP(w, r)
	default:
		s.answer(w, r)
	}
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		// The client is gone, or the gateway cut the request: nobody reads an answer.
		return
	}
	request := received(r, body)
	s.remember(request)
	switch r.URL.Path {
	case "/records":
		s.record(w, request)
		return
	case KeysPath:
		_, _ = io.WriteString(w, Keys)
		return
	}
	query := r.URL.Query()
	for _, header := range query["header"] {
		name, value, _ := strings.Cut(header, ":")
		w.Header().Add(name, value)
	}
	text := []byte(query.Get("body"))
	if !query.Has("body") {
		w.Header().Set("content-type", "application/json")
		// Strings and numbers can always be written.
		text, _ = json.Marshal(request)
	}
	w.Header().Set("content-length", strconv.Itoa(len(text)))
	if code, err := strconv.Atoi(query.Get("status")); err == nil {
		w.WriteHeader(code)
	}
	if r.Method != http.MethodHead {
		_, _ = w.Write(text)
	}
}

// record keeps what is sent to /records, which GET shows.
func (s *Server) record(w http.ResponseWriter, r Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method == http.MethodGet {
		_, _ = io.WriteString(w, strings.Join(s.records, "\n"))
		return
	}
	s.records = append(s.records, r.Method+" "+r.Host+" "+r.Path+" "+r.Body)
}

// talk repeats every websocket message.
func (s *Server) talk(w http.ResponseWriter, r *http.Request) {
	s.remember(received(r, nil))
	upgrader := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	for {
		kind, message, err := conn.ReadMessage()
		if err != nil {
			return
		}
		if err := conn.WriteMessage(kind, message); err != nil {
			return
		}
	}
}

// Trailer is a trailer of each gRPC answer.
const Trailer = "x-echo-trailer"

// call answers any gRPC method that takes and returns one StringValue: with the same text, or with the status whose
// number the text is.
func (s *Server) call(_ any, stream grpc.ServerStream) error {
	message := &wrapperspb.StringValue{}
	if err := stream.RecvMsg(message); err != nil {
		return err
	}
	method, _ := grpc.MethodFromServerStream(stream)
	s.remember(called(stream.Context(), method, message.GetValue()))
	stream.SetTrailer(metadata.Pairs(Trailer, "after"))
	if code, err := strconv.Atoi(message.GetValue()); err == nil && code > 0 {
		return status.Error(codes.Code(code), "as the message asks")
	}
	return stream.SendMsg(message)
}

func received(r *http.Request, body []byte) Request {
	headers := map[string][]string{}
	for name, values := range r.Header {
		headers[strings.ToLower(name)] = values
	}
	out := Request{Protocol: r.Proto, Method: r.Method, Host: r.Host, Path: r.URL.RequestURI(), Headers: headers, BodyLength: len(body)}
	if len(body) <= bodyShown {
		out.Body = string(body)
	}
	sum := sha256.Sum256(body)
	out.BodySHA256 = hex.EncodeToString(sum[:])
	return out
}

func called(ctx context.Context, method, message string) Request {
	headers, _ := metadata.FromIncomingContext(ctx)
	r := Request{Protocol: "gRPC", Method: http.MethodPost, Path: method, Headers: headers, Body: message, BodyLength: len(message)}
	if hosts := headers[":authority"]; len(hosts) > 0 {
		r.Host = hosts[0]
	}
	return r
}
