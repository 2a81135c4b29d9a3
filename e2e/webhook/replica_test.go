package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/istio-plugins/istio-plugins/e2e/loopback"
	"github.com/istio-plugins/istio-plugins/pkg/cluster"
	"github.com/istio-plugins/istio-plugins/pkg/webhook"
)

// namespace of the controller.
const namespace = "istio-system"

// replica is a running manager with the webhooks.
type replica struct {
	address string
	cancel  context.CancelFunc
	done    chan error
}

// startReplica starts the webhooks on a free port. Without a URL they are known by a Service, as in a cluster. What objects
// refer to, they read from the manager's cache if there is no reader.
func startReplica(t *testing.T, config *rest.Config, url string, c clock.Clock, reader client.Reader) *replica {
	t.Helper()
	mgr, err := manager.New(config, manager.Options{Scheme: cluster.NewScheme(), Metrics: metricsserver.Options{BindAddress: "0"}})
	if err != nil {
		t.Fatal(err)
	}
	port := loopback.Port()
	if err := webhook.Add(mgr, webhook.Options{Namespace: namespace, URL: url, Host: "127.0.0.1", Port: port, Clock: c, Reader: reader}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &replica{address: loopback.Address(port), cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- mgr.Start(ctx) }()
	t.Cleanup(func() { r.stop(t) })
	return r
}

// stop ends the replica as a signal does.
func (r *replica) stop(t *testing.T) {
	t.Helper()
	if r.cancel == nil {
		return
	}
	r.cancel()
	r.cancel = nil
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}

// handshake is what a client meets that knows the bundle and has no connection yet. It expects a server of this name.
func (r *replica) handshake(ctx context.Context, bundle []byte, name string) (*x509.Certificate, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return nil, errors.New("the bundle holds no certificate")
	}
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: name}}
	conn, err := dialer.DialContext(ctx, "tcp", r.address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// balancer spreads connections over replicas, as a Service does.
type balancer struct {
	url      string
	replicas []*replica
}

// startBalancer listens at once, so that the URL is known before there are replicas.
func startBalancer(t *testing.T) (*balancer, func(...*replica)) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	var replicas atomic.Pointer[[]*replica]
	go func() {
		for i := 0; ; i++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			list := replicas.Load()
			if list == nil {
				conn.Close()
				continue
			}
			go forward(conn, (*list)[i%len(*list)].address)
		}
	}()
	b := &balancer{url: (&url.URL{Scheme: "https", Host: listener.Addr().String()}).String()}
	return b, func(r ...*replica) { replicas.Store(&r) }
}

func forward(client net.Conn, address string) {
	defer client.Close()
	server, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client)
		server.Close()
	}()
	_, _ = io.Copy(client, server)
}

// timeout bounds what is awaited; nothing takes a second.
const timeout = 30 * time.Second

// await returns when done says so. An error is why not yet.
func await(t *testing.T, done func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	for {
		err := done(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
