package validate

import (
	"fmt"
	"maps"
	"slices"

	bootstrap "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	upstream "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// static is a whole Envoy configuration with the items as the HTTP filters of one listener, and the clusters that they
// name: a gateway gets those from istiod.
func static(items []item) *bootstrap.Bootstrap {
	clusters := map[string]bool{}
	manager := &hcm.HttpConnectionManager{
		StatPrefix:     "validate",
		RouteSpecifier: &hcm.HttpConnectionManager_RouteConfig{RouteConfig: &route.RouteConfiguration{Name: "none"}},
	}
	for i, it := range items {
		manager.HttpFilters = append(manager.HttpFilters, &hcm.HttpFilter{
			Name: fmt.Sprintf("item.%d", i), ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: it.config},
		})
		if m, err := it.config.UnmarshalNew(); err == nil {
			clusterNames(m.ProtoReflect(), clusters)
		}
	}
	manager.HttpFilters = append(manager.HttpFilters, &hcm.HttpFilter{
		Name: "router", ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: packed(&router.Router{})},
	})
	b := &bootstrap.Bootstrap{StaticResources: &bootstrap.Bootstrap_StaticResources{
		Listeners: []*listener.Listener{{
			Name: "validate",
			Address: &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
				Address: "127.0.0.1", PortSpecifier: &core.SocketAddress_PortValue{},
			}}},
			FilterChains: []*listener.FilterChain{{Filters: []*listener.Filter{{
				Name: "http", ConfigType: &listener.Filter_TypedConfig{TypedConfig: packed(manager)},
			}}}},
		}},
	}, LayeredRuntime: runtime()}
	for _, name := range slices.Sorted(maps.Keys(clusters)) {
		b.StaticResources.Clusters = append(b.StaticResources.Clusters, emptyCluster(name))
	}
	return b
}

// runtime is what of Istio's bootstrap decides what a gateway takes: Envoy's own limit for the size of a regular expression
// is 100.
func runtime() *bootstrap.LayeredRuntime {
	return &bootstrap.LayeredRuntime{Layers: []*bootstrap.RuntimeLayer{{
		Name: "static",
		LayerSpecifier: &bootstrap.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{Fields: map[string]*structpb.Value{
			"re2.max_program_size.error_level": structpb.NewNumberValue(32768),
		}}},
	}}}
}

// emptyCluster has no endpoints. It speaks HTTP/2, without which Envoy refuses it for gRPC.
func emptyCluster(name string) *cluster.Cluster {
	return &cluster.Cluster{
		Name: name, ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_STATIC},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed(&upstream.HttpProtocolOptions{
				UpstreamProtocolOptions: &upstream.HttpProtocolOptions_ExplicitHttpConfig_{
					ExplicitHttpConfig: &upstream.HttpProtocolOptions_ExplicitHttpConfig{
						ProtocolConfig: &upstream.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
							Http2ProtocolOptions: &core.Http2ProtocolOptions{},
						},
					},
				},
			}),
		},
	}
}

// clusterNames collects the values of all fields that name a cluster: Envoy's are called cluster or cluster_name.
func clusterNames(m protoreflect.Message, into map[string]bool) {
	if a, ok := m.Interface().(*anypb.Any); ok {
		if inner, err := a.UnmarshalNew(); err == nil {
			clusterNames(inner.ProtoReflect(), into)
		}
		return
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Kind() == protoreflect.StringKind && !f.IsList() && !f.IsMap() && (f.Name() == "cluster" || f.Name() == "cluster_name"):
			into[v.String()] = true
		case f.IsMap() && f.MapValue().Message() != nil:
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				clusterNames(v.Message(), into)
				return true
			})
		case f.IsList() && f.Message() != nil:
			for i := range v.List().Len() {
				clusterNames(v.List().Get(i).Message(), into)
			}
		case !f.IsMap() && !f.IsList() && f.Message() != nil:
			clusterNames(v.Message(), into)
		}
		return true
	})
}

func packed(m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	if err != nil {
		panic(err) // a message that was built can be encoded
	}
	return a
}
