// Package acl is the built-in plugin acl: routes are for consumers of certain groups, or not for them. schema.yaml
// documents it.
package acl

import (
	_ "embed"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/authn"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

//go:embed schema.yaml
var schema []byte

//go:embed handler.lua
var handler string

// Builtin is the plugin.
var Builtin = &builtin.Builtin{
	Name:          "acl",
	Schema:        builtin.MustSchema(schema),
	NeedsConsumer: true,
	Build:         build,
}

type settings struct {
	Allow      []string `json:"allow"`
	Deny       []string `json:"deny"`
	HideGroups bool     `json:"hide_groups_header"`
}

func build(use builtin.Use, c config.Value) ([]part.Part, []builtin.Problem) {
	var s settings
	builtin.DecodeInto(c, &s)
	if (len(s.Allow) > 0) == (len(s.Deny) > 0) {
		return nil, []builtin.Problem{{Message: "needs exactly one of allow and deny"}}
	}
	chunk := config.Value{
		"allow":  len(s.Allow) > 0,
		"groups": authn.List(append(s.Allow, s.Deny...)),
		"hide":   s.HideGroups,
	}
	return []part.Part{part.Lua{Plugin: use.Plugin, Source: handler, Config: chunk, FailOpen: use.FailOpen}}, nil
}
