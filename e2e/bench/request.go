package main

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

	"github.com/istio-plugins/istio-plugins/e2e/loopback"
)

// request is one that a gateway serves.
type request struct {
	Method  string            `json:"method"`
	Path    string            `json:"path"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
}

func (r request) method() string { return cmp.Or(r.Method, http.MethodGet) }

func (r request) path() string { return cmp.Or(r.Path, "/") }

// wire is the request as HTTP/1.1 has it.
func (r request) wire(host string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s HTTP/1.1\r\nHost: %s\r\n", r.method(), r.path(), host)
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		fmt.Fprintf(&text, "%s: %s\r\n", name, r.Headers[name])
	}
	if r.Body != "" {
		fmt.Fprintf(&text, "Content-Length: %d\r\n", len(r.Body))
	}
	return text.String() + "\r\n" + r.Body
}

// stranger is who is refused, if anybody is: it comes from another address, says nothing of itself, and sends a lot.
const strangerAddress, strangerBody = "127.0.0.2", 64 << 10

// answers are what the request and a stranger's are answered with, as far as it does not change from one moment to the next.
// The request itself has to succeed.
func (r request) answers(ctx context.Context, port int, host string) (string, error) {
	own, status, err := r.answer(ctx, port, host, "127.0.0.1")
	if err != nil {
		return "", err
	}
	if status >= http.StatusBadRequest {
		return "", fmt.Errorf("%s: %s", host, own)
	}
	stranger := request{Method: r.Method, Path: r.Path}
	if r.Body != "" {
		stranger.Body = strings.Repeat("a", strangerBody)
	}
	foreign, _, err := stranger.answer(ctx, port, host, strangerAddress)
	return own + foreign, err
}

func (r request) answer(ctx context.Context, port int, host, from string) (text string, status int, err error) {
	transport := &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext}
	defer transport.CloseIdleConnections()
	sent, err := r.to(ctx, port, host)
	if err != nil {
		return "", 0, err
	}
	response, err := transport.RoundTrip(sent)
	if err != nil {
		return "", 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	response.Header.Del("Date")
	response.Header.Del("X-Envoy-Upstream-Service-Time")
	var header strings.Builder
	if err == nil {
		err = response.Header.Write(&header)
	}
	return fmt.Sprintf("%s\n%s\n%s\n", response.Status, header.String(), body), response.StatusCode, err
}

// to is the request for Go's client.
func (r request) to(ctx context.Context, port int, host string) (*http.Request, error) {
	sent, err := http.NewRequestWithContext(ctx, r.method(), "http://"+loopback.Address(port)+r.path(), strings.NewReader(r.Body))
	if err != nil {
		return nil, err
	}
	sent.Host = host
	for name, value := range r.Headers {
		sent.Header.Set(name, value)
	}
	return sent, nil
}
