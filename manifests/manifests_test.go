// Package manifests holds what is installed in a cluster. Roles are generated from markers beside the code that needs the
// rights (`make generate`), the ValidatingWebhookConfiguration by this test (`make golden`).
package manifests

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/yaml"

	"github.com/istio-plugins/istio-plugins/pkg/webhook"
)

const configurationFile = "webhook/configuration.yaml"

// TestConfiguration: API servers ask the webhooks about what the code says that they judge.
func TestConfiguration(t *testing.T) {
	configuration := webhook.Configuration("", admissionregistrationv1.WebhookClientConfig{
		Service: &admissionregistrationv1.ServiceReference{Namespace: "istio-system", Name: webhook.DefaultName},
	})
	document, err := json.Marshal(configuration)
	if err != nil {
		t.Fatal(err)
	}
	text, err := yaml.JSONToYAML(document)
	if err != nil {
		t.Fatal(err)
	}
	text = append([]byte("# Written by `make golden` from pkg/webhook/configuration.go.\n"), text...)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(configurationFile, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(configurationFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(file, text) {
		t.Errorf("%s is not up to date, UPDATE_GOLDEN=1 writes it anew, -want +got:\n%s", configurationFile, cmp.Diff(string(text), string(file)))
	}
}
