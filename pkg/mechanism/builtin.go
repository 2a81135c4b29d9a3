package mechanism

import (
	"fmt"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// builtinMechanism checks the config by the built-in's schema and lets it make its parts.
type builtinMechanism struct{}

func (builtinMechanism) build(w *World, u Use) ([]part.Part, []Problem) {
	b, ok := w.Builtins(u.Spec.Builtin)
	if !ok {
		return nil, []Problem{{Reason: finding.InvalidPlugin, Spec: "spec.builtin", Message: fmt.Sprintf("there is no built-in %q; `istio-plugins catalog` lists them", u.Spec.Builtin)}}
	}
	complete, wrong := b.Schema.Check(u.Config)
	problems := ofConfig(wrong)
	for _, p := range problems {
		if !p.Warning {
			return nil, problems
		}
	}
	parts, wrong := b.Build(builtin.Use{
		Plugin: u.Name, Instance: u.Instance(), Namespace: u.User, FailOpen: u.failOpen(), Consumers: w.consumers(),
		Home: u.Namespace, Services: w.services(),
	}, complete)
	return parts, append(problems, ofConfig(wrong)...)
}

func ofConfig(wrong []builtin.Problem) []Problem {
	var out []Problem
	for _, p := range wrong {
		reason := finding.InvalidConfig
		switch {
		case p.Warning:
			reason = finding.ConfigWarning
		case p.Missing:
			reason = finding.RefNotFound
		}
		out = append(out, Problem{Reason: reason, InConfig: true, Config: p.Path, Message: p.Message, Warning: p.Warning})
	}
	return out
}
