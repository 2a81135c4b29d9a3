package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/istio-plugins/istio-plugins/pkg/annotation"
	"github.com/istio-plugins/istio-plugins/pkg/catalog"
	"github.com/istio-plugins/istio-plugins/pkg/consumer"
	"github.com/istio-plugins/istio-plugins/pkg/dispatch"
	"github.com/istio-plugins/istio-plugins/pkg/emit"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/internal/memo"
	"github.com/istio-plugins/istio-plugins/pkg/mechanism"
	"github.com/istio-plugins/istio-plugins/pkg/registry"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
	"github.com/istio-plugins/istio-plugins/pkg/topology"
)

// Compile makes the generated objects of a snapshot.
func Compile(s *snapshot.Snapshot) *Result { return new(Compiler).Compile(s) }

// Compiler compiles snapshots of one mesh, one after the other, and makes only what has changed since the last one anew.
// Its results are those of Compile, and share what is the same in them; nothing in a result may be modified. The zero
// Compiler has seen no snapshot. It is not for several goroutines at once.
//
// What is kept depends on nothing but what stands beside it here, so it is used again as long as that is the same: the same
// pointer where that is kept itself, and else the same content. Nobody tells a Compiler what has changed.
//
//	the routes of a VirtualService   its version, and those of its delegates
//	a Plugin of the library          its spec
//	a level                          the annotation, the names of the http routes, what the entries' names mean
//	a use of a plugin                the Plugin, the entries with configs, what it asked of the world
//	a service                        the routes, their levels, the Gateways' levels and ports, the uses
//	a binding, laid out              the service's binding, the numbers of Wasm plugins
//	tables, patches, objects         what is in them
//
// All else is made anew each time, the findings and what is said of Plugins included.
type Compiler struct {
	options   snapshot.Options
	passes    int
	topology  *topology.Topology
	library   *resolve.Library
	consumers *consumer.Index
	levels    memo.Map[finding.Object, *resolve.Level]
	gateways  memo.Map[types.NamespacedName, *attaching]
	uses      memo.Map[string, *use]
	usesMade  int
	services  memo.Map[serviceName, kept]
	layouts   memo.Map[string, dispatch.Memory] // by workload
	emitter   *emit.Emitter
}

// Compile makes the generated objects of a snapshot.
func (k *Compiler) Compile(s *snapshot.Snapshot) *Result {
	c := k.begin(s)
	defer k.end()
	index, findings := k.consumers.Next(s)
	k.consumers = index
	c.report.add(findings...)
	c.world = &mechanism.World{Builtins: catalog.Find, Consumers: index, Services: registry.New(s), ConfigMaps: configMaps(s)}
	c.readLevels(s)
	c.checkObjects(s)

	bound := map[*topology.Workload][]*service{}
	services := make([]*service, 0, len(c.topology.VirtualServices))
	for _, v := range c.topology.VirtualServices {
		for _, w := range workloadsOf(v) {
			sv := c.service(v, w)
			bound[w] = append(bound[w], sv)
			services = append(services, sv)
		}
	}
	r := &Result{Topology: c.topology}
	for _, w := range c.topology.Workloads {
		out := c.workload(w, bound[w], bound, s)
		r.Objects = append(r.Objects, k.emitter.Objects(out)...)
		r.emitted = append(r.emitted, out)
	}
	slices.SortFunc(r.Objects, func(a, b emit.Object) int { return cmp.Compare(a.Name(), b.Name()) })
	r.Services = make([]Service, len(services))
	for i, sv := range services {
		r.Services[i] = sv.Service
	}
	c.report.add(c.notes.Findings()...)
	r.Findings = c.report.findings(s)
	r.Plugins = c.plugins(r, services)
	return r
}

// begin begins a pass.
func (k *Compiler) begin(s *snapshot.Snapshot) *compilation {
	options := s.Options.Defaults()
	if k.emitter == nil || k.options != options {
		// Options are in everything.
		*k = Compiler{
			options: options, topology: &topology.Topology{}, library: resolve.NewLibrary(&snapshot.Snapshot{}, catalog.Names()), emitter: emit.New(options),
		}
	}
	k.passes++
	k.topology = k.topology.Next(s)
	k.library = k.library.Next(s)
	return &compilation{
		Compiler: k,
		attached: map[*topology.Gateway]*attaching{},
		chains:   map[*topology.Gateway]*gatewayChain{},
		report:   newReport(),
	}
}

// end forgets what the pass did not use.
func (k *Compiler) end() {
	k.levels.Next()
	k.gateways.Next()
	k.uses.Next()
	k.services.Next()
	k.layouts.Next()
	k.emitter.Next()
}

// compilation is one pass of a Compiler.
type compilation struct {
	*Compiler
	world *mechanism.World
	notes resolve.Notes
	// attached is what the Gateways attach, chains the same composed.
	attached map[*topology.Gateway]*attaching
	chains   map[*topology.Gateway]*gatewayChain
	report   *report
}

func configMaps(s *snapshot.Snapshot) map[string]*corev1.ConfigMap {
	out := make(map[string]*corev1.ConfigMap, len(s.ConfigMaps))
	for _, m := range s.ConfigMaps {
		out[m.Namespace+"/"+m.Name] = m
	}
	return out
}

