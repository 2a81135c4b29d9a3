package envoytest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Gateway is one chain behind a listener of its own.
type Gateway struct {
	// URL without a path, for clients of the test's own.
	URL string
	// Address is its host:port, for what no HTTP client sends.
	Address string

	envoy *Envoy
}

// Request is what Do sends. The zero value is GET / without headers of its own.
type Request struct {
	Method string
	// Path with the query, sent as it is.
	Path string
	Host string
	// Header lines `name: value`, sent in their order within a name.
	Header []string
	Body   string
	// Trailer lines like those of Header. With them the body, which must not be empty, is of unknown length.
	Trailer []string
	// UnknownLength sends the body without Content-Length.
	UnknownLength bool
	// HTTP2 sends it as HTTP/2; the upstream then gets HTTP/2 too.
	HTTP2 bool
}

// Answer is what came back.
type Answer struct {
	Status  int
	Header  http.Header
	Trailer http.Header
	Body    string
	// Upstream is the request as the upstream saw it, nil where it did not get there.
	Upstream *Received
}

// Message is the field `message` of a JSON body, or "".
func (a *Answer) Message() string {
	var body struct {
		Message string `json:"message"`
	}
	_ = json.Unmarshal([]byte(a.Body), &body) // another body has no message
	return body.Message
}

// Log is what the Envoy has logged since it started.
func (g *Gateway) Log() string { return g.envoy.Log() }

// WaitLog waits until a line of the Envoy's log contains text.
func (g *Gateway) WaitLog(t testing.TB, text string) {
	t.Helper()
	g.envoy.WaitLog(t, text)
}

// lastID counts the requests of the test binary.
var lastID atomic.Int64

// Do sends a request and reads the whole answer. Redirects are not followed. It may be called concurrently.
func (g *Gateway) Do(t testing.TB, r Request) *Answer {
	t.Helper()
	answer, err := g.send(r)
	if err != nil {
		t.Fatalf("%s %s: %v\nEnvoy's log:\n%s", r.Method, r.Path, err, g.envoy.Log())
	}
	return answer
}

// Get is Do for GET and header lines.
func (g *Gateway) Get(t testing.TB, path string, header ...string) *Answer {
	t.Helper()
	return g.Do(t, Request{Path: path, Header: header})
}

// Upgrade asks for a WebSocket, sends text on it and reads as much back. The upstream sends back what comes.
func (g *Gateway) Upgrade(t testing.TB, path, text string, header ...string) (a *Answer, back string) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", g.Address, timeout)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprint(lastID.Add(1))
	lines := append([]string{
		"GET " + path + " HTTP/1.1", "Host: " + g.Address, "Connection: Upgrade", "Upgrade: websocket", idHeader + ": " + id, EchoStatus + ": 101",
	}, header...)
	if _, err := io.WriteString(conn, strings.Join(lines, "\r\n")+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	response, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatalf("%v\nEnvoy's log:\n%s", err, g.envoy.Log())
	}
	a = &Answer{Status: response.StatusCode, Header: response.Header, Upstream: g.envoy.upstream.take(id)}
	if response.StatusCode != http.StatusSwitchingProtocols {
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		a.Body = string(body)
		return a, ""
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if n, err := io.ReadFull(in, got); err != nil {
		t.Fatalf("%v, after %q\nEnvoy's log:\n%s", err, got[:n], g.envoy.Log())
	}
	return a, string(got)
}

// DoAtOnce sends a request 16 times at once, and all have to be answered before the first of them would time out. What costs an
// Envoy seconds for each is found so, and a slow machine is not taken for that.
func (g *Gateway) DoAtOnce(t testing.TB, r Request) []*Answer {
	t.Helper()
	answers, errs := make([]*Answer, 16), make([]error, 16)
	var wait sync.WaitGroup
	for i := range answers {
		wait.Go(func() { answers[i], errs[i] = g.send(r) })
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return answers
}

func (g *Gateway) send(r Request) (*Answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var body io.Reader
	if r.Body != "" {
		body = strings.NewReader(r.Body)
	}
	if r.UnknownLength || len(r.Trailer) > 0 {
		body = io.MultiReader(body) // a reader whose length net/http does not know
	}
	request, err := http.NewRequestWithContext(ctx, r.Method, g.URL, body)
	if err != nil {
		return nil, err
	}
	if r.Path != "" {
		request.URL = &url.URL{Scheme: "http", Host: g.Address, Opaque: r.Path}
	}
	request.Host = r.Host
	request.Header["User-Agent"] = nil // Go sends its own otherwise
	for _, line := range r.Header {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("header line %q has no colon", line)
		}
		if strings.EqualFold(name, "user-agent") {
			request.Header["User-Agent"] = append(request.Header["User-Agent"], strings.TrimSpace(value))
			continue
		}
		request.Header.Add(name, strings.TrimSpace(value))
	}
	for _, line := range r.Trailer {
		if request.Trailer == nil {
			request.Trailer = http.Header{}
		}
		name, value, _ := strings.Cut(line, ":")
		request.Trailer.Add(name, strings.TrimSpace(value))
	}
	id := fmt.Sprint(lastID.Add(1))
	request.Header.Set(idHeader, id)
	response, err := g.envoy.clients[r.HTTP2].RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("status %d, then: %w", response.StatusCode, err)
	}
	return &Answer{
		Status: response.StatusCode, Header: response.Header, Trailer: response.Trailer,
		Body: string(text), Upstream: g.envoy.upstream.take(id),
	}, nil
}

// transport sends as said and adds nothing.
func transport(http2 bool) *http.Transport {
	t := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols)}
	t.Protocols.SetHTTP1(!http2)
	t.Protocols.SetUnencryptedHTTP2(http2)
	return t
}
