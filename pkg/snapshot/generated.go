package snapshot

// GeneratedLabel marks the objects that istio-plugins generates; its value is "true". Only objects that carry it are
// updated, deleted or read back.
//
// Its key does not contain "istio.io", and no label or annotation of a generated object may: istiod pushes to all
// proxies on any touch of an Istio object that has such a key, even where nothing else has changed (NeedsPush in
// istio/istio, pilot/pkg/model/config_compare.go).
const GeneratedLabel = "istio-plugins/generated"

// RevisionLabel is Istio's: it names the control plane that reads an object, where there are several; all of them read
// objects without it. Generated objects carry it only where a revision is set, since istiod pushes on any touch of them then.
const RevisionLabel = "istio.io/rev"
