package controller

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/istio-plugins/istio-plugins/pkg/cluster"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// lookForKinds is how often the API server is asked for the kinds that it did not have.
const lookForKinds = time.Minute

// cacheOptions are what the informers of a cache keep: only objects that a compilation looks at, without what it never
// reads. A cache has one selector for a kind, so a kind with several labels needs several caches; n is the cache's number.
func cacheOptions(o Options, n int) cache.Options {
	out := cache.Options{DefaultTransform: cache.TransformStripManagedFields(), ByObject: map[client.Object]cache.ByObject{}}
	if len(o.Namespaces) > 0 {
		out.DefaultNamespaces = map[string]cache.Config{o.Snapshot.RootNamespace: {}}
		for _, namespace := range o.Namespaces {
			out.DefaultNamespaces[namespace] = cache.Config{}
		}
	}
	for _, k := range kindsOf(n) {
		by := cache.ByObject{}
		if k.Label != "" {
			by.Label = labelSelector(k.Label, k.Value)
		}
		if k.Generated {
			by.Namespaces = map[string]cache.Config{o.Snapshot.RootNamespace: {}}
		}
		if k.Referenced {
			by.Transform = bare
		}
		if by.Label != nil || by.Namespaces != nil || by.Transform != nil {
			out.ByObject[k.Object] = by
		}
	}
	return out
}

// bare leaves out of an object's metadata what is large, and may repeat all of a Secret: kubectl apply notes it there.
func bare(object any) (any, error) {
	if o, ok := object.(metav1.Object); ok {
		o.SetManagedFields(nil)
		o.SetAnnotations(nil)
	}
	return object, nil
}

// kindsOf are the kinds that the nth cache holds: the first all kinds, the second those that come again.
func kindsOf(n int) []cluster.Kind {
	var out []cluster.Kind
	seen := map[reflect.Type]int{}
	for _, k := range cluster.Kinds() {
		t := reflect.TypeOf(k.Object)
		if seen[t] == n {
			out = append(out, k)
		}
		seen[t]++
	}
	return out
}

func labelSelector(key, value string) labels.Selector {
	operator, values := selection.Exists, []string(nil)
	if value != "" {
		operator, values = selection.Equals, []string{value}
	}
	requirement, err := labels.NewRequirement(key, operator, values)
	if err != nil {
		panic(err) // the labels are our own
	}
	return labels.NewSelector().Add(*requirement)
}

// inputs are a compilation's inputs as informers have them. It reads for package cluster: lists from the caches, and
// ConfigMaps and Secrets that Plugins name from the API server, once for each version, because a cluster may have many of them.
type inputs struct {
	client.Reader
	// labelled are the caches of kinds with a label, by its selector, and metadata those that have no more than the metadata
	// of a kind.
	labelled map[string]cache.Cache
	metadata map[reflect.Type]cache.Cache
	// api reads what the cache has the metadata of only.
	api    client.Reader
	scheme *runtime.Scheme
	// ours says whether an object is as the writer has left it. lost is told of one that is not, and says whether it
	// brings it back and calls then.
	ours func(client.Object) bool
	lost func(ctx context.Context, o client.Object, deleted bool, then func()) bool

	mu sync.Mutex
	// served says which of the optional kinds the API server has.
	served map[string]bool
	// named are the objects that Plugins name; nil until one has been read.
	named map[named]client.Object
}

// named is an object of a kind that is read by name.
type named struct {
	kind reflect.Type
	types.NamespacedName
}

func nameOf(o client.Object, name types.NamespacedName) named { return named{reflect.TypeOf(o), name} }

