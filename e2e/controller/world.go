package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"

	"github.com/istio-plugins/istio-plugins/e2e/stack"
)

// convergeTimeout bounds the time until the generated objects are those of a fresh compile; it takes about a second.
const convergeTimeout = 30 * time.Second

// mark is an object of the controller that no compile knows: it asks istiod by it what gateways have accepted.
const mark = "istio-plugins-mark"

// Generated are the kinds that the controller writes.
var Generated = []schema.GroupVersionResource{
	{Group: "networking.istio.io", Version: "v1alpha3", Resource: "envoyfilters"},
	{Group: "extensions.istio.io", Version: "v1alpha1", Resource: "wasmplugins"},
}

// World is a stack in which the controller does the rest.
type World struct {
	*stack.Stack
}

// Stored are the objects as the API server has them.
func (w World) Stored(ctx context.Context, objects []*unstructured.Unstructured) ([]*unstructured.Unstructured, error) {
	out := make([]*unstructured.Unstructured, len(objects))
	for i, o := range objects {
		var err error
		if out[i], err = w.Get(ctx, o); err != nil {
			return nil, err
		}
		out[i].SetManagedFields(nil)
	}
	return out, nil
}

// AwaitGenerated returns when the generated objects are these and no others.
func (w World) AwaitGenerated(ctx context.Context, wanted []*unstructured.Unstructured) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, convergeTimeout, true, func(ctx context.Context) (bool, error) {
		err := w.differs(ctx, wanted)
		if ctx.Err() == nil {
			last = err
		}
		return err == nil, nil
	})
	if err != nil && last != nil {
		return fmt.Errorf("after %s the generated objects are not those of a fresh compile: %w", convergeTimeout, last)
	}
	return err
}

// differs says in what the generated objects are not as wanted; nil if they are.
func (w World) differs(ctx context.Context, wanted []*unstructured.Unstructured) error {
	there, err := List(ctx, w.Stack)
	if err != nil {
		return err
	}
	for _, o := range wanted {
		key := o.GetKind() + "/" + o.GetName()
		is, ok := there[key]
		delete(there, key)
		switch {
		case !ok:
			return fmt.Errorf("%s is missing", key)
		case text(is.Object["spec"]) != text(o.Object["spec"]):
			return fmt.Errorf("%s has another spec, %s", key, difference(text(o.Object["spec"]), text(is.Object["spec"])))
		case !maps.Equal(is.GetLabels(), o.GetLabels()) || !maps.Equal(is.GetAnnotations(), o.GetAnnotations()):
			return fmt.Errorf("%s has other labels or annotations", key)
		}
	}
	for key := range there {
		return fmt.Errorf("%s should not be there", key)
	}
	return nil
}

// text has one form for equal values, whatever Go's types of their numbers.
func text(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // it came from JSON
	}
	return string(raw)
}

// difference shows where two texts part.
func difference(wanted, is string) string {
	const shown = 300
	n := 0
	for n < len(wanted) && n < len(is) && wanted[n] == is[n] {
		n++
	}
	cut := func(s string) string { return s[min(len(s), max(0, n-shown/3)):min(len(s), n+shown)] }
	return fmt.Sprintf("at byte %d\n wanted: %s\n it is: %s", n, cut(wanted), cut(is))
}

// List are the generated objects that are there, by kind and name, but for the mark.
func List(ctx context.Context, s *stack.Stack) (map[string]*unstructured.Unstructured, error) {
	client, err := dynamic.NewForConfig(s.Config)
	if err != nil {
		return nil, err
	}
	out := map[string]*unstructured.Unstructured{}
	for _, r := range Generated {
		list, err := client.Resource(r).Namespace("istio-system").List(ctx, metav1.ListOptions{LabelSelector: "istio-plugins/generated=true"})
		if err != nil && !errors.IsNotFound(err) {
			return nil, err
		}
		for i := range list.Items {
			if o := &list.Items[i]; o.GetName() != mark {
				out[o.GetKind()+"/"+o.GetName()] = o
			}
		}
	}
	return out, nil
}
