package topology

import (
	"iter"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

// httpServer reads one server of a Gateway; false for one that carries no HTTP.
func httpServer(namespace string, server *networking.Server) (Server, bool) {
	var out Server
	protocol := strings.ToUpper(server.GetPort().GetProtocol())
	switch protocol {
	case "HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY":
		out.TLS = server.GetTls() != nil && !server.Tls.HttpsRedirect
	case "HTTPS":
		switch server.GetTls().GetMode() {
		case networking.ServerTLSSettings_PASSTHROUGH, networking.ServerTLSSettings_AUTO_PASSTHROUGH:
			return out, false
		}
		out.TLS = true
	default:
		return out, false
	}
	for _, h := range server.Hosts {
		host := Host{Namespace: "*", Name: h}
		if ns, name, ok := strings.Cut(h, "/"); ok {
			if ns == "." {
				ns = namespace
			}
			host = Host{Namespace: ns, Name: name}
		}
		host.Name = strings.ToLower(host.Name)
		out.Hosts = append(out.Hosts, host)
	}
	return out, true
}

// Serves says whether a server carries any host of a VirtualService.
func (s Server) Serves(v *VirtualService) bool {
	for _, h := range s.Hosts {
		if h.Namespace != "*" && h.Namespace != v.Namespace {
			continue
		}
		for _, host := range v.Object.Spec.Hosts {
			if host = strings.ToLower(host); covers(h.Name, host) || covers(host, h.Name) {
				return true
			}
		}
	}
	return false
}

// Serves says whether any server of the gateway carries any host of a VirtualService.
func (g *Gateway) Serves(v *VirtualService) bool {
	for range g.ServersOf(v) {
		return true
	}
	return false
}

// ServersOf are the numbers of the servers that carry any host of a VirtualService. A server may come more than once.
func (g *Gateway) ServersOf(v *VirtualService) iter.Seq[int] {
	return func(yield func(int) bool) {
		some := func(servers []int) bool {
			for _, i := range servers {
				if g.Servers[i].Serves(v) && !yield(i) {
					return false
				}
			}
			return true
		}
		if slices.ContainsFunc(v.Object.Spec.Hosts, isWild) {
			some(g.byHost.all)
			return
		}
		for _, host := range v.Object.Spec.Hosts {
			if !some(g.byHost.exact[strings.ToLower(host)]) {
				return
			}
		}
		some(g.byHost.wild)
	}
}

// serversByHost finds servers that may carry a host. A Gateway may have hundreds, and thousands of VirtualServices.
type serversByHost struct {
	exact     map[string][]int
	wild, all []int
}

func indexServers(servers []Server) serversByHost {
	x := serversByHost{exact: map[string][]int{}}
	for i, s := range servers {
		x.all = append(x.all, i)
		wild := false
		for _, h := range s.Hosts {
			wild = wild || isWild(h.Name)
			x.exact[h.Name] = append(x.exact[h.Name], i)
		}
		if wild {
			x.wild = append(x.wild, i)
		}
	}
	return x
}

func isWild(host string) bool { return strings.HasPrefix(host, "*") }

// covers says whether every host that b stands for is one that a stands for; `*` and `*.suffix` are wildcards.
func covers(a, b string) bool {
	if a == b || a == "*" {
		return true
	}
	suffix, wild := strings.CutPrefix(a, "*")
	return wild && strings.HasSuffix(b, suffix)
}
