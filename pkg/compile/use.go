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
)

// use is a plugin with a config: its parts, or why it is unusable.
type use struct {
	// id tells uses apart as long as the Compiler lives, key in one pass; identity says whose it is.
	id, key, identity string
	// plugin, layers and seen are what it was made of; pass is the last one in which it was found to be so.
	plugin *resolve.Plugin
	layers []*resolve.Entry
	seen   mechanism.Seen
	pass   int

	parts    []part.Part
	problems []mechanism.Problem
	// authenticates says that it establishes the consumer, and needsConsumer that it decides by it.
	authenticates, needsConsumer bool
}

// build makes a use. Steps of one identity share it, so that a plugin that 10,000 routes use is built once. layers are the
// entries that change its config, and over merges them over one.
func (c *compilation) build(p *resolve.Plugin, layers []*resolve.Entry, user string, over func(config.Value) config.Value) *use {
	id := identity(p, layers)
	key := id + "\x00" + user
	at := c.uses.At(key)
	if known := *at; known != nil && known.plugin == p && slices.Equal(known.layers, layers) && c.holds(known) {
		return known
	}
	c.usesMade++
	u := &use{id: fmt.Sprint(c.usesMade), key: key, identity: id, plugin: p, layers: layers, pass: c.passes}
	u.parts, u.problems = c.world.Noting(&u.seen).Build(mechanism.Use{
		Identity: id, Name: p.Name, Spec: p.Spec, Namespace: p.Namespace, User: user, Config: over(p.Config),
		Secrets: mechanism.Secrets{Sources: p.Secrets, Wrong: p.Wrong, Public: func() config.Value { return over(p.Public) }},
	})
	b, found := c.world.Builtins(p.Spec.Builtin)
	u.authenticates = found && b.Auth || slices.ContainsFunc(u.parts, callsAuthenticate)
	u.needsConsumer = found && b.NeedsConsumer
	*at = u
	return u
}

// holds says whether a use of a Plugin and entries that are the same would be built in the same way.
func (c *compilation) holds(u *use) bool {
	if u.pass != c.passes {
		if !u.seen.Holds(c.world) {
			return false
		}
		u.pass = c.passes
		*c.uses.At(u.key) = u
	}
	return true
}

// verdict is a use in a step, which says where its problems stand.
type verdict struct {
	*use
	broken   *resolve.Issue
	warnings []*resolve.Issue
}

func (c *composer) use(step *resolve.Step) verdict {
	v := verdict{use: c.build(step.Plugin, changing(step), step.Entry.Level.Object.Namespace, step.Over)}
	c.made.uses = append(c.made.uses, v.use)
	for _, problem := range v.problems {
		i := c.issue(step, problem)
		switch {
		case problem.Warning:
			v.warnings = append(v.warnings, i)
		case v.broken == nil:
			v.broken = i
		default:
			c.hit(i, "")
		}
	}
	return v
}

// callsAuthenticate says whether a part is Lua that establishes the consumer itself, as far as its source shows.
func callsAuthenticate(p part.Part) bool {
	l, ok := p.(part.Lua)
	return ok && strings.Contains(l.Source, "pdk.authenticate")
}

// notAuthenticated is the issue of a step that decides by the consumer where nothing before it authenticates.
func (c *composer) notAuthenticated(step *resolve.Step) *resolve.Issue {
	e := step.Entry
	return c.once(finding.Finding{
		Reason: finding.NotAuthenticated, Object: e.Level.Object, Place: e.Place,
		Problem: fmt.Sprintf("%q decides by the consumer, and no plugin before it authenticates one", e.Name),
		Remedy:  "list a plugin that does, such as key-auth, before it",
	}, step.Plugin.FailOpen())
}

// issue says where a problem of a step stands: in the topmost entry whose config has the field, or else in the Plugin.
func (c *composer) issue(step *resolve.Step, p mechanism.Problem) *resolve.Issue {
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
	return c.once(finding.Finding{Reason: p.Reason, Object: object, Place: place, Problem: problem}, step.Plugin.FailOpen())
}

// blame is the entry that a problem stands in; nil for the Plugin itself.
func blame(step *resolve.Step, p mechanism.Problem) *resolve.Entry {
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
func (c *composer) place(step *resolve.Step, u *use) []dispatch.Placed {
	out := make([]dispatch.Placed, 0, len(u.parts))
	for i, p := range u.parts {
		here := dispatch.Placed{Part: p}
		switch p := p.(type) {
		case part.Native:
			name := fmt.Sprintf("%s %d", u.identity, i)
			if p.State == part.PerAttachment {
				name += " of " + owner(c.v, step)
			}
			here.Name = dispatch.Instance(p, name)
		case part.Wasm:
			p.VM = step.Plugin.ID
			here = dispatch.Placed{Part: p, Name: wasmIdentity(step)}
			c.made.wasm = append(c.made.wasm, here)
		case part.Lua:
			here.Name, here.Key = p.SourceID, fmt.Sprintf("%s.%d", u.id, i)
			if p.State != part.Stateless {
				text := counter(c.v, step, p.State)
				p.Config = config.Merge(p.Config, config.Value{"counter": text})
				here.Part, here.Key = p, here.Key+"."+text
			}
		}
		c.made.placed = append(c.made.placed, placed{here.Name, step})
		out = append(out, here)
	}
	return out
}

// changing are the entries of a step that change the Plugin's config.
func changing(step *resolve.Step) []*resolve.Entry {
	return slices.DeleteFunc(step.Layers(), func(e *resolve.Entry) bool { return len(e.Config) == 0 })
}

// identity says which plugin with whose changes a step is: the Plugin, and the entries that change its config. It does
// not say what the configs are. What a step runs is named by it on the gateway, so that an edit of a config changes the
// content under a name, which is one atomic change of one table, and no request meets a name whose table is still on
// its way.
func identity(p *resolve.Plugin, layers []*resolve.Entry) string {
	var b strings.Builder
	b.WriteString(p.ID)
	for _, e := range layers {
		fmt.Fprintf(&b, " + %s#%d", e.Level.Object, e.Ordinal)
	}
	return b.String()
}

// wasmIdentity is the identity of a place in the pool. Places are few, so entries that change a Plugin in the same way
// share one: they are told by what they change, not by where they stand.
func wasmIdentity(step *resolve.Step) string {
	layers := changing(step)
	if len(layers) == 0 {
		return step.Plugin.ID
	}
	h := xxhash.New()
	for _, e := range layers {
		_, _ = h.Write(e.Config.JSON())
		_, _ = h.Write([]byte{0})
	}
	return step.Plugin.ID + "#" + hex.EncodeToString(h.Sum(nil))
}
