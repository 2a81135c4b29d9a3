package mechanism

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// wasmMechanism takes Istio's WasmPlugin fields over.
type wasmMechanism struct{}

func (wasmMechanism) build(_ *World, u Use) ([]part.Part, []Problem) {
	w := u.Spec.Wasm
	address, err := wasmURL(w.URL)
	if err != nil {
		return nil, []Problem{{Reason: finding.InvalidPlugin, Spec: "spec.wasm.url", Message: err.Error()}}
	}
	if w.ImagePullSecret != "" && !strings.HasPrefix(address, "oci://") {
		return nil, []Problem{{Reason: finding.InvalidPlugin, Spec: "spec.wasm.imagePullSecret", Message: "a pull secret needs an oci:// url"}}
	}
	out := part.Wasm{
		URL: address, SHA256: w.SHA256, ImagePullPolicy: w.ImagePullPolicy, ImagePullSecret: w.ImagePullSecret,
		PluginName: w.PluginName, FailStrategy: FailStrategy(u.Spec),
	}
	if len(u.Config) > 0 {
		out.Config = string(u.Config.JSON())
	}
	if w.VMConfig != nil {
		for _, e := range w.VMConfig.Env {
			out.Env = append(out.Env, part.WasmEnv{Name: e.Name, Value: e.Value, FromHost: e.ValueFrom == "HOST"})
		}
	}
	return []part.Part{out}, nil
}

// Fetches says whether gateways fetch a module for the plugin.
func Fetches(spec *pluginsv1alpha1.PluginSpec) bool {
	return spec.Wasm != nil && !strings.HasPrefix(spec.Wasm.URL, "file://")
}

// wasmURL is the url with its scheme; without one it is an OCI image, as in Istio's WasmPlugin.
func wasmURL(text string) (string, error) {
	address := text
	if !strings.Contains(text, "://") {
		address = "oci://" + text
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", fmt.Errorf("%q is no URL", text)
	}
	switch u.Scheme {
	case "oci":
		// The agent's own parser. What it refuses is told nobody but the agent's log.
		if _, err := name.ParseReference(u.Host + u.Path); err != nil {
			return "", fmt.Errorf("%q names no image: %w", text, err)
		}
	case "http", "https":
		if u.Host == "" {
			return "", fmt.Errorf("%q has no host", text)
		}
	case "file":
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") {
			return "", fmt.Errorf("%q must be file:///absolute/path, a file on the gateway", text)
		}
	default:
		return "", fmt.Errorf("scheme %q is not supported; oci, https, http and file are", u.Scheme)
	}
	return address, nil
}

// FailStrategy says what happens when the module of a Wasm plugin cannot be fetched or traps.
func FailStrategy(spec *pluginsv1alpha1.PluginSpec) string {
	switch {
	case spec.Wasm.FailStrategy != "":
		return spec.Wasm.FailStrategy
	case spec.FailurePolicy == pluginsv1alpha1.FailOpen:
		return "FAIL_OPEN"
	}
	// With FAIL_CLOSE one request that makes the module trap would be the end of its routes, until the next edit.
	return "FAIL_RELOAD"
}
