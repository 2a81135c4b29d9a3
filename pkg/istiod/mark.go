package istiod

import (
	"crypto/rand"
	"encoding/json"
	"fmt"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	wasm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	extensions "istio.io/api/extensions/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"
	types "istio.io/api/type/v1beta1"
	extensionsv1alpha1 "istio.io/client-go/pkg/apis/extensions/v1alpha1"
	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// MarkName is the name of both marks.
	MarkName = "istio-plugins-mark"
	// markResource is the name under which istiod serves the EnvoyFilter's content.
	markResource = "istio-plugins.mark"
	// markField holds the id in the config of the WasmPlugin.
	markField = "mark"
)

// probeLabels are what the marks select, so that no gateway gets them.
func probeLabels() map[string]string { return map[string]string{"istio-plugins/probe": "true"} }

// Mark is a point in the order of writes: once istiod has it, it has what was written before.
type Mark struct {
	// EnvoyFilter is to be written after the last EnvoyFilter.
	EnvoyFilter *networkingv1alpha3.EnvoyFilter
	// WasmPlugin is to be written after the last WasmPlugin; nil if that was not asked for.
	WasmPlugin *extensionsv1alpha1.WasmPlugin

	id string
	// written are the workloads, with the parts that are written before it.
	written map[string]Workload
}

func newMark(namespace string, wasmPlugins bool) (*Mark, error) {
	m := &Mark{id: rand.Text()}
	patch, err := structpb.NewStruct(map[string]any{
		"name":         markResource,
		"typed_config": map[string]any{"@type": "type.googleapis.com/google.protobuf.StringValue", "value": m.id},
	})
	if err != nil {
		return nil, err
	}
	m.EnvoyFilter = &networkingv1alpha3.EnvoyFilter{
		TypeMeta:   metav1.TypeMeta{APIVersion: "networking.istio.io/v1alpha3", Kind: "EnvoyFilter"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: MarkName},
	}
	// A spec holds a lock and must not be copied.
	spec := &m.EnvoyFilter.Spec
	// Istio's analysis complains about objects without a priority.
	spec.Priority = 1
	spec.WorkloadSelector = &networking.WorkloadSelector{Labels: probeLabels()}
	spec.ConfigPatches = []*networking.EnvoyFilter_EnvoyConfigObjectPatch{{
		ApplyTo: networking.EnvoyFilter_EXTENSION_CONFIG,
		Patch:   &networking.EnvoyFilter_Patch{Operation: networking.EnvoyFilter_Patch_ADD, Value: patch},
	}}
	if !wasmPlugins {
		return m, nil
	}
	config, err := structpb.NewStruct(map[string]any{markField: m.id})
	if err != nil {
		return nil, err
	}
	m.WasmPlugin = &extensionsv1alpha1.WasmPlugin{
		TypeMeta:   metav1.TypeMeta{APIVersion: "extensions.istio.io/v1alpha1", Kind: "WasmPlugin"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: MarkName},
	}
	m.WasmPlugin.Spec.Selector = &types.WorkloadSelector{MatchLabels: probeLabels()}
	m.WasmPlugin.Spec.Match = []*extensions.WasmPlugin_TrafficSelector{{Mode: types.WorkloadMode_SERVER, Ports: []*types.PortSelector{{Number: 1}}}}
	// Nobody loads it: the probe is no Envoy.
	m.WasmPlugin.Spec.Url = "file:///" + MarkName
	m.WasmPlugin.Spec.PluginConfig = config
	return m, nil
}

// markResources are the names that the probe asks for. That of a WasmPlugin depends on istiod's version: since 1.30 it is
// translated to a TrafficExtension.
func markResources(namespace string) []string {
	return []string{
		markResource,
		fmt.Sprintf("extensions.istio.io/wasmplugin/%s.%s", namespace, MarkName),
		fmt.Sprintf("extensions.istio.io/trafficextension/%s.%s~istio-translated-wasmplugin", namespace, MarkName),
	}
}

// markID reads a resource that istiod sent to the probe. It returns nothing for one that is not of this package's making.
func markID(resource *anypb.Any) (kind, id string) {
	extension := &core.TypedExtensionConfig{}
	if err := resource.UnmarshalTo(extension); err != nil {
		return "", ""
	}
	text := &wrapperspb.StringValue{}
	if err := extension.GetTypedConfig().UnmarshalTo(text); err == nil {
		return envoyFilter, text.GetValue()
	}
	filter := &wasm.Wasm{}
	if err := extension.GetTypedConfig().UnmarshalTo(filter); err != nil {
		return "", ""
	}
	if err := filter.GetConfig().GetConfiguration().UnmarshalTo(text); err != nil {
		return "", ""
	}
	config := map[string]string{}
	if err := json.Unmarshal([]byte(text.GetValue()), &config); err != nil {
		return "", ""
	}
	return wasmPlugin, config[markField]
}

// Kinds that have marks.
const (
	envoyFilter = "EnvoyFilter"
	wasmPlugin  = "WasmPlugin"
)

// kinds of the mark's objects.
func (m *Mark) kinds() []string {
	if m.WasmPlugin == nil {
		return []string{envoyFilter}
	}
	return []string{envoyFilter, wasmPlugin}
}