func newInputs(m manager.Manager, direct client.Reader, o Options, w *writer) (*inputs, error) {
	in := &inputs{
		Reader: m.GetCache(), labelled: map[string]cache.Cache{}, metadata: map[reflect.Type]cache.Cache{},
		api: direct, scheme: m.GetScheme(), ours: w.ours, lost: w.restore,
		served: map[string]bool{}, named: map[named]client.Object{},
	}
	for n := 0; len(kindsOf(n)) > 0; n++ {
		c := m.GetCache()
		if n > 0 {
			options := cacheOptions(o, n)
			options.Scheme, options.Mapper, options.HTTPClient = m.GetScheme(), m.GetRESTMapper(), m.GetHTTPClient()
			var err error
			if c, err = cache.New(m.GetConfig(), options); err != nil {
				return nil, err
			}
			if err := m.Add(c); err != nil {
				return nil, err
			}
		}
		for _, k := range kindsOf(n) {
			if k.Label != "" {
				in.labelled[labelSelector(k.Label, k.Value).String()] = c
			}
			if k.Referenced {
				in.metadata[reflect.TypeOf(k.Object)] = c
			}
		}
	}
	return in, nil
}

// read makes a snapshot.
func (in *inputs) read(ctx context.Context, o snapshot.Options) (*snapshot.Snapshot, error) {
	s, err := cluster.Read(ctx, in, o)
	if err != nil {
		return nil, err
	}
	still := map[named]bool{}
	for _, name := range cluster.ConfigMaps(s) {
		still[nameOf(&corev1.ConfigMap{}, name)] = true
	}
	for _, name := range cluster.Secrets(s) {
		still[nameOf(&corev1.Secret{}, name)] = true
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	maps.DeleteFunc(in.named, func(name named, _ client.Object) bool { return !still[name] })
	return s, nil
}

// List of a kind that the API server does not have fails without asking it again.
func (in *inputs) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	gvk, err := apiutil.GVKForObject(list, in.scheme)
	if err != nil {
		return err
	}
	in.mu.Lock()
	served, known := in.served[gvk.Kind]
	in.mu.Unlock()
	if known && !served {
		return &meta.NoKindMatchError{GroupKind: gvk.GroupKind(), SearchedVersions: []string{gvk.Version}}
	}
	listed := client.ListOptions{}
	listed.ApplyOptions(options)
	if listed.LabelSelector != nil {
		return in.labelled[listed.LabelSelector.String()].List(ctx, list, options...)
	}
	return in.Reader.List(ctx, list, options...)
}

// Get returns an object that a Plugin names, and remembers it.
func (in *inputs) Get(ctx context.Context, key client.ObjectKey, into client.Object, options ...client.GetOption) error {
	metadata := in.metadata[reflect.TypeOf(into)]
	if metadata == nil {
		return in.Reader.Get(ctx, key, into, options...)
	}
	name := nameOf(into, key)
	in.mu.Lock()
	read := in.named[name]
	// From now on its changes matter, also if it is not there yet.
	in.named[name] = read
	in.mu.Unlock()
	known, err := in.metadataOf(into)
	if err != nil {
		return err
	}
	if err := metadata.Get(ctx, key, known); err != nil {
		return err
	}
	if read == nil || read.GetUID() != known.UID || read.GetResourceVersion() != known.ResourceVersion {
		read = into.DeepCopyObject().(client.Object)
		if err := in.api.Get(ctx, key, read); err != nil {
			return err
		}
		in.mu.Lock()
		in.named[name] = read
		in.mu.Unlock()
	}
	reflect.ValueOf(into).Elem().Set(reflect.ValueOf(read).Elem())
	return nil
}

func (in *inputs) metadataOf(o client.Object) (*metav1.PartialObjectMetadata, error) {
	gvk, err := apiutil.GVKForObject(o, in.scheme)
	m := &metav1.PartialObjectMetadata{}
	m.SetGroupVersionKind(gvk)
	return m, err
}

// What package cluster reads. Generated objects are read where they are written: in the root namespace.
//
// +kubebuilder:rbac:groups=networking.istio.io,resources=virtualservices;gateways;serviceentries,verbs=list;watch
// +kubebuilder:rbac:groups=plugins.istio.io,resources=plugins;clusterplugins;consumers,verbs=list;watch
// +kubebuilder:rbac:groups="",resources=services,verbs=list;watch
// +kubebuilder:rbac:groups="",resources=configmaps;secrets,verbs=get;list;watch
// +kubebuilder:rbac:groups=gateway.networking.k8s.io,resources=referencegrants;httproutes,verbs=list;watch
// +kubebuilder:rbac:groups=networking.istio.io,namespace=istio-system,resources=envoyfilters,verbs=list;watch
// +kubebuilder:rbac:groups=extensions.istio.io,namespace=istio-system,resources=wasmplugins,verbs=list;watch

