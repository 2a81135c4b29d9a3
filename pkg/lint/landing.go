package lint

import (
	"fmt"
	"iter"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
	"github.com/istio-plugins/istio-plugins/pkg/topology"
)

// landings finds plugins that send clients to a path which is none of a route with the plugin: after a login, for
// example. Where several VirtualServices may serve a host, any of them may take the path, and nothing is said.
func landings(_ *snapshot.Snapshot, r *compile.Result) []finding.Finding {
	type place struct {
		entry *resolve.Entry
		path  string
	}
	said := map[place]bool{}
	var out []finding.Finding
	for _, s := range r.Services {
		for _, g := range s.Groups {
			for step := range stepsOf(s.VirtualService, g) {
				for _, l := range landingsOf(s.VirtualService, step) {
					p := place{step.Entry, l.path}
					if said[p] {
						continue
					}
					if problem := l.problem(s.VirtualService, g, step.Plugin); problem != "" && !sharesHosts(s.VirtualService, r.Topology) {
						said[p] = true
						out = append(out, l.finding(s.VirtualService, step.Entry, problem))
					}
				}
			}
		}
	}
	return out
}

// stepsOf are the steps of all routes of a group.
func stepsOf(v *topology.VirtualService, g compile.Group) iter.Seq[resolve.Step] {
	return func(yield func(resolve.Step) bool) {
		for _, route := range v.Routes {
			for _, step := range g.Route(route.Name).Chain.Steps {
				if !yield(step) {
					return
				}
			}
		}
	}
}

func (l landing) finding(v *topology.VirtualService, e *resolve.Entry, problem string) finding.Finding {
	return finding.Finding{
		Reason: finding.UnreachableLanding, Object: e.Level.Object, Place: e.Place,
		Problem: fmt.Sprintf("%s of %q is %s, %s", l.Field, e.Name, l.path, problem), Traffic: l.Otherwise,
		Remedy: fmt.Sprintf("let %s be a path of a route of %s that runs the plugin, or attach it there", l.Field, v.Ref()),
	}
}

// sharesHosts says whether another VirtualService may serve a host of v.
func sharesHosts(v *topology.VirtualService, t *topology.Topology) bool {
	return slices.ContainsFunc(t.VirtualServices, func(other *topology.VirtualService) bool {
		return other != v && slices.ContainsFunc(other.Gateways, func(g *topology.Gateway) bool { return slices.Contains(v.Gateways, g) }) &&
			(servesHostOf(v, other) || servesHostOf(other, v))
	})
}

func servesHostOf(v, other *topology.VirtualService) bool {
	return slices.ContainsFunc(other.Object.Spec.Hosts, func(host string) bool { return hasHost(v, host) })
}

// landing is where a plugin must run.
type landing struct {
	builtin.Landing
	path string
}

// landingsOf are those of a plugin that are on a VirtualService's hosts.
func landingsOf(v *topology.VirtualService, step resolve.Step) []landing {
	b := builtinOf(step)
	if b == nil || b.Landings == nil {
		return nil
	}
	var out []landing
	for _, l := range b.Landings(step.Config()) {
		if u, err := url.Parse(l.URL); err == nil && isPublic(step, l.Field) && (u.Host == "" || hasHost(v, u.Hostname())) {
			out = append(out, landing{l, u.EscapedPath()})
		}
	}
	return out
}

// isPublic says whether a message may show a field: it does not come from a Secret.
func isPublic(step resolve.Step, field string) bool {
	return reflect.DeepEqual(step.Config()[field], step.Public()[field])
}

func hasHost(v *topology.VirtualService, name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc(v.Object.Spec.Hosts, func(host string) bool { return covers(strings.ToLower(host), name) })
}

// problem says who takes the path instead of a route with the plugin; nothing if that cannot be said for sure.
func (l landing) problem(v *topology.VirtualService, g compile.Group, plugin *resolve.Plugin) string {
	if unresolved(v) {
		return ""
	}
	for _, route := range v.Routes {
		takes, surely := routeTakes(v, route, l.path)
		runs := slices.ContainsFunc(g.Route(route.Name).Chain.Steps, func(s resolve.Step) bool { return s.Plugin.ID == plugin.ID })
		switch {
		case !takes:
		case runs || !surely:
			return ""
		default:
			return "which " + routeLabel(v.Object, route.Index) + " takes, where the plugin does not run"
		}
	}
	return "which no route takes"
}

// unresolved says whether a route has a delegate that is not there, so that nobody knows what it takes.
func unresolved(v *topology.VirtualService) bool {
	for i, r := range v.Object.Spec.Http {
		if r.GetDelegate() != nil && !slices.ContainsFunc(v.Routes, func(route topology.Route) bool { return route.Index == i }) {
			return true
		}
	}
	return false
}

// routeTakes says whether a route may take a request by its path, and whether it surely does. A delegate's route takes what
// both take.
func routeTakes(v *topology.VirtualService, route topology.Route, path string) (takes, surely bool) {
	takes, surely = anyTakes(requestsOf(v.Object.Spec.Http[route.Index]), path)
	if route.Delegate != nil {
		t, s := anyTakes(requestsOf(route.Delegate.Spec.Http[route.DelegateIndex]), path)
		takes, surely = takes && t, surely && s
	}
	return takes, surely
}

func anyTakes(list []requests, path string) (takes, surely bool) {
	for _, r := range list {
		if r.has(path) {
			takes, surely = true, surely || r.all
		}
	}
	return takes, surely
}

func (p paths) has(path string) bool {
	if p.ignoreCase {
		path = strings.ToLower(path)
	}
	switch p.kind {
	case prefixPath:
		return strings.HasPrefix(path, p.text)
	case exactPath:
		return path == p.text
	case regexPath:
		expression, err := regexp.Compile(`\A(?:` + p.text + `)\z`)
		return err == nil && expression.MatchString(path)
	}
	return true
}
