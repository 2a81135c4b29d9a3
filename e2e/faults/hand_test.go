package faults

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/istio-plugins/istio-plugins/e2e/controller"
)

// handInterferes deletes and edits every generated object by hand. Each one is written once and no more: a controller that
// fought with somebody would write for ever.
//
// The fixed filters come last, when no client looks: a gateway that lost them has nothing that could protect a route, until
// they are back.
func handInterferes(t *testing.T, w *world) {
	r := w.start(t)
	w.converged(t)
	load := startLoad(t, w.Port, false, w.clients()...)
	for _, hand := range hands(t, w) {
		w.interfere(t, r, hand, func(name string) bool { return !isFilters(name) })
	}
	load.stop(t)
	for _, hand := range hands(t, w) {
		w.interfere(t, r, hand, isFilters)
	}
	w.settled(t, r)
	w.awaitAnswer(t, "protected.test", http.StatusOK)
}

// hand is what somebody does to a generated object.
type hand struct {
	what string
	does func(ctx context.Context, name string) error
	// writes that it takes to restore the object.
	writes int
}

func hands(t *testing.T, w *world) []hand {
	t.Helper()
	api, err := dynamic.NewForConfig(w.Stack.Config)
	if err != nil {
		t.Fatal(err)
	}
	filters := api.Resource(controller.Generated[0]).Namespace("istio-system")
	patch := func(text string) func(context.Context, string) error {
		return func(ctx context.Context, name string) error {
			_, err := filters.Patch(ctx, name, types.MergePatchType, []byte(text), metav1.PatchOptions{FieldManager: "hand"})
			return err
		}
	}
	annotate, forget := patch(`{"metadata": {"annotations": {"by": "hand"}}}`), patch(`{"metadata": {"annotations": {"by": null}}}`)
	return []hand{
		{"deletes", func(ctx context.Context, name string) error { return filters.Delete(ctx, name, metav1.DeleteOptions{}) }, 1},
		{"takes our label off", patch(`{"metadata": {"labels": {"istio-plugins/generated": null}}}`), 1},
		{"changes a field", patch(`{"spec": {"priority": 7}}`), 1},
		{"adds a field", patch(`{"spec": {"workloadSelector": {"labels": {"by": "hand"}}}}`), 1},
		{"empties", patch(`{"spec": {"configPatches": null}}`), 1},
		{"adds an annotation", func(ctx context.Context, name string) error {
			if err := annotate(ctx, name); err != nil {
				return err
			}
			return forget(ctx, name)
		}, 0},
	}
}

// interfere does it to all generated objects with such names, and returns when they are restored.
func (w *world) interfere(t *testing.T, r *running, hand hand, names func(string) bool) {
	t.Helper()
	objects, err := controller.List(t.Context(), w.Stack)
	if err != nil {
		t.Fatal(err)
	}
	before, wanted, most := r.writesSoFar(t), 0, 0
	for _, key := range slices.Sorted(maps.Keys(objects)) {
		name := objects[key].GetName()
		if !names(name) {
			continue
		}
		if err := hand.does(t.Context(), name); err != nil {
			t.Fatalf("a hand %s %s: %v", hand.what, name, err)
		}
		wanted += hand.writes
		if isFilters(name) {
			most += 2 * hand.writes
		} else {
			most += hand.writes
		}
	}
	w.converged(t)
	// Fixed filters are brought back at once, and a pass that has begun before may write them again.
	if n := r.writesSoFar(t) - before; n < wanted || n > most {
		t.Errorf("after a hand %s: %d writes, not %d", hand.what, n, wanted)
	}
}

// isFilters is for the objects with the fixed filters of a gateway.
func isFilters(name string) bool { return strings.HasSuffix(name, ".skeleton") }
