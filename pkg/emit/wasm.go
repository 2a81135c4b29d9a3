package emit

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filterwasm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	wasm "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	extensions "istio.io/api/extensions/v1alpha1"
	apitype "istio.io/api/type/v1beta1"
	extensionsv1alpha1 "istio.io/client-go/pkg/apis/extensions/v1alpha1"
	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-plugins/istio-plugins/pkg/dispatch"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
	"github.com/istio-plugins/istio-plugins/pkg/topology"
)

// wasmTimeout is how long the gateway's agent tries to fetch a module. It is short because the agent holds back the
// whole ECDS response until then, so one hanging registry delays every change of the gateway.
const wasmTimeout = 10 * time.Second

// vmVariable tells the VMs of plugins with a pull secret apart.
const vmVariable = "ISTIO_PLUGINS_PLUGIN"

// SecretName returns the ECDS name under which istiod serves a WasmPlugin, which depends on its version: since 1.30
// it translates WasmPlugins to TrafficExtensions (istio.io/istio pilot/pkg/model/extensions.go and
// pilot/pkg/config/kube/extensions/translate.go).
func SecretName(o snapshot.Options) func(object string) string {
	return func(object string) string {
		if o.IstioVersion.Less(snapshot.Version{Major: 1, Minor: 30}) {
			return fmt.Sprintf("extensions.istio.io/wasmplugin/%s.%s", o.RootNamespace, object)
		}
		return fmt.Sprintf("extensions.istio.io/trafficextension/%s.%s~istio-translated-wasmplugin", o.RootNamespace, object)
	}
}

// pool is the object with all places of a workload's Wasm pool, and a WasmPlugin for each plugin with a pull secret.
func (e *Emitter) pool(w Workload) []Object {
	var out []Object
	var patches []patch
	for _, r := range w.Pool.Resources(w.Workload.ID) {
		switch {
		case r.Wasm == nil:
			patches = append(patches, e.resource(dispatch.Resource{Name: r.Name, Config: dispatch.DenyAll()}))
		case r.Secret:
			out = append(out, e.wasmPlugin(w.Workload, r))
		default:
			patches = append(patches, e.resource(dispatch.Resource{Name: r.Name, Config: wasmFilter(r)}))
		}
	}
	text, err := json.Marshal(w.Pool.Numbers())
	if err != nil {
		panic(err)
	}
	var annotations map[string]string
	if string(text) != "{}" {
		annotations = map[string]string{numbersAnnotation: string(text)}
	}
	return append(out, e.envoyFilter(w.Workload, "wasm", priority, annotations, patches))
}

// ReadNumbers returns the numbers that earlier emissions gave to the Wasm plugins of a workload.
func ReadNumbers(objects []*networkingv1alpha3.EnvoyFilter, workload string) dispatch.Numbers {
	var out dispatch.Numbers
	for _, o := range objects {
		if o.Labels[snapshot.GeneratedLabel] == "true" && o.Labels[workloadLabel] == workload && o.Annotations[numbersAnnotation] != "" {
			// What cannot be read was edited by hand; the numbers are then given anew.
			_ = json.Unmarshal([]byte(o.Annotations[numbersAnnotation]), &out)
		}
	}
	return out
}

