package finding

import (
	"maps"
	"slices"
)

// Reason is the stable name of a kind of finding. Reasons are API: a retired one is never used again.
type Reason string

// The reasons. Each says when it is used and what it does to traffic.
const (
	// InvalidAnnotation: the annotation cannot be parsed. All routes of the object answer 503.
	InvalidAnnotation Reason = "InvalidAnnotation"
	// InvalidEntry: an entry of the annotation cannot be honoured. The routes it would cover answer 503, all of the object's if that is unclear.
	InvalidEntry Reason = "InvalidEntry"
	// UnknownRoute: an entry names an http route that the VirtualService does not have. All routes of the object answer 503.
	UnknownRoute Reason = "UnknownRoute"
	// PluginNotFound: no Plugin, ClusterPlugin or built-in has this name. The routes that name it answer 503.
	PluginNotFound Reason = "PluginNotFound"
	// RefNotPermitted: a Plugin of another namespace is named without a ReferenceGrant there. The routes that name it answer 503.
	RefNotPermitted Reason = "RefNotPermitted"
	// InvalidPlugin: the Plugin object itself is malformed. The routes that name it answer 503.
	InvalidPlugin Reason = "InvalidPlugin"
	// InvalidConfig: the plugin's config, alone or merged, is wrong. The routes concerned answer 503, or skip it under FailOpen.
	InvalidConfig Reason = "InvalidConfig"
	// ConfigWarning: the plugin's config is used, but something in it has no effect or is risky.
	ConfigWarning Reason = "ConfigWarning"
	// InvalidLua: the Lua source does not parse. The routes concerned answer 503, or skip it under FailOpen.
	InvalidLua Reason = "InvalidLua"
	// InvalidEnvoyConfig: the Envoy configuration is wrong, or Envoy refused it. The routes concerned answer 503, or skip it under FailOpen.
	InvalidEnvoyConfig Reason = "InvalidEnvoyConfig"
	// RefNotFound: a ConfigMap, Secret or Consumer that a plugin needs does not exist. The routes concerned answer 503, or skip it under FailOpen.
	RefNotFound Reason = "RefNotFound"
	// NotAuthenticated: a plugin decides by the consumer, and nothing before it in the chain authenticates one. The routes concerned answer 503, or skip it under FailOpen.
	NotAuthenticated Reason = "NotAuthenticated"
	// ChainTooLong: a route's chain needs more filters than a gateway holds for one route. The route answers 503.
	ChainTooLong Reason = "ChainTooLong"
	// DoesNotFit: a generated object would be larger than Kubernetes stores. The routes concerned answer 503.
	DoesNotFit Reason = "DoesNotFit"
	// TooManyWasm: a gateway would run more Wasm plugins than its pool holds. The routes concerned answer 503.
	TooManyWasm Reason = "TooManyWasm"
	// AmbiguousRoutes: Envoy cannot tell routes apart that should run different chains; they run the union.
	AmbiguousRoutes Reason = "AmbiguousRoutes"
	// AmbiguousGateways: a VirtualService is bound to Gateways with different plugins on one port; all of them run.
	AmbiguousGateways Reason = "AmbiguousGateways"
	// DuplicateEntry: an entry is repeated; it runs once.
	DuplicateEntry Reason = "DuplicateEntry"
	// OptOutNotAttached: an opt-out names what no parent attached.
	OptOutNotAttached Reason = "OptOutNotAttached"
	// OverrideNotRemovable: an opt-out names what a parent attached with override; it runs all the same.
	OverrideNotRemovable Reason = "OverrideNotRemovable"
	// MeshNotSupported: a VirtualService with plugins is bound to `mesh`, where plugins do not run.
	MeshNotSupported Reason = "MeshNotSupported"
	// GatewayNotFound: a VirtualService is bound to a Gateway that is not there.
	GatewayNotFound Reason = "GatewayNotFound"
	// NotServed: an annotated object is served by no Gateway, so its plugins run nowhere.
	NotServed Reason = "NotServed"
	// UnsupportedTarget: a kind of object is annotated on which plugins are not supported; it is served without them.
	UnsupportedTarget Reason = "UnsupportedTarget"
	// UnusedPlugin: no route runs the Plugin.
	UnusedPlugin Reason = "UnusedPlugin"
	// UnreachableRoute: an annotated route never receives a request, because an earlier one takes them all.
	UnreachableRoute Reason = "UnreachableRoute"
	// UnreachableLanding: a plugin sends clients to a path that is none of a route which runs it.
	UnreachableLanding Reason = "UnreachableLanding"
	// PluginOrder: an authentication plugin runs after one that answers or changes requests.
	PluginOrder Reason = "PluginOrder"
	// ConflictingPolicy: the object has a policy of Istio's own for what one of its plugins does, too.
	ConflictingPolicy Reason = "ConflictingPolicy"
	// InvalidObject: an object of a known kind is malformed and cannot be used.
	InvalidObject Reason = "InvalidObject"
	// InvalidCredential: a credential Secret is missing, incomplete or malformed. It authenticates nobody.
	InvalidCredential Reason = "InvalidCredential"
	// CredentialConflict: two credentials cannot be told apart. Neither authenticates anybody.
	CredentialConflict Reason = "CredentialConflict"
	// CredentialWarning: a credential is used, but looks like a mistake.
	CredentialWarning Reason = "CredentialWarning"
	// UnusedCredential: no Consumer names the credential Secret.
	UnusedCredential Reason = "UnusedCredential"
)

