package mechanism

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// extAuthMechanism is the built-in ext-auth with a fixed service.
type extAuthMechanism struct{}

func (extAuthMechanism) build(w *World, u Use) ([]part.Part, []Problem) {
	fixed := config.Value{"service": serviceOf(u.Spec.ExtAuth.Service)}
	if p := u.Spec.ExtAuth.Protocol; p != "" {
		fixed["protocol"] = p
	} else {
		fixed["protocol"] = "http"
	}
	return buildFixed(w, u, "ext-auth", "spec.extAuth", fixed)
}

func serviceOf(s pluginsv1alpha1.ServicePort) map[string]any {
	return map[string]any{"host": s.Host, "port": json.Number(strconv.Itoa(int(s.Port)))}
}

// buildFixed makes the parts of a built-in, some of whose fields a Plugin's spec has at a place where no config reaches.
func buildFixed(w *World, u Use, name, place string, fixed config.Value) ([]part.Part, []Problem) {
	var problems []Problem
	for _, field := range slices.Sorted(maps.Keys(fixed)) {
		if _, changed := u.Config[field]; changed {
			message := "is set by " + place + " and cannot be changed by config"
			problems = append(problems, Problem{Reason: finding.InvalidConfig, InConfig: true, Config: field, Message: message, Veiled: field + " " + message})
		}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	spec := *u.Spec
	spec.Builtin = name
	u.Spec, u.Config = &spec, config.Merge(u.Config, fixed)
	parts, problems := builtinMechanism{}.build(w, u)
	for i, p := range problems {
		field, _, _ := strings.Cut(p.Config, ".")
		if _, ok := fixed[field]; ok && p.InConfig {
			problems[i].InConfig, problems[i].Config, problems[i].Spec = false, "", place+"."+p.Config
		}
	}
	return parts, problems
}
