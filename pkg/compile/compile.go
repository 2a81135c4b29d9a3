package compile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/istio-plugins/istio-plugins/pkg/annotation"
	"github.com/istio-plugins/istio-plugins/pkg/catalog"
	"github.com/istio-plugins/istio-plugins/pkg/consumer"
	"github.com/istio-plugins/istio-plugins/pkg/emit"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/mechanism"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
	"github.com/istio-plugins/istio-plugins/pkg/topology"
)

// Compile makes the generated objects of a snapshot.
func Compile(s *snapshot.Snapshot) *Result {
	options := s.Options.Defaults()
	c := &compiler{
		options:  options,
		topology: topology.Build(s),
		library:  resolve.NewLibrary(s, catalog.Names()),
		notes:    &resolve.Notes{},
		levels:   map[finding.Object]*resolve.Level{},

		gatewayChains: map[*topology.Gateway]resolve.Chain{},
		report:        newReport(),
		users:         map[string]*use{},
		causes:        map[string][]Cause{},
	}
	index, findings := consumer.New(s)
	c.report.add(findings...)
	c.world = &mechanism.World{Builtins: catalog.Find, Consumers: index, ConfigMaps: configMaps(s)}
	c.readLevels(s)
	c.checkObjects(s)

	r := &Result{Topology: c.topology}
	bound := map[*topology.Workload][]*service{}
	for _, v := range c.topology.VirtualServices {
		for _, w := range workloadsOf(v) {
			sv := c.service(v, w)
			bound[w] = append(bound[w], sv)
			r.Services = append(r.Services, sv.Service)
		}
	}
	emitter := emit.New(options)
	for _, w := range c.topology.Workloads {
		objects, origins := c.workload(w, bound[w], bound, emitter, s)
		r.Objects = append(r.Objects, objects...)
		r.Origins = append(r.Origins, origins...)
	}
	slices.SortFunc(r.Objects, func(a, b emit.Object) int { return cmp.Compare(a.Name(), b.Name()) })
	c.report.add(c.notes.Findings()...)
	r.Findings = c.report.findings(s)
	r.Plugins = c.plugins(r)
	return r
}

// compiler holds what is known during one compilation.
type compiler struct {
	options  snapshot.Options
	topology *topology.Topology
	library  *resolve.Library
	world    *mechanism.World
	notes    *resolve.Notes
	levels   map[finding.Object]*resolve.Level
	// gatewayChains are what each Gateway attaches, composed once.
	gatewayChains map[*topology.Gateway]resolve.Chain
	report        *report
	users         map[string]*use
	// causes of what runs on gateways, by the name it has there (instance, Lua source, Wasm identity).
	causes map[string][]Cause
}

func configMaps(s *snapshot.Snapshot) map[string]*corev1.ConfigMap {
	out := make(map[string]*corev1.ConfigMap, len(s.ConfigMaps))
	for _, m := range s.ConfigMaps {
		out[m.Namespace+"/"+m.Name] = m
	}
	return out
}

// readLevels parses and resolves every annotation once.
func (c *compiler) readLevels(s *snapshot.Snapshot) {
	for _, g := range c.topology.Gateways {
		if text, ok := g.Object.Annotations[annotation.Key]; ok {
			c.levels[g.Ref()] = resolve.NewLevel(c.library, g.Ref(), text, nil)
		}
	}
	for _, vs := range s.VirtualServices {
		if text, ok := vs.Annotations[annotation.Key]; ok {
			ref := topology.ObjectOf(vs)
			c.levels[ref] = resolve.NewLevel(c.library, ref, text, routeNames(vs))
		}
	}
}

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
func (c *compiler) checkObjects(s *snapshot.Snapshot) {
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
		if _, annotated := c.levels[v.Ref()]; annotated {
			c.checkBinding(v)
		}
	}
	for _, vs := range s.VirtualServices {
		ref := topology.ObjectOf(vs)
		if _, annotated := c.levels[ref]; annotated && topology.IsDelegate(vs) && !c.topology.Delegates[types.NamespacedName{Namespace: vs.Namespace, Name: vs.Name}] {
			c.report.add(finding.Finding{
				Reason: finding.NotServed, Object: ref, Place: annotationPlace, Problem: "no VirtualService delegates to it",
				Traffic: "its plugins run nowhere", Remedy: "give it hosts and gateways, or name it in another one's delegate",
			})
		}
	}
}