// watch makes every change of an input wake the queue. Optional kinds that are not there yet are looked for while the
// controller runs.
func (in *inputs) watch(m manager.Manager, c controller.Controller, wake func(workqueue.TypedRateLimitingInterface[reconcile.Request])) error {
	start := func(k cluster.Kind) error {
		object, from := k.Object, m.GetCache()
		if k.Referenced {
			var err error
			if object, err = in.metadataOf(k.Object); err != nil {
				return err
			}
			from = in.metadata[reflect.TypeOf(k.Object)]
		}
		if k.Label != "" {
			from = in.labelled[labelSelector(k.Label, k.Value).String()]
		}
		return c.Watch(source.Kind(from, object, in.handler(k, wake)))
	}
	var missing []cluster.Kind
	for _, k := range cluster.Kinds() {
		there, err := in.look(m, k)
		if err != nil {
			return err
		}
		if !there {
			missing = append(missing, k)
			continue
		}
		if err := start(k); err != nil {
			return err
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return m.Add(manager.RunnableFunc(func(ctx context.Context) error {
		for len(missing) > 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(lookForKinds):
			}
			missing = slices.DeleteFunc(missing, func(k cluster.Kind) bool {
				there, err := in.look(m, k)
				if err != nil || !there {
					return false
				}
				m.GetLogger().Info("a kind has been installed", "kind", fmt.Sprintf("%T", k.Object))
				return start(k) == nil
			})
		}
		return nil
	}))
}

// look asks whether the API server has an optional kind; every other kind must be there.
func (in *inputs) look(m manager.Manager, k cluster.Kind) (bool, error) {
	gvk, err := apiutil.GVKForObject(k.Object, m.GetScheme())
	if err != nil {
		return false, err
	}
	if !k.Optional {
		return true, nil
	}
	_, err = m.GetRESTMapper().RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil && !meta.IsNoMatchError(err) {
		return false, err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.served[gvk.Kind+"List"] = err == nil
	return err == nil, nil
}

// handler wakes the queue for changes that a compilation can see.
func (in *inputs) handler(k cluster.Kind, wake func(workqueue.TypedRateLimitingInterface[reconcile.Request])) handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	one := func(o client.Object, q queue) {
		if in.concerns(k, o) {
			wake(q)
		}
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q queue) { one(e.Object, q) },
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) {
			switch {
			case k.Generated && in.lost(ctx, e.Object, true, func() { wake(q) }):
			case k.Generated:
				wake(q) // an informer that missed the deletion tells of it with the version that it knows, which is ours
			default:
				one(e.Object, q)
			}
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			if !changed(e.ObjectOld, e.ObjectNew) {
				return
			}
			if k.Generated && !in.ours(e.ObjectNew) && in.lost(ctx, e.ObjectNew, false, func() { wake(q) }) {
				return
			}
			one(e.ObjectNew, q)
		},
	}
}

// concerns says whether a compilation would see a change of an object.
func (in *inputs) concerns(k cluster.Kind, o client.Object) bool {
	switch {
	case k.Generated:
		return !in.ours(o)
	case k.Referenced:
		in.mu.Lock()
		defer in.mu.Unlock()
		_, named := in.named[nameOf(k.Object, client.ObjectKeyFromObject(o))]
		return named
	}
	return true
}

// changed says whether an update changed more than a status.
func changed(before, after client.Object) bool {
	switch {
	case before.GetResourceVersion() == after.GetResourceVersion():
		return false
	case after.GetGeneration() == 0:
		return true // a kind without status
	}
	return before.GetGeneration() != after.GetGeneration() || !maps.Equal(before.GetLabels(), after.GetLabels()) ||
		!maps.Equal(before.GetAnnotations(), after.GetAnnotations())
}
