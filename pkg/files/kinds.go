package files

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	extensionsv1alpha1 "istio.io/client-go/pkg/apis/extensions/v1alpha1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apischema "k8s.io/apimachinery/pkg/runtime/schema"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	kjson "sigs.k8s.io/json"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/apis/schema"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// kind is a kind of object that a snapshot holds.
type kind struct {
	group, name string
	// versions that are read; the first is the one that the snapshot has.
	versions      []string
	clusterScoped bool
	// labelled says whether objects with these labels are wanted; nil for all.
	labelled func(labels map[string]any) bool
	// decode adds the object to the snapshot, or says what is wrong with it.
	decode func(*kind, *snapshot.Snapshot, map[string]any) []problem
}

const (
	ourGroup        = "plugins.istio.io"
	networkingGroup = "networking.istio.io"
	gatewayGroup    = "gateway.networking.k8s.io"
)

var (
	networkingVersions = []string{"v1", "v1beta1", "v1alpha3"}
	gatewayVersions    = []string{"v1", "v1beta1"}
)

var kinds = []kind{
	{group: ourGroup, name: "Plugin", versions: []string{"v1alpha1"},
		decode: strict(func(s *snapshot.Snapshot) *[]*pluginsv1alpha1.Plugin { return &s.Plugins })},
	{group: ourGroup, name: "ClusterPlugin", versions: []string{"v1alpha1"}, clusterScoped: true,
		decode: strict(func(s *snapshot.Snapshot) *[]*pluginsv1alpha1.ClusterPlugin { return &s.ClusterPlugins })},
	{group: ourGroup, name: "Consumer", versions: []string{"v1alpha1"},
		decode: strict(func(s *snapshot.Snapshot) *[]*pluginsv1alpha1.Consumer { return &s.Consumers })},
	{group: networkingGroup, name: "VirtualService", versions: networkingVersions,
		decode: tolerant(func(s *snapshot.Snapshot) *[]*networkingv1.VirtualService { return &s.VirtualServices })},
	{group: networkingGroup, name: "Gateway", versions: networkingVersions,
		decode: tolerant(func(s *snapshot.Snapshot) *[]*networkingv1.Gateway { return &s.Gateways })},
	{group: networkingGroup, name: "EnvoyFilter", versions: []string{"v1alpha3"}, labelled: generated,
		decode: tolerant(func(s *snapshot.Snapshot) *[]*networkingv1alpha3.EnvoyFilter { return &s.EnvoyFilters })},
	{group: "extensions.istio.io", name: "WasmPlugin", versions: []string{"v1alpha1"}, labelled: generated,
		decode: tolerant(func(s *snapshot.Snapshot) *[]*extensionsv1alpha1.WasmPlugin { return &s.WasmPlugins })},
	{name: "Secret", versions: []string{"v1"}, decode: secret},
	{name: "ConfigMap", versions: []string{"v1"},
		decode: tolerant(func(s *snapshot.Snapshot) *[]*corev1.ConfigMap { return &s.ConfigMaps })},
	{name: "Service", versions: []string{"v1"},
		decode: tolerant(func(s *snapshot.Snapshot) *[]*corev1.Service { return &s.Services })},
	{group: networkingGroup, name: "ServiceEntry", versions: networkingVersions,
		decode: tolerant(func(s *snapshot.Snapshot) *[]*networkingv1.ServiceEntry { return &s.ServiceEntries })},
	{group: gatewayGroup, name: "ReferenceGrant", versions: gatewayVersions,
		decode: tolerant(func(s *snapshot.Snapshot) *[]*gatewayv1.ReferenceGrant { return &s.ReferenceGrants })},
	{group: gatewayGroup, name: "HTTPRoute", versions: gatewayVersions,
		decode: tolerant(func(s *snapshot.Snapshot) *[]*gatewayv1.HTTPRoute { return &s.HTTPRoutes })},
}

// wanted tells the objects that a snapshot holds from others of their kind.
func (k *kind) wanted(fields map[string]any) bool {
	if k.labelled == nil {
		return true
	}
	return k.labelled(labelsOf(fields))
}

