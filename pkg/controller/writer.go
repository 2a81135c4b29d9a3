package controller

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	extensionsv1alpha1 "istio.io/client-go/pkg/apis/extensions/v1alpha1"
	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/istio-plugins/istio-plugins/pkg/emit"
	"github.com/istio-plugins/istio-plugins/pkg/manifest"
)

const (
	// fieldOwner is who we are in an object's managedFields.
	fieldOwner = "istio-plugins"
	// writesAtOnce bounds how many objects are on their way to the API server.
	writesAtOnce = 8
	// informTimeout bounds the time until informers have what was written; it takes some milliseconds. After it the next
	// pass looks again.
	informTimeout = 5 * time.Second
	informEvery   = 5 * time.Millisecond
)

// writer brings generated objects to the API server, by server-side apply. It is the only one that writes them.
type writer struct {
	client client.Client
	// informed is what informers have.
	informed client.Reader
	// dry says that nothing that is written stays.
	dry     bool
	metrics *metrics

	mu sync.Mutex
	// versions of what was written last, by kind and name.
	versions map[string]string
	// filters are the objects with the fixed filters as they should be, by kind and name.
	filters map[string]emit.Object
}

// To apply is to patch, and to create what is not there yet.
//
// +kubebuilder:rbac:groups=networking.istio.io,namespace=istio-system,resources=envoyfilters,verbs=create;patch;update;delete
// +kubebuilder:rbac:groups=extensions.istio.io,namespace=istio-system,resources=wasmplugins,verbs=create;patch;update;delete

func newWriter(c client.Client, informed client.Reader, dry bool, m *metrics) *writer {
	if dry {
		c = client.NewDryRunClient(c)
	}
	return &writer{client: c, informed: informed, dry: dry, metrics: m, versions: map[string]string{}}
}

// ours says whether an object of an informer is as it was written.
func (w *writer) ours(o client.Object) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.versions[keyOf(o)] == o.GetResourceVersion()
}

func keyOf(o client.Object) string {
	if _, ok := o.(*extensionsv1alpha1.WasmPlugin); ok {
		return "WasmPlugin/" + o.GetName()
	}
	return "EnvoyFilter/" + o.GetName()
}

// objectOf is an object as clients know it.
func objectOf(o emit.Object) client.Object {
	if o.WasmPlugin != nil {
		return o.WasmPlugin
	}
	return o.EnvoyFilter
}

