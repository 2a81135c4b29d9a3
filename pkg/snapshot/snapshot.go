// Package snapshot is everything that a compilation depends on: the objects as they are now, where they came from,
// and the options. It is made from files (package files) or from informers, and is never modified by what reads it.
package snapshot

import (
	extensionsv1alpha1 "istio.io/client-go/pkg/apis/extensions/v1alpha1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
)

// Snapshot is the input of a compilation. The order within each list has no meaning.
type Snapshot struct {
	Options Options

	VirtualServices []*networkingv1.VirtualService
	Gateways        []*networkingv1.Gateway
	Plugins         []*pluginsv1alpha1.Plugin
	ClusterPlugins  []*pluginsv1alpha1.ClusterPlugin
	Consumers       []*pluginsv1alpha1.Consumer
	// Secrets are those with a credential label, and those that configs of Plugins come from.
	Secrets    []*corev1.Secret
	ConfigMaps []*corev1.ConfigMap
	// Services tell at which port a gateway really listens (targetPort), and, with the ServiceEntries, what plugins can call.
	Services        []*corev1.Service
	ServiceEntries  []*networkingv1.ServiceEntry
	ReferenceGrants []*gatewayv1.ReferenceGrant
	// HTTPRoutes are only looked at for annotations, which are not supported on them yet.
	HTTPRoutes []*gatewayv1.HTTPRoute
	// EnvoyFilters and WasmPlugins are those generated earlier; nothing but the numbers of Wasm plugins is read from them.
	EnvoyFilters []*networkingv1alpha3.EnvoyFilter
	WasmPlugins  []*extensionsv1alpha1.WasmPlugin

	// Malformed are objects of a known kind that could not be decoded.
	Malformed []Malformed
	// Unlabelled are objects in files that lack the label without which their kind is not looked at. Nothing is known of
	// them but that an object of this name has no such label.
	Unlabelled []finding.Object
	// Sources says where an object was read, for those that came from a file.
	Sources map[finding.Object]Source
}

// Malformed is an object of a known kind that could not be decoded as far as its name.
type Malformed struct {
	Object finding.Object
	// Annotation is its istio.io/plugins annotation, if it has one.
	Annotation string
	// Place is the field path of the mistake, as far as it is known.
	Place string
	// Error says what is wrong with it, without secrets.
	Error string
}

// Source is a place in a file.
type Source struct {
	File string
	// Line of the object's first line, from 1.
	Line int
	// FieldLine finds the line of a field path such as `spec.config.minute`, or of its nearest parent that is
	// there; nil for the object's own line.
	FieldLine func(path string) int
}

// Options are the settings that change what is emitted. The zero value is completed by Defaults.
type Options struct {
	// IstioVersion is the minor version of Istio, for example 1.31.
	IstioVersion Version
	// RootNamespace of the Istio installation, where generated objects live.
	RootNamespace string
	// Revision of the Istio control plane, where there are several in a mesh; empty for the only one.
	Revision string
	// UnknownRoutes says what happens to a VirtualService that is not compiled yet: allow (it runs without plugins) or deny (503).
	UnknownRoutes UnknownRoutes
}

// UnknownRoutes is allow or deny.
type UnknownRoutes string

const (
	// AllowUnknown lets VirtualServices that are not compiled yet run without plugins.
	AllowUnknown UnknownRoutes = "allow"
	// DenyUnknown answers 503 for VirtualServices that are not compiled yet.
	DenyUnknown UnknownRoutes = "deny"
)

// Defaults returns o with what is unset filled in.
func (o Options) Defaults() Options {
	if o.IstioVersion == (Version{}) {
		o.IstioVersion = Newest
	}
	if o.RootNamespace == "" {
		o.RootNamespace = "istio-system"
	}
	if o.UnknownRoutes == "" {
		o.UnknownRoutes = AllowUnknown
	}
	return o
}
