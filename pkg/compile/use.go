package compile

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/dispatch"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/mechanism"
	"github.com/istio-plugins/istio-plugins/pkg/part"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/topology"
)

// use is a plugin with a config: its parts, or why it is unusable.
type use struct {
	// id tells uses apart within one compilation, identity whose they are.
	id, identity string
	parts        []part.Part
	problems     []mechanism.Problem
	// authenticates says that it establishes the consumer, and needsConsumer that it decides by it.
	authenticates, needsConsumer bool
	// broken and warnings are set for the step that was asked about, because it says where a problem stands.
	broken   *resolve.Issue
	warnings []*resolve.Issue
}

// use builds the parts of a step. Steps of one identity share them, so that a plugin that 10,000 routes use is built once.
func (c *compiler) use(step resolve.Step) use {
	user := step.Entry.Level.Object.Namespace
	id := identity(step)
	key := id + "\x00" + user
	known := c.users[key]
	if known == nil {
		p := step.Plugin
		known = &use{id: fmt.Sprint(len(c.users)), identity: id}
		known.parts, known.problems = c.world.Build(mechanism.Use{
			Identity: id, Name: p.Name, Spec: p.Spec, Namespace: p.Namespace, User: user, Config: step.Config(),
		})
		b, found := c.world.Builtins(p.Spec.Builtin)
		known.authenticates = found && b.Auth || slices.ContainsFunc(known.parts, callsAuthenticate)
		known.needsConsumer = found && b.NeedsConsumer
		c.users[key] = known
	}
	u := *known
	for _, problem := range u.problems {
		i := c.issue(step, problem)
		switch {
		case problem.Warning:
			u.warnings = append(u.warnings, i)
		case u.broken == nil:
			u.broken = i
		default:
			c.report.see(i)
		}
	}
	return u
}

// callsAuthenticate says whether a part is Lua that establishes the consumer itself, as far as its source shows.
func callsAuthenticate(p part.Part) bool {
	l, ok := p.(part.Lua)
	return ok && strings.Contains(l.Source, "pdk.authenticate")
}

// notAuthenticated is the issue of a step that decides by the consumer where nothing before it authenticates.
func (c *compiler) notAuthenticated(step resolve.Step) *resolve.Issue {
	e := step.Entry
	return c.report.once(finding.Finding{
		Reason: finding.NotAuthenticated, Object: e.Level.Object, Place: e.Place,
		Problem: fmt.Sprintf("%q decides by the consumer, and no plugin before it authenticates one", e.Name),
		Remedy:  "list a plugin that does, such as key-auth, before it",
	}, step.Plugin.FailOpen())
}

// issue says where a problem of a step stands: in the topmost entry whose config has the field, or else in the Plugin.
func (c *compiler) issue(step resolve.Step, p mechanism.Problem) *resolve.Issue {
	object, place := step.Plugin.Object, p.Spec
	if p.InConfig {
		place = strings.TrimSuffix("spec.config."+p.Config, ".")
	}
	if e := blame(step, p); e != nil {
		object, place = e.Level.Object, e.Place
		if p.InConfig && p.Config != "" {
			place += ".config." + p.Config
		}
	}
	problem := p.Message
	if object != step.Plugin.Object {
		problem = "plugin " + step.Entry.Name + ": " + problem
	}
	return c.report.once(finding.Finding{Reason: p.Reason, Object: object, Place: place, Problem: problem}, step.Plugin.FailOpen())
}

// blame is the entry that a problem stands in; nil for the Plugin itself.
func blame(step resolve.Step, p mechanism.Problem) *resolve.Entry {
	if p.InConfig && !(step.Entry.Override && has(step.Plugin.Config, p.Config)) {
		layers := step.Layers()
		for i := len(layers) - 1; i >= 0; i-- {
			if has(layers[i].Config, p.Config) {
				return layers[i]
			}
		}
	}
	if step.Plugin.Object == (finding.Object{}) {
		return step.Entry
	}
	return nil
}

// has says whether a config holds the first step of a path, which is as exact as blame needs to be.
func has(c config.Value, path string) bool {
	first := path
	if i := strings.IndexAny(path, ".["); i >= 0 {
		first = path[:i]
	}
	_, ok := c[first]
	return ok && first != ""
}

// place puts the parts of a step into a run, with the identities that they need there.
func (c *compiler) place(v *topology.VirtualService, step resolve.Step, u use) []dispatch.Placed {
	out := make([]dispatch.Placed, 0, len(u.parts))
	for i, p := range u.parts {
		placed := dispatch.Placed{Part: p}
		switch p := p.(type) {
		case part.Native:
			name := fmt.Sprintf("%s %d", u.identity, i)
			if p.State == part.PerAttachment {
				name += " of " + owner(v, step)
			}
			placed.Name = dispatch.Instance(p, name)
		case part.Wasm:
			placed.Name = wasmIdentity(step)
		case part.Lua:
			placed.Name, placed.Key = p.SourceID, fmt.Sprintf("%s.%d", u.id, i)
		}
		c.cause(placed.Name, step)
		out = append(out, placed)
	}
	return out
}

// cause notes where something that runs on a gateway comes from.
func (c *compiler) cause(name string, step resolve.Step) {
	if len(c.causes[name]) > 0 {
		return // the first is enough to find the mistake, and 10,000 would not help
	}
	causes := []Cause{{Object: step.Entry.Level.Object, Place: step.Entry.Place}}
	if step.Plugin.Object != (finding.Object{}) {
		causes = append([]Cause{{Object: step.Plugin.Object, Place: "spec"}}, causes...)
	}
	c.causes[name] = causes
}

// identity says which plugin with whose changes a step is: the Plugin, and the entries that change its config. It does
// not say what the configs are. What a step runs is named by it on the gateway, so that an edit of a config changes the
// content under a name, which is one atomic change of one table, and no request meets a name whose table is still on
// its way.
func identity(step resolve.Step) string {
	var b strings.Builder
	b.WriteString(step.Plugin.ID)
	for _, e := range step.Layers() {
		if len(e.Config) > 0 {
			fmt.Fprintf(&b, " + %s#%d", e.Level.Object, e.Ordinal)
		}
	}
	return b.String()
}

// wasmIdentity is the identity of a place in the pool. Places are few, so entries that change a Plugin in the same way
// share one: they are told by what they change, not by where they stand.
func wasmIdentity(step resolve.Step) string {
	h, changed := xxhash.New(), false
	for _, e := range step.Layers() {
		if len(e.Config) > 0 {
			changed = true
			_, _ = h.Write(e.Config.JSON())
			_, _ = h.Write([]byte{0})
		}
	}
	if !changed {
		return step.Plugin.ID
	}
	return step.Plugin.ID + "#" + hex.EncodeToString(h.Sum(nil))
}
