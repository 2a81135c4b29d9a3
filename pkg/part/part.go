// Package part is what a plugin is made of once it is configured: an ordered list of Lua chunks, native Envoy
// filters and Wasm modules. It is the language between what knows plugins (built-ins, plugin kinds) and what
// knows Envoy (package dispatch); it holds values only.
package part

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/istio-plugins/istio-plugins/pkg/config"
)

// Part is one step of a plugin: Lua, Native or Wasm.
type Part interface{ part() }

// Lua is a chunk that runs in the gateway's shared Lua runtime. Adjacent Lua parts of a route run in one filter.
type Lua struct {
	// Plugin is the plugin's name, for log lines and error answers.
	Plugin string
	// Source is the chunk. Equal sources are loaded once per runtime.
	Source string
	// SourceID names the source by its content. Who makes a part leaves it empty; it is filled in once for all routes that
	// use the part, because hashing a source for each of 10,000 routes would be half of a compilation.
	SourceID string
	// Config is what the chunk gets as `...`. Besides JSON's types it may hold Shared values.
	Config config.Value
	// FailOpen skips the part when it fails at run time.
	FailOpen bool
	// Services that the part may call, by its names for them.
	Services map[string]Service
	// State says who shares what the part counts outside the gateway. Unless there is none, its config gets a field counter: a
	// text that they have in common, and no others of the VirtualService (PerAttachment) or of all (PerPlugin). It outlives
	// edits of configs and of other entries.
	State State
}

// Service is a port of a service that gateways know.
type Service struct {
	// Host in full.
	Host string
	Port uint32
}

// Cluster is istiod's name for it.
func (s Service) Cluster() string { return fmt.Sprintf("outbound|%d||%s", s.Port, s.Host) }

// Authority is its name in requests: without the port where it is that of HTTP or HTTPS.
func (s Service) Authority() string {
	if s.Port == 80 || s.Port == 443 {
		return s.Host
	}
	return fmt.Sprintf("%s:%d", s.Host, s.Port)
}

// Shared is a place in a Lua config for a large table that many routes use, such as all keys of a namespace's
// consumers. Routes hold its name only; the table itself is written once per runtime.
type Shared struct {
	// Name says whose table it is. It does not change with the content, so that a changed table is one atomic
	// change of the runtime and needs no change of the routes.
	Name string
	// Table is the content.
	Table config.Value
}

// Native is one of Envoy's own HTTP filters.
type Native struct {
	// Config is the filter's configuration, a message of go-control-plane.
	Config proto.Message
	// State says who shares the filter's state; a filter without state is shared by all that are equal.
	State State
	// Services are the hosts of the services that the filter calls. They are filled in as a Lua part's SourceID is.
	Services []string
}

// State says who shares what a part remembers, such as a token bucket.
type State int

const (
	// Stateless parts remember nothing.
	Stateless State = iota
	// PerAttachment state belongs to one entry on one VirtualService.
	PerAttachment
	// PerPlugin state is shared by all that use the same Plugin.
	PerPlugin
)

// Wasm is a proxy-wasm module.
type Wasm struct {
	URL             string
	SHA256          string
	ImagePullPolicy string
	ImagePullSecret string
	PluginName      string
	FailStrategy    string
	Env             []WasmEnv
	// Config is the module's configuration, as JSON; empty for none.
	Config string
	// VM names the virtual machine: only modules of one VM share what they store, and fall together when one traps.
	VM string
}

// WasmEnv is an environment variable of a Wasm module; FromHost takes the gateway's own.
type WasmEnv struct {
	Name, Value string
	FromHost    bool
}

func (Lua) part()    {}
func (Native) part() {}
func (Wasm) part()   {}
