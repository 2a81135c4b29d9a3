package suite

import (
	"fmt"
	"iter"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/istio-plugins/istio-plugins/e2e/loopback"
)

// defaultNamespace is where an object lives that names no namespace; the same as that of `istio-plugins compile`.
const defaultNamespace = "default"

// key names an object as a step's `delete` does: `VirtualService shop/api`.
func key(o *unstructured.Unstructured) string {
	if o.GetNamespace() == "" {
		return o.GetKind() + " " + o.GetName()
	}
	return o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
}

// objects is a set of objects that keeps the order in which they came.
type objects struct {
	order []string
	byKey map[string]*unstructured.Unstructured
}

// put adds objects, or replaces those of the same name.
func (s *objects) put(added ...*unstructured.Unstructured) {
	for _, o := range added {
		k := key(o)
		if s.byKey == nil {
			s.byKey = map[string]*unstructured.Unstructured{}
		}
		if s.byKey[k] == nil {
			s.order = append(s.order, k)
		}
		s.byKey[k] = o
	}
}

// remove takes an object out.
func (s *objects) remove(k string) (*unstructured.Unstructured, error) {
	o := s.byKey[k]
	if o == nil {
		return nil, fmt.Errorf("there is no %s, there are: %s", k, strings.Join(s.order, ", "))
	}
	delete(s.byKey, k)
	for i := range s.order {
		if s.order[i] == k {
			s.order = append(s.order[:i:i], s.order[i+1:]...)
			break
		}
	}
	return o, nil
}

func (s *objects) list() []*unstructured.Unstructured {
	var list []*unstructured.Unstructured
	for _, k := range s.order {
		list = append(list, s.byKey[k])
	}
	return list
}

// without lists the objects of s that are not in other.
func (s *objects) without(other *objects) []*unstructured.Unstructured {
	var list []*unstructured.Unstructured
	for _, k := range s.order {
		if other.byKey[k] == nil {
			list = append(list, s.byKey[k])
		}
	}
	return list
}

// clusterScoped are the kinds of cases that have no namespace.
var clusterScoped = map[string]bool{"ClusterPlugin": true, "Namespace": true}

// Ports gives every port that a user wrote a free one of this machine.
type Ports map[int64]int64

// Of is the port of this run.
func (p Ports) Of(number int64) int64 {
	if p[number] == 0 {
		p[number] = int64(loopback.Port())
	}
	return p[number]
}

// Complete fills in the namespace, as the API server would, and moves the servers of Gateways to free ports of
// 127.0.0.1: a test opens no port to others.
func (p Ports) Complete(o *unstructured.Unstructured) {
	if o.GetNamespace() == "" && !clusterScoped[o.GetKind()] {
		o.SetNamespace(defaultNamespace)
	}
	if !strings.HasPrefix(o.GetAPIVersion(), "networking.istio.io/") {
		return
	}
	spec, _ := o.Object["spec"].(map[string]any)
	switch o.GetKind() {
	case "Gateway":
		for server := range maps(spec["servers"]) {
			server["bind"] = "127.0.0.1"
			if port, ok := server["port"].(map[string]any); ok {
				p.move(port, "number")
			}
		}
	case "VirtualService":
		for route := range maps(spec["http"]) {
			for match := range maps(route["match"]) {
				p.move(match, "port")
			}
		}
	}
}

// move replaces the port in the field, where there is one.
func (p Ports) move(fields map[string]any, name string) {
	// sigs.k8s.io/yaml reads every number as a float.
	switch number := fields[name].(type) {
	case float64:
		fields[name] = p.Of(int64(number))
	case int64:
		fields[name] = p.Of(number)
	}
}

// maps yields the maps of a list.
func maps(list any) iter.Seq[map[string]any] {
	return func(yield func(map[string]any) bool) {
		items, _ := list.([]any)
		for _, item := range items {
			if fields, ok := item.(map[string]any); ok && !yield(fields) {
				return
			}
		}
	}
}
