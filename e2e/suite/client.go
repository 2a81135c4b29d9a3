package suite

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/istio-plugins/istio-plugins/e2e/echo"
	"github.com/istio-plugins/istio-plugins/e2e/loopback"
)

// requestTimeout bounds one request. The longest that a case expects is the 5 s after which a plugin gives up on a call.
const requestTimeout = 10 * time.Second

// defaultPort is the one that requests go to unless they say otherwise.
const defaultPort = 8080

// GatewayPort is the port as the case's Gateway names it.
func (r Request) GatewayPort() int64 {
	if r.Port == 0 {
		return defaultPort
	}
	return int64(r.Port)
}

// Send sends the request to the port of the gateway on a new connection (one from before a change may still be served
// by the listener from before the change) and returns the answer, with what arrived at the upstream.
func (r Request) Send(ctx context.Context, port int, upstream *echo.Server) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	id := uuid.NewString()
	send := r.sendHTTP
	switch r.Protocol {
	case "", "http1", "http2":
	case "grpc":
		send = r.call
	case "raw":
		send = r.write
	case "websocket":
		send = r.talk
	default:
		return Answer{}, fmt.Errorf("protocol %q is unknown, it can be http1, http2, raw, grpc or websocket", r.Protocol)
	}
	answer, err := send(ctx, loopback.Address(port), id)
	answer.Upstream = upstream.Seen(id)
	return answer, err
}

func (r Request) sendHTTP(ctx context.Context, address, id string) (Answer, error) {
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	scheme := "http"
	if r.TLS {
		scheme = "https"
	}
	request, err := http.NewRequestWithContext(ctx, method, scheme+"://"+address, r.body())
	if err != nil {
		return Answer{}, err
	}
	// Go would refuse some paths as part of a URL. Only what starts with two slashes has another meaning here.
	if strings.HasPrefix(r.Path, "//") {
		request.URL.Path, request.URL.RawQuery, _ = strings.Cut(r.Path, "?")
	} else {
		request.URL.Opaque = r.Path
	}
	request.Host = r.Host
	request.Header = r.header(id)
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true, Protocols: &http.Protocols{}}
	transport.Protocols.SetHTTP1(r.Protocol != "http2")
	transport.Protocols.SetUnencryptedHTTP2(r.Protocol == "http2" && !r.TLS)
	transport.Protocols.SetHTTP2(r.Protocol == "http2" && r.TLS)
	// Certificates are the tests' own and say nothing about the gateway.
	transport.TLSClientConfig = &tls.Config{ServerName: cmp.Or(r.SNI, r.Host), InsecureSkipVerify: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return Answer{}, err
	}
	return read(response)
}

// write sends HTTP/1.1 in which the method, the path, the host and the headers stand as the case has them.
func (r Request) write(ctx context.Context, address, id string) (Answer, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return Answer{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	method := cmp.Or(r.Method, http.MethodGet)
	text := &strings.Builder{}
	fmt.Fprintf(text, "%s %s HTTP/1.1\r\nhost: %s\r\n%s: %s\r\nconnection: close\r\n", method, r.Path, r.Host, echo.IDHeader, id)
	for name, values := range r.Headers {
		for _, value := range values {
			fmt.Fprintf(text, "%s: %s\r\n", name, value)
		}
	}
	fmt.Fprintf(text, "content-length: %d\r\n\r\n%s", len(r.Body), r.Body)
	if _, err := io.WriteString(conn, text.String()); err != nil {
		return Answer{}, err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return Answer{}, err
	}
	return read(response)
}

// read reads the whole answer.
func read(response *http.Response) (Answer, error) {
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return Answer{}, fmt.Errorf("the answer's body: %w", err)
	}
	return Answer{Status: response.StatusCode, Headers: response.Header, Trailers: response.Trailer, Body: string(body)}, nil
}

func (r Request) body() io.Reader {
	if r.BodySize > 0 {
		return strings.NewReader(strings.Repeat("b", r.BodySize))
	}
	if r.Body == "" {
		return http.NoBody
	}
	return strings.NewReader(r.Body)
}

func (r Request) header(id string) http.Header {
	header := http.Header{}
	for name, values := range r.Headers {
		for _, value := range values {
			header.Add(name, value)
		}
	}
	header.Set(echo.IDHeader, id)
	return header
}

// call sends the body as the message of a gRPC call.
func (r Request) call(ctx context.Context, address, id string) (Answer, error) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithAuthority(r.Host), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return Answer{}, err
	}
	defer conn.Close()
	ctx = metadata.NewOutgoingContext(ctx, metadata.Pairs(echo.IDHeader, id))
	for name, values := range r.Headers {
		for _, value := range values {
			ctx = metadata.AppendToOutgoingContext(ctx, name, value)
		}
	}
	message := &wrapperspb.StringValue{}
	var header, trailer metadata.MD
	err = conn.Invoke(ctx, r.Path, wrapperspb.String(r.Body), message, grpc.Header(&header), grpc.Trailer(&trailer))
	s, known := status.FromError(err)
	if !known {
		return Answer{}, err
	}
	answer := Answer{Status: http.StatusOK, GRPCStatus: int(s.Code()), Headers: http.Header(header), Trailers: http.Header(trailer), Body: message.GetValue()}
	if err != nil {
		answer.Body = s.Message()
	}
	return answer, nil
}

// talk opens a websocket and sends the body as a message; the answer's body is the message that comes back.
func (r Request) talk(ctx context.Context, address, id string) (Answer, error) {
	dialer := websocket.Dialer{NetDialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}}
	conn, response, err := dialer.DialContext(ctx, "ws://"+r.Host+r.Path, r.header(id))
	if errors.Is(err, websocket.ErrBadHandshake) {
		defer response.Body.Close()
		// The dialer keeps the beginning of the body.
		body, _ := io.ReadAll(response.Body)
		return Answer{Status: response.StatusCode, Headers: response.Header, Body: string(body)}, nil
	}
	if err != nil {
		return Answer{}, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetReadDeadline(deadline)
	}
	if err := conn.WriteMessage(websocket.TextMessage, []byte(r.Body)); err != nil {
		return Answer{}, err
	}
	_, message, err := conn.ReadMessage()
	if err != nil {
		return Answer{}, err
	}
	return Answer{Status: response.StatusCode, Headers: response.Header, Body: string(message)}, nil
}
