// Package controller keeps a cluster's gateways running the plugins that their routes are annotated with. It is a shell
// around the compilation: it reads (package cluster), compiles (package compile), writes what differs, and says what
// became of it.
//
//	informers ─▶ one queue with one key ─▶ read ─▶ compile ─▶ prepare ─▶ switch ─▶ clean
//	                                                             │ wait     │ wait
//	                                                             ▼          ▼
//	                                              what gateways have accepted, by istiod's word
//	                                                             │
//	                                                             ▼
//	                                              status, Events, metrics
//
// It writes generated EnvoyFilters and WasmPlugins, in the root namespace and with its own label, the status of Plugins,
// ClusterPlugins and Consumers, and Events. It never writes to a VirtualService or a Gateway: an update of one makes
// istiod push.
//
// What it does follows from what is there, not from what has happened: a restart at any moment ends in the same state.
package controller
