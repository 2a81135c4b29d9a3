package istiod

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// State is what is known about a workload or a gateway.
type State string

const (
	// Accepted: every gateway runs what was written before the mark.
	Accepted State = "Accepted"
	// Pending: some gateway has not accepted it yet.
	Pending State = "Pending"
	// Rejected: some gateway refused it. Refused listeners may be taken with the next push, so it is worth to write a new
	// mark now and then.
	Rejected State = "Rejected"
	// NoGateway: no gateway of the workload is connected to any istiod.
	NoGateway State = "NoGateway"
	// Unknown: istiod could not be asked, or not be understood.
	Unknown State = "Unknown"
)

// Workload are the gateways that carry some labels, in any namespace: what an EnvoyFilter of the root namespace with
// these labels as its workloadSelector selects.
type Workload struct {
	// Selector may be empty: every gateway.
	Selector map[string]string
	// Parts are what Envoy may refuse, for Client.Expect only: versions, or hashes of contents, by names of the caller's
	// choice. The smaller the parts, the more exactly a refusal can be blamed on some.
	Parts map[string]string
}

// Verdict is what is known about a workload.
type Verdict struct {
	State State
	// Message is a sentence without a full stop for people.
	Message string
	// MarkAgain says that no amount of waiting will do: a new mark is to be written, and checked instead of this one.
	// Write one, too, where the state is Pending for very long: istiod merges pushes when it is busy, and then may
	// have told the probe of the mark later than a gateway that now has nothing more to acknowledge.
	MarkAgain bool
	// Rest is the state of all that is not Blamed.
	Rest State
	// Blamed are the names of the parts among which is what was refused, sorted.
	Blamed []string
	// Gateways of the workload, sorted by name.
	Gateways []Gateway
}

// Gateway is one connected gateway.
type Gateway struct {
	// Name is that of its pod, with the namespace: istio-system/gateway-1.
	Name string
	// Istiod is the address of the instance that it is connected to.
	Istiod string
	// State is Accepted, Pending, Rejected or Unknown.
	State State
	// Message says why it is not Accepted. Rejected, it is what the proxy says.
	Message string
	// Type is what was Rejected: LDS or ECDS.
	Type string

	markAgain bool
}

const (
	listenerType  = "type.googleapis.com/envoy.config.listener.v3.Listener"
	extensionType = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
)

// instance is what one istiod says at one time.
type instance struct {
	address string
	// err is why the rest is not known.
	err error
	// sight is where the mark is; nil if istiod has not pushed it yet.
	sight *sight
	// refused says that extension configurations were refused since the last look.
	refused bool
	proxies []proxy
}

// sight is when the probe saw a mark.
type sight struct {
	version version
	// late says that the mark was there when the probe connected: istiod may have had it in an earlier version.
	late bool
}

// proxy is a connected gateway as istiod describes it.
type proxy struct {
	// id is name.namespace of its pod.
	id     string
	labels map[string]string
	// responses by type.
	responses map[string]response
	// twice says that istiod has two connections of it.
	twice bool
}

// response is the last of a type that istiod sent, and what became of it and of those before.
type response struct {
	sent, acked nonce
	refusal     string
}

// nonce of a response; the zero value means none.
type nonce struct {
	text    string
	version version
}

// version numbers istiod's push contexts from the start of its process.
type version uint64

// parseNonce reads what pilot/pkg/xds/discovery.go makes: time, a slash, the version, and a UUID behind it without a
// separator. The context that istiod starts with has no version.
func parseNonce(text string) (nonce, error) {
	const uuid = len("00000000-0000-0000-0000-000000000000")
	if text == "" {
		return nonce{}, nil
	}
	if len(text) < uuid {
		return nonce{}, fmt.Errorf("istiod's nonce %q is not of a known form", text)
	}
	v, err := parseVersion(text[:len(text)-uuid])
	return nonce{text, v}, err
}

func parseVersion(text string) (version, error) {
	if text == "" {
		return 0, nil
	}
	_, number, _ := strings.Cut(text, "/")
	v, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("istiod's version %q is not of a known form", text)
	}
	return version(v), nil
}

