package cli

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/finding"
)

const largeGateway = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ["*"]
`

func largeService(name, annotation string) string {
	return fmt.Sprintf(`
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: %s
  namespace: demo
  annotations: {istio.io/plugins: %q}
spec:
  hosts: [%s.example.com]
  gateways: [istio-system/public]
  http:
  - route: [{destination: {host: shop}}]
`, name, annotation, name)
}

// largeReasons are the reasons of findings that need more objects than a reviewer would read.
func largeReasons(t *testing.T) map[finding.Reason]bool {
	t.Helper()
	wasm := largeGateway + `
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: waf, namespace: demo}
spec:
  wasm: {url: "oci://registry.example.com/waf:1.0"}
`
	for i := range 65 {
		wasm += largeService(fmt.Sprintf("s%d", i), fmt.Sprintf("[{name: waf, config: {number: %d}}]", i))
	}
	size := largeGateway
	for i := range 12 {
		size += largeService(fmt.Sprintf("s%d", i), fmt.Sprintf("p%d", i)) + fmt.Sprintf(`
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: p%d, namespace: demo}
spec:
  lua:
    inline: |
      -- %s
      return {}
`, i, strings.Repeat(fmt.Sprint(i%10), 120_000))
	}
	reasons := map[finding.Reason]bool{}
	for reason, text := range map[finding.Reason]string{finding.TooManyWasm: wasm, finding.DoesNotFit: size} {
		var stdout, stderr bytes.Buffer
		code := Main([]string{"lint", "-f", "-"}, strings.NewReader(text), &stdout, &stderr)
		if code != exitErrors {
			t.Errorf("%s: exit code %d: %s%s", reason, code, stdout.String(), stderr.String())
		}
		for line := range strings.Lines(stdout.String()) {
			reasons[finding.Reason(strings.Fields(line)[1])] = true
		}
	}
	return reasons
}
