// Package registry finds the services that plugins call, by the rules by which istiod names their clusters. It knows the
// Services and ServiceEntries of a snapshot.
package registry

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// domain is the cluster's, unless a host is written with another one.
const domain = "cluster.local"

// exportAnnotation is what exportTo is for Services.
const exportAnnotation = "networking.istio.io/exportTo"

// Index is what there is to call. It is read when it is first asked, since most snapshots have no plugin that calls.
type Index struct {
	snapshot *snapshot.Snapshot
	services map[types.NamespacedName]*corev1.Service
	entries  map[string][]*networkingv1.ServiceEntry // by host
}

var _ builtin.Services = (*Index)(nil)

// New returns the index of a snapshot. It is not for several goroutines at once.
func New(s *snapshot.Snapshot) *Index { return &Index{snapshot: s} }

func (x *Index) read() {
	if x.services != nil {
		return
	}
	x.services = make(map[types.NamespacedName]*corev1.Service, len(x.snapshot.Services))
	for _, s := range x.snapshot.Services {
		x.services[types.NamespacedName{Namespace: s.Namespace, Name: s.Name}] = s
	}
	x.entries = map[string][]*networkingv1.ServiceEntry{}
	for _, e := range x.snapshot.ServiceEntries {
		for _, h := range e.Spec.Hosts {
			h = strings.ToLower(h)
			x.entries[h] = append(x.entries[h], e)
		}
	}
	for _, list := range x.entries {
		slices.SortFunc(list, func(a, b *networkingv1.ServiceEntry) int {
			return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
		})
	}
}

// Find implements builtin.Services. A host without a dot is a Service of the namespace, or else a ServiceEntry's; one with
// dots a ServiceEntry's, or else `name.namespace` of a Service, with or without `.svc` and the cluster's domain.
func (x *Index) Find(namespace, host string, port uint32) builtin.Service {
	x.read()
	host = strings.ToLower(host)
	entries := x.entries[host]
	labels := strings.Split(host, ".")
	if len(labels) == 1 {
		if s := x.services[types.NamespacedName{Namespace: namespace, Name: host}]; s != nil {
			return ofService(s, domain, port)
		}
	}
	if len(entries) > 0 {
		return ofEntries(host, entries, port)
	}
	if len(labels) == 1 {
		if namespace == "" {
			return builtin.Service{Missing: fmt.Sprintf("there is no ServiceEntry with the host %q; a Service is written with its namespace here, as %s.NAMESPACE", host, host)}
		}
		return builtin.Service{Missing: fmt.Sprintf("there is no Service %s/%s, nor a ServiceEntry with the host %q", namespace, host, host)}
	}
	if len(labels) > 2 && labels[2] != "svc" {
		return builtin.Service{Missing: fmt.Sprintf("there is no ServiceEntry with the host %q; a Service is written name.namespace.svc.%s", host, domain)}
	}
	s := x.services[types.NamespacedName{Namespace: labels[1], Name: labels[0]}]
	if s == nil {
		return builtin.Service{Missing: fmt.Sprintf("there is no Service %s/%s, nor a ServiceEntry with the host %q", labels[1], labels[0], host)}
	}
	in := domain
	if len(labels) > 3 {
		in = strings.Join(labels[3:], ".")
	}
	return ofService(s, in, port)
}

func ofService(s *corev1.Service, domain string, port uint32) builtin.Service {
	name := fmt.Sprintf("Service %s/%s", s.Namespace, s.Name)
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return builtin.Service{Missing: fmt.Sprintf("%s is an ExternalName, which has no cluster in a gateway: write a ServiceEntry for %s", name, s.Spec.ExternalName)}
	}
	var known []string
	for _, p := range s.Spec.Ports {
		if uint32(p.Port) == port {
			out := builtin.Service{Host: fmt.Sprintf("%s.%s.svc.%s", s.Name, s.Namespace, domain), HTTP2: servesHTTP2(p)}
			if text := s.Annotations[exportAnnotation]; text != "" {
				out.ExportedTo = exportedTo(strings.Split(text, ","), s.Namespace)
			}
			return out
		}
		known = append(known, fmt.Sprint(p.Port))
	}
	return noPort(name, port, known)
}

func ofEntries(host string, entries []*networkingv1.ServiceEntry, port uint32) builtin.Service {
	var known []string
	for _, e := range entries {
		for _, p := range e.Spec.Ports {
			if p.GetNumber() == port {
				return builtin.Service{Host: host, HTTP2: isHTTP2(p.GetProtocol()), ExportedTo: exportedTo(e.Spec.ExportTo, e.Namespace)}
			}
			known = append(known, fmt.Sprint(p.GetNumber()))
		}
	}
	return noPort(fmt.Sprintf("ServiceEntry %s/%s", entries[0].Namespace, entries[0].Name), port, known)
}

func noPort(name string, port uint32, known []string) builtin.Service {
	has := "none"
	if len(known) > 0 {
		has = strings.Join(known, ", ")
	}
	return builtin.Service{Missing: fmt.Sprintf("%s has no port %d; its ports: %s", name, port, has)}
}

// servesHTTP2 is istiod's selection of a protocol: appProtocol, or else the port's name up to the first dash.
func servesHTTP2(p corev1.ServicePort) bool {
	if p.AppProtocol != nil {
		return *p.AppProtocol == "kubernetes.io/h2c" || isHTTP2(*p.AppProtocol)
	}
	if strings.HasPrefix(strings.ToLower(p.Name), "grpc-web") {
		return true
	}
	protocol, _, _ := strings.Cut(p.Name, "-")
	return isHTTP2(protocol)
}

func isHTTP2(protocol string) bool {
	switch strings.ToUpper(protocol) {
	case "GRPC", "GRPC-WEB", "HTTP2":
		return true
	}
	return false
}

// exportedTo are the namespaces that know a service, with commas; empty for all.
func exportedTo(list []string, own string) string {
	var out []string
	for _, namespace := range list {
		switch namespace = strings.TrimSpace(namespace); namespace {
		case "*":
			return ""
		case ".":
			out = append(out, own)
		case "~":
			out = append(out, "none")
		default:
			out = append(out, namespace)
		}
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), ", ")
}