// readLevels parses and resolves every annotation once.
func (c *compilation) readLevels(s *snapshot.Snapshot) {
	read := func(object finding.Object, annotations map[string]string, routes []string) {
		text, ok := annotations[annotation.Key]
		if !ok {
			return
		}
		level := c.levels.At(object)
		if *level == nil || !(*level).Current(c.library, text, routes) {
			*level = resolve.NewLevel(c.library, object, text, routes)
		}
	}
	for _, g := range c.topology.Gateways {
		read(g.Ref(), g.Object.Annotations, nil)
	}
	for _, vs := range s.VirtualServices {
		if len(vs.Annotations) > 0 {
			read(topology.ObjectOf(vs), vs.Annotations, routeNames(vs))
		}
	}
	for _, g := range c.topology.Gateways {
		c.attached[g] = c.attaching(g)
	}
}

// level is what an object's annotation asks for; nil without one.
func (c *compilation) level(object finding.Object) *resolve.Level { return c.levels.Now(object) }

// routeNames are the names of a VirtualService's http routes; never nil, so that an unknown one is told from none.
func routeNames(vs *networkingv1.VirtualService) []string {
	out := make([]string, 0, len(vs.Spec.Http))
	for _, r := range vs.Spec.Http {
		out = append(out, r.Name)
	}
	return out
}

// workloadsOf are the workloads whose Gateways a VirtualService is bound to.
func workloadsOf(v *topology.VirtualService) []*topology.Workload {
	var out []*topology.Workload
	for _, g := range v.Gateways {
		if !slices.Contains(out, g.Workload) {
			out = append(out, g.Workload)
		}
	}
	slices.SortFunc(out, func(a, b *topology.Workload) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// checkObjects finds what is wrong with objects before any route is looked at.
func (c *compilation) checkObjects(s *snapshot.Snapshot) {
	for _, m := range s.Malformed {
		f := finding.Finding{Reason: finding.InvalidObject, Object: m.Object, Place: m.Place, Problem: m.Error, Remedy: "correct the object"}
		switch m.Object.Kind {
		case "Plugin", "ClusterPlugin":
			continue // reported with the routes that name it, or as unused
		case "Consumer":
			f.Traffic = "it authenticates nobody"
		case "VirtualService", "Gateway":
			f.Traffic = "it is not compiled, and Kubernetes would not accept it"
		}
		c.report.add(f)
	}
	for _, r := range s.HTTPRoutes {
		if _, ok := r.Annotations[annotation.Key]; ok {
			c.report.add(finding.Finding{
				Reason: finding.UnsupportedTarget, Object: finding.Object{Kind: "HTTPRoute", Namespace: r.Namespace, Name: r.Name},
				Place: annotationPlace, Problem: "plugins on HTTPRoutes are not supported yet",
				Traffic: "its routes run without plugins", Remedy: "use a VirtualService",
			})
		}
	}
	for _, v := range c.topology.VirtualServices {
		if c.level(v.Ref()) != nil {
			c.checkBinding(v)
		}
	}
	for _, vs := range s.VirtualServices {
		if !topology.IsDelegate(vs) {
			continue
		}
		ref := topology.ObjectOf(vs)
		if c.level(ref) != nil && !c.topology.Delegates[types.NamespacedName{Namespace: vs.Namespace, Name: vs.Name}] {
			c.report.add(finding.Finding{
				Reason: finding.NotServed, Object: ref, Place: annotationPlace, Problem: "no VirtualService delegates to it",
				Traffic: "its plugins run nowhere", Remedy: "give it hosts and gateways, or name it in another one's delegate",
			})
		}
	}
}

const annotationPlace = "metadata.annotations[" + annotation.Key + "]"

// checkBinding says where an annotated VirtualService is not served.
func (c *compilation) checkBinding(v *topology.VirtualService) {
	if v.Mesh {
		c.report.add(finding.Finding{
			Reason: finding.MeshNotSupported, Object: v.Ref(), Place: "spec.gateways",
			Problem: "it is bound to mesh, where plugins do not run", Traffic: "requests inside the mesh run without plugins",
			Remedy: "protect the service itself, or bind the VirtualService to Gateways only",
		})
	}
	for _, name := range v.Missing {
		c.report.add(finding.Finding{
			Reason: finding.GatewayNotFound, Object: v.Ref(), Place: "spec.gateways",
			Problem: fmt.Sprintf("Gateway %q is not there", name), Traffic: "it does not serve the VirtualService",
			Remedy: "create the Gateway, or correct its name",
		})
	}
	if len(v.Gateways) == 0 {
		c.report.add(finding.Finding{
			Reason: finding.NotServed, Object: v.Ref(), Place: "spec.gateways", Problem: "it is bound to no Gateway that is there",
			Traffic: "its plugins run nowhere", Remedy: "add a Gateway to spec.gateways",
		})
		return
	}
	for _, g := range v.Gateways {
		switch {
		case !g.Serves(v):
			c.report.add(finding.Finding{
				Reason: finding.NotServed, Object: v.Ref(), Place: "spec.hosts",
				Problem: fmt.Sprintf("no server of %s has a host of the VirtualService", g.Ref()),
				Traffic: "that Gateway does not serve it", Remedy: "add the host to the Gateway, or correct spec.hosts", Related: []finding.Object{g.Ref()},
			})
		case !v.ExportedTo(g.Namespace):
			c.report.add(finding.Finding{
				Reason: finding.NotServed, Object: v.Ref(), Place: "spec.exportTo",
				Problem: fmt.Sprintf("it is exported to %s only, not to namespace %s of %s", strings.Join(v.Object.Spec.ExportTo, ", "), g.Namespace, g.Ref()),
				Traffic: "gateways in that namespace do not serve it", Remedy: "add the gateway's namespace to spec.exportTo", Related: []finding.Object{g.Ref()},
			})
		}
	}
}
