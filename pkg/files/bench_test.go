package files_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/files"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// BenchmarkLoad reads 10,000 VirtualServices of three routes each; a CLI that reads a whole company's configuration
// should take a few seconds.
func BenchmarkLoad(b *testing.B) {
	var text strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&text, `---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: shop-%d
  namespace: team-%d
  annotations:
    istio.io/plugins: cors, key-auth
spec:
  hosts: [shop-%d.example.com]
  gateways: [istio-system/public]
  http:
  - name: api
    match: [{uri: {prefix: /api}}]
    route: [{destination: {host: shop, port: {number: 8080}}}]
  - name: admin
    match: [{uri: {prefix: /admin}}]
    route: [{destination: {host: shop, port: {number: 8080}}}]
  - route: [{destination: {host: shop, port: {number: 8080}}}]
`, i, i%100, i)
	}
	b.SetBytes(int64(text.Len()))
	for b.Loop() {
		s, err := files.Load(snapshot.Options{}, "", []string{files.Stdin}, strings.NewReader(text.String()))
		if err != nil || len(s.VirtualServices) != 10_000 {
			b.Fatal(err)
		}
	}
}
