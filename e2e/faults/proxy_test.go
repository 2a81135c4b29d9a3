package faults

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/istio-plugins/istio-plugins/e2e/stack"
)

// proxy stands between one controller and the API server. It passes requests on, but for those that rules are about, and
// counts the writes.
type proxy struct {
	// Kubeconfig leads through the proxy.
	Kubeconfig string

	server  *httptest.Server
	forward *httputil.ReverseProxy

	mu      sync.Mutex
	rules   []*rule
	watches map[*http.Request]context.CancelFunc
	writes  map[string]int
}

// call is what a request asks the API server for.
type call struct {
	// verb is that of HTTP, or WATCH.
	verb                        string
	resource, name, subresource string
}

func (c call) writes() bool { return c.verb != http.MethodGet && c.verb != "WATCH" }

// fault is what becomes of a request instead of its way to the API server, which is next.
type fault func(w http.ResponseWriter, r *http.Request, next http.Handler)

// rule applies a fault to calls.
type rule struct {
	applies func(call) bool
	fault   fault
	// after so many calls that it applies to the rule begins; it ends after count more, or never if that is 0.
	after, count int

	proxy *proxy
	seen  int
	// began is closed at the first call that the fault happens to, applied when it has happened to the last one.
	began, applied chan struct{}
}

// startProxy starts a proxy that ends with the test.
func startProxy(t *testing.T, s *stack.Stack) *proxy {
	t.Helper()
	target, err := url.Parse(s.Config.Host)
	if err != nil {
		t.Fatal(err)
	}
	quiet := log.New(io.Discard, "", 0) // broken connections are what it is for
	p := &proxy{watches: map[*http.Request]context.CancelFunc{}, writes: map[string]int{}}
	p.forward = &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true},
		FlushInterval: -1,
		ErrorLog:      quiet,
		// Who asks an API server that is not there gets no answer.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	p.server = httptest.NewUnstartedServer(p)
	p.server.EnableHTTP2 = true
	p.server.Config.ErrorLog = quiet
	p.server.StartTLS()
	t.Cleanup(func() {
		p.server.CloseClientConnections()
		p.server.Close()
	})
	config, err := clientcmd.LoadFromFile(s.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range config.Clusters {
		c.Server = p.server.URL
	}
	p.Kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, p.Kubeconfig); err != nil {
		t.Fatal(err)
	}
	return p
}

// add puts a rule in force; the first that applies counts.
func (p *proxy) add(r rule) *rule {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.proxy, r.began, r.applied = p, make(chan struct{}), make(chan struct{})
	p.rules = append(p.rules, &r)
	return &r
}

// end takes the rule back.
func (r *rule) end() {
	r.proxy.mu.Lock()
	defer r.proxy.mu.Unlock()
	r.proxy.rules = slices.DeleteFunc(r.proxy.rules, func(other *rule) bool { return r == other })
}

// cutWatches breaks all watches that are open.
func (p *proxy) cutWatches() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for cut := range maps.Values(p.watches) {
		cut()
	}
	return len(p.watches)
}

// written is how many writes of the resource's objects the API server was asked for, or of a subresource: plugins/status.
func (p *proxy) written(resource string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.writes[resource]
}

// writtenInAll is how many writes the API server was asked for, of whatever but the lease, which is renewed for ever.
func (p *proxy) writtenInAll() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	sum := 0
	for resource, n := range p.writes {
		if resource != "leases" {
			sum += n
		}
	}
	return sum
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := callOf(r)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	p.mu.Lock()
	if c.writes() {
		p.writes[strings.TrimSuffix(c.resource+"/"+c.subresource, "/")]++
	}
	found := p.find(c)
	if c.verb == "WATCH" {
		p.watches[r] = cancel
	}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watches, r)
	}()
	if found != nil {
		found(w, r.WithContext(ctx), p.forward)
		return
	}
	p.forward.ServeHTTP(w, r.WithContext(ctx))
}

// find is the fault of a call; nil for none.
func (p *proxy) find(c call) fault {
	for _, r := range p.rules {
		if !r.applies(c) || r.count > 0 && r.seen >= r.after+r.count {
			continue
		}
		if r.seen++; r.seen <= r.after {
			continue
		}
		if r.seen == r.after+1 {
			close(r.began)
		}
		if r.seen != r.after+r.count {
			return r.fault
		}
		return func(w http.ResponseWriter, request *http.Request, next http.Handler) {
			defer close(r.applied)
			r.fault(w, request, next)
		}
	}
	return nil
}

// callOf reads /api/v1/… and /apis/<group>/<version>/…, with or without namespaces/<namespace>.
func callOf(r *http.Request) call {
	c := call{verb: r.Method}
	if r.URL.Query().Get("watch") == "true" {
		c.verb = "WATCH"
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	skip := 2
	if parts[0] == "apis" {
		skip = 3
	}
	parts = parts[min(skip, len(parts)):]
	if len(parts) > 2 && parts[0] == "namespaces" {
		parts = parts[2:]
	}
	for i, into := range []*string{&c.resource, &c.name, &c.subresource} {
		if i < len(parts) {
			*into = parts[i]
		}
	}
	return c
}

// generated are writes of generated objects.
func generated(c call) bool {
	return c.writes() && c.resource == "envoyfilters" && c.name != mark
}

// isBindings is for the objects that say which routes run what.
func isBindings(name string) bool { return strings.Contains(name, ".bindings.") }

// mark is written to learn what gateways have accepted; it is no generated object.
const mark = "istio-plugins-mark"

func watches(c call) bool { return c.verb == "WATCH" }

// refuses answers with an error, as the API server words it.
func refuses(code int32, reason metav1.StatusReason, headers ...string) fault {
	body, err := json.Marshal(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: code, Reason: reason, Message: "a test makes it fail",
	})
	if err != nil {
		panic(err)
	}
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(int(code))
		_, _ = w.Write(body)
	}
}

// hangs never answers.
func hangs(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
	_, _ = io.Copy(io.Discard, r.Body) // or the server would not notice that the client has gone
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

// aborts breaks the connection.
func aborts(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }

// isLate does what is asked after a channel is closed, even if nobody waits for it any more.
func isLate(release <-chan struct{}) fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		<-release
		r = r.WithContext(context.WithoutCancel(r.Context()))
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}
}

// loses does what is asked, but the answer never arrives.
func loses(_ http.ResponseWriter, r *http.Request, next http.Handler) {
	next.ServeHTTP(httptest.NewRecorder(), r)
	panic(http.ErrAbortHandler)
}

// then does what is asked, and something before the answer is sent.
func then(do func()) fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r)
		do()
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	}
}

// passes does what is asked.
func passes(w http.ResponseWriter, r *http.Request, next http.Handler) { next.ServeHTTP(w, r) }
