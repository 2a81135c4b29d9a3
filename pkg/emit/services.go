package emit

import (
	"maps"
	"slices"
	"strings"

	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
)

// servicesAnnotation makes istiod keep the clusters of services that no route names, where PILOT_FILTER_GATEWAY_CLUSTER_CONFIG
// makes it leave those out (istio/istio, GatewayServices in pilot/pkg/model/push_context.go). It cannot be known from
// here whether that is set.
const servicesAnnotation = "envoyfilter.istio.io/referenced-services"

// services is the object that names the services that filters of a workload call. It holds nothing else: with such an
// annotation istiod pushes on any touch of it.
func (e *Emitter) services(w Workload) []Object {
	if len(w.Services) == 0 {
		return nil
	}
	return []Object{e.envoyFilter(w.Workload, "services", priority, map[string]string{servicesAnnotation: strings.Join(w.Services, ",")}, nil)}
}

// keepServices names, besides the services that are wanted, those that are there: filters that call them still run.
func keepServices(o, live *networkingv1alpha3.EnvoyFilter) {
	wanted, there := o.Annotations[servicesAnnotation], live.Annotations[servicesAnnotation]
	if wanted == "" || there == "" {
		return
	}
	all := slices.Concat(strings.Split(wanted, ","), strings.Split(there, ","))
	slices.Sort(all)
	o.Annotations = maps.Clone(o.Annotations)
	o.Annotations[servicesAnnotation] = strings.Join(slices.Compact(all), ",")
}
