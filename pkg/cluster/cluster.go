// Package cluster makes a snapshot of what is in a Kubernetes cluster. The command line reads the API server itself, the
// controller its informers; both get the same snapshot from the same Read.
package cluster

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"

	extensionsv1alpha1 "istio.io/client-go/pkg/apis/extensions/v1alpha1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// NewScheme knows every kind that is read or written.
func NewScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, networkingv1.AddToScheme, networkingv1alpha3.AddToScheme, extensionsv1alpha1.AddToScheme,
		gatewayv1.Install, gatewayv1beta1.Install, pluginsv1alpha1.AddToScheme,
	} {
		if err := add(s); err != nil {
			panic(err) // the kinds are fixed
		}
	}
	return s
}

// Kind is one kind of object that a snapshot is made of.
type Kind struct {
	// Object is an empty one.
	Object client.Object
	// Label is the one that an object needs to be looked at, with this value unless it is empty.
	Label, Value string
	// Generated objects are read from the root namespace only, because nothing is generated elsewhere.
	Generated bool
	// Optional kinds come from the Gateway API, which not every cluster has.
	Optional bool
	// Referenced objects are read one by one, where another object names them. There may be many that nobody names.
	Referenced bool

	list func() client.ObjectList
	add  func(*snapshot.Snapshot, client.ObjectList)
}

// Kinds are all of them.
func Kinds() []Kind { return slices.Clone(kinds) }

var kinds = []Kind{
	{Object: &networkingv1.VirtualService{},
		list: func() client.ObjectList { return &networkingv1.VirtualServiceList{} },
		add: func(s *snapshot.Snapshot, l client.ObjectList) {
			s.VirtualServices = l.(*networkingv1.VirtualServiceList).Items
		}},
	{Object: &networkingv1.Gateway{},
		list: func() client.ObjectList { return &networkingv1.GatewayList{} },
		add:  func(s *snapshot.Snapshot, l client.ObjectList) { s.Gateways = l.(*networkingv1.GatewayList).Items }},
	{Object: &pluginsv1alpha1.Plugin{},
		list: func() client.ObjectList { return &pluginsv1alpha1.PluginList{} },
		add: func(s *snapshot.Snapshot, l client.ObjectList) {
			s.Plugins = pointers(l.(*pluginsv1alpha1.PluginList).Items)
		}},
	{Object: &pluginsv1alpha1.ClusterPlugin{},
		list: func() client.ObjectList { return &pluginsv1alpha1.ClusterPluginList{} },
		add: func(s *snapshot.Snapshot, l client.ObjectList) {
			s.ClusterPlugins = pointers(l.(*pluginsv1alpha1.ClusterPluginList).Items)
		}},
	{Object: &pluginsv1alpha1.Consumer{},
		list: func() client.ObjectList { return &pluginsv1alpha1.ConsumerList{} },
		add: func(s *snapshot.Snapshot, l client.ObjectList) {
			s.Consumers = pointers(l.(*pluginsv1alpha1.ConsumerList).Items)
		}},
	{Object: &corev1.Secret{}, Label: pluginsv1alpha1.CredentialLabel, list: secretList, add: addSecrets},
	{Object: &corev1.Secret{}, Label: pluginsv1alpha1.KongCredentialLabel, list: secretList, add: addSecrets},
	{Object: &corev1.Service{},
		list: func() client.ObjectList { return &corev1.ServiceList{} },
		add:  func(s *snapshot.Snapshot, l client.ObjectList) { s.Services = pointers(l.(*corev1.ServiceList).Items) }},
	{Object: &networkingv1.ServiceEntry{},
		list: func() client.ObjectList { return &networkingv1.ServiceEntryList{} },
		add: func(s *snapshot.Snapshot, l client.ObjectList) {
			s.ServiceEntries = l.(*networkingv1.ServiceEntryList).Items
		}},
	{Object: &corev1.ConfigMap{}, Referenced: true},
	{Object: &corev1.Secret{}, Referenced: true},
	{Object: &networkingv1alpha3.EnvoyFilter{}, Label: snapshot.GeneratedLabel, Value: "true", Generated: true,
		list: func() client.ObjectList { return &networkingv1alpha3.EnvoyFilterList{} },
		add: func(s *snapshot.Snapshot, l client.ObjectList) {
			s.EnvoyFilters = l.(*networkingv1alpha3.EnvoyFilterList).Items
		}},
	{Object: &extensionsv1alpha1.WasmPlugin{}, Label: snapshot.GeneratedLabel, Value: "true", Generated: true,
		list: func() client.ObjectList { return &extensionsv1alpha1.WasmPluginList{} },
		add: func(s *snapshot.Snapshot, l client.ObjectList) {
			s.WasmPlugins = l.(*extensionsv1alpha1.WasmPluginList).Items
		}},
	// Every version of the Gateway API serves v1beta1 of its grants, only new ones v1.
	{Object: &gatewayv1beta1.ReferenceGrant{}, Optional: true,
		list: func() client.ObjectList { return &gatewayv1beta1.ReferenceGrantList{} },
		add: func(s *snapshot.Snapshot, l client.ObjectList) {
			for _, g := range l.(*gatewayv1beta1.ReferenceGrantList).Items {
				grant := gatewayv1.ReferenceGrant(g)
				s.ReferenceGrants = append(s.ReferenceGrants, &grant)
			}
		}},
	{Object: &gatewayv1.HTTPRoute{}, Optional: true,
		list: func() client.ObjectList { return &gatewayv1.HTTPRouteList{} },
		add: func(s *snapshot.Snapshot, l client.ObjectList) {
			s.HTTPRoutes = pointers(l.(*gatewayv1.HTTPRouteList).Items)
		}},
}

