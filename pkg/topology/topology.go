// Package topology says which routes a gateway serves, by Istio's own rules: which Gateways select the same pods,
// which VirtualServices are bound to them, and under which names Envoy knows their routes. It knows nothing of plugins.
package topology

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// Topology is what the gateways of a mesh serve.
type Topology struct {
	// Workloads, sorted by ID.
	Workloads []*Workload
	// VirtualServices that are no delegates, sorted by namespace and name.
	VirtualServices []*VirtualService
	// Gateways, sorted by namespace and name.
	Gateways []*Gateway
	// Delegates that some VirtualService delegates to.
	Delegates map[types.NamespacedName]bool
}

// Workload is the set of pods that one selector selects: Gateways with equal selectors share their listeners.
type Workload struct {
	// ID is short, stable, and a function of the selector and the control plane's revision.
	ID string
	// Selector may be empty: every gateway of the mesh.
	Selector map[string]string
	// Gateways with this selector, sorted.
	Gateways []*Gateway
	// Overlapping are the other workloads whose selector may select the same pods.
	Overlapping []*Workload
}

// Gateway is one Istio Gateway.
type Gateway struct {
	types.NamespacedName
	Object   *networkingv1.Gateway
	Workload *Workload
	// Ports are the listener ports that its servers may have, as Envoy's DestinationPortInput writes them.
	Ports []string
	// AnyPort says that it may have other ports, too: a Service of its pods maps one of its servers to a port by name.
	AnyPort bool
	// Servers that speak HTTP.
	Servers []Server
	byHost  serversByHost
	// Bound are the VirtualServices that name the Gateway, sorted.
	Bound []*VirtualService
}

// Server is one HTTP server of a Gateway.
type Server struct {
	// TLS is terminated here, so that the server has an HTTP connection manager of its own.
	TLS   bool
	Hosts []Host
}

// Host is one of a server's hosts, and the namespace whose VirtualServices may use it (`*`: all).
type Host struct{ Namespace, Name string }

// VirtualService is one VirtualService that has hosts.
type VirtualService struct {
	types.NamespacedName
	Object *networkingv1.VirtualService
	// Key is what Envoy's routes carry in their metadata.
	Key string
	// Gateways it is bound to and that are there, sorted.
	Gateways []*Gateway
	// Missing are the Gateways it names that are not there.
	Missing []string
	// Mesh says that it is bound to sidecars, too.
	Mesh bool
	// Routes in their order. Several may have one name.
	Routes []Route
	// delegates are those that its routes name.
	delegates []delegate
	// place in the order of all.
	place int
}

// delegate is a VirtualService that a route delegates to; without object it may not be used, or is not there.
type delegate struct {
	types.NamespacedName
	object *networkingv1.VirtualService
}

// Route is what Envoy sees of one http route: a name, and through which gateways it is served.
type Route struct {
	// Name in Envoy; empty for unnamed routes.
	Name string
	// Root is the name of the http route in the VirtualService, Index its place.
	Root  string
	Index int
	// Delegate, if any, and the name and place of the http route in it.
	Delegate      *networkingv1.VirtualService
	DelegateRoute string
	DelegateIndex int
	// Gateways that a match restricts the route to (namespace/name); nil for none.
	Gateways []string
}

// Build reads the Gateways, VirtualServices and Services of a snapshot.
func Build(s *snapshot.Snapshot) *Topology { return (&Topology{}).Next(s) }

