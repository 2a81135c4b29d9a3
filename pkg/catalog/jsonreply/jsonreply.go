// Package jsonreply makes the answer of one of Envoy's filters JSON, which answers with a fixed text by itself.
package jsonreply

import (
	_ "embed"
	"strconv"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

//go:embed handler.lua
var handler string

//go:embed passed.lua
var passed string

// Around puts Lua around a filter that answers with a status, so that the answer's body has a message. Lua behind the
// filter notes that a request has passed, so that no answer of the upstream, or of another plugin, is taken for the
// filter's. A plugin has one such filter at most.
func Around(use builtin.Use, filter part.Native, status int, message string) []part.Part {
	id := use.Key()
	return []part.Part{
		use.Lua(handler, config.Value{"id": id, "status": strconv.Itoa(status), "message": message}),
		filter,
		use.Lua(passed, config.Value{"id": id}),
	}
}
