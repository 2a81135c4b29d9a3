package mechanism

import (
	"fmt"
	"net/url"
	"strings"

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
		PluginName: w.PluginName, FailStrategy: failStrategy(w.FailStrategy, u.failOpen()),
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

// wasmURL is the url with its scheme; without one it is an OCI image, as in Istio's WasmPlugin.
func wasmURL(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", fmt.Errorf("%q is no URL", text)
	}
	if !strings.Contains(text, "://") {
		return "oci://" + text, nil
	}
	switch u.Scheme {
	case "oci", "http", "https":
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
	return text, nil
}

func failStrategy(set string, failOpen bool) string {
	switch {
	case set != "":
		return set
	case failOpen:
		return "FAIL_OPEN"
	}
	return "FAIL_CLOSE"
}
