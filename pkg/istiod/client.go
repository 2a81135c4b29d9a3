package istiod

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"sync"
	"time"
)

// defaultTimeout bounds the questions to one istiod for one verdict. They take milliseconds.
const defaultTimeout = 10 * time.Second

// Address is where one istiod listens.
type Address struct {
	// XDS is host:port: that of TLS, 15012, or the one without, 15010.
	XDS string
	// Debug is the URL of its debug interface, for example http://127.0.0.1:8080; empty to ask over xDS, which istiod
	// answers over TLS only.
	Debug string
	// Metrics is the URL of its metrics, for example http://10.0.0.1:15014/metrics. istiod counts refusals there, and
	// without it one may go unnoticed: where it is followed by an acknowledgement before anybody looks.
	Metrics string
}

// Options of a Client.
type Options struct {
	// Addresses are those of every istiod, ready or not, to which gateways may be connected. A Service's address will not
	// do, since it leads to any one of them.
	Addresses func(context.Context) ([]Address, error)
	// TLS is the config for each new connection; nil to connect without TLS.
	TLS func(context.Context) (*tls.Config, error)
	// Token of a service account in istiod's namespace, with the audience istio-ca. It is asked for at each new
	// connection. Nil for none.
	Token func(context.Context) (string, error)
	// Namespace of the service account.
	Namespace string
	// RootNamespace is Istio's, where the marks are. It is the default of Namespace.
	RootNamespace string
	// Timeout bounds the questions to one istiod for one verdict; 10 s if it is 0.
	Timeout time.Duration
}

// Client asks all istiods. It keeps a connection to each, between the calls as well.
type Client struct {
	options Options
	memory  *memory
	life    context.Context
	end     context.CancelFunc

	mu    sync.Mutex
	slots map[string]*slot
}

// slot holds the session with one istiod; its lock is held by who uses or replaces it.
type slot struct {
	sync.Mutex
	session *session
	// counted is the last count of refusals; nil before the first.
	counted *refusals
	// refusal of each proxy at the last look.
	refusal map[string]string
}

// New makes a client, which connects when it is asked.
func New(o Options) *Client {
	if o.Namespace == "" {
		o.Namespace = o.RootNamespace
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	c := &Client{options: o, memory: newMemory(), slots: map[string]*slot{}}
	c.life, c.end = context.WithCancel(context.Background())
	return c
}

// Close ends the connections. The client must not be used afterwards.
func (c *Client) Close() { c.end() }

// Expect is to be told the parts of workloads before any of them is written that is new or has changed. A refusal is then
// blamed on them; else it would be forgotten with the next push. It asks all istiods, for what was refused before is not
// to be blamed on them.
func (c *Client) Expect(ctx context.Context, workloads ...Workload) {
	c.look(ctx, nil)
	c.memory.expect(workloads)
}

// Recall tells of a refusal that another Client, which has ended, knew of: Rejected, or Unknown, with its message. The parts
// that it is blamed on must be expected, and be as they were then.
func (c *Client) Recall(w Workload, state State, message string, blamed []string) {
	c.memory.recall(w, state, message, blamed)
}

// Mark makes the objects that are to be written after the last one whose acceptance is to be checked, without delay:
// istiod then pushes both at once. wasmPlugins says whether WasmPlugins are among them.
//
// It connects to all istiods, so that they tell when they push the mark. One that does not answer is no error: its gateways
// may then want another mark.
func (c *Client) Mark(ctx context.Context, wasmPlugins bool) (*Mark, error) {
	m, err := newMark(c.options.RootNamespace, wasmPlugins)
	if err != nil {
		return nil, err
	}
	m.written = c.memory.written()
	c.look(ctx, nil)
	return m, nil
}

// Check says, for each workload, what its gateways have made of what was written before the mark. Only the newest mark
// can be checked. It is cheap enough to be called every 100 ms until the answer is one that stays: each istiod lists its
// proxies, and describes those gateways that it has sent something new.
func (c *Client) Check(ctx context.Context, m *Mark, workloads ...Workload) []Verdict {
	instances := c.look(ctx, m)
	verdicts := make([]Verdict, len(workloads))
	for i, w := range workloads {
		verdicts[i] = c.memory.revise(w, judge(w, instances), m.written[w.key()].Parts)
	}
	return verdicts
}

// look asks all istiods and remembers what was refused. m is nil where the verdicts do not matter.
func (c *Client) look(ctx context.Context, m *Mark) []instance {
	instances := c.lookAt(ctx, m)
	c.memory.note(instances)
	return instances
}

// lookAt asks all istiods at the same time.
func (c *Client) lookAt(ctx context.Context, m *Mark) []instance {
	addresses, err := c.options.Addresses(ctx)
	if err != nil {
		return []instance{{address: "?", err: fmt.Errorf("its addresses are not known: %w", err)}}
	}
	addresses = slices.CompactFunc(
		slices.SortedFunc(slices.Values(addresses), func(a, b Address) int { return cmp.Compare(a.XDS, b.XDS) }),
		func(a, b Address) bool { return a.XDS == b.XDS })
	slots := c.slotsOf(addresses)
	instances := make([]instance, len(addresses))
	var wait sync.WaitGroup
	for n, address := range addresses {
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, c.options.Timeout)
			defer cancel()
			instances[n] = slots[n].look(ctx, c.life, address, c.options, m)
			instances[n].address = address.XDS
		})
	}
	wait.Wait()
	return instances
}