func labelsOf(fields map[string]any) map[string]any {
	metadata, _ := fields["metadata"].(map[string]any)
	labels, _ := metadata["labels"].(map[string]any)
	return labels
}

func generated(labels map[string]any) bool { return labels[snapshot.GeneratedLabel] == "true" }

func credential(labels map[string]any) bool {
	_, ours := labels[pluginsv1alpha1.CredentialLabel]
	_, kongs := labels[pluginsv1alpha1.KongCredentialLabel]
	return ours || kongs
}

// object is a pointer to a Kubernetes object of type T.
type object[T any] interface {
	*T
	runtime.Object
}

// tolerant decodes as the API server and istiod decode what is not ours: unknown fields are passed by.
func tolerant[T any, P object[T]](list func(*snapshot.Snapshot) *[]P) func(*kind, *snapshot.Snapshot, map[string]any) []problem {
	return func(k *kind, s *snapshot.Snapshot, fields map[string]any) []problem {
		typed := P(new(T))
		if err := decodeFields(fields, typed); err != nil {
			if p, ok := blame(typed, fields); ok {
				return []problem{p}
			}
			return []problem{typeProblem("", err)}
		}
		typed.GetObjectKind().SetGroupVersionKind(k.canonical())
		into := list(s)
		*into = append(*into, typed)
		return nil
	}
}

// strict holds an object of ours against its CRD and fills defaults in.
func strict[T any, P object[T]](list func(*snapshot.Snapshot) *[]P) func(*kind, *snapshot.Snapshot, map[string]any) []problem {
	add := tolerant(list)
	return func(k *kind, s *snapshot.Snapshot, fields map[string]any) []problem {
		delete(fields, "status") // what is applied has none: status is a subresource
		complete, wrong := schema.Of(k.name).Complete(fields)
		if len(wrong) == 0 {
			return add(k, s, complete)
		}
		problems := make([]problem, len(wrong))
		for i, w := range wrong {
			problems[i] = problem{w.Path, w.Message}
		}
		return problems
	}
}

// secret reads a Secret. It merges stringData into data, as the API server does, and names no value.
func secret(k *kind, s *snapshot.Snapshot, fields map[string]any) []problem {
	problems := append(base64Problems(fields["data"]), stringMapProblems("stringData", fields["stringData"])...)
	if len(problems) > 0 {
		return problems
	}
	add := tolerant(func(s *snapshot.Snapshot) *[]*corev1.Secret { return &s.Secrets })
	if problems := add(k, s, fields); len(problems) > 0 {
		return problems
	}
	added := s.Secrets[len(s.Secrets)-1]
	for key, value := range added.StringData {
		if added.Data == nil {
			added.Data = map[string][]byte{}
		}
		added.Data[key] = []byte(value)
	}
	added.StringData = nil
	return nil
}

// base64Problems finds the values of a Secret's data that are no base64, which is what people get who mean stringData.
func base64Problems(v any) []problem {
	if problems := stringMapProblems("data", v); len(problems) > 0 {
		return problems
	}
	data, _ := v.(map[string]any)
	var problems []problem
	for _, key := range slices.Sorted(maps.Keys(data)) {
		text, _ := data[key].(string)
		if _, err := base64.StdEncoding.DecodeString(text); err != nil {
			problems = append(problems, problem{"data." + key, "is no base64: encode it, or write it under stringData"})
		}
	}
	return problems
}

// decodeFields decodes the fields into a typed object.
func decodeFields(fields map[string]any, into any) error {
	raw, err := json.Marshal(fields)
	if err != nil {
		return fmt.Errorf("the object is no JSON: %w", err)
	}
	return kjson.UnmarshalCaseSensitivePreserveInts(raw, into)
}

// canonical is the version that a snapshot has, whatever version the file has: the fields are the same.
func (k *kind) canonical() apischema.GroupVersionKind {
	return apischema.GroupVersionKind{Group: k.group, Version: k.versions[0], Kind: k.name}
}
