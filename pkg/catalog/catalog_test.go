package catalog_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/catalog"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/consumer"
	"github.com/istio-plugins/istio-plugins/pkg/part"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

func TestBuiltinsAreSortedAndComplete(t *testing.T) {
	names := catalog.Names()
	if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("names are not in order, or repeated: %v", names)
	}
	for _, b := range catalog.All() {
		if b.Schema == nil || b.Build == nil {
			t.Errorf("%s has no schema or no Build", b.Name)
		}
		if found, ok := catalog.Find(b.Name); !ok || found.Name != b.Name {
			t.Errorf("Find does not find %s", b.Name)
		}
	}
	if _, ok := catalog.Find("no-such-plugin"); ok {
		t.Error("Find finds what is not there")
	}
}

// A folder with a schema is a built-in, and the list is written by hand.
func TestNoFolderIsForgotten(t *testing.T) {
	folders, err := filepath.Glob("*/schema.yaml")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, name := range catalog.Names() {
		listed[strings.ReplaceAll(name, "-", "")] = true
	}
	for _, f := range folders {
		if folder := filepath.Dir(f); !listed[folder] {
			t.Errorf("All does not list the built-in of folder %s", folder)
		}
	}
	if len(folders) != len(listed) {
		t.Errorf("%d folders with a schema, %d built-ins", len(folders), len(listed))
	}
}

func TestSchemasAreDocumentation(t *testing.T) {
	for _, b := range catalog.All() {
		if b.Schema.Description() == "" {
			t.Errorf("%s has no description", b.Name)
		}
		for _, f := range b.Schema.Fields() {
			if f.Description == "" {
				t.Errorf("%s: %s has no description", b.Name, f.Path)
			}
			if f.Type == "" {
				t.Errorf("%s: %s has no type", b.Name, f.Path)
			}
			// Without both limits there is an integer that no Go integer holds.
			if strings.HasPrefix(f.Type, "integer") && !strings.Contains(f.Type, " to ") {
				t.Errorf("%s: %s is an integer without limits", b.Name, f.Path)
			}
		}
	}
}

// Whoever misspells a field learns it.
func TestSchemasRefuseUnknownFields(t *testing.T) {
	for _, b := range catalog.All() {
		_, problems := b.Schema.Check(config.Value{"no_such_field": "x"})
		if !slices.ContainsFunc(problems, func(p builtin.Problem) bool { return p.Path == "no_such_field" && !p.Warning }) {
			t.Errorf("%s accepts an unknown field: %v", b.Name, problems)
		}
	}
}

func TestSchemasIgnoreWhatKongHasEverywhere(t *testing.T) {
	for _, b := range catalog.All() {
		_, problems := b.Schema.Check(config.Value{"protocols": []any{"http"}, "tags": []any{}})
		for _, field := range []string{"protocols", "tags"} {
			if !slices.ContainsFunc(problems, func(p builtin.Problem) bool { return p.Path == field && p.Warning }) {
				t.Errorf("%s does not warn of %s: %v", b.Name, field, problems)
			}
		}
	}
}

// Every Lua part says whose it is and what happens when it fails.
func TestLuaPartsCarryNameAndPolicy(t *testing.T) {
	nobody, _ := consumer.New(&snapshot.Snapshot{})
	built := 0
	for _, b := range catalog.All() {
		complete, problems := b.Schema.Check(config.Value{})
		if len(problems) > 0 {
			continue // cannot be used by its bare name
		}
		parts, problems := b.Build(builtin.Use{Plugin: "mine", Instance: "i", Namespace: "shop", FailOpen: true, Consumers: nobody}, complete)
		if slices.ContainsFunc(problems, func(p builtin.Problem) bool { return !p.Warning }) {
			continue
		}
		for _, p := range parts {
			if lua, ok := p.(part.Lua); ok && (lua.Plugin != "mine" || !lua.FailOpen) {
				t.Errorf("%s: a part of plugin %q, FailOpen %v", b.Name, lua.Plugin, lua.FailOpen)
			}
		}
		built++
	}
	if built < 4 {
		t.Errorf("only %d built-ins can be used by their bare names", built)
	}
}

func TestReference(t *testing.T) {
	page := catalog.Reference(&builtin.Builtin{Name: "sample", Schema: builtin.MustSchema([]byte(`
description: |
  Does this.

  And that.
type: object
required: [mode]
x-ignored: [redis_host]
properties:
  mode:
    description: |
      Either a|b,
      or nothing.
    type: string
  names: {type: array, items: {type: string}, default: [a], description: Whose.}
  words: {type: string, x-default: by status, description: What.}
  last: {type: boolean, description: The last.}
`))})
	want := "# sample\n\nDoes this.\n\nAnd that.\n\n## Configuration\n\n" +
		"| field | type | default | meaning |\n|---|---|---|---|\n" +
		"| `mode` | string | required | Either a\\|b, or nothing. |\n" +
		"| `names` | list of strings | `[\"a\"]` | Whose. |\n" +
		"| `words` | string | by status | What. |\n" +
		"| `last` | boolean | none | The last. |\n" +
		"\nFields of Kong that are accepted and have no effect: `redis_host`.\n"
	if diff := cmp.Diff(want, page); diff != "" {
		t.Errorf("page (-want +got):\n%s", diff)
	}
	for _, b := range catalog.All() {
		if !strings.HasPrefix(catalog.Reference(b), "# "+b.Name+"\n") {
			t.Errorf("the page of %s does not begin with its name", b.Name)
		}
	}
}
