// Package dispatch lays chains out as Envoy configuration: a few fixed HTTP filters for each gateway, and tables that
// they look a request up in. It holds Envoy messages only; package emit wraps them into Istio's objects.
//
//	           HTTP filters, fixed                      tables, by ECDS, may change at any time
//	request ─▶ key       which VirtualService, route
//	           bindings  ───────────────────────────▶   bindings.<n>   VirtualService, port, route ─▶ slot values
//	           slot.1    ───────────────────────────▶   slot.1.<n>, state.1.<n>, lua.1, wasm.<n>
//	           slot.2    ───────────────────────────▶   slot.2.<n>, …
//	           slot.3    ───────────────────────────▶   slot.3.<n>, … or slots 4 to 15 of a long chain
//	           router
//
// A slot's value says what runs there. Its first letter is the kind:
//
//	l{…}      the Lua runtime, with the chain of Lua plugins as a Lua literal (package lua)
//	n<hash>   a native filter without state, found in slot.<i>.<first digit>
//	s<hash>   a native filter with state, found in state.<i>.<first digit>, where no edit of another kind disturbs it
//	w<n>.     Wasm plugin n of the gateway's pool; p<n>. of the pool for images with a pull secret
//	m         more: this is a long chain, its rest is in the slots behind the last fixed filter
//
// All names that Envoy subscribes to are in the fixed filters, because Envoy never subscribes to a name that first
// appears in an ECDS update. So every table exists from the start, empty if need be.
//
// A native filter is named by whose it is, a Lua source by its content: an edit of a config, of whatever kind, is thereby
// one atomic change of one table.
//
// Where a value is set but unknown, the request is answered 503: every level fails closed.
package dispatch
