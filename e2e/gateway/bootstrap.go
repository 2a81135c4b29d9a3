package gateway

import (
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	// xdsCluster is the name that istio-proxy's own bootstrap gives to istiod.
	xdsCluster = "xds-grpc"
	// certificatesCluster is the agent, whom istiod makes Envoy ask for certificates.
	certificatesCluster = "sds-grpc"
)

// bootstrap is the configuration of an Envoy that istiod takes for a gateway's pod. It is what Istio's agent would
// write, without what needs the agent: certificates, and Wasm modules from registries.
func bootstrap(o Options, adminPort int, xdsHost string, xdsPort int) ([]byte, error) {
	metadata, err := o.Node.metadata()
	if err != nil {
		return nil, err
	}
	extensions, err := wasmAtStart(o.Wasm)
	if err != nil {
		return nil, err
	}
	istiod, err := grpcCluster(xdsCluster, xdsHost, xdsPort)
	if err != nil {
		return nil, err
	}
	clusters := []*clusterv3.Cluster{istiod}
	if o.Certificates != 0 {
		certificates, err := grpcCluster(certificatesCluster, "127.0.0.1", o.Certificates)
		if err != nil {
			return nil, err
		}
		clusters = append(clusters, certificates)
	}
	return protojson.Marshal(&bootstrapv3.Bootstrap{
		Node:  &corev3.Node{Id: o.Node.id(), Cluster: o.Node.Name, Metadata: metadata},
		Admin: &bootstrapv3.Admin{Address: address("127.0.0.1", adminPort)},
		LayeredRuntime: &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
			// istio-proxy's own bound on regular expressions; Envoy's default refuses longer ones.
			Name: "static",
			LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{Fields: map[string]*structpb.Value{
				"re2.max_program_size.error_level": structpb.NewNumberValue(32768),
			}}},
		}}},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			LdsConfig: fromADS(),
			CdsConfig: fromADS(),
			AdsConfig: &corev3.ApiConfigSource{
				// As istio-proxy's, by default since Istio 1.22.
				ApiType:                   corev3.ApiConfigSource_DELTA_GRPC,
				TransportApiVersion:       corev3.ApiVersion_V3,
				SetNodeOnFirstMessageOnly: true,
				GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
					EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: xdsCluster},
				}}},
			},
		},
		BootstrapExtensions: extensions,
		StaticResources:     &bootstrapv3.Bootstrap_StaticResources{Clusters: clusters},
	})
}

// fromADS waits for istiod without limit, as istio-proxy does: a gateway without its listeners is not ready.
func fromADS() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
		InitialFetchTimeout:   durationpb.New(0),
	}
}

func grpcCluster(name, host string, port int) (*clusterv3.Cluster, error) {
	http2, err := anypb.New(&httpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &corev3.Http2ProtocolOptions{}},
		}},
	})
	if err != nil {
		return nil, err
	}
	endpoint := &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address(host, port)}}}
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(connectTimeout),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: name,
			Endpoints:   []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{endpoint}}},
		},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{string(proto.MessageName(&httpv3.HttpProtocolOptions{})): http2},
	}, nil
}

// wasmAtStart loads a module before Envoy's workers start. V8 guards its code by a memory protection key, where the CPU
// has them, and a thread that is older than the key may not run the code
// (https://github.com/denoland/rusty_v8/pull/2054). The public Envoy 1.37.0 makes the key with its first module, so
// without this it crashes when its first Wasm plugin arrives while it runs; 1.40.0 does not.
func wasmAtStart(module string) ([]*corev3.TypedExtensionConfig, error) {
	if module == "" {
		return nil, nil
	}
	service, err := anypb.New(&wasmv3.WasmService{
		Singleton: true,
		Config: &wasmv3.PluginConfig{
			Name: "first",
			Vm: &wasmv3.PluginConfig_VmConfig{VmConfig: &wasmv3.VmConfig{
				Runtime: "envoy.wasm.runtime.v8",
				Code: &corev3.AsyncDataSource{Specifier: &corev3.AsyncDataSource_Local{
					Local: &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: module}},
				}},
			}},
		},
	})
	if err != nil {
		return nil, err
	}
	return []*corev3.TypedExtensionConfig{{Name: "envoy.bootstrap.wasm", TypedConfig: service}}, nil
}

func address(host string, port int) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       host,
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}
