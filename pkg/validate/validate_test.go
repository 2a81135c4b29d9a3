package validate

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/files"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// versions are the Envoys of the oldest and of the newest Istio that are supported.
var versions = []string{"1.37.0", "1.40.0"}

func binary(t *testing.T, version string) string {
	t.Helper()
	path, err := filepath.Abs("../../.bin/envoy-" + version)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("this test needs Envoy %s as .bin/envoy-%s: %v", version, version, err)
	}
	return path
}

const base = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ["*"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: shop
  annotations: {istio.io/plugins: "cors, bot-detection, key-auth, request-size-limiting, rate, hello, stamp, ask, slow"}
spec:
  hosts: [shop.example.com]
  gateways: [public]
  http:
  - route: [{destination: {host: shop}}]
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: rate}
spec:
  builtin: rate-limiting
  config: {minute: 100, hour: 1000}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: hello}
spec:
  lua:
    inline: |
      return {request = function(handle) handle:headers():add("x-hello", "100%") end}
---
# A cluster that istiod would make.
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: ask}
spec:
  envoy:
    typedConfig:
      "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
      transport_api_version: V3
      grpc_service: {envoy_grpc: {cluster_name: "outbound|9000||authz.shop.svc.cluster.local"}}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: stamp}
spec:
  envoy:
    typedConfig:
      "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
      mutations:
        request_mutations:
        - append: {header: {key: x-from, value: "%DOWNSTREAM_REMOTE_ADDRESS%"}}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: slow}
spec:
  envoy:
    typedConfig:
      "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
      stat_prefix: slow
      token_bucket: {max_tokens: 10, tokens_per_fill: 10, fill_interval: 1s}
`

func check(t *testing.T, path, text string) []string {
	t.Helper()
	s, err := files.Load(snapshot.Options{}, "", []string{files.Stdin}, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	r := compile.Compile(s)
	for _, f := range r.Findings {
		t.Fatalf("Envoy is not asked about what is not emitted: %s", f)
	}
	findings, err := Check(context.Background(), path, s, r)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, f := range findings {
		out = append(out, f.Source+" "+f.String())
	}
	return out
}

func TestEnvoyTakesWhatIsEmitted(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			if got := check(t, binary(t, version), base); len(got) > 0 {
				t.Errorf("Envoy refuses:\n%s", strings.Join(got, "\n"))
			}
		})
	}
}

func TestEnvoyRefusesWhatItsProtosAllow(t *testing.T) {
	const (
		limit = `local_ratelimit.v3.LocalRateLimit
      stat_prefix: slow
      token_bucket: {max_tokens: 10, tokens_per_fill: 10, fill_interval: 1s}`
		stamp = `header_mutation.v3.HeaderMutation
      mutations:
        request_mutations:
        - append: {header: {key: x-from, value: "%DOWNSTREAM_REMOTE_ADDRESS%"}}`
		keys = `jwt_authn.v3.JwtAuthentication
      providers: {p: {issuer: i, local_jwks: {inline_string: '`
	)
	bad := strings.NewReplacer(limit, keys+"no keys'}}}", stamp, keys+"{\"keys\": 1}'}}}").Replace(base)
	const effect = "a gateway that gets it keeps the whole table in which it is as it was, also for other routes; correct it before it is applied"
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			want := []string{
				"stdin:60 error InvalidEnvoyConfig plugin/default/slow:spec: Envoy " + version + " refuses it: Provider 'p' in jwt_authn config has invalid local jwks: Jwks is an invalid JSON; " + effect,
				"stdin:51 error InvalidEnvoyConfig plugin/default/stamp:spec: Envoy " + version + " refuses it: Provider 'p' in jwt_authn config has invalid local jwks: [keys] in Jwks is not an array; " + effect,
			}
			if diff := cmp.Diff(want, check(t, binary(t, version), bad)); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAProgramThatIsNoEnvoyIsAnError(t *testing.T) {
	for _, path := range []string{"/nonexistent/envoy", "/bin/true"} {
		if _, err := Check(context.Background(), path, &snapshot.Snapshot{}, &compile.Result{}); err == nil {
			t.Errorf("%s passes for an Envoy", path)
		}
	}
}

func TestAFailingEnvoyIsNoVerdict(t *testing.T) {
	script := filepath.Join(t.TempDir(), "envoy")
	if err := os.WriteFile(script, []byte("#!/bin/sh\ncase $1 in --version) echo version: abc/1.37.0/Clean;; *) kill -SEGV $$;; esac\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := files.Load(snapshot.Options{}, "", []string{files.Stdin}, strings.NewReader(base))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Check(context.Background(), script, s, compile.Compile(s)); err == nil {
		t.Error("an Envoy that crashes passes for one that has judged")
	}
}

func TestWhatEnvoySaysOfSecretsIsNotShown(t *testing.T) {
	plain := `
      "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
      stat_prefix: slow
      token_bucket: {max_tokens: 10, tokens_per_fill: 10, fill_interval: 1s}
`
	sealed := `
      "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
  configFrom: {secretKeyRef: {name: s, key: config}}
---
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {config: "providers: {c4nary: {issuer: i, local_jwks: {inline_string: no keys}}}"}
`
	bad := strings.Replace(base, plain, sealed, 1)
	got := strings.Join(check(t, binary(t, versions[0]), bad), "\n")
	if !strings.Contains(got, "its words are not shown, since they may quote values from Secrets") || strings.Contains(got, "c4nary") {
		t.Errorf("findings: %s", got)
	}
}
