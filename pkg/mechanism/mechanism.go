// Package mechanism makes parts of plugins: one file for each kind of plugin that a Plugin's spec can be.
package mechanism

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	corev1 "k8s.io/api/core/v1"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/envoy"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/lua"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// World is what plugins may refer to.
type World struct {
	Builtins   func(name string) (*builtin.Builtin, bool)
	Consumers  builtin.Consumers
	Services   builtin.Services
	ConfigMaps map[string]*corev1.ConfigMap // by "namespace/name"
	// seen notes what is asked; nil for nobody who wants to know.
	seen *Seen
}

// Use is one use of a plugin: its spec with the merged config.
type Use struct {
	// Identity tells the use from others; it does not change when a config is edited.
	Identity string
	// Name for messages.
	Name string
	Spec *pluginsv1alpha1.PluginSpec
	// Namespace in which the plugin's own references are looked up.
	Namespace string
	// User is the namespace of the object that names the plugin.
	User string
	// Config is the merged config.
	Config config.Value
	// Secrets that parts of it come from.
	Secrets Secrets
}

// Problem is something wrong with a use.
type Problem struct {
	Reason finding.Reason
	// Config is the path in the merged config, where the problem is there; otherwise Spec is the path in the Plugin's spec.
	Config, Spec string
	InConfig     bool
	Message      string
	// Veiled says as much of the problem as may be known of a config that comes from a Secret; empty for nothing.
	Veiled  string
	Warning bool
}

// Build makes the parts of a use. Without parts and with a problem that is no warning, the plugin is unusable.
func (w *World) Build(u Use) ([]part.Part, []Problem) {
	problems := u.Secrets.problems()
	if broken(problems) {
		return nil, problems
	}
	parts, wrong := w.build(u)
	return parts, append(problems, w.veil(u, wrong)...)
}

func broken(problems []Problem) bool {
	return slices.ContainsFunc(problems, func(p Problem) bool { return !p.Warning })
}

func (w *World) build(u Use) ([]part.Part, []Problem) {
	if left := paths(u.Config, refers); len(left) > 0 {
		return nil, []Problem{{Reason: finding.InvalidConfig, InConfig: true, Config: left[0], Message: "Secrets can be named in the spec of a Plugin only"}}
	}
	m, problem := mechanismOf(u.Spec)
	if m == nil {
		return nil, []Problem{problem}
	}
	parts, problems := m.build(w, u)
	if broken(problems) {
		return nil, problems
	}
	for i, p := range parts {
		switch p := p.(type) {
		case part.Lua:
			p.SourceID = lua.SourceID(p.Source)
			parts[i] = p
		case part.Native:
			// Nothing that Envoy would reject may leave: one bad resource keeps it from applying others.
			if err := envoy.Check(p.Config); err != nil {
				return nil, append(problems, Problem{Reason: finding.InvalidConfig, InConfig: true, Message: err.Error()})
			}
			p.Services = envoy.Services(p.Config)
			parts[i] = p
		}
	}
	return parts, problems
}

// Type is what users see as a plugin's type: the built-in's name, or the kind.
func Type(spec *pluginsv1alpha1.PluginSpec) string {
	switch {
	case spec.Lua != nil:
		return "Lua"
	case spec.Wasm != nil:
		return "Wasm"
	case spec.Envoy != nil:
		return "Envoy"
	case spec.ExtAuth != nil:
		return "ExtAuth"
	case spec.ExtProc != nil:
		return "ExtProc"
	}
	return spec.Builtin
}

// Builtin is the name of the built-in that a plugin is, with or without a place of its own in the spec; empty for others.
func Builtin(spec *pluginsv1alpha1.PluginSpec) string {
	switch {
	case spec.ExtAuth != nil:
		return "ext-auth"
	case spec.ExtProc != nil:
		return "ext-proc"
	}
	return spec.Builtin
}

// mechanism is one kind of plugin. The set is closed.
type mechanism interface {
	build(w *World, u Use) ([]part.Part, []Problem)
}

var (
	_ mechanism = builtinMechanism{}
	_ mechanism = luaMechanism{}
	_ mechanism = wasmMechanism{}
	_ mechanism = envoyMechanism{}
	_ mechanism = extAuthMechanism{}
	_ mechanism = extProcMechanism{}
)

// mechanismOf picks by the one member of the spec's union that is set.
func mechanismOf(spec *pluginsv1alpha1.PluginSpec) (mechanism, Problem) {
	var set []string
	var m mechanism
	if spec.Builtin != "" {
		set, m = append(set, "builtin"), builtinMechanism{}
	}
	if spec.Lua != nil {
		set, m = append(set, "lua"), luaMechanism{}
	}
	if spec.Wasm != nil {
		set, m = append(set, "wasm"), wasmMechanism{}
	}
	if spec.Envoy != nil {
		set, m = append(set, "envoy"), envoyMechanism{}
	}
	if spec.ExtAuth != nil {
		set, m = append(set, "extAuth"), extAuthMechanism{}
	}
	if spec.ExtProc != nil {
		set, m = append(set, "extProc"), extProcMechanism{}
	}
	if len(set) != 1 {
		found := "none"
		if len(set) > 0 {
			found = strings.Join(set, " and ")
		}
		return nil, Problem{Reason: finding.InvalidPlugin, Spec: "spec", Message: fmt.Sprintf("exactly one of builtin, lua, wasm, envoy, extAuth and extProc must be set, not %s", found)}
	}
	return m, Problem{}
}

// Instance is a short name for the use, for what must not be shared with others in one chain. It comes of the identity
// alone, as the name of a native filter does: namespaces that use one ClusterPlugin share the filter, so each one's Lua
// must look where that filter writes.
func (u Use) Instance() string { return fmt.Sprintf("%016x", xxhash.Sum64String(u.Identity)) }

func (u Use) failOpen() bool { return u.Spec.FailurePolicy == pluginsv1alpha1.FailOpen }
