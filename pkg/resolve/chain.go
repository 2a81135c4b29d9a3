package resolve

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
)

// Chain is what a route runs, in order.
type Chain struct {
	Steps []Step
	// Refusals are why the route answers 503 instead, if there is any.
	Refusals []*Refusal
}

// Refused is the first refusal, or nil.
func (c Chain) Refused() *Refusal {
	if len(c.Refusals) == 0 {
		return nil
	}
	return c.Refusals[0]
}

// Step is one plugin of a chain.
type Step struct {
	Plugin *Plugin
	// Entry that attached it, and Merged the entries whose config was merged into it, in the order of merging.
	Entry  *Entry
	Merged []*Entry
}

// Layers are the entries whose configs are merged, the last on top.
func (s Step) Layers() []*Entry {
	if s.Entry.Override {
		return append(slices.Clone(s.Merged), s.Entry)
	}
	return append([]*Entry{s.Entry}, s.Merged...)
}

// Config is the plugin's own config with the entries' merged over it. With override, what the parent attaches, the
// plugin's own config included, lies over its children's: they may add to it, but change nothing.
func (s Step) Config() config.Value { return s.Over(s.Plugin.Config) }

// Public is Config as far as everybody may know it.
func (s Step) Public() config.Value { return s.Over(s.Plugin.Public) }

// Over is Config with another own config of the plugin.
func (s Step) Over(own config.Value) config.Value {
	if own == nil {
		own = config.Value{}
	}
	if s.Entry.Override {
		own = config.Merge(merge(config.Value{}, s.Merged), own)
		return config.Merge(own, s.Entry.Config)
	}
	return merge(own, s.Layers())
}

func merge(c config.Value, layers []*Entry) config.Value {
	for _, e := range layers {
		c = config.Merge(c, e.Config)
	}
	return c
}

// same says whether two steps do the same: one Plugin, one config.
func (s Step) same(t Step) bool {
	return s.Plugin.ID == t.Plugin.ID && (s.Entry == t.Entry && slices.Equal(s.Merged, t.Merged) || bytes.Equal(s.Config().JSON(), t.Config().JSON()))
}

// Covered is a level as seen from one route: the name of the level's http route that the route came from.
type Covered struct {
	Level *Level
	Route string
}

// Notes collects what Compose notices about entries; each is reported once, however many routes it concerns. The zero
// Notes are empty.
type Notes struct {
	// removed are opt-outs that took something out, idle those that found nothing on some route.
	removed, idle map[*Entry]bool
	other         map[string]finding.Finding
}

// Add takes over what was noticed elsewhere.
func (n *Notes) Add(more *Notes) {
	for e := range more.removed {
		mark(&n.removed, e)
	}
	for e := range more.idle {
		mark(&n.idle, e)
	}
	for _, f := range more.other {
		n.add(f)
	}
}

func mark(entries *map[*Entry]bool, e *Entry) {
	if *entries == nil {
		*entries = map[*Entry]bool{}
	}
	(*entries)[e] = true
}

// Findings of all chains that were composed.
func (n *Notes) Findings() []finding.Finding {
	var out []finding.Finding
	for e := range n.idle {
		if !n.removed[e] {
			out = append(out, finding.Finding{
				Reason: finding.OptOutNotAttached, Object: e.Level.Object, Place: e.Place,
				Problem: fmt.Sprintf("no parent attaches %q, so there is nothing to opt out of", e.Name), Remedy: "remove the entry",
			})
		}
	}
	for _, f := range n.other {
		out = append(out, f)
	}
	return out
}

func (n *Notes) add(f finding.Finding) {
	if n.other == nil {
		n.other = map[string]finding.Finding{}
	}
	n.other[f.Object.String()+f.Place+string(f.Reason)] = f
}

// Compose puts levels on top of parents, in order, and sorts the result by priority. It does not change parents.
func Compose(parents Chain, levels []Covered, notes *Notes) Chain {
	c := Chain{Steps: slices.Clone(parents.Steps), Refusals: slices.Clone(parents.Refusals)}
	for _, level := range levels {
		c.put(level, notes)
	}
	c.sort()
	return c
}

