// Package catalogtest is what tests of built-in plugins share.
package catalogtest

import (
	"slices"
	"strings"
	"testing"
	"time"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
	"github.com/istio-plugins/istio-plugins/pkg/registry"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// Build makes the parts of a use of a plugin, with a config in YAML, as the compiler does: through the schema, which also
// fills in defaults. Problems are written as `path: message`, warnings with `warning` in front.
func Build(t testing.TB, b *builtin.Builtin, use builtin.Use, text string) ([]part.Part, []string) {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	v, err := config.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	parts, problems := made(t, b, use, v)
	var lines []string
	for _, p := range problems {
		line := strings.TrimPrefix(p.Path+": "+p.Message, ": ")
		if p.Warning {
			line = "warning " + line
		}
		lines = append(lines, line)
	}
	return parts, lines
}

// Parts is Build for a config without errors.
func Parts(t testing.TB, b *builtin.Builtin, use builtin.Use, text string) []part.Part {
	t.Helper()
	parts, problems := Build(t, b, use, text)
	if slices.ContainsFunc(problems, func(p string) bool { return !strings.HasPrefix(p, "warning ") }) {
		t.Fatalf("%s: %v", text, problems)
	}
	return parts
}

// compile makes the parts of a config, unless the config is wrong.
func compile(b *builtin.Builtin, use builtin.Use, v config.Value) ([]part.Part, []builtin.Problem) {
	complete, problems := b.Schema.Check(v)
	if slices.ContainsFunc(problems, isError) {
		return nil, problems
	}
	parts, more := b.Build(use, complete)
	return parts, append(problems, more...)
}

func isError(p builtin.Problem) bool { return !p.Warning }

// OnEach runs a test on every version of Envoy, each with a listener for each chain.
func OnEach(t *testing.T, chains map[string][]part.Part, test func(t *testing.T, envoy *envoytest.Envoy)) {
	OnEachWith(t, envoytest.Config{Chains: chains}, test)
}

// OnEachWith is OnEach for plugins that call out.
func OnEachWith(t *testing.T, c envoytest.Config, test func(t *testing.T, envoy *envoytest.Envoy)) {
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			test(t, envoytest.Start(t, version, c))
		})
	}
}

// Services are ServiceEntries, each with an HTTP port 80 and a gRPC port 81.
func Services(hosts ...string) builtin.Services {
	s := &snapshot.Snapshot{}
	for _, host := range hosts {
		s.ServiceEntries = append(s.ServiceEntries, &networkingv1.ServiceEntry{Spec: networking.ServiceEntry{
			Hosts: []string{host},
			Ports: []*networking.ServicePort{{Number: 80, Protocol: "HTTP"}, {Number: 81, Protocol: "GRPC"}},
		}})
	}
	return registry.New(s)
}

// InOneSecond repeats a try until one has begun and ended in the same second, and fails for the error of that one. So a test
// can ask for what holds exactly now. Envoy's clock may be some milliseconds behind, so no try begins with a second.
func InOneSecond(t testing.TB, try func(now time.Time) error) {
	t.Helper()
	for {
		now := time.Now()
		if now.Nanosecond() < int(100*time.Millisecond) {
			continue
		}
		if err := try(now); time.Now().Unix() == now.Unix() {
			if err != nil {
				t.Error(err)
			}
			return
		}
	}
}
