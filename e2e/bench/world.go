package main

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/schema/gvk"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// attachment is how chains reach routes.
type attachment int

const (
	// unattached routes run nothing, and the gateway has no filters.
	unattached attachment = iota
	// dispatched is what this project does.
	dispatched
	// sharedTables is the same without tables of their own for TLS servers.
	sharedTables
	// The others scope filters by typed_per_filter_config. They differ in how a route's Lua gets its values: namedScripts
	// have them in the script, scriptContext hands them to the script, routeScripts are a script for each route.
	namedScripts
	scriptContext
	routeScripts
)

// world is a gateway and what it serves.
type world struct {
	// routes is the number of VirtualServices with the chain, each with one route and a host, in namespaces of 100.
	routes int
	// plain is the number of further ones without.
	plain int
	chain []step
	// ownValues gives every route another config for its Lua plugins.
	ownValues  bool
	attachment attachment
	// byRoute patches routes instead of virtual hosts, where filters are scoped by typed_per_filter_config.
	byRoute bool
	// tlsServers is the number of HTTPS servers; with none there is one plain server.
	tlsServers int
	port       int
}

const gatewayNamespace = "istio-system"

// host of a route. Routes are dealt out to the TLS servers in turn.
func (w world) host(route int) string {
	if w.tlsServers > 0 {
		return fmt.Sprintf("service-%d.%s", route, w.domain(route%w.tlsServers))
	}
	return fmt.Sprintf("service-%d.test", route)
}

func (w world) domain(server int) string { return fmt.Sprintf("server-%d.test", server) }

// hosts that run the chain, and those that do not.
func (w world) hosts() (chained, plain []string) {
	for i := range w.routes + w.plain {
		if i < w.routes {
			chained = append(chained, w.host(i))
		} else {
			plain = append(plain, w.host(i))
		}
	}
	return chained, plain
}

func secretName(server int) string { return fmt.Sprintf("server-%d", server) }

func (w world) gateway() *networkingv1.Gateway {
	g := &networkingv1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "public", Namespace: gatewayNamespace}}
	g.Spec.Selector = map[string]string{"istio": "ingressgateway"}
	for i := range w.tlsServers {
		g.Spec.Servers = append(g.Spec.Servers, &networking.Server{
			Bind:  "127.0.0.1",
			Port:  &networking.Port{Number: uint32(w.port), Name: fmt.Sprintf("https-%d", i), Protocol: "HTTPS"},
			Hosts: []string{"*." + w.domain(i)},
			Tls:   &networking.ServerTLSSettings{Mode: networking.ServerTLSSettings_SIMPLE, CredentialName: secretName(i)},
		})
	}
	if w.tlsServers == 0 {
		g.Spec.Servers = []*networking.Server{w.plainServer()}
	}
	return g
}

func (w world) plainServer() *networking.Server {
	return &networking.Server{
		Bind:  "127.0.0.1",
		Port:  &networking.Port{Number: uint32(w.port), Name: "http", Protocol: "HTTP"},
		Hosts: []string{"*"},
	}
}

// shown is the route whose answers show the request's headers, for the check that the chain runs.
const shown = 0

func (w world) virtualServices() []*networkingv1.VirtualService {
	var out []*networkingv1.VirtualService
	for i := range w.routes + w.plain {
		v := &networkingv1.VirtualService{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("service-%d", i), Namespace: fmt.Sprintf("team-%d", i/100)}}
		v.Spec.Hosts = []string{w.host(i)}
		v.Spec.Gateways = []string{gatewayNamespace + "/public"}
		route := &networking.HTTPRoute{Name: "main", DirectResponse: &networking.HTTPDirectResponse{
			Status: 200,
			Body:   &networking.HTTPBody{Specifier: &networking.HTTPBody_String_{String_: "ok"}},
		}}
		v.Spec.Http = []*networking.HTTPRoute{route}
		if i == shown {
			route.Headers = &networking.Headers{Response: &networking.Headers_HeaderOperations{Set: map[string]string{}}}
			for place := range w.chain {
				route.Headers.Response.Set[header(place)] = "%REQ(" + header(place) + ")%"
			}
		}
		if i < w.routes && (w.attachment == dispatched || w.attachment == sharedTables) {
			v.Annotations = map[string]string{"istio.io/plugins": annotation(w.chain, w.ownValues, i)}
		}
		out = append(out, v)
	}
	return out
}

// configs are the world's objects as istiod holds them.
func (w world) configs() ([]config.Config, error) {
	g, services := w.gateway(), w.virtualServices()
	out := []config.Config{{Meta: meta(gvk.Gateway, g.ObjectMeta), Spec: &g.Spec}}
	for _, v := range services {
		out = append(out, config.Config{Meta: meta(gvk.VirtualService, v.ObjectMeta), Spec: &v.Spec})
	}
	switch w.attachment {
	case unattached:
		return out, nil
	case dispatched, sharedTables:
		generated, err := w.generated(services)
		return append(out, generated...), err
	}
	return append(out, w.scoped()...), nil
}

// generated are the project's own objects.
func (w world) generated(services []*networkingv1.VirtualService) ([]config.Config, error) {
	g := w.gateway()
	if w.attachment == sharedTables {
		// What is emitted for one server holds everything, and is no other for more servers but for their own tables.
		g.Spec.Servers = []*networking.Server{w.plainServer()}
	}
	return generate(&snapshot.Snapshot{
		Gateways: []*networkingv1.Gateway{g}, VirtualServices: services, ClusterPlugins: plugins(w.chain),
	})
}

// generate compiles a snapshot in which nothing is wrong, to objects as istiod holds them.
func generate(s *snapshot.Snapshot) ([]config.Config, error) {
	r := compile.Compile(s)
	if len(r.Findings) > 0 {
		return nil, fmt.Errorf("the compilation has %d findings, the first is: %s", len(r.Findings), r.Findings[0])
	}
	var out []config.Config
	for _, o := range r.Objects {
		if o.EnvoyFilter == nil {
			return nil, fmt.Errorf("%s is no EnvoyFilter", o.Name())
		}
		// Generated objects share what is equal. Those that istiod gets from an API server share nothing.
		spec := proto.Clone(&o.EnvoyFilter.Spec)
		out = append(out, config.Config{Meta: meta(gvk.EnvoyFilter, o.EnvoyFilter.ObjectMeta), Spec: spec})
	}
	return out, nil
}

func meta(kind config.GroupVersionKind, m metav1.ObjectMeta) config.Meta {
	return config.Meta{GroupVersionKind: kind, Name: m.Name, Namespace: m.Namespace, Annotations: m.Annotations, Labels: m.Labels}
}