// wasmFilter is the filter as istiod makes it of a WasmPlugin. The agent replaces a remote module by a local file, and
// reads and removes the ISTIO_META variables (istio.io/istio pkg/wasm/convert.go).
func wasmFilter(r dispatch.WasmResource) *filterwasm.Wasm {
	w := r.Wasm
	variables := &wasm.EnvironmentVariables{KeyValues: map[string]string{}}
	for _, v := range w.Env {
		if v.FromHost {
			variables.HostEnvKeys = append(variables.HostEnvKeys, v.Name)
		} else {
			variables.KeyValues[v.Name] = v.Value
		}
	}
	code := &core.AsyncDataSource{}
	if path, local := strings.CutPrefix(w.URL, "file://"); local {
		code.Specifier = &core.AsyncDataSource_Local{Local: &core.DataSource{Specifier: &core.DataSource_Filename{Filename: path}}}
	} else {
		if w.ImagePullPolicy != "" && w.ImagePullPolicy != "UNSPECIFIED_POLICY" {
			variables.KeyValues["ISTIO_META_WASM_IMAGE_PULL_POLICY"] = w.ImagePullPolicy
		}
		variables.KeyValues["ISTIO_META_WASM_PLUGIN_RESOURCE_VERSION"] = version(r)
		code.Specifier = &core.AsyncDataSource_Remote{Remote: &core.RemoteDataSource{
			HttpUri: &core.HttpUri{
				Uri: w.URL, Timeout: durationpb.New(wasmTimeout),
				HttpUpstreamType: &core.HttpUri_Cluster{Cluster: "_"}, // the agent's, required and not used
			},
			Sha256: w.SHA256,
		}}
	}
	config := &wasm.PluginConfig{
		Name:          r.Name,
		RootId:        w.PluginName,
		FailurePolicy: failurePolicy[w.FailStrategy],
		Vm: &wasm.PluginConfig_VmConfig{VmConfig: &wasm.VmConfig{
			VmId: w.VM, Runtime: "envoy.wasm.runtime.v8", Code: code, EnvironmentVariables: variables,
		}},
	}
	if w.Config != "" {
		text, err := anypb.New(wrapperspb.String(w.Config))
		if err != nil {
			panic(err)
		}
		config.Configuration = text
	}
	return &filterwasm.Wasm{Config: config}
}

// version changes with everything of a place. The agent fetches what is always to be pulled when this changes.
func version(r dispatch.WasmResource) string {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // it is text
	}
	return fmt.Sprintf("%016x", xxhash.Sum64(text))
}

var failurePolicy = map[string]wasm.FailurePolicy{
	"FAIL_CLOSE":  wasm.FailurePolicy_FAIL_CLOSED,
	"FAIL_OPEN":   wasm.FailurePolicy_FAIL_OPEN,
	"FAIL_RELOAD": wasm.FailurePolicy_FAIL_RELOAD,
}

// wasmPlugin is for an image with a pull secret, which istiod resolves for WasmPlugins only. It matches no listener
// (gateways are clients, and nothing listens on port 1), so that it runs nowhere but where a slot names it.
func (e *Emitter) wasmPlugin(t *topology.Workload, r dispatch.WasmResource) Object {
	w := r.Wasm
	o := &extensionsv1alpha1.WasmPlugin{
		TypeMeta:   metav1.TypeMeta{APIVersion: "extensions.istio.io/v1alpha1", Kind: "WasmPlugin"},
		ObjectMeta: e.meta(t, dispatch.SecretObject(t.ID, r.Number)),
	}
	spec := &o.Spec
	spec.Url = w.URL
	spec.Sha256 = w.SHA256
	spec.ImagePullPolicy = extensions.PullPolicy(extensions.PullPolicy_value[w.ImagePullPolicy])
	spec.ImagePullSecret = w.ImagePullSecret
	spec.PluginName = w.PluginName
	spec.FailStrategy = extensions.FailStrategy(extensions.FailStrategy_value[w.FailStrategy])
	spec.Match = []*extensions.WasmPlugin_TrafficSelector{{
		Mode: apitype.WorkloadMode_SERVER, Ports: []*apitype.PortSelector{{Number: 1}},
	}}
	if len(t.Selector) > 0 {
		spec.Selector = &apitype.WorkloadSelector{MatchLabels: t.Selector}
	}
	if w.Config != "" {
		spec.PluginConfig = &structpb.Struct{}
		if err := protojson.Unmarshal([]byte(w.Config), spec.PluginConfig); err != nil {
			panic(err) // it was a JSON object
		}
	}
	// istiod gives the VM no name, but its environment, too, makes it one of its own.
	spec.VmConfig = &extensions.VmConfig{Env: []*extensions.EnvVar{{Name: vmVariable, Value: w.VM}}}
	for _, v := range w.Env {
		env := &extensions.EnvVar{Name: v.Name, Value: v.Value, ValueFrom: extensions.EnvValueSource_INLINE}
		if v.FromHost {
			env.ValueFrom = extensions.EnvValueSource_HOST
		}
		spec.VmConfig.Env = append(spec.VmConfig.Env, env)
	}
	object := Object{WasmPlugin: o, Resources: []string{r.Name}, Size: len(w.Config) + 2048}
	was := e.objects.At(o.Name)
	if was.WasmPlugin == nil || !slices.Equal(was.Resources, object.Resources) || was.Size != object.Size || !Equal(object, was.Object) {
		*was = made{Object: object}
	}
	return was.Object
}
