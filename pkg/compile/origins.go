package compile

import (
	"github.com/istio-plugins/istio-plugins/pkg/dispatch"
	"github.com/istio-plugins/istio-plugins/pkg/emit"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/topology"
)

// Origins say what caused each emitted entry. They are made when they are asked for, because there is one for every
// VirtualService and few ask.
func (r *Result) Origins() []Origin {
	causes := r.causes()
	carrier := map[string]string{}
	for _, o := range r.Objects {
		for _, name := range o.Resources {
			carrier[name] = o.Name()
		}
	}
	var origins []Origin
	add := func(resource, entry string, causes []Cause) {
		origins = append(origins, Origin{Object: carrier[resource], Resource: resource, Entry: entry, Causes: causes})
	}
	for _, out := range r.emitted {
		gateways := make([]Cause, len(out.Workload.Gateways))
		for i, g := range out.Workload.Gateways {
			gateways[i] = Cause{Object: g.Ref(), Place: "spec.selector"}
		}
		for _, f := range out.Unit.Filters {
			origins = append(origins, Origin{Object: emit.SkeletonName(out.Workload), Resource: f.Name, Causes: gateways})
		}
		units := []dispatch.Compiled{out.Unit}
		for _, s := range out.Servers {
			units = append(units, s.Unit)
		}
		for _, u := range units {
			for resource := range u.Resources() {
				add(resource.Name, "", gateways)
				for _, key := range resource.Keys {
					add(resource.Name, key, causes.of(key))
				}
			}
		}
		for _, place := range out.Pool.Resources(out.Workload.ID) {
			if place.Wasm != nil {
				add(place.Name, "", causes.of(place.Identity))
			} else {
				add(place.Name, "", gateways)
			}
		}
	}
	return origins
}

// causes tell where something comes from by the name that gateways know it by.
type causes struct {
	// services by their keys, steps by what of them runs on gateways: instances, Lua sources, Wasm identities. One is
	// enough to find a mistake, and 10,000 would not help.
	services map[string]*topology.VirtualService
	steps    map[string]*resolve.Step
}

func (r *Result) causes() causes {
	c := causes{map[string]*topology.VirtualService{}, map[string]*resolve.Step{}}
	for _, s := range r.Services {
		c.services[s.VirtualService.Key] = s.VirtualService
		for _, p := range s.made.placed {
			if c.steps[p.name] == nil {
				c.steps[p.name] = p.step
			}
		}
	}
	return c
}

func (c causes) of(name string) []Cause {
	if v := c.services[name]; v != nil {
		return []Cause{{Object: v.Ref()}}
	}
	step := c.steps[name]
	if step == nil {
		return nil
	}
	out := []Cause{{Object: step.Entry.Level.Object, Place: step.Entry.Place}}
	if step.Plugin.Object != (finding.Object{}) {
		out = append([]Cause{{Object: step.Plugin.Object, Place: "spec"}}, out...)
	}
	return out
}
