package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/istio-plugins/istio-plugins/e2e/loopback"
)

// client asks a world's gateway. It keeps one connection to each of the gateway's servers.
type client struct {
	world world
	http  *http.Client
}

func newClient(w world) client {
	return client{world: w, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, loopback.Address(w.port))
		},
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // The gateway's certificates are signed by nobody.
	}}}
}

func (c client) close() { c.http.CloseIdleConnections() }

// ask returns the headers of a route's answer.
func (c client) ask(ctx context.Context, route int) (http.Header, error) {
	url := "http://gateway.test/"
	if c.world.tlsServers > 0 {
		// The server is chosen by this name, and is the same for all of its hosts.
		url = "https://gateway." + c.world.domain(route%c.world.tlsServers) + "/"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	request.Host = c.world.host(route)
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", request.Host, response.Status)
	}
	return response.Header, nil
}
