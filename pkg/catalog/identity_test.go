package catalog_test

import (
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/catalog"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/consumer"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// No plugin that establishes a Consumer lets a client say who it is, in whatever spelling.
func TestIdentityIsNoClients(t *testing.T) {
	consumers, findings := consumer.New(&snapshot.Snapshot{Consumers: []*pluginsv1alpha1.Consumer{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "guest", UID: "uid-guest"}, Spec: pluginsv1alpha1.ConsumerSpec{Username: "guest"},
	}}})
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	chains := map[string][]part.Part{}
	for _, b := range catalog.All() {
		if slices.ContainsFunc(b.Schema.Fields(), func(f builtin.Field) bool { return f.Path == "anonymous" }) {
			chains[b.Name] = catalogtest.Parts(t, b, builtin.Use{Plugin: b.Name, Instance: "i", Namespace: "shop", Consumers: consumers}, `{anonymous: guest}`)
		}
	}
	if len(chains) < 4 {
		t.Fatalf("only %d plugins have anonymous consumers", len(chains))
	}
	var forged []string
	for _, name := range []string{
		"X-Consumer-ID", "x-consumer-custom-id", "X-CONSUMER-USERNAME", "x-credential-identifier", "X-Anonymous-Consumer", "X-Consumer-Groups",
	} {
		for _, spelling := range []string{name, strings.ReplaceAll(name, "-", "_"), strings.Replace(name, "-", "_", 1), strings.ReplaceAll(name, "-", ".")} {
			forged = append(forged, spelling+": forged", spelling+": forged again")
		}
	}
	// Names under which the runtime keeps things elsewhere mean nothing as headers.
	for _, name := range []string{"authenticated_by", "consumer_id", "plugins.istio.io", "istio-plugins.slot.1", "istio-plugins.saved", "istio-plugins.request"} {
		forged = append(forged, name+`: {"authenticated_by":"key-auth","consumer_id":"uid-root","consumer_username":"root"}`)
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for plugin := range chains {
			for _, http2 := range []bool{false, true} {
				header := forged
				if !http2 {
					// Nor can a client have the next hop remove them, as headers that concern one hop only.
					header = append(slices.Clone(forged), "Connection: x-consumer-id, x-consumer-username, x-anonymous-consumer")
				}
				got := envoy.Gateway(plugin).Do(t, envoytest.Request{Header: header, HTTP2: http2})
				if got.Upstream == nil || got.Upstream.Value("x-consumer-username") != "guest" || got.Upstream.Value("x-anonymous-consumer") != "true" ||
					got.Upstream.Value("x-consumer-id") != "uid-guest" || got.Upstream.Value("connection") != "" {
					t.Fatalf("%s: status %d, upstream %v", plugin, got.Status, got.Upstream)
				}
				for _, line := range got.Upstream.Header {
					if strings.Contains(line, "forged") {
						t.Errorf("%s: the upstream sees %s", plugin, line)
					}
				}
			}
		}
	})
}
