package difference

import (
	"cmp"
	"slices"
	"strings"

	"github.com/pmezard/go-difflib/difflib"

	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/emit"
	"github.com/istio-plugins/istio-plugins/pkg/explain"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/manifest"
)

// objectChanges compares generated objects by kind and name.
func objectChanges(before, after *compile.Result, unified bool) []ObjectChange {
	was, is := byRef(before.Objects), byRef(after.Objects)
	refs := make([]explain.Object, 0, len(is))
	for ref := range is {
		refs = append(refs, ref)
	}
	for ref := range was {
		if _, ok := is[ref]; !ok {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, func(a, b explain.Object) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind)) })
	causes := newCauses(before, after)
	out := []ObjectChange{}
	for _, ref := range refs {
		o, there := was[ref]
		p, stays := is[ref]
		if there && stays && emit.Equal(p, o) && emit.Equal(o, p) {
			continue
		}
		change := ObjectChange{Change: kindOf(there, stays), Object: ref, Entries: []Entry{}}
		for _, c := range emit.Changes(o, p) {
			change.Entries = append(change.Entries, causes.entry(cmp.Or(workloadOf(p), workloadOf(o)), c))
		}
		if unified {
			change.Diff = unifiedDiff(ref, o, p)
		}
		out = append(out, change)
	}
	return out
}

func byRef(objects []emit.Object) map[explain.Object]emit.Object {
	out := make(map[explain.Object]emit.Object, len(objects))
	for _, o := range objects {
		ref := explain.Object{Kind: "EnvoyFilter", Name: o.Name()}
		if o.WasmPlugin != nil {
			ref.Kind, ref.Namespace = "WasmPlugin", o.WasmPlugin.Namespace
		} else {
			ref.Namespace = o.EnvoyFilter.Namespace
		}
		out[ref] = o
	}
	return out
}

func kindOf(before, after bool) Kind {
	switch {
	case !before:
		return Added
	case !after:
		return Removed
	}
	return Changed
}

// workloadOf is the prefix of an object's resources.
func workloadOf(o emit.Object) string {
	switch {
	case o.EnvoyFilter != nil:
		return "istio-plugins." + emit.WorkloadID(o.EnvoyFilter.Labels) + "."
	case o.WasmPlugin != nil:
		return "istio-plugins." + emit.WorkloadID(o.WasmPlugin.Labels) + "."
	}
	return ""
}

// causes say which object an entry comes from.
type causes map[origin]finding.Object

type origin struct{ resource, key string }

// newCauses knows the entries of both sides. Where they do not agree, the later one is right.
func newCauses(sides ...*compile.Result) causes {
	out := causes{}
	for _, r := range sides {
		for _, o := range r.Origins() {
			if o.Entry != "" && len(o.Causes) > 0 {
				out[origin{o.Resource, o.Entry}] = o.Causes[0].Object
			}
		}
	}
	return out
}

func (c causes) entry(prefix string, change emit.Change) Entry {
	e := Entry{Change: kindOf(change.Before, change.After), Resource: strings.TrimPrefix(change.Resource, prefix), Key: change.Key}
	if cause, ok := c[origin{change.Resource, change.Key}]; ok {
		of := explain.Object(cause)
		e.Of = &of
	}
	return e
}

// unifiedDiff is the unified diff of an object's YAML.
func unifiedDiff(ref explain.Object, before, after emit.Object) string {
	name := finding.Object(ref).String()
	text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: yamlLines(before), B: yamlLines(after), FromFile: "before/" + name, ToFile: "after/" + name, Context: 3,
	})
	if err != nil {
		panic(err) // it is written into memory
	}
	return text
}

func yamlLines(o emit.Object) []string {
	if o.EnvoyFilter == nil && o.WasmPlugin == nil {
		return nil
	}
	var text strings.Builder
	if err := manifest.YAML(&text, []emit.Object{o}); err != nil {
		panic(err) // it is written into memory
	}
	return slices.Collect(strings.Lines(text.String()))
}
