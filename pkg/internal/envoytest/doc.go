// Package envoytest runs plugin parts on a real Envoy, for tests that need one: an Envoy process on 127.0.0.1 with a
// listener for each chain of parts, in front of an upstream that answers with what it received.
//
//	for _, version := range envoytest.Versions {
//		t.Run(version, func(t *testing.T) {
//			envoy := envoytest.Start(t, version, envoytest.Config{Chains: map[string][]part.Part{
//				"closed": parts,
//				"open":   otherParts,
//			}})
//			closed := envoy.Gateway("closed")
//			answer := closed.Do(t, envoytest.Request{Path: "/a?b=c", Header: []string{"apikey: k"}})
//			if answer.Status != 401 { … }
//		})
//	}
//
// A chain is laid out as dispatch does it: adjacent Lua parts are a slot (lua.Slots), a set_filter_state for its value and a Lua
// filter with the runtime; a native part is its filter. What dispatch adds around them (composites, ECDS) is not here.
//
// An Envoy starts in a fraction of a second and ends with its test.
package envoytest
