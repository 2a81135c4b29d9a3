package snapshot

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Same says whether two objects are one version of one object. An API server gives every version a resourceVersion of
// its own, which copies have, too; what it has not stored has none and is the same only as itself.
func Same[T interface {
	comparable
	metav1.Object
}](a, b T) bool {
	var none T
	switch {
	case a == b:
		return true
	case a == none || b == none || a.GetUID() == "" || a.GetResourceVersion() == "":
		return false
	}
	return a.GetUID() == b.GetUID() && a.GetResourceVersion() == b.GetResourceVersion()
}

// SameObjects says whether two lists hold the same objects, in whichever order.
func SameObjects[T metav1.Object](a, b []T, same func(a, b T) bool) bool {
	if len(a) != len(b) {
		return false
	}
	type name struct{ namespace, name string }
	left := make(map[name]T, len(a))
	for _, o := range a {
		left[name{o.GetNamespace(), o.GetName()}] = o
	}
	for _, o := range b {
		key := name{o.GetNamespace(), o.GetName()}
		if was, ok := left[key]; !ok || !same(was, o) {
			return false
		}
		delete(left, key)
	}
	return true
}
