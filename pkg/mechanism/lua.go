package mechanism

import (
	"fmt"
	"strings"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/callout"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/lua"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// luaMechanism takes the source from the spec or from a ConfigMap, and checks its syntax.
type luaMechanism struct{}

func (luaMechanism) build(w *World, u Use) ([]part.Part, []Problem) {
	source, place := u.Spec.Lua.Inline, "spec.lua.inline"
	if ref := u.Spec.Lua.ConfigMapRef; ref != nil {
		place = "spec.lua.configMapRef"
		if source != "" {
			return nil, []Problem{{Reason: finding.InvalidPlugin, Spec: "spec.lua", Message: "exactly one of inline and configMapRef must be set"}}
		}
		data, found := w.configMap(u.Namespace + "/" + ref.Name)
		if !found {
			return nil, []Problem{{Reason: finding.RefNotFound, Spec: place, Message: fmt.Sprintf("there is no ConfigMap %s/%s", u.Namespace, ref.Name)}}
		}
		text, ok := data[ref.Key]
		if !ok {
			return nil, []Problem{{Reason: finding.RefNotFound, Spec: place, Message: fmt.Sprintf("ConfigMap %s/%s has no key %q", u.Namespace, ref.Name, ref.Key)}}
		}
		source = text
	}
	if source == "" {
		return nil, []Problem{{Reason: finding.InvalidLua, Spec: place, Message: "the source is empty"}}
	}
	if len(source) > maxLua {
		return nil, []Problem{{Reason: finding.InvalidLua, Spec: place, Message: fmt.Sprintf("the source has %d bytes, at most %d are allowed", len(source), maxLua)}}
	}
	if err := lua.CheckSyntax(source); err != nil {
		return nil, []Problem{{Reason: finding.InvalidLua, Spec: place, Message: err.Error()}}
	}
	services, problems := luaServices(w, u)
	return []part.Part{part.Lua{Plugin: u.Name, Source: source, Config: u.Config, FailOpen: u.failOpen(), Services: services}}, problems
}

// luaServices finds the services that a plugin declares.
func luaServices(w *World, u Use) (map[string]part.Service, []Problem) {
	var problems []Problem
	services := make(map[string]part.Service, len(u.Spec.Lua.Services))
	for i, s := range u.Spec.Lua.Services {
		found, wrong := callout.Find(builtin.Use{Home: u.Namespace, Services: w.services()}, callout.Service{Host: s.Host, Port: uint32(s.Port)}, false)
		services[s.Name] = found
		for _, p := range ofConfig(wrong) {
			p.InConfig, p.Spec = false, fmt.Sprintf("spec.lua.services[%d]", i)+strings.TrimPrefix(p.Config, "service")
			problems = append(problems, p)
		}
	}
	return services, problems
}

// maxLua is the limit of spec.lua.inline; a ConfigMap could hold more than fits into a gateway's runtime.
const maxLua = 128 << 10
