// Package builtin is what a built-in plugin is made of: a name, a schema, and a function from a valid config to parts.
package builtin

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// Builtin is a built-in plugin.
type Builtin struct {
	// Name as users write it.
	Name string
	// Schema checks and documents the config.
	Schema *Schema
	// Auth marks a plugin that authenticates: it establishes the Consumer for what comes later in the chain.
	Auth bool
	// NeedsConsumer marks a plugin that decides by the Consumer. It is unusable where nothing before it in the chain
	// authenticates.
	NeedsConsumer bool
	// Guards marks a plugin that keeps callers away by other means than a Consumer.
	Guards bool
	// Answers marks a plugin that does for a caller what only a welcome one should get: it answers, changes or counts the
	// request. lint warns when it stands before one with Auth or Guards.
	Answers bool
	// Failing says what requests get when the plugin cannot do its work, where that is not 500: half a sentence.
	Failing string
	// Landings are the paths that a route with the plugin must take for it to work; nil where there are none, and for a config
	// that is not valid.
	Landings func(config.Value) []Landing
	// Build makes the parts of one use of the plugin. The config has passed Schema and holds all defaults.
	// Problems of severity error make the plugin unusable.
	Build func(Use, config.Value) ([]part.Part, []Problem)
}

// Landing is a path to which clients are sent, and where the plugin must run.
type Landing struct {
	// Field that names it, at the top of the config.
	Field string
	// URL is a path, or a URL with a host.
	URL string
	// Otherwise says what happens where the plugin does not run there.
	Otherwise string
}

// Use is where and by whom a plugin is used. Build may depend on nothing else.
type Use struct {
	// Plugin is the name for messages: the Plugin's, or the built-in's where it is used by its bare name.
	Plugin string
	// Instance tells this use's shared names (such as a metadata key) from those of other uses in the same chain. It
	// does not change when the config is edited.
	Instance string
	// Namespace of the object that names the plugin; Consumers are looked up there. Lua parts may depend on it, native
	// filters must not: namespaces that use one plugin share them.
	Namespace string
	// FailOpen is the plugin's failure policy.
	FailOpen bool
	// Consumers of a namespace.
	Consumers Consumers
	// Home is the namespace in which the plugin's own references are looked up: the Plugin's, the root namespace for a
	// ClusterPlugin, and none for a built-in that is used by its bare name.
	Home string
	// Services that the plugin may call.
	Services Services
}

// Key is a text of 16 letters and digits for the use's shared names: metadata and runtime keys, values of headers.
func (u Use) Key() string {
	sum := sha256.Sum256([]byte(u.Instance))
	return hex.EncodeToString(sum[:8])
}

// Lua is a Lua part of the use.
func (u Use) Lua(source string, c config.Value) part.Lua {
	return part.Lua{Plugin: u.Plugin, Source: source, Config: c, FailOpen: u.FailOpen}
}

// Consumers answers who may authenticate.
type Consumers interface {
	// In returns the credentials of a type and all consumers in namespace, and in those of from that granted it
	// to namespace. Problems name what in from is not granted.
	In(namespace string, from []string, credentialType string) (*Credentials, []Problem)
}

// Services answers what can be called.
type Services interface {
	// Find returns the port of a service by its host. A short name is one of a namespace.
	Find(namespace, host string, port uint32) Service
}

// Service is one port of a service, as gateways know it.
type Service struct {
	// Missing says why there is none; empty otherwise.
	Missing string
	// Host in full.
	Host string
	// HTTP2 says that gateways speak HTTP/2 to it.
	HTTP2 bool
	// ExportedTo are the namespaces whose gateways know it, with commas; empty for all.
	ExportedTo string
}

// Credentials are the usable credentials of one type, and the consumers they belong to.
type Credentials struct {
	// ID names the set: the namespaces and the type. It does not change with the content.
	ID string
	// All credentials, in a stable order.
	All []Credential
	// Consumers of these namespaces, in a stable order, also those without a credential of this type.
	Consumers []Consumer
}

// Credential is one usable credential: the Secret's data and whose it is.
type Credential struct {
	// ID is the Secret's uid, or a stable replacement where there is none.
	ID string
	// Data of the Secret. It must not appear in any message.
	Data map[string][]byte
	// Ends is when it authenticates nobody any more, zero for one without an end. Only key-auth credentials have one.
	Ends time.Time
	// Consumer it belongs to.
	Consumer Consumer
}

// Consumer is an authenticated caller, as plugins and upstreams see it.
type Consumer struct {
	// ID is the object's uid, or a stable replacement where there is none.
	ID string
	// Name of the object.
	Name string
	// Username and CustomID as in its spec; either may be empty.
	Username, CustomID string
	// Groups, sorted.
	Groups []string
}

// Problem is something wrong with a config.
type Problem struct {
	// Path in the config, for example `key_names[0]`; empty for the whole.
	Path string
	// Message without the path; never holds a secret, unless the config does.
	Message string
	// Veiled is a message with the path that shows nothing of the config but fields that the schema names. A schema fills it
	// in; what a built-in finds itself need not.
	Veiled string
	// Warning problems do not make the plugin unusable.
	Warning bool
	// Missing says that the config names something that is not there, or not granted, and that may come later.
	Missing bool
}