// Info is what is documented of a reason.
type Info struct {
	Severity Severity
	// When the reason is used, one sentence.
	When string
}

var reasons = map[Reason]Info{
	InvalidAnnotation:    {Error, "The annotation cannot be parsed; all routes of the object answer 503."},
	InvalidEntry:         {Error, "An entry of the annotation cannot be honoured; the routes it would cover answer 503."},
	UnknownRoute:         {Error, "An entry names an http route that the VirtualService does not have; all its routes answer 503."},
	PluginNotFound:       {Error, "No Plugin, ClusterPlugin or built-in has this name; the routes that name it answer 503."},
	RefNotPermitted:      {Error, "A Plugin of another namespace is named without a ReferenceGrant there; the routes that name it answer 503."},
	InvalidPlugin:        {Error, "The Plugin is malformed; the routes that name it answer 503."},
	InvalidConfig:        {Error, "The plugin's config is wrong; the routes concerned answer 503, or skip it under FailOpen."},
	ConfigWarning:        {Warning, "Something in the plugin's config has no effect or is risky."},
	InvalidLua:           {Error, "The Lua source does not parse; the routes concerned answer 503, or skip it under FailOpen."},
	InvalidEnvoyConfig:   {Error, "The Envoy configuration is wrong; the routes concerned answer 503, or skip it under FailOpen."},
	RefNotFound:          {Error, "Something that the plugin needs does not exist; the routes concerned answer 503, or skip it under FailOpen."},
	NotAuthenticated:     {Error, "A plugin decides by the consumer, and nothing before it authenticates one; the routes concerned answer 503, or skip it under FailOpen."},
	ChainTooLong:         {Error, "The route's chain needs more filters than a gateway holds for one route; the route answers 503."},
	DoesNotFit:           {Error, "A generated object would be larger than Kubernetes stores; the routes concerned answer 503."},
	TooManyWasm:          {Error, "The gateway's pool of Wasm plugins is full; the routes concerned answer 503."},
	AmbiguousRoutes:      {Warning, "Envoy cannot tell routes apart that should run different chains; they run all of them."},
	AmbiguousGateways:    {Warning, "Gateways with different plugins serve one VirtualService on one port; all of them run."},
	DuplicateEntry:       {Warning, "An entry is repeated; it runs once."},
	OptOutNotAttached:    {Warning, "An opt-out names what no parent attached."},
	OverrideNotRemovable: {Warning, "An opt-out names what a parent attached with override; it runs all the same."},
	MeshNotSupported:     {Warning, "Plugins run on gateways only, not for mesh traffic."},
	GatewayNotFound:      {Warning, "The VirtualService is bound to a Gateway that is not there."},
	NotServed:            {Warning, "No Gateway serves the annotated object."},
	UnsupportedTarget:    {Error, "The kind of the annotated object is not supported; it is served without plugins."},
	UnusedPlugin:         {Warning, "No route runs the Plugin."},
	UnreachableRoute:     {Warning, "An earlier route takes all requests of an annotated one."},
	UnreachableLanding:   {Warning, "A plugin sends clients to a path that is none of a route which runs it."},
	PluginOrder:          {Warning, "An authentication plugin runs after one that answers or changes requests."},
	ConflictingPolicy:    {Warning, "A policy of Istio's own and a plugin do the same on one route; both run."},
	InvalidObject:        {Error, "An object of a known kind is malformed."},
	InvalidCredential:    {Error, "A credential is missing, incomplete or malformed; it authenticates nobody."},
	CredentialConflict:   {Error, "Two credentials cannot be told apart; neither authenticates anybody."},
	CredentialWarning:    {Warning, "A credential looks like a mistake."},
	UnusedCredential:     {Warning, "No Consumer names the credential Secret."},
}

// Reasons lists all reasons in alphabetical order.
func Reasons() []Reason { return slices.Sorted(maps.Keys(reasons)) }

// Describe returns what is documented of a reason.
func Describe(r Reason) (Info, bool) {
	i, ok := reasons[r]
	return i, ok
}
