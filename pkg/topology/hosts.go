package topology

import (
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
	for _, s := range g.Servers {
		if s.Serves(v) {
			return true
		}
	}
	return false
}

// covers says whether every host that b stands for is one that a stands for; `*` and `*.suffix` are wildcards.
func covers(a, b string) bool {
	if a == b || a == "*" {
		return true
	}
	suffix, wild := strings.CutPrefix(a, "*")
	return wild && strings.HasSuffix(b, suffix)
}