// slotsOf the addresses. Sessions with others end.
func (c *Client) slotsOf(addresses []Address) []*slot {
	c.mu.Lock()
	defer c.mu.Unlock()
	wanted := map[string]*slot{}
	list := make([]*slot, len(addresses))
	for i, a := range addresses {
		list[i] = cmp.Or(c.slots[a.XDS], &slot{})
		wanted[a.XDS] = list[i]
	}
	for address, s := range c.slots {
		if wanted[address] == nil {
			// It may be in use, and whoever uses it waits for an istiod that is gone.
			go s.end()
		}
	}
	c.slots = wanted
	return list
}

// look asks one istiod.
func (s *slot) look(ctx, life context.Context, address Address, o Options, m *Mark) instance {
	s.Lock()
	defer s.Unlock()
	if s.session == nil || !s.session.alive() {
		session, err := connect(ctx, life, address.XDS, o)
		if err != nil {
			return instance{err: explain(err)}
		}
		s.session = session
	}
	ask := s.session.ask
	if address.Debug != "" {
		ask = overHTTP(address.Debug)
	}
	// The sight comes first: what istiod says afterwards is as new or newer.
	sight := s.session.sight(m)
	proxies, err := s.session.proxies(ctx, ask)
	if err != nil {
		return instance{err: explain(err)}
	}
	// A refusal is counted before anything is acknowledged that hides it, so the count comes last.
	refused, err := s.refused(ctx, address.Metrics, proxies)
	if err != nil {
		return instance{err: explain(err)}
	}
	return instance{sight: sight, refused: refused, proxies: proxies}
}

// refused says whether extension configurations were refused since the last look. Without metrics it takes a new message
// for a new refusal: a message that stays may be that of the last response or of one before.
func (s *slot) refused(ctx context.Context, metrics string, proxies []proxy) (bool, error) {
	if metrics != "" {
		now, err := countRefusals(ctx, metrics)
		if err != nil {
			return false, err
		}
		refused := now.since(s.counted)
		s.counted = &now
		return refused, nil
	}
	before := s.refusal
	s.refusal = map[string]string{}
	refused := false
	for _, p := range proxies {
		s.refusal[p.id] = p.responses[extensionType].refusal
		refused = refused || s.refusal[p.id] != "" && s.refusal[p.id] != before[p.id]
	}
	return refused, nil
}

func (s *slot) end() {
	s.Lock()
	defer s.Unlock()
	if s.session != nil {
		s.session.end()
	}
}
