package difference_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/difference"
	"github.com/istio-plugins/istio-plugins/pkg/files"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// BenchmarkCompare compares 10,000 VirtualServices of three routes and three plugins each, of which one changes.
func BenchmarkCompare(b *testing.B) {
	read := func(text string) *snapshot.Snapshot {
		s, err := files.Load(snapshot.Options{}, "demo", []string{"testdata/gateway.yaml", files.Stdin}, strings.NewReader(text))
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	one := func(i int, annotation string) string {
		return fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop-%d, annotations: {istio.io/plugins: %q}}
spec:
  hosts: [shop-%d.example.com]
  gateways: [istio-system/public]
  http:
  - {name: api, match: [{uri: {prefix: /api}}], route: [{destination: {host: shop}}]}
  - {name: admin, match: [{uri: {prefix: /admin}}], route: [{destination: {host: shop}}]}
  - route: [{destination: {host: shop}}]
`, i, annotation, i)
	}
	const annotation = "[cors, key-auth, {name: rate-limiting, config: {minute: %d}}]"
	var text strings.Builder
	for i := range 10_000 {
		text.WriteString(one(i, fmt.Sprintf(annotation, i+1)))
	}
	base := read(text.String())
	before, after := side(base), side(snapshot.Overlay(base, read(one(77, "cors"))))
	for b.Loop() {
		if d := difference.Compare(before, after, false); len(d.Routes) != 1 {
			b.Fatalf("%d changes", len(d.Routes))
		}
	}
}
