package emit

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extauthz "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	localratelimit "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	envoytype "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/istio-plugins/istio-plugins/pkg/dispatch"
	"github.com/istio-plugins/istio-plugins/pkg/part"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
	"github.com/istio-plugins/istio-plugins/pkg/topology"
)

func anyOf(t *testing.T, m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// The structs must be what protobuf's own JSON mapping gives.
func TestStructsAreProtobufsJSON(t *testing.T) {
	metadata, err := structpb.NewStruct(map[string]any{"a": []any{1.5, "x", nil, true}, "b": map[string]any{}})
	if err != nil {
		t.Fatal(err)
	}
	messages := map[string]proto.Message{
		"scalars, enums, wrappers, durations": &localratelimit.LocalRateLimit{
			StatPrefix: "a\"\\\n%<",
			Status:     &envoytype.HttpStatus{Code: envoytype.StatusCode_TooManyRequests},
			TokenBucket: &envoytype.TokenBucket{
				MaxTokens: 4294967295, TokensPerFill: wrapperspb.UInt32(0), FillInterval: durationpb.New(1500 * time.Millisecond),
			},
			RequestHeadersToAddWhenNotEnforced: []*core.HeaderValueOption{{Header: &core.HeaderValue{Key: "k", Value: "v"}, AppendAction: core.HeaderValueOption_ADD_IF_ABSENT}},
		},
		"oneofs, bytes, structs, Any": &core.Node{
			Id: "a", Metadata: metadata, UserAgentVersionType: &core.Node_UserAgentVersion{UserAgentVersion: "1"},
			Extensions:        []*core.Extension{{Name: "x"}},
			DynamicParameters: nil,
		},
		"Any of a message, a wrapper and nothing": &core.TypedExtensionConfig{
			Name: "x", TypedConfig: anyOf(t, &core.TypedExtensionConfig{Name: "y", TypedConfig: anyOf(t, wrapperspb.String("inner"))}),
		},
		"an empty Any":             &core.TypedExtensionConfig{Name: "x", TypedConfig: &anypb.Any{}},
		"maps":                     &core.Metadata{FilterMetadata: map[string]*structpb.Struct{"a": metadata, "b": {}}},
		"empty message in a field": &core.ConfigSource{ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}}},
		"int64 and double":         &core.RuntimeDouble{DefaultValue: 0.25, RuntimeKey: "k"},
		"big numbers":              &extauthz.ExtAuthz{StatusOnError: &envoytype.HttpStatus{Code: 418}, MaxDeniedResponseBodyBytes: 7},
		"inline bytes":             &core.DataSource{Specifier: &core.DataSource_InlineBytes{InlineBytes: []byte{0, 255, 7}}},
	}
	for name, m := range messages {
		t.Run(name, func(t *testing.T) {
			text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			want := &structpb.Value{}
			if err := protojson.Unmarshal(text, want); err != nil {
				t.Fatal(err)
			}
			w := newStructWriter()
			got := w.write(m.ProtoReflect())
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
			// And it reads back as the same message.
			back := m.ProtoReflect().New().Interface()
			again, err := protojson.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			if err := protojson.Unmarshal(again, back); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(m, back, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
			if compact, _ := json.Marshal(json.RawMessage(again)); w.size(got) < len(compact) {
				t.Errorf("size %d, but %d bytes: %s", w.size(got), len(compact), compact)
			}
		})
	}
}

func workload(t *testing.T, plugins map[string]part.Wasm) Workload {
	options := snapshot.Options{}.Defaults()
	pool, left := dispatch.NewPool(plugins, dispatch.Numbers{}, SecretName(options))
	if len(left) > 0 {
		t.Fatal(left)
	}
	u := dispatch.Unit{Workload: "w", Pool: pool}
	narrow := u
	narrow.Name = "tls-1"
	return Workload{
		Workload: &topology.Workload{ID: "w", Selector: map[string]string{"istio": "ingressgateway"}},
		Unit:     u.Compile(), Pool: pool,
		Servers: []Server{{Name: "tls-1", Hosts: []string{"a.test"}, Unit: narrow.Compile()}},
	}
}