// judge says what a workload's gateways have made of the mark.
func judge(w Workload, instances []instance) Verdict {
	v := Verdict{}
	var unknown []string
	for _, i := range instances {
		if i.err != nil {
			unknown = append(unknown, fmt.Sprintf("istiod %s: %v", i.address, i.err))
			continue
		}
		for _, p := range i.proxies {
			if selects(w.Selector, p.labels) {
				v.Gateways = append(v.Gateways, p.judge(i))
			}
		}
	}
	slices.SortFunc(v.Gateways, func(a, b Gateway) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Istiod, b.Istiod))
	})
	for _, g := range v.Gateways {
		v.MarkAgain = v.MarkAgain || g.markAgain
	}
	switch rejected, pending := v.in(Rejected), v.in(Pending); {
	case len(rejected) > 0:
		v.State, v.Message = Rejected, v.count(rejected, "refused it")
	case len(unknown) > 0:
		v.State, v.Message = Unknown, some(unknown)
	case len(instances) == 0:
		v.State, v.Message = Unknown, "no istiod is known"
	case len(v.Gateways) == 0:
		v.State, v.Message = NoGateway, "no gateway with these labels is connected to istiod"
	case len(pending) > 0:
		v.State, v.Message = Pending, v.count(pending, "not accepted it yet")
	default:
		v.State, v.Message = Accepted, fmt.Sprintf("accepted by %d of %d gateways", len(v.Gateways), len(v.Gateways))
	}
	return v
}

// in lists the gateways in a state.
func (v Verdict) in(s State) []Gateway {
	return slices.DeleteFunc(slices.Clone(v.Gateways), func(g Gateway) bool { return g.State != s })
}

func (v Verdict) count(gateways []Gateway, what string) string {
	var texts []string
	for _, g := range gateways {
		texts = append(texts, g.Name+" "+g.Message)
	}
	verb := "have"
	if len(gateways) == 1 {
		verb = "has"
	}
	return fmt.Sprintf("%d of %d gateways %s %s: %s", len(gateways), len(v.Gateways), verb, what, some(texts))
}

// some are the first texts, and how many more there are.
func some(texts []string) string {
	const most = 3
	if len(texts) > most {
		return fmt.Sprintf("%s, and %d more", strings.Join(texts[:most], "; "), len(texts)-most)
	}
	return strings.Join(texts, "; ")
}

// selects says whether the labels are all of the selector's, and maybe more.
func selects(selector, labels map[string]string) bool {
	for key, value := range selector {
		if have, ok := labels[key]; !ok || have != value {
			return false
		}
	}
	return true
}

// judge is steps 3 and 4 of the argument in the package's comment.
func (p proxy) judge(i instance) Gateway {
	g := Gateway{Name: p.name(), Istiod: i.address}
	pending := func(message string) Gateway {
		g.State, g.Message = Pending, message
		return g
	}
	if i.sight == nil {
		return pending("waits for istiod, which has not pushed it to anybody")
	}
	mark := i.sight.version
	reached := p.acknowledged(mark)
	for _, t := range []struct{ url, name string }{{listenerType, "LDS"}, {extensionType, "ECDS"}} {
		// A refusal of an older state says nothing about this one.
		if r := p.responses[t.url]; r.refusal != "" && (reached || r.sent.version >= mark) {
			g.State, g.Type, g.Message = Rejected, t.name, fmt.Sprintf("answers to %s: %s", t.name, oneLine(r.refusal))
			return g
		}
	}
	listeners, extensions := p.responses[listenerType], p.responses[extensionType]
	switch {
	case p.twice:
		return pending("is connected twice, istiod has not yet noticed that an old connection is gone")
	case !reached && listeners.sent.version < mark:
		// By a later push, if there is one: nothing may be due to it.
		g.markAgain = i.sight.late
		return pending("has not been sent it")
	case !reached || listeners.sent != listeners.acked || extensions.sent != extensions.acked:
		return pending("has not answered")
	case listeners.sent == nonce{}:
		return pending("has no listeners")
	case extensions.sent == nonce{}:
		return pending("has no listener that runs plugins")
	}
	g.State = Accepted
	return g
}

// acknowledged says that the gateway acknowledged a response of this version or a later one, whatever its type.
func (p proxy) acknowledged(v version) bool {
	for _, r := range p.responses {
		if r.acked.text != "" && r.acked.version >= v {
			return true
		}
	}
	return false
}

// name is namespace/name: a pod's name may have dots, a namespace has none.
func (p proxy) name() string {
	if dot := strings.LastIndexByte(p.id, '.'); dot >= 0 {
		return p.id[dot+1:] + "/" + p.id[:dot]
	}
	return p.id
}

// oneLine is for messages that go into a status.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
