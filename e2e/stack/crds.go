package stack

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// CRDs are the files of all definitions that the project works with: Istio's, its own (root is the repository), and
// Gateway API's ReferenceGrant. The first and the last come with the modules that this module requires.
func CRDs(root string) ([]string, error) {
	istio, err := moduleDir("istio.io/istio")
	if err != nil {
		return nil, err
	}
	gatewayAPI, err := moduleDir("sigs.k8s.io/gateway-api")
	if err != nil {
		return nil, err
	}
	return []string{
		filepath.Join(istio, "manifests/charts/base/files/crd-all.gen.yaml"),
		filepath.Join(gatewayAPI, "config/crd/standard/gateway.networking.k8s.io_referencegrants.yaml"),
		filepath.Join(root, "crds"),
	}, nil
}

// BootstrapTemplate is what Istio's agent makes Envoy's bootstrap from.
func BootstrapTemplate() (string, error) {
	istio, err := moduleDir("istio.io/istio")
	return filepath.Join(istio, "tools/packaging/common/envoy_bootstrap.json"), err
}

// moduleDir is where Go keeps the module's source.
func moduleDir(module string) (string, error) {
	text, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("go list -m %s: %w", module, err)
	}
	return strings.TrimSpace(string(text)), nil
}
