package mechanism

import (
	"maps"
	"reflect"
	"slices"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
)

// Seen is what a Build asked of the World, and what it was told. Everything that plugins can refer to is asked for here,
// so that who keeps a use knows for how long it is right.
type Seen struct {
	configMaps  []seenConfigMap
	credentials []*seenCredentials
	services    []seenService
}

type seenConfigMap struct {
	name  string
	data  map[string]string
	found bool
}

type seenCredentials struct {
	namespace string
	from      []string
	kind      string

	credentials *builtin.Credentials
	problems    []builtin.Problem
}

type seenService struct {
	namespace, host string
	port            uint32
	found           builtin.Service
}

// Noting is w, which notes in seen what is asked of it.
func (w *World) Noting(seen *Seen) *World {
	noting := *w
	noting.seen = seen
	return &noting
}

// Holds says whether a world, maybe of another time, would tell the same.
func (s *Seen) Holds(w *World) bool {
	for _, c := range s.configMaps {
		m := w.ConfigMaps[c.name]
		if (m != nil) != c.found || m != nil && !maps.Equal(m.Data, c.data) {
			return false
		}
	}
	for _, c := range s.services {
		if w.Services.Find(c.namespace, c.host, c.port) != c.found {
			return false
		}
	}
	for _, c := range s.credentials {
		credentials, problems := w.Consumers.In(c.namespace, c.from, c.kind)
		if credentials != c.credentials && !reflect.DeepEqual(credentials, c.credentials) || !reflect.DeepEqual(problems, c.problems) {
			return false
		}
		c.credentials = credentials // so that next time they are the same, and these can be forgotten
	}
	return true
}

// configMap is the data of a ConfigMap.
func (w *World) configMap(name string) (map[string]string, bool) {
	c := seenConfigMap{name: name}
	if m := w.ConfigMaps[name]; m != nil {
		c.data, c.found = m.Data, true
	}
	if w.seen != nil {
		w.seen.configMaps = append(w.seen.configMaps, c)
	}
	return c.data, c.found
}

// consumers are the world's, noting what is asked of them.
func (w *World) consumers() builtin.Consumers {
	if w.seen == nil {
		return w.Consumers
	}
	return notingConsumers{w}
}

type notingConsumers struct{ w *World }

func (n notingConsumers) In(namespace string, from []string, kind string) (*builtin.Credentials, []builtin.Problem) {
	credentials, problems := n.w.Consumers.In(namespace, from, kind)
	n.w.seen.credentials = append(n.w.seen.credentials, &seenCredentials{namespace, slices.Clone(from), kind, credentials, problems})
	return credentials, problems
}

// services are the world's, noting what is asked of them.
func (w *World) services() builtin.Services {
	if w.seen == nil {
		return w.Services
	}
	return notingServices{w}
}

type notingServices struct{ w *World }

func (n notingServices) Find(namespace, host string, port uint32) builtin.Service {
	found := n.w.Services.Find(namespace, host, port)
	n.w.seen.services = append(n.w.seen.services, seenService{namespace, host, port, found})
	return found
}
