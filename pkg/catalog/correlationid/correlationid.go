// Package correlationid is the built-in plugin correlation-id: it gives each request an id. schema.yaml documents it.
package correlationid

import (
	_ "embed"
	"slices"
	"strings"

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
	Name:   "correlation-id",
	Schema: builtin.MustSchema(schema),
	Build:  build,
}

// framing are the headers that say where a message goes and where it ends. An id in one of them would break requests.
var framing = []string{"connection", "content-length", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}

func build(use builtin.Use, c config.Value) ([]part.Part, []builtin.Problem) {
	if slices.Contains(framing, strings.ToLower(c["header_name"].(string))) {
		return nil, []builtin.Problem{{Path: "header_name", Message: "this header has a meaning for the connection and cannot hold an id"}}
	}
	return []part.Part{part.Lua{Plugin: use.Plugin, Source: handler, Config: c, FailOpen: use.FailOpen}}, nil
}
