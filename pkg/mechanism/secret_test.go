package mechanism_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/catalog"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/consumer"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/mechanism"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

const canary = "c4nary%(7f3a"

// canaries are values with something in them that no message may show.
var canaries = []any{
	canary, canary + ":" + canary, "https://" + canary + "/", []any{canary}, []any{canary + ":1"}, []any{canary, canary},
	map[string]any{canary: canary}, []any{map[string]any{canary: canary}}, json.Number("-7390217"), json.Number("7390217.5"), json.Number("1e7390217"), true, nil,
}

var shown = regexp.MustCompile(`(?i)c4nary|7f3a|7390217`)

// TestNoMessageShowsWhatIsSecret puts values from Secrets into every field of every built-in, alone and below other fields.
func TestNoMessageShowsWhatIsSecret(t *testing.T) {
	nobody, _ := consumer.New(&snapshot.Snapshot{})
	world := &mechanism.World{Builtins: catalog.Find, Services: catalogtest.Services("authz.test"), Consumers: nobody}
	messages := 0
	for _, name := range catalog.Names() {
		b, _ := catalog.Find(name)
		for _, field := range b.Schema.Fields() {
			for _, value := range canaries {
				steps := strings.Split(strings.NewReplacer("[]", ".0", ".*", "."+canary).Replace(field.Path), ".")
				for _, public := range []config.Value{{}, {"minute": json.Number("-5")}} {
					real := config.Merge(public, nested(steps, value))
					sources := []config.Source{{Path: steps, Place: "spec.configPatches[0].valueFrom.secretKeyRef", Secret: "shop/s", Key: "k"}}
					_, problems := world.Build(mechanism.Use{
						Identity: "x", Name: "x", Spec: &pluginsv1alpha1.PluginSpec{Builtin: name}, Namespace: "shop", User: "shop", Config: real,
						Secrets: mechanism.Secrets{Sources: sources, Public: func() config.Value { return public }},
					})
					for _, p := range problems {
						messages++
						if text := fmt.Sprintf("%s %s %s %s", p.Reason, p.Config, p.Spec, p.Message); shown.MatchString(text) {
							t.Errorf("%s, %s: %v: %s", name, field.Path, value, text)
						}
					}
				}
			}
		}
	}
	if messages < 1000 {
		t.Errorf("only %d messages", messages)
	}
}

// nested is a config with a value at a path.
func nested(steps []string, v any) config.Value {
	for i := len(steps) - 1; i > 0; i-- {
		if steps[i] == "0" {
			v = []any{v}
		} else {
			v = map[string]any{steps[i]: v}
		}
	}
	return config.Value{steps[0]: v}
}
