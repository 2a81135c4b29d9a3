// Package annotation parses the annotation istio.io/plugins, which attaches plugins to the object that carries it. It
// knows the text only: what a name resolves to, whether a route exists and which entries are the same plugin is for
// later stages to judge. The one entry point is Parse; Print is its inverse.
//
// # Two ways to write it
//
// A comma list holds names:
//
//	istio.io/plugins: cors, key-auth, -bot-detection
//
// YAML (and with it JSON) says more. It is a list of names and maps; a single map is a list of one:
//
//	istio.io/plugins: |
//	  - cors
//	  - name: key-auth
//	    routes: [api, admin]        # these http routes of the VirtualService only; without it: all
//	    config: {key_names: [apikey]} # merged over the Plugin's own config
//	    override: true              # children can neither change nor remove it
//	  - name: bot-detection
//	    disabled: true              # the same as the name -bot-detection
//
// # Grammar
//
//	annotation = blank* ( yaml | comma ) .
//	yaml       = a YAML 1.1 or JSON text that starts with "[", "{" or "-" blank .
//	comma      = [ item ] { "," [ item ] } .
//	item       = blank* [ "-" ] name blank* .
//	name       = [ namespace "/" ] object .
//	namespace  = a DNS-1123 label: 1 to 63 of a-z, 0-9 and "-", no "-" at either end .
//	object     = a DNS-1123 subdomain: labels with "." between them, up to 253 bytes .
//	blank      = space | tab | line feed | carriage return .
//
// The value of yaml:
//
//	value    = list of entry | map .
//	entry    = string | map .             the string is [ "-" ] name
//	map      = "name":     string         required, [ "-" ] name
//	           "routes":   list of string at least one
//	           "config":   map            null is as good as absent
//	           "disabled": boolean        true makes the entry an opt-out
//	           "override": boolean .
//
// Limits: 64 KiB of text, 64 entries, 64 levels of nesting in a config (a config travels to the gateway as a Lua
// literal, and Lua's parser gives up at 200).
//
// # What it means
//
// Order: the order of the entries is the order in which their plugins run, as long as their priorities are equal.
//
// Duplicates are kept here; whether two entries are the same plugin depends on what their names resolve to.
//
// Blanks around names, and empty items of a comma list, have no meaning. "-" belongs to the name that follows at
// once: "-cors" opts out of cors, "- cors" is a YAML list of one.
//
// An empty value, "," and "[]" attach nothing; what parents attach still runs.
//
// Unknown names are not known to be unknown here. Unknown fields are an error.
//
// Scalars of YAML mean what they mean to kubectl: on, off, yes, no, y and n are booleans, 010 is 8. Numbers keep
// their text where it is a JSON number, so 1.10 stays 1.10. Anchors, aliases and tags are refused.
//
// # What goes wrong
//
// Text that cannot be read as a whole is one Problem; nothing is known of its entries then. A Problem of an entry
// concerns that entry alone:
//
//	[cors                      line 1: did not find expected ',' or ']'
//	cors key-auth              "cors key-auth" is no plugin name: separate plugins with commas
//	Cors                       "Cors" is no plugin name: write "cors"
//	a/b/c                      "a/b/c" is no plugin name: it has more than one "/"
//	[on]                       on is a boolean in YAML, not a name: write "on" in quotes
//	[{name: cors, route: [a]}] unknown field "route", did you mean "routes"?
//	[{name: cors, routes: []}] is empty: name at least one route, or leave routes out for all
//	[{name: -cors, config: {}}] an opt-out takes no config: leave it out
package annotation
