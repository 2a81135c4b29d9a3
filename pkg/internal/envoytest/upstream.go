package envoytest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Received is a request as the upstream saw it.
type Received struct {
	Method string
	// Path with the query, as sent.
	Path string
	Host string
	// Proto is HTTP/1.1 or HTTP/2.0.
	Proto string
	// Header lines, `name: value` with lower-case names, sorted by name; lines of one name keep their order.
	Header []string
	Body   string
}

// Values are the values of a header, in order.
func (r *Received) Values(name string) []string {
	var out []string
	for _, line := range r.Header {
		if n, v, _ := strings.Cut(line, ": "); strings.EqualFold(n, name) {
			out = append(out, v)
		}
	}
	return out
}

// Value is the first value of a header, or "".
func (r *Received) Value(name string) string {
	if vs := r.Values(name); len(vs) > 0 {
		return vs[0]
	}
	return ""
}

// Request headers that tell the upstream what to answer instead of 200 with a Received as JSON. They are not part of
// the Received.
const (
	// EchoStatus is the status; 101 makes the connection one that sends back what comes.
	EchoStatus = "echo-status"
	// EchoHeader is a header line `name: value`; may be repeated.
	EchoHeader = "echo-header"
	// EchoTrailer is a trailer line `name: value`; may be repeated.
	EchoTrailer = "echo-trailer"
	// EchoBody is the body.
	EchoBody = "echo-body"
)

// idHeader tells requests apart, so that an answer finds what the upstream received for it. It is no part of a Received.
const idHeader = "envoytest-id"

// upstream answers requests and remembers them by their id.
type upstream struct {
	address string

	mu       sync.Mutex
	received map[string]*Received
}

func startUpstream(t testing.TB) *upstream {
	u := &upstream{received: make(map[string]*Received)}
	s := httptest.NewUnstartedServer(u)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	u.address = s.Listener.Addr().String()
	return u
}

// take returns what was received under id, or nil.
func (u *upstream) take(id string) *Received {
	u.mu.Lock()
	defer u.mu.Unlock()
	r := u.received[id]
	delete(u.received, id)
	return r
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the client went away
	}
	told := r.Header.Clone()
	for _, name := range []string{EchoStatus, EchoHeader, EchoTrailer, EchoBody, idHeader} {
		r.Header.Del(name)
	}
	received := &Received{
		Method: r.Method, Path: r.RequestURI, Host: r.Host, Proto: r.Proto, Header: lines(r.Header), Body: string(body),
	}
	u.mu.Lock()
	u.received[told.Get(idHeader)] = received
	u.mu.Unlock()
	if told.Get(EchoStatus) == "101" {
		upgrade(w, told)
		return
	}
	answer(w, told, received)
}

// upgrade turns the connection into one that sends back what comes.
func upgrade(w http.ResponseWriter, told http.Header) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err) // of HTTP/1
	}
	defer conn.Close()
	lines := []string{"HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: " + told.Get("upgrade")}
	for _, line := range append(append(lines, told.Values(EchoHeader)...), "") {
		_, _ = buffered.WriteString(line + "\r\n") // fails only where the client went away
	}
	_ = buffered.Flush()
	_, _ = io.Copy(conn, buffered)
}

func answer(w http.ResponseWriter, told http.Header, received *Received) {
	body, err := json.Marshal(received)
	if err != nil {
		panic(err) // strings and lists of strings
	}
	w.Header().Set("content-type", "application/json")
	if told.Get(EchoBody) != "" {
		body = []byte(told.Get(EchoBody))
		w.Header().Set("content-type", "text/plain")
	}
	addLines(w.Header(), "", told.Values(EchoHeader))
	status := http.StatusOK
	if s, err := strconv.Atoi(told.Get(EchoStatus)); err == nil {
		status = s
	}
	w.WriteHeader(status)
	trailers := told.Values(EchoTrailer)
	if len(trailers) > 0 {
		_ = http.NewResponseController(w).Flush() // a body of known length has no trailers in HTTP/1
	}
	if status != http.StatusNoContent && status != http.StatusNotModified {
		_, _ = w.Write(body) // fails only where the client went away
	}
	addLines(w.Header(), http.TrailerPrefix, trailers)
}

// addLines adds header lines `name: value`, in place of what the header had under these names.
func addLines(h http.Header, prefix string, lines []string) {
	told := make(http.Header)
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		told.Add(prefix+name, strings.TrimSpace(value))
	}
	for name, values := range told {
		h[name] = values
	}
}

func lines(h http.Header) []string {
	var out []string
	for name, values := range h {
		for _, v := range values {
			out = append(out, strings.ToLower(name)+": "+v)
		}
	}
	slices.SortStableFunc(out, func(a, b string) int {
		an, _, _ := strings.Cut(a, ":")
		bn, _, _ := strings.Cut(b, ":")
		return strings.Compare(an, bn)
	})
	return out
}
