package suite

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/istio-plugins/istio-plugins/e2e/gateway"
)

// The marker tells when a change has reached Envoy. It is a server of its own on the gateway, with a VirtualService and
// an extension configuration that hold a number. istiod learns of objects of a kind in the order in which they were
// written, and sends Envoy all that it knows; so when Envoy has the number in both places, it has every VirtualService
// and EnvoyFilter that was written before.
const markerObjects = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: e2e-marker, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: ${MARKER_PORT}, name: http-marker, protocol: HTTP}
    bind: 127.0.0.1
    hosts: [istio-system/marker.e2e]
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: e2e-marker-listener, namespace: istio-system}
spec:
  priority: 1
  workloadSelector: {labels: {istio: ingressgateway}}
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      context: GATEWAY
      listener:
        portNumber: ${MARKER_PORT}
        filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.router}}}
    patch:
      operation: INSERT_BEFORE
      value:
        name: e2e-marker
        config_discovery:
          config_source: {ads: {}, initial_fetch_timeout: 5s, resource_api_version: V3}
          type_urls: [type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: e2e-marker, namespace: istio-system}
spec:
  hosts: [marker.e2e]
  gateways: [istio-system/e2e-marker]
  http:
  - directResponse: {status: 200, body: {string: "${MARKER}"}}
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: e2e-marker, namespace: istio-system}
spec:
  priority: 1
  workloadSelector: {labels: {istio: ingressgateway}}
  configPatches:
  - applyTo: EXTENSION_CONFIG
    patch:
      operation: ADD
      value:
        name: e2e-marker
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
          mutations:
            response_mutations:
            - append: {header: {key: x-e2e-marker, value: "${MARKER}"}}
`

// marker is the number that the objects hold, in a form that no other part of a configuration has.
func marker(number int) string { return fmt.Sprintf("e2e-marker-%d-", number) }

func markerAt(port, number int) ([]*unstructured.Unstructured, error) {
	return Parse([]byte(Variables{"MARKER_PORT": strconv.Itoa(port), "MARKER": marker(number)}.replace(markerObjects)))
}

// arrived returns nil when Envoy has the marker.
func arrived(ctx context.Context, g *gateway.Gateway, number int) error {
	for _, resource := range []string{"dynamic_route_configs", "ecds_filters"} {
		dump, err := g.ConfigDump(ctx, resource)
		if err != nil {
			return err
		}
		if !strings.Contains(string(dump), marker(number)) {
			return fmt.Errorf("%s of Envoy do not hold the latest change", resource)
		}
	}
	return nil
}
