// Package manifest writes generated objects as the files that kubectl applies: apiVersion, kind, metadata and spec, and
// nothing that only a cluster knows. Equal objects have equal bytes.
package manifest

import (
	"encoding/json"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
	networking "istio.io/api/networking/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-plugins/istio-plugins/pkg/emit"
)

// Of is the object as JSON has it: maps, lists, strings, booleans, int64 or float64, and nil.
func Of(o emit.Object) map[string]any {
	if o.WasmPlugin != nil {
		return object(o.WasmPlugin.TypeMeta, o.WasmPlugin.ObjectMeta, decode(&o.WasmPlugin.Spec))
	}
	return object(o.EnvoyFilter.TypeMeta, o.EnvoyFilter.ObjectMeta, envoyFilter(&o.EnvoyFilter.Spec))
}

func object(typed metav1.TypeMeta, meta metav1.ObjectMeta, spec map[string]any) map[string]any {
	metadata := map[string]any{"name": meta.Name, "namespace": meta.Namespace}
	if len(meta.Labels) > 0 {
		metadata["labels"] = texts(meta.Labels)
	}
	if len(meta.Annotations) > 0 {
		metadata["annotations"] = texts(meta.Annotations)
	}
	return map[string]any{"apiVersion": typed.APIVersion, "kind": typed.Kind, "metadata": metadata, "spec": spec}
}

// envoyFilter takes the values of patches, which are nearly all of it, as they are: the way through text takes several
// times as long.
func envoyFilter(spec *networking.EnvoyFilter) map[string]any {
	out := decode(&networking.EnvoyFilter{WorkloadSelector: spec.WorkloadSelector, TargetRefs: spec.TargetRefs, Priority: spec.Priority})
	patches := make([]any, len(spec.ConfigPatches))
	for i, p := range spec.ConfigPatches {
		patch := decode(&networking.EnvoyFilter_EnvoyConfigObjectPatch{ApplyTo: p.ApplyTo, Match: p.Match})
		patch["patch"] = decode(&networking.EnvoyFilter_Patch{Operation: p.GetPatch().GetOperation(), FilterClass: p.GetPatch().GetFilterClass()})
		if v := p.GetPatch().GetValue(); v != nil {
			patch["patch"].(map[string]any)["value"] = structure(v)
		}
		patches[i] = patch
	}
	if len(patches) > 0 {
		out["configPatches"] = patches
	}
	return out
}

// decode goes through text because only Istio's messages themselves know their JSON. That text has random blanks,
// which decoding drops.
func decode(spec json.Marshaler) map[string]any {
	raw, err := spec.MarshalJSON()
	if err != nil {
		panic(err) // a message that was built can be encoded
	}
	fields := &structpb.Struct{}
	if err := protojson.Unmarshal(raw, fields); err != nil {
		panic(err) // an encoded message can be decoded
	}
	return structure(fields)
}

func structure(s *structpb.Struct) map[string]any {
	out := make(map[string]any, len(s.GetFields()))
	for k, v := range s.GetFields() {
		out[k] = value(v)
	}
	return out
}

func value(v *structpb.Value) any {
	switch k := v.GetKind().(type) {
	case *structpb.Value_StructValue:
		return structure(k.StructValue)
	case *structpb.Value_ListValue:
		out := make([]any, len(k.ListValue.GetValues()))
		for i, item := range k.ListValue.GetValues() {
			out[i] = value(item)
		}
		return out
	case *structpb.Value_StringValue:
		return k.StringValue
	case *structpb.Value_NumberValue:
		// Whole numbers are written as such: 1e+06 is not an integer to every reader of YAML.
		if n := int64(k.NumberValue); float64(n) == k.NumberValue {
			return n
		}
		return k.NumberValue
	case *structpb.Value_BoolValue:
		return k.BoolValue
	}
	return nil
}

func texts(in map[string]string) map[string]any {
	out := make(map[string]any, len(in))
	for k, v := range in {
		out[k] = v
	}
	return out
}