func secretList() client.ObjectList { return &corev1.SecretList{} }

// addSecrets adds those that are not there yet: a Secret may have both labels.
func addSecrets(s *snapshot.Snapshot, l client.ObjectList) {
	known := map[types.UID]bool{}
	for _, secret := range s.Secrets {
		known[secret.UID] = true
	}
	for _, secret := range pointers(l.(*corev1.SecretList).Items) {
		if !known[secret.UID] {
			s.Secrets = append(s.Secrets, secret)
		}
	}
}

func pointers[T any](items []T) []*T {
	out := make([]*T, len(items))
	for i := range items {
		out[i] = &items[i]
	}
	return out
}

// Read makes a snapshot of everything that r has. The objects in it may be r's own and must not be modified. Kinds that
// the cluster does not have, of those that it need not have, are empty.
func Read(ctx context.Context, r client.Reader, o snapshot.Options) (*snapshot.Snapshot, error) {
	s := &snapshot.Snapshot{Options: o.Defaults()}
	for _, k := range kinds {
		if k.Referenced {
			continue
		}
		list := k.list()
		if err := r.List(ctx, list, k.options(s.Options)...); err != nil {
			if k.Optional && meta.IsNoMatchError(err) {
				continue
			}
			return nil, fmt.Errorf("list objects of kind %s: %w", reflect.TypeOf(k.Object).Elem().Name(), err)
		}
		k.add(s, list)
	}
	return s, complete(ctx, r, s)
}

// With makes the snapshot that Read would make if the objects of files were applied to a cluster in which it made s.
func With(ctx context.Context, r client.Reader, s, files *snapshot.Snapshot) (*snapshot.Snapshot, error) {
	out := snapshot.Overlay(s, files)
	return out, complete(ctx, r, out)
}

// complete leaves out what is another control plane's, and reads what is read by name only.
func complete(ctx context.Context, r client.Reader, s *snapshot.Snapshot) error {
	s.VirtualServices = read(s.VirtualServices, s.Options.Revision)
	s.Gateways = read(s.Gateways, s.Options.Revision)
	s.ServiceEntries = read(s.ServiceEntries, s.Options.Revision)
	s.EnvoyFilters = written(s.EnvoyFilters, s.Options.Revision)
	s.WasmPlugins = written(s.WasmPlugins, s.Options.Revision)
	var err error
	if s.ConfigMaps, err = readNamed(ctx, r, s.ConfigMaps, ConfigMaps(s), func() *corev1.ConfigMap { return &corev1.ConfigMap{} }); err != nil {
		return err
	}
	s.Secrets, err = readNamed(ctx, r, s.Secrets, Secrets(s), func() *corev1.Secret { return &corev1.Secret{} })
	return err
}

func (k Kind) options(o snapshot.Options) []client.ListOption {
	// What is read is never modified, so the informers' own objects will do.
	out := []client.ListOption{client.UnsafeDisableDeepCopy}
	switch {
	case k.Label != "" && k.Value != "":
		out = append(out, client.MatchingLabels{k.Label: k.Value})
	case k.Label != "":
		out = append(out, client.HasLabels{k.Label})
	}
	if k.Generated {
		out = append(out, client.InNamespace(o.RootNamespace))
	}
	return out
}

// read leaves out what is labelled for another control plane, as istiod does.
func read[T metav1.Object](objects []T, revision string) []T {
	return slices.DeleteFunc(objects, func(o T) bool {
		label, ok := o.GetLabels()[snapshot.RevisionLabel]
		return ok && revision != "" && label != revision
	})
}

// written leaves out what was generated for another control plane, whose objects may be in the same namespace.
func written[T metav1.Object](objects []T, revision string) []T {
	return slices.DeleteFunc(objects, func(o T) bool { return o.GetLabels()[snapshot.RevisionLabel] != revision })
}

// readNamed gets the objects of a kind that Plugins name and that are not among objects. One that is not there is left out,
// which is for the compilation to report.
func readNamed[T client.Object](ctx context.Context, r client.Reader, objects []T, names []types.NamespacedName, empty func() T) ([]T, error) {
	if len(names) == 0 {
		return objects, nil
	}
	known := make(map[types.NamespacedName]bool, len(objects))
	for _, o := range objects {
		known[client.ObjectKeyFromObject(o)] = true
	}
	for _, name := range names {
		if known[name] {
			continue
		}
		o := empty()
		err := r.Get(ctx, name, o)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("get %s %s: %w", reflect.TypeOf(o).Elem().Name(), name, err)
		}
		objects = append(objects, o)
	}
	return objects, nil
}

// Secrets are the names of those that Plugins name, sorted.
func Secrets(s *snapshot.Snapshot) []types.NamespacedName { return resolve.SecretNames(s) }

// ConfigMaps are the names of those that Plugins name, sorted.
func ConfigMaps(s *snapshot.Snapshot) []types.NamespacedName {
	names := map[types.NamespacedName]bool{}
	add := func(namespace string, spec *pluginsv1alpha1.PluginSpec) {
		if spec.Lua != nil && spec.Lua.ConfigMapRef != nil {
			names[types.NamespacedName{Namespace: namespace, Name: spec.Lua.ConfigMapRef.Name}] = true
		}
	}
	for _, p := range s.Plugins {
		add(p.Namespace, &p.Spec)
	}
	for _, p := range s.ClusterPlugins {
		add(s.Options.Defaults().RootNamespace, &p.Spec)
	}
	out := make([]types.NamespacedName, 0, len(names))
	for name := range names {
		out = append(out, name)
	}
	slices.SortFunc(out, func(a, b types.NamespacedName) int { return cmp.Compare(a.String(), b.String()) })
	return out
}
