// Package files makes a snapshot from files: what a cluster would hold once they are applied. It reads, and judges what
// it reads as the API server does; everything else is for the compilation to say.
//
// # What is read
//
// YAML files of any number of documents, JSON files of any number of objects, `kind: List`, and folders with all that
// is in them and in their subfolders (*.yaml, *.yml and *.json, but no hidden folders). Text means what it means to
// kubectl: on is true, 010 is 8. Objects of kinds that a compilation does not look at are passed by, and so is
// anything that is no Kubernetes object, such as a values.yaml in the same folder.
//
// # What becomes of it
//
// Plugins, ClusterPlugins and Consumers are held against their CRDs with the API server's own libraries, because a file
// that passes here and is refused by kubectl apply would be a trap; defaults are filled in. Istio's objects are decoded
// as istiod decodes them: unknown fields are passed by, wrong types are not. An object that cannot be used is
// Malformed, once per mistake, and stops no other object.
//
// Only what cannot be attributed to an object is an error: a file that is missing, text that is no YAML, an object of
// ours without a kind, two objects of the same name (a cluster has one of them, and nobody can tell which).
package files
