// Package istiod learns from istiod what the connected gateways have accepted, so that a status rests on evidence.
//
// istiod does not say which version of an object a gateway has. It says, for each gateway and type of configuration, the
// nonce of the last response that it sent, of the last that was acknowledged, and the last refusal. Equal nonces alone
// prove nothing: an object that was written a moment ago may not have reached istiod, may wait in its debounce or in the
// queue of a gateway, and until then everything older is sent and acknowledged.
//
// So whoever writes objects then writes a Mark, a small EnvoyFilter whose content is new every time, and the Client takes
// part in every istiod's pushes as a gateway that asks for nothing but the mark (the probe). The argument, with the
// places in istio.io/istio at 1.29 to 1.31 on which it rests:
//
//  1. A watch delivers the objects of a kind in the order in which they were written, and istiod handles them in that
//     order. So a push context (istiod's snapshot, numbered by NextVersion in pilot/pkg/xds/discovery.go) that holds the
//     mark holds all objects of its kind that were written before it, and so does every later one. WasmPlugins are
//     another kind, and have a mark of their own.
//  2. The probe's response says that the push context of its version holds the mark. Call that version the mark's.
//     Nonces begin with the version of the push context that the response was made from.
//  3. istiod serves a connection in one goroutine: it sends all that a push requires, of all types, before it reads the
//     next acknowledgement (StreamDeltas in delta.go). So a gateway that acknowledged any response of the mark's version
//     or a later one has been sent everything that was due to it since the mark. If now for listeners and for extension
//     configurations the last response sent is the last acknowledged, and none was refused, it accepted them.
//  4. Envoy asks for the extension configurations of a new listener before it acknowledges the listener, so those of
//     listeners are not overlooked: by 3, istiod has answered them.
//  5. A refusal is no lasting state. istiod forgets it with the next acknowledgement of that type, also one of a response
//     that holds something else, as when a gateway asks for more. And Envoy acknowledges what it has refused when it comes
//     again: it skips content that is equal to the last it got, whether or not it could use that
//     (FilterConfigSubscription::onConfigUpdate in source/common/filter/config_discovery_impl.cc, seen on 1.37 and 1.40). So
//     the Client remembers refusals, of which istiod keeps a count that forgets none, and blames them on what was new then.
//     It takes back the blame when the content has changed, since Envoy then looks at it, or when new gateways, which look
//     at everything, have replaced all that were there.
//
// What an acknowledgement does not say: whether Istio's agent could fetch a Wasm module (it puts a filter in its place
// that denies, and acknowledges), and whether a listener that waits for something else already serves. What was refused
// before the Client was made, it knows only if it is told (Recall).
//
// Access: istiod answers questions about all gateways over xDS on its TLS port, to service accounts of its own namespace
// (pilot/pkg/xds/debuggen.go), or by HTTP, from its own machine or pod (a port-forward) without further ado.
package istiod