const annotationPlace = "metadata.annotations[" + annotation.Key + "]"

// checkBinding says where an annotated VirtualService is not served.
func (c *compiler) checkBinding(v *topology.VirtualService) {
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

// plugins says of every Plugin which routes run it and what is wrong with it. One that no route names is judged as if a
// route named it alone.
func (c *compiler) plugins(r *Result) []PluginUse {
	runs, skips := map[finding.Object][]string{}, map[finding.Object]int{}
	named, workloads := map[finding.Object]bool{}, map[finding.Object]map[string]bool{}
	for _, s := range r.Services {
		label := s.VirtualService.Ref().String()
		for _, route := range s.routes() {
			name := label
			if route.Name != "" {
				name += ":" + route.Name
			}
			for _, step := range route.Chain.Steps {
				object := step.Plugin.Object
				named[object] = true
				switch {
				case object == (finding.Object{}): // a bare built-in
				case route.Refused != nil || slices.ContainsFunc(route.Skipped, func(s resolve.Step) bool { return s.Plugin == step.Plugin }):
					skips[object]++
				default:
					if workloads[object] == nil {
						workloads[object] = map[string]bool{}
					}
					workloads[object][s.Workload.ID] = true
					// The same route of another workload or port comes next to it.
					if before := runs[object]; len(before) == 0 || before[len(before)-1] != name {
						runs[object] = append(before, name)
					}
				}
			}
		}
	}
	about := map[finding.Object][]finding.Finding{}
	for _, f := range r.Findings {
		about[f.Object] = append(about[f.Object], f)
	}
	var out []PluginUse
	for _, p := range c.library.All() {
		u := PluginUse{Object: p.Object, Routes: runs[p.Object], Unavailable: skips[p.Object], Workloads: slices.Sorted(maps.Keys(workloads[p.Object])), Findings: about[p.Object]}
		if !named[p.Object] {
			u.Findings = append(u.Findings, c.alone(p)...)
		}
		out = append(out, u)
	}
	return out
}

// alone is what is wrong with a plugin that no route names.
func (c *compiler) alone(p *resolve.Plugin) []finding.Finding {
	const traffic = "no route runs it"
	if p.Malformed != nil {
		f := p.Malformed.Finding
		f.Traffic = traffic
		return []finding.Finding{f}
	}
	_, problems := c.world.Build(mechanism.Use{
		Identity: p.ID, Name: p.Name, Spec: p.Spec, Namespace: p.Namespace, User: p.Namespace, Config: p.Config,
	})
	var out []finding.Finding
	for _, problem := range problems {
		f := finding.Finding{Reason: problem.Reason, Object: p.Object, Place: problem.Spec, Problem: problem.Message}
		if problem.InConfig {
			f.Place = strings.TrimSuffix("spec.config."+problem.Config, ".")
		}
		if f.Severity() == finding.Error {
			f.Traffic = traffic
		}
		out = append(out, f)
	}
	return finding.Sort(out)
}

// routes are the different routes of a service: the named ones, and the default where a route has it.
func (s Service) routes() []RouteChain {
	names := map[string]bool{}
	for _, r := range s.VirtualService.Routes {
		names[r.Name] = true
	}
	var out []RouteChain
	for _, g := range s.Groups {
		for _, name := range slices.Sorted(maps.Keys(names)) {
			out = append(out, g.Route(name))
		}
	}
	return out
}