func TestEveryResourceIsInOneObject(t *testing.T) {
	w := workload(t, map[string]part.Wasm{"a": {URL: "oci://a"}, "b": {URL: "oci://b", ImagePullSecret: "s"}})
	objects := New(snapshot.Options{}.Defaults()).Objects(w)
	carried := map[string]string{}
	for _, o := range objects {
		for _, r := range o.Resources {
			if carried[r] != "" {
				t.Errorf("%s is in %s and %s: Envoy refuses a response with a name twice", r, carried[r], o.Name())
			}
			carried[r] = o.Name()
		}
		if o.Size > MaxObject {
			t.Errorf("%s has %d bytes", o.Name(), o.Size)
		}
	}
	want := 0
	for _, u := range []dispatch.Compiled{w.Unit, w.Servers[0].Unit} {
		for r := range u.Resources() {
			want++
			if carried[r.Name] == "" {
				t.Errorf("%s is nowhere", r.Name)
			}
		}
	}
	for _, r := range w.Pool.Resources("w") {
		want++
		if carried[r.Name] == "" {
			t.Errorf("%s is nowhere", r.Name)
		}
	}
	if len(carried) != want {
		t.Errorf("%d resources, want %d", len(carried), want)
	}
}

// istiod pushes to every proxy on any touch of an object with such a key.
func TestNoKeyContainsIstioIO(t *testing.T) {
	for _, o := range New(snapshot.Options{}.Defaults()).Objects(workload(t, map[string]part.Wasm{"a": {URL: "oci://a"}, "b": {URL: "oci://b", ImagePullSecret: "s"}})) {
		labels, annotations := map[string]string{}, map[string]string{}
		if o.EnvoyFilter != nil {
			labels, annotations = o.EnvoyFilter.Labels, o.EnvoyFilter.Annotations
		} else {
			labels, annotations = o.WasmPlugin.Labels, o.WasmPlugin.Annotations
		}
		if labels[snapshot.GeneratedLabel] != "true" {
			t.Errorf("%s is not marked as generated", o.Name())
		}
		for _, keys := range []map[string]string{labels, annotations} {
			for k := range keys {
				if strings.Contains(k, "istio.io") {
					t.Errorf("%s has the key %s", o.Name(), k)
				}
			}
		}
	}
}

func TestNumbersAreReadBack(t *testing.T) {
	w := workload(t, map[string]part.Wasm{"a": {URL: "oci://a"}, "b": {URL: "oci://b"}, "c": {URL: "oci://c", ImagePullSecret: "s"}})
	for _, o := range New(snapshot.Options{}.Defaults()).Objects(w) {
		if o.EnvoyFilter == nil || o.EnvoyFilter.Annotations == nil {
			continue
		}
		got := ReadNumbers([]*networkingv1alpha3.EnvoyFilter{o.EnvoyFilter}, "w")
		if fmt.Sprint(got) != "{map[a:0 b:1] map[c:0] 0 4}" {
			t.Errorf("got %v", got)
		}
		if other := ReadNumbers([]*networkingv1alpha3.EnvoyFilter{o.EnvoyFilter}, "x"); len(other.Open)+len(other.Secret) > 0 {
			t.Errorf("another workload has %v", other)
		}
		return
	}
	t.Error("no object has the numbers")
}

func TestSecretNameFollowsIstiosVersion(t *testing.T) {
	for version, want := range map[string]string{
		"1.29": "extensions.istio.io/wasmplugin/root.p",
		"1.30": "extensions.istio.io/trafficextension/root.p~istio-translated-wasmplugin",
		"1.31": "extensions.istio.io/trafficextension/root.p~istio-translated-wasmplugin",
	} {
		v, err := snapshot.ParseVersion(version)
		if err != nil {
			t.Fatal(err)
		}
		if got := SecretName(snapshot.Options{IstioVersion: v, RootNamespace: "root"})("p"); got != want {
			t.Errorf("%s: %s, want %s", version, got, want)
		}
	}
}