// Next is the topology of a later snapshot. It shares with t the routes of VirtualServices that have not changed, and
// whose delegates have not.
func (t *Topology) Next(s *snapshot.Snapshot) *Topology {
	next := &Topology{Delegates: map[types.NamespacedName]bool{}}
	next.Gateways, next.Workloads = gateways(s)
	byName := make(map[types.NamespacedName]*Gateway, len(next.Gateways))
	for _, g := range next.Gateways {
		byName[g.NamespacedName] = g
	}
	delegates := map[types.NamespacedName]*networkingv1.VirtualService{}
	for _, vs := range s.VirtualServices {
		if IsDelegate(vs) {
			delegates[types.NamespacedName{Namespace: vs.Namespace, Name: vs.Name}] = vs
		}
	}
	before := make(map[types.NamespacedName]*VirtualService, len(t.VirtualServices))
	for _, v := range t.VirtualServices {
		before[v.NamespacedName] = v
	}
	// Those that were there before are put where they were, since sorting takes longer than all else.
	known, added := make([]*VirtualService, len(t.VirtualServices)), []*VirtualService(nil)
	for _, vs := range s.VirtualServices {
		if IsDelegate(vs) {
			continue
		}
		v := &VirtualService{NamespacedName: types.NamespacedName{Namespace: vs.Namespace, Name: vs.Name}, Object: vs}
		was := before[v.NamespacedName]
		if was != nil && was.current(vs, delegates) {
			v.Key, v.Routes, v.delegates = was.Key, was.Routes, was.delegates
		} else {
			v.Key = Key(vs.Namespace, vs.Name)
			v.readRoutes(delegates)
		}
		for _, d := range v.delegates {
			if d.object != nil {
				next.Delegates[d.NamespacedName] = true
			}
		}
		bindGateways(v, byName)
		if was != nil && known[was.place] == nil {
			known[was.place] = v
		} else {
			added = append(added, v)
		}
	}
	next.VirtualServices = slices.DeleteFunc(known, func(v *VirtualService) bool { return v == nil })
	if len(added) > 0 {
		next.VirtualServices = append(next.VirtualServices, added...)
		slices.SortFunc(next.VirtualServices, func(a, b *VirtualService) int { return compareNames(a.NamespacedName, b.NamespacedName) })
	}
	for i, v := range next.VirtualServices {
		v.place = i
		for _, g := range v.Gateways {
			g.Bound = append(g.Bound, v)
		}
	}
	return next
}

// Key is the value of metadata.filter_metadata.istio.config on every route that istiod makes from a VirtualService.
func Key(namespace, name string) string {
	return "/apis/networking.istio.io/v1/namespaces/" + namespace + "/virtual-service/" + name
}

// IsDelegate says whether a VirtualService can only be reached through another one's delegate.
func IsDelegate(vs *networkingv1.VirtualService) bool { return len(vs.Spec.Hosts) == 0 }

func compareNames(a, b types.NamespacedName) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

func gateways(s *snapshot.Snapshot) ([]*Gateway, []*Workload) {
	var all []*Gateway
	workloads := map[string]*Workload{}
	for _, object := range s.Gateways {
		g := &Gateway{NamespacedName: types.NamespacedName{Namespace: object.Namespace, Name: object.Name}, Object: object}
		selector := object.Spec.Selector
		id := WorkloadID(s.Options.Revision, selector)
		w := workloads[id]
		if w == nil {
			w = &Workload{ID: id, Selector: selector}
			workloads[id] = w
		}
		w.Gateways = append(w.Gateways, g)
		g.Workload = w
		g.Ports, g.AnyPort = listenerPorts(object, s)
		for _, server := range object.Spec.Servers {
			if sv, http := httpServer(object.Namespace, server); http {
				g.Servers = append(g.Servers, sv)
			}
		}
		g.byHost = indexServers(g.Servers)
		all = append(all, g)
	}
	slices.SortFunc(all, func(a, b *Gateway) int { return compareNames(a.NamespacedName, b.NamespacedName) })
	ids := slices.Sorted(maps.Keys(workloads))
	list := make([]*Workload, len(ids))
	for i, id := range ids {
		list[i] = workloads[id]
		slices.SortFunc(list[i].Gateways, func(a, b *Gateway) int { return compareNames(a.NamespacedName, b.NamespacedName) })
	}
	for _, w := range list {
		for _, other := range list {
			if w != other && mayMeet(w.Selector, other.Selector) {
				w.Overlapping = append(w.Overlapping, other)
			}
		}
	}
	return all, list
}

// WorkloadID is a short name for a selector, in a control plane's revision.
func WorkloadID(revision string, selector map[string]string) string {
	text := SelectorText(selector)
	if revision != "" {
		text = revision + "|" + text
	}
	if text == "" {
		return "all"
	}
	return fmt.Sprintf("%08x", uint32(xxhash.Sum64String(text)))
}

