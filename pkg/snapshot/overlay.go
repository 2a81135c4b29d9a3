package snapshot

import (
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/istio-plugins/istio-plugins/pkg/finding"
)

// Overlay is what base becomes once the objects of over, which were read from files, replace those of the same kind,
// namespace and name, or are created. An object that is there keeps what Kubernetes alone gives to it, its uid and its
// age; a new one is younger than all others. Neither snapshot is changed.
func Overlay(base, over *Snapshot) *Snapshot {
	l := overlay{named: map[finding.Object]bool{}}
	for o := range over.Sources {
		l.named[o] = true
	}
	for _, o := range over.Unlabelled {
		l.named[o] = true
	}
	out := *base
	out.Sources = maps.Clone(over.Sources)
	for o, source := range base.Sources {
		if !l.named[o] {
			out.Sources[o] = source
		}
	}
	replaced := func(m Malformed) bool { return l.named[m.Object] }
	out.Malformed = append(slices.DeleteFunc(slices.Clone(base.Malformed), replaced), over.Malformed...)
	add(&l, "VirtualService", &out.VirtualServices, over.VirtualServices)
	add(&l, "Gateway", &out.Gateways, over.Gateways)
	add(&l, "Plugin", &out.Plugins, over.Plugins)
	add(&l, "ClusterPlugin", &out.ClusterPlugins, over.ClusterPlugins)
	add(&l, "Consumer", &out.Consumers, over.Consumers)
	add(&l, "Secret", &out.Secrets, over.Secrets)
	add(&l, "ConfigMap", &out.ConfigMaps, over.ConfigMaps)
	add(&l, "Service", &out.Services, over.Services)
	add(&l, "ServiceEntry", &out.ServiceEntries, over.ServiceEntries)
	add(&l, "ReferenceGrant", &out.ReferenceGrants, over.ReferenceGrants)
	add(&l, "HTTPRoute", &out.HTTPRoutes, over.HTTPRoutes)
	add(&l, "EnvoyFilter", &out.EnvoyFilters, over.EnvoyFilters)
	add(&l, "WasmPlugin", &out.WasmPlugins, over.WasmPlugins)
	for _, o := range l.created {
		o.SetCreationTimestamp(metav1.NewTime(l.youngest.Add(time.Second)))
	}
	return &out
}

// overlay is one overlay while it is made.
type overlay struct {
	// named are all objects of over.
	named   map[finding.Object]bool
	created []metav1.Object
	// youngest is when the last object of the base was created.
	youngest metav1.Time
}

type object interface {
	metav1.Object
	runtime.Object
}

// add lays the objects of one kind over those of the base.
func add[T object](l *overlay, kind string, list *[]T, over []T) {
	base := *list
	known := make(map[types.NamespacedName]T, len(base))
	for _, o := range base {
		known[types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}] = o
		if created := o.GetCreationTimestamp(); l.youngest.Before(&created) {
			l.youngest = created
		}
	}
	out := slices.DeleteFunc(slices.Clone(base), func(o T) bool {
		return l.named[finding.Object{Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName()}]
	})
	for _, o := range over {
		placed := o.DeepCopyObject().(T)
		placed.SetResourceVersion("") // this version is not stored
		if old, ok := known[types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}]; ok {
			placed.SetUID(old.GetUID())
			placed.SetCreationTimestamp(old.GetCreationTimestamp())
		} else {
			placed.SetUID("")
			l.created = append(l.created, placed)
		}
		out = append(out, placed)
	}
	*list = out
}