// put adds one level to a chain of its parents'.
func (c *Chain) put(on Covered, notes *Notes) {
	level := on.Level
	if level.Refused != nil {
		c.refuse(level.Refused)
		return
	}
	for _, e := range level.Entries {
		if e.OptOut && e.Refused == nil && e.covers(on.Route) {
			c.optOut(e, notes)
		}
	}
	parents := len(c.Steps)
	for i, e := range level.Entries {
		if e.refuses(on.Route) {
			c.refuse(e.Refused)
			continue
		}
		if e.OptOut || e.Refused != nil || !e.covers(on.Route) {
			continue
		}
		if first := c.duplicateOf(level.Entries[:i], e, on.Route); first != nil {
			notes.add(finding.Finding{
				Reason: finding.DuplicateEntry, Object: level.Object, Place: e.Place,
				Problem: fmt.Sprintf("%q is already attached with the same config", e.Name),
				Traffic: "it runs once", Remedy: "remove the entry, or give it another config",
			})
			continue
		}
		if !c.mergeIntoParent(e, parents) {
			c.Steps = append(c.Steps, Step{Plugin: e.Plugin, Entry: e})
		}
	}
}

// duplicateOf finds an earlier entry of the level that says exactly the same for the route.
func (c *Chain) duplicateOf(earlier []*Entry, e *Entry, route string) *Entry {
	for _, o := range earlier {
		if !o.OptOut && o.Refused == nil && o.covers(route) && o.Plugin == e.Plugin && o.Override == e.Override && bytes.Equal(o.Config.JSON(), e.Config.JSON()) {
			return o
		}
	}
	return nil
}

// mergeIntoParent merges e into the parents' instance of its Plugin, unless an earlier entry of e's level has done so.
func (c *Chain) mergeIntoParent(e *Entry, parents int) bool {
	for i := range c.Steps[:parents] {
		s := &c.Steps[i]
		if s.Plugin.ID != e.Plugin.ID {
			continue
		}
		if slices.ContainsFunc(s.Merged, func(m *Entry) bool { return m.Level == e.Level }) {
			continue
		}
		s.Merged = append(slices.Clone(s.Merged), e)
		return true
	}
	return false
}

// optOut removes what parents attached under the opt-out's Plugin, or else under its spelling.
func (c *Chain) optOut(out *Entry, notes *Notes) {
	hit := false
	c.Steps = slices.DeleteFunc(slices.Clone(c.Steps), func(s Step) bool {
		if !(out.Plugin != nil && s.Plugin.ID == out.Plugin.ID) && !(s.Entry.Name == out.Name && out.Plugin == nil) {
			return false
		}
		hit = true
		if s.Entry.Override {
			notes.add(finding.Finding{
				Reason: finding.OverrideNotRemovable, Object: out.Level.Object, Place: out.Place,
				Problem: fmt.Sprintf("%s attaches %q with override, which cannot be opted out of", s.Entry.Level.Object, s.Entry.Name),
				Traffic: "it runs all the same", Remedy: "remove the entry, or ask the owner of " + s.Entry.Level.Object.String(),
				Related: []finding.Object{s.Entry.Level.Object},
			})
			return false
		}
		return true
	})
	// A parent's entry that cannot be honoured is opted out of like any other.
	c.Refusals = slices.DeleteFunc(c.Refusals, func(r *Refusal) bool {
		named := r.Plugin != "" && r.Plugin == out.Name && !r.Override
		hit = hit || named
		return named
	})
	if hit {
		mark(&notes.removed, out)
	} else {
		mark(&notes.idle, out)
	}
}

func (c *Chain) refuse(r *Refusal) {
	if !slices.Contains(c.Refusals, r) {
		c.Refusals = append(c.Refusals, r)
	}
}

// sort orders by priority, high first; equal ones stay as they are.
func (c *Chain) sort() {
	slices.SortStableFunc(c.Steps, func(a, b Step) int {
		switch pa, pb := a.Plugin.Spec.Priority, b.Plugin.Spec.Priority; {
		case pa > pb:
			return -1
		case pa < pb:
			return 1
		}
		return 0
	})
}

// Equal says whether two chains do the same.
func (c Chain) Equal(d Chain) bool {
	return slices.Equal(c.Refusals, d.Refusals) && slices.EqualFunc(c.Steps, d.Steps, Step.same)
}

// Union is what serves two routes that cannot be told apart: all steps of c, then those of d that c has not.
func (c Chain) Union(d Chain) Chain {
	out := Chain{Steps: slices.Clone(c.Steps), Refusals: slices.Clone(c.Refusals)}
	for _, r := range d.Refusals {
		out.refuse(r)
	}
	for _, s := range d.Steps {
		if !slices.ContainsFunc(c.Steps, s.same) {
			out.Steps = append(out.Steps, s)
		}
	}
	out.sort()
	return out
}
