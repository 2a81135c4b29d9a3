package install

import (
	"bytes"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// istiodAddress stands for istiod's pod: API servers take no EndpointSlice with an address of 127.0.0.1.
const istiodAddress = "192.0.2.1"

// network is what lies between pods, API server and istiod in a cluster. It notes what pods ask the API server for.
type network struct {
	// egress is kube-apiserver's configuration, by which it reaches pods.
	egress string

	mu      sync.Mutex
	calls   map[call]bool
	refused []call
	// webhook is the address of a pod that serves webhooks; empty if there is none.
	webhook string
}

// call is a request to the API server, as an authorizer sees it.
type call struct{ verb, group, resource, namespace, name string }

var infos = request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}

// newNetwork makes the way from the API server to pods, which it wants to know when it starts.
func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{calls: map[call]bool{}}
	// The path of a socket has at most about 100 bytes.
	dir, err := os.MkdirTemp("", "egress-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "socket")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	tunnel := &http.Server{Handler: http.HandlerFunc(n.tunnel), ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = tunnel.Serve(listener) }() // until it is closed
	t.Cleanup(func() { tunnel.Close() })
	n.egress = filepath.Join(dir, "egress.yaml")
	if err := os.WriteFile(n.egress, []byte(`
apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection: {proxyProtocol: HTTPConnect, transport: {uds: {udsName: `+socket+`}}}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	return n
}

// tunnel connects the API server to the webhooks, whatever address it has for them.
func (n *network) tunnel(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	address := n.webhook
	n.mu.Unlock()
	pod, err := net.Dial("tcp", address)
	if r.Method != http.MethodConnect || address == "" || err != nil {
		http.Error(w, "no pod serves it", http.StatusBadGateway)
		return
	}
	defer pod.Close()
	client, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer client.Close()
	if _, err := io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(pod, client) // until one of them is closed
		pod.Close()
	}()
	_, _ = io.Copy(client, pod)
}

// serve sends webhooks' requests to a pod; to none if the address is empty.
func (n *network) serve(address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.webhook = address
}

// apiServer is the API server's URL for pods.
func (n *network) apiServer(t *testing.T, host string) string {
	t.Helper()
	target, err := url.Parse(host)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(&httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:      &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true},
		FlushInterval:  -1,
		ModifyResponse: n.note,
		ErrorLog:       log.New(io.Discard, "", 0),
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	})
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

// note remembers an answered call, and brings istiod's address to where istiod is.
func (n *network) note(response *http.Response) error {
	info, err := infos.NewRequestInfo(response.Request)
	if err != nil || !info.IsResourceRequest {
		return err
	}
	c := call{info.Verb, info.APIGroup, info.Resource, info.Namespace, info.Name}
	if info.Subresource != "" {
		c.resource += "/" + info.Subresource
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch response.StatusCode {
	case http.StatusForbidden, http.StatusUnauthorized:
		n.refused = append(n.refused, c)
		return nil
	case http.StatusCreated:
		// Who applies what is not there needs the right to create it, too.
		created := c
		created.verb = "create"
		n.calls[created] = true
	}
	n.calls[c] = true
	if c.resource != "endpointslices" {
		return nil
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	// Both addresses have the same length, so that it does not matter how they are encoded.
	response.Body = io.NopCloser(bytes.NewReader(bytes.ReplaceAll(body, []byte(istiodAddress), []byte("127.0.0.1"))))
	response.ContentLength = int64(len(body))
	response.Header.Set("content-length", strconv.Itoa(len(body)))
	return nil
}

// made says whether a pod has made a call that a right permits.
func (n *network) made(r right) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.calls {
		if c.verb == r.verb && c.group == r.group && c.resource == r.resource &&
			(r.namespace == "" || c.namespace == r.namespace) && (r.name == "" || c.name == r.name) {
			return true
		}
	}
	return false
}

// forbidden are the calls that the API server refused.
func (n *network) forbidden() []call {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.refused
}

func (c call) String() string {
	return strings.Join([]string{c.verb, c.group, c.resource, c.namespace, c.name}, " ")
}