// SelectorText writes a selector as kubectl does.
func SelectorText(selector map[string]string) string {
	pairs := make([]string, 0, len(selector))
	for _, k := range slices.Sorted(maps.Keys(selector)) {
		pairs = append(pairs, k+"="+selector[k])
	}
	return strings.Join(pairs, ",")
}

// mayMeet says whether a pod could carry the labels of both selectors.
func mayMeet(a, b map[string]string) bool {
	for k, v := range a {
		if w, ok := b[k]; ok && v != w {
			return false
		}
	}
	return true
}

// listenerPorts are the ports that istiod may bind for a Gateway's servers: the server's own number, or the target
// port of a Service that selects the gateway's pods. Which one it is depends on pods that are not known here, so
// both are returned; a port too many only makes chains longer where two Gateways share it. A target port that has a name
// may be any.
func listenerPorts(g *networkingv1.Gateway, s *snapshot.Snapshot) (numbers []string, anyPort bool) {
	ports := map[uint32]bool{}
	for _, server := range g.Spec.Servers {
		number := server.GetPort().GetNumber()
		ports[number] = true
		for _, service := range s.Services {
			if !selectsGateway(service.Spec.Selector, g.Spec.Selector) {
				continue
			}
			for _, p := range service.Spec.Ports {
				switch {
				case uint32(p.Port) != number:
				case p.TargetPort.Type == intstr.String:
					anyPort = true
				case p.TargetPort.IntVal > 0:
					ports[uint32(p.TargetPort.IntVal)] = true
				}
			}
		}
	}
	for _, p := range slices.Sorted(maps.Keys(ports)) {
		numbers = append(numbers, fmt.Sprint(p))
	}
	return numbers, anyPort
}

// selectsGateway says whether a Service may select the pods of a Gateway: they share a label and contradict in none.
func selectsGateway(service, gateway map[string]string) bool {
	if len(service) == 0 || !mayMeet(service, gateway) {
		return false
	}
	for k := range service {
		if _, shared := gateway[k]; shared {
			return true
		}
	}
	return len(gateway) == 0
}

// bindGateways resolves spec.gateways; without any, a VirtualService is for the mesh alone.
func bindGateways(v *VirtualService, byName map[types.NamespacedName]*Gateway) {
	names := v.Object.Spec.Gateways
	if len(names) == 0 {
		v.Mesh = true
	}
	for _, name := range names {
		if name == "mesh" {
			v.Mesh = true
			continue
		}
		resolved := gatewayName(name, v.Namespace)
		g := byName[resolved]
		switch {
		case g == nil:
			v.Missing = append(v.Missing, name)
		case !slices.Contains(v.Gateways, g):
			v.Gateways = append(v.Gateways, g)
		}
	}
	slices.SortFunc(v.Gateways, func(a, b *Gateway) int { return compareNames(a.NamespacedName, b.NamespacedName) })
}

// gatewayName resolves a name as istiod does: `ns/name`, `./name`, `name`, and the old `name.ns.svc…`.
func gatewayName(name, namespace string) types.NamespacedName {
	if ns, bare, ok := strings.Cut(name, "/"); ok {
		if ns == "." {
			ns = namespace
		}
		return types.NamespacedName{Namespace: ns, Name: bare}
	}
	if bare, rest, ok := strings.Cut(name, "."); ok {
		ns, _, _ := strings.Cut(rest, ".")
		return types.NamespacedName{Namespace: ns, Name: bare}
	}
	return types.NamespacedName{Namespace: namespace, Name: name}
}

// ObjectOf names a VirtualService in findings.
func ObjectOf(vs *networkingv1.VirtualService) finding.Object {
	return finding.Object{Kind: "VirtualService", Namespace: vs.Namespace, Name: vs.Name}
}

// Ref names the Gateway in findings.
func (g *Gateway) Ref() finding.Object {
	return finding.Object{Kind: "Gateway", Namespace: g.Namespace, Name: g.Name}
}

// Ref names the VirtualService in findings.
func (v *VirtualService) Ref() finding.Object {
	return finding.Object{Kind: "VirtualService", Namespace: v.Namespace, Name: v.Name}
}
