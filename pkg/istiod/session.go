package istiod

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	// debugType is the type of configuration by which istiod answers questions about itself.
	debugType = "istio.io/debug"
	// pingEvery and pingTimeout are those of Istio's agent.
	pingEvery, pingTimeout = 30 * time.Second, 10 * time.Second
)

// session is the probe's connection to one istiod.
type session struct {
	// node is the probe's name, which no other session has.
	node   string
	conn   *grpc.ClientConn
	stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	end    context.CancelFunc
	// ready is closed when istiod has answered for the first time, and so knows the probe.
	ready chan struct{}
	// ended is closed when the session has ended, and err says why.
	ended chan struct{}
	err   error
	// answers to questions.
	answers chan *discovery.DeltaDiscoveryResponse
	// asking is held by whoever waits for an answer.
	asking sync.Mutex
	// described are connected gateways, by the id that the list of gateways gives them.
	described map[string]description

	sending sync.Mutex
	mu      sync.Mutex
	// sights by kind are the newest marks that istiod sent.
	sights map[string]markSight
}

// markSight is the sight of the mark with an id.
type markSight struct {
	id string
	sight
}

// connect opens a session, which lasts until the stream breaks, life ends or end is called; ctx is for the opening only.
func connect(ctx, life context.Context, address string, o Options) (*session, error) {
	transport, err := o.transport(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(address, append(transport,
		grpc.WithNoProxy(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingTimeout}),
		// A list of all proxies of a large mesh has some megabytes.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))...)
	if err != nil {
		return nil, err
	}
	s := &session{
		node:      fmt.Sprintf("istio-plugins-%s.%s", rand.Text(), o.Namespace),
		conn:      conn,
		ready:     make(chan struct{}),
		ended:     make(chan struct{}),
		answers:   make(chan *discovery.DeltaDiscoveryResponse),
		described: map[string]description{},
		sights:    map[string]markSight{},
	}
	life, s.end = context.WithCancel(life)
	// The stream outlives ctx, but its opening must not.
	opened := context.AfterFunc(ctx, s.end)
	defer opened()
	if s.stream, err = discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(life); err != nil {
		s.end()
		conn.Close()
		return nil, timedOut(ctx, err)
	}
	go s.receive(life)
	if err := s.subscribe(o); err != nil && !errors.Is(err, io.EOF) {
		s.end()
		return nil, err
	}
	select {
	case <-s.ready:
		return s, nil
	case <-s.ended:
		return nil, timedOut(ctx, s.err)
	}
}

// timedOut puts the reason for an error that the end of ctx caused.
func timedOut(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("it does not answer: %w", ctx.Err())
	}
	return err
}

// subscribe presents the probe as a gateway that asks for the marks.
func (s *session) subscribe(o Options) error {
	labels := map[string]any{}
	for key, value := range probeLabels() {
		labels[key] = value
	}
	metadata, err := structpb.NewStruct(map[string]any{
		// istiod lets an identity act for proxies of its own namespace.
		"NAMESPACE": o.Namespace,
		"LABELS":    labels,
		// It shows in istiod's metrics, which count proxies by version.
		"ISTIO_VERSION": "istio-plugins",
	})
	if err != nil {
		return err
	}
	return s.send(&discovery.DeltaDiscoveryRequest{
		Node:                   &core.Node{Id: fmt.Sprintf("router~0.0.0.0~%s~%s.svc.cluster.local", s.node, o.Namespace), Metadata: metadata},
		TypeUrl:                extensionType,
		ResourceNamesSubscribe: markResources(o.RootNamespace),
	})
}

// receive notes the marks and hands on the answers, until the stream breaks.
func (s *session) receive(life context.Context) {
	defer close(s.ended)
	defer s.conn.Close()
	defer s.end()
	for first := true; ; {
		r, err := s.stream.Recv()
		if err != nil {
			s.err = err
			return
		}
		switch r.GetTypeUrl() {
		case debugType:
			select {
			case s.answers <- r:
			case <-life.Done():
			}
		case extensionType:
			if s.err = s.note(r, first); s.err != nil {
				return
			}
			if first {
				close(s.ready)
				first = false
			}
			// Where this fails, so does the next reading, which says why.
			_ = s.send(&discovery.DeltaDiscoveryRequest{TypeUrl: extensionType, ResponseNonce: r.GetNonce()})
		}
	}
}

// note remembers where a mark was seen first.
func (s *session) note(r *discovery.DeltaDiscoveryResponse, first bool) error {
	v, err := parseVersion(r.GetSystemVersionInfo())
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range r.GetResources() {
		if kind, id := markID(resource.GetResource()); s.sights[kind].id != id {
			s.sights[kind] = markSight{id, sight{v, first}}
		}
	}
	return nil
}

// sight of the mark, if there is one: the version by which all its objects were seen, or nil.
func (s *session) sight(m *Mark) *sight {
	if m == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var all sight
	for _, kind := range m.kinds() {
		seen := s.sights[kind]
		if seen.id != m.id {
			return nil
		}
		all = sight{max(all.version, seen.version), all.late || seen.late}
	}
	return &all
}

// ask asks istiod a question of its debug interface.
func (s *session) ask(ctx context.Context, question string) ([]byte, error) {
	s.asking.Lock()
	defer s.asking.Unlock()
	if err := s.send(&discovery.DeltaDiscoveryRequest{TypeUrl: debugType, ResourceNamesSubscribe: []string{question}}); err != nil {
		return nil, s.failure(ctx, err)
	}
	for {
		select {
		case r := <-s.answers:
			// Whoever asked before may have lost patience, and this is the answer to that.
			if list := r.GetResources(); len(list) == 1 && list[0].GetName() == question {
				return list[0].GetResource().GetValue(), nil
			}
		case <-s.ended:
			return nil, s.err
		case <-ctx.Done():
			return nil, timedOut(ctx, nil)
		}
	}
}

// failure is why the stream broke, which a failed send does not tell.
func (s *session) failure(ctx context.Context, err error) error {
	select {
	case <-s.ended:
		return s.err
	case <-ctx.Done():
		return err
	}
}

func (s *session) send(r *discovery.DeltaDiscoveryRequest) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	return s.stream.Send(r)
}

// alive says whether the stream is open, as far as is known.
func (s *session) alive() bool {
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// transport is how to reach istiod, with a token if there is one.
func (o Options) transport(ctx context.Context) ([]grpc.DialOption, error) {
	if o.TLS == nil {
		return []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, nil
	}
	config, err := o.TLS(ctx)
	if err != nil {
		return nil, err
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(withHTTP2(config)))}
	if o.Token != nil {
		options = append(options, grpc.WithPerRPCCredentials(token(o.Token)))
	}
	return options, nil
}

// withHTTP2 leaves the caller's config alone.
func withHTTP2(config *tls.Config) *tls.Config {
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	return config
}

// token of a service account, read anew for every session: it expires.
type token func(context.Context) (string, error)

func (t token) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	text, err := t(ctx)
	if err != nil {
		return nil, err
	}
	if text == "" {
		return nil, errors.New("the token is empty")
	}
	return map[string]string{"authorization": "Bearer " + text}, nil
}

func (token) RequireTransportSecurity() bool { return true }