// guard notes how the objects with fixed filters should be.
func (w *writer) guard(objects []emit.Object) {
	filters := map[string]emit.Object{}
	for _, o := range objects {
		if emit.Rank(o) == emit.RankFilters {
			filters[keyOf(objectOf(o))] = o
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.filters = filters
}

// restore brings back the fixed filters that somebody has deleted or edited, at once, and then calls then: without them
// routes are open, and istiod waits for 0.1 s until it tells the gateways. False for everything else, which fails closed
// and is for the next pass.
func (w *writer) restore(ctx context.Context, lost client.Object, deleted bool, then func()) bool {
	w.mu.Lock()
	o, ok := w.filters[keyOf(lost)]
	w.mu.Unlock()
	if !ok || w.dry {
		return false
	}
	if there, ok := lost.(*networkingv1alpha3.EnvoyFilter); ok && !deleted && emit.Equal(o, emit.Object{EnvoyFilter: there}) {
		return false
	}
	go func() {
		defer then()
		version, err := w.apply(ctx, o, "")
		w.metrics.written("apply", err)
		if err == nil {
			err = w.awaitInformer(ctx, objectOf(o), version)
		}
		logr.FromContextOrDiscard(ctx).Info("restored the fixed filters of a gateway, which somebody else has changed", "object", keyOf(lost), "error", err)
	}()
	return true
}

// write applies objects and returns when informers have them. It returns the names of those that the API server did not
// take, with its errors; the others are written.
//
// versions are those of the objects that are there, as they were seen, and become those that are written. What somebody
// else has written since is not overwritten: a controller that has lost its lease without knowing it must not undo what
// the next one has done.
func (w *writer) write(ctx context.Context, objects []emit.Object, versions map[string]string) map[string]error {
	var mu sync.Mutex
	return w.each(ctx, objects, "apply", func(ctx context.Context, o emit.Object) (string, error) {
		key := keyOf(objectOf(o))
		mu.Lock()
		seen := versions[key]
		mu.Unlock()
		version, err := w.apply(ctx, o, seen)
		if err == nil && !w.dry {
			mu.Lock()
			versions[key] = version
			mu.Unlock()
		}
		return version, err
	})
}

// delete removes objects and returns when informers no longer have them.
func (w *writer) delete(ctx context.Context, objects []emit.Object) map[string]error {
	return w.each(ctx, objects, "delete", func(ctx context.Context, o emit.Object) (string, error) {
		// It is deleted as it was seen, or not at all: somebody may have made it anew, or need it again.
		object := objectOf(o)
		uid, version := object.GetUID(), object.GetResourceVersion()
		err := w.client.Delete(ctx, object, client.Preconditions{UID: &uid, ResourceVersion: &version})
		return "", client.IgnoreNotFound(err)
	})
}

func (w *writer) each(ctx context.Context, objects []emit.Object, verb string, do func(context.Context, emit.Object) (string, error)) map[string]error {
	log := logr.FromContextOrDiscard(ctx)
	var mu sync.Mutex
	failed := map[string]error{}
	var group errgroup.Group
	group.SetLimit(writesAtOnce)
	for _, o := range objects {
		group.Go(func() error {
			version, err := do(ctx, o)
			w.metrics.written(verb, err)
			if err == nil && !w.dry {
				err = w.awaitInformer(ctx, objectOf(o), version)
			}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed[o.Name()] = err
				return nil
			}
			log.V(1).Info("wrote a generated object", "verb", verb, "object", keyOf(objectOf(o)), "bytes", o.Size, "dryRun", w.dry)
			return nil
		})
	}
	_ = group.Wait()
	return failed
}

// apply writes one object, over this version of it unless that is empty, and returns its new version. Where others have
// added fields that are not ours to remove by server-side apply, the object is replaced.
func (w *writer) apply(ctx context.Context, o emit.Object, over string) (string, error) {
	wanted := manifest.Of(o)
	u := &unstructured.Unstructured{Object: manifest.Of(o)}
	u.SetResourceVersion(over)
	err := w.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.ForceOwnership, client.FieldOwner(fieldOwner))
	if apierrors.IsConflict(err) {
		// Informers are behind. What they will have then is news, even if it was written here.
		w.mu.Lock()
		delete(w.versions, keyOf(objectOf(o)))
		w.mu.Unlock()
	}
	if err != nil {
		return "", err
	}
	if !reflect.DeepEqual(u.Object["spec"], wanted["spec"]) {
		u.Object["spec"] = wanted["spec"]
		if err := w.client.Update(ctx, u, client.FieldOwner(fieldOwner)); err != nil {
			return "", fmt.Errorf("remove what others have added: %w", err)
		}
	}
	if !w.dry {
		w.mu.Lock()
		w.versions[keyOf(objectOf(o))] = u.GetResourceVersion()
		w.mu.Unlock()
	}
	return u.GetResourceVersion(), nil
}

// awaitInformer returns when the informer has a version of the object that is not older; without a version, when it has
// none, or a new one.
func (w *writer) awaitInformer(ctx context.Context, o client.Object, version string) error {
	seen := o.DeepCopyObject().(client.Object)
	err := wait.PollUntilContextTimeout(ctx, informEvery, informTimeout, true, func(ctx context.Context) (bool, error) {
		err := w.informed.Get(ctx, client.ObjectKeyFromObject(o), seen, client.UnsafeDisableDeepCopy)
		if apierrors.IsNotFound(err) {
			return version == "", nil
		}
		if err != nil {
			return false, err
		}
		if version == "" {
			return seen.GetUID() != o.GetUID(), nil
		}
		return !newer(version, seen.GetResourceVersion()), nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("informers have not seen it within %s", informTimeout)
	}
	return err
}

// newer says whether version a is after b. Versions that cannot be compared are different ones.
func newer(a, b string) bool {
	order, err := resourceversion.CompareResourceVersion(a, b)
	if err != nil {
		return a != b
	}
	return order > 0
}
