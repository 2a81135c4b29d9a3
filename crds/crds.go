// Package crds holds the CustomResourceDefinitions of istio-plugins. They are generated from the types of
// pkg/apis/plugins/v1alpha1; this file only makes them available to programs.
package crds

import "embed"

// Files are the CustomResourceDefinitions, one per file.
//
//go:embed *.yaml
var Files embed.FS
