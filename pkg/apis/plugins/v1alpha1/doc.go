// Package v1alpha1 is the API of istio-plugins: Plugin, ClusterPlugin and Consumer.
//
// The CRDs in crds/ and the deepcopy code are generated from these types by `make generate`.
//
// +kubebuilder:object:generate=true
// +groupName=plugins.istio.io
package v1alpha1
