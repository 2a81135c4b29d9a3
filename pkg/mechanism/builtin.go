package mechanism

import (
	"fmt"
	"slices"
	"strings"

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
	if broken(problems) {
		return nil, problems
	}
	parts, wrong := b.Build(builtin.Use{
		Plugin: u.Name, Instance: u.Instance(), Namespace: u.User, FailOpen: u.failOpen(), Consumers: w.consumers(),
		Home: u.Namespace, Services: w.services(),
	}, complete)
	wrong = slices.Clone(wrong) // they may be somebody else's
	for i, p := range wrong {
		wrong[i].Veiled = strings.TrimSpace(b.Schema.Known(p.Path) + " has a value with a problem: `istio-plugins catalog show " + b.Name + "` says what it may be")
	}
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
		out = append(out, Problem{Reason: reason, InConfig: true, Config: p.Path, Message: p.Message, Veiled: p.Veiled, Warning: p.Warning})
	}
	return out
}
