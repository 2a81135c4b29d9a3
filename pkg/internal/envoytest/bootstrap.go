package envoytest

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	setstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	httpstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/istio-plugins/istio-plugins/pkg/lua"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// Upstream is the echoing upstream, for plugins that call it.
var Upstream = part.Service{Host: "upstream.test", Port: 80}

// OtherRoute is the prefix of the paths for which each listener has a route of another name.
const OtherRoute = "/other-route"

// bootstrap is the whole static configuration of an Envoy: all ports are chosen by the kernel.
func bootstrap(c Config, upstream string) (*bootstrapv3.Bootstrap, error) {
	clusters := []*clusterv3.Cluster{cluster(Upstream.Cluster(), upstream)}
	for _, name := range slices.Sorted(maps.Keys(c.Clusters)) {
		clusters = append(clusters, cluster(name, c.Clusters[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(c.HTTP2Clusters)) {
		clusters = append(clusters, http2(cluster(name, c.HTTP2Clusters[name])))
	}
	var listeners []*listenerv3.Listener
	for _, name := range slices.Sorted(maps.Keys(c.Chains)) {
		filters, err := chainFilters(c.Chains[name])
		if err != nil {
			return nil, fmt.Errorf("chain %s: %w", name, err)
		}
		listeners = append(listeners, listener(c, name, filters))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Values)) {
		listeners = append(listeners, listener(c, name, slotFilters(1, c.Values[name], program(c))))
	}
	b := &bootstrapv3.Bootstrap{
		Node:  &corev3.Node{Id: "envoytest", Cluster: "envoytest"},
		Admin: &bootstrapv3.Admin{Address: address("127.0.0.1", 0)},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{
			Listeners: listeners,
			Clusters:  clusters,
		},
		// As in Istio's bootstrap: Envoy's own limit is 100.
		LayeredRuntime: &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
			Name: "static",
			LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{Fields: map[string]*structpb.Value{
				"re2.max_program_size.error_level": structpb.NewNumberValue(32768),
			}}},
		}}},
	}
	return b, b.ValidateAll()
}

// program is the Lua program of all chains, for chains that are given as slot values.
func program(c Config) lua.Program {
	var parts []part.Lua
	for _, name := range slices.Sorted(maps.Keys(c.Chains)) {
		for _, p := range c.Chains[name] {
			if l, ok := p.(part.Lua); ok {
				parts = append(parts, l)
			}
		}
	}
	return lua.NewProgram(parts...)
}

// chainFilters lays a chain out: the slots of each run of adjacent Lua parts, and a filter for each native part.
func chainFilters(parts []part.Part) ([]*hcmv3.HttpFilter, error) {
	var filters []*hcmv3.HttpFilter
	var run []part.Lua
	slot := 0
	endRun := func() {
		for _, parts := range lua.Slots(run) {
			slot++
			entries := make([]lua.Entry, len(parts))
			for i, l := range parts {
				entries[i] = lua.EntryOf(l)
			}
			filters = append(filters, slotFilters(slot, lua.Chain(entries), lua.NewProgram(parts...))...)
		}
		run = nil
	}
	for i, p := range parts {
		switch p := p.(type) {
		case part.Lua:
			run = append(run, p)
		case part.Native:
			endRun()
			filters = append(filters, filter(fmt.Sprintf("native.%d", i), p.Config))
		default:
			return nil, fmt.Errorf("part %d is a %T, which only dispatch can place", i, p)
		}
	}
	endRun()
	return filters, nil
}

func slotFilters(slot int, value string, p lua.Program) []*hcmv3.HttpFilter {
	key := fmt.Sprintf("istio-plugins.slot.%d", slot)
	return []*hcmv3.HttpFilter{
		filter(key, &httpstatev3.Config{OnRequestHeaders: []*setstatev3.FilterStateValue{
			filterState(key, strings.ReplaceAll(value, "%", "%%")),
		}}),
		filter(fmt.Sprintf("istio-plugins.lua.%d", slot), &luav3.Lua{
			DefaultSourceCode: inline(p.FilterSource(key)),
			ClearRouteCache:   wrapperspb.Bool(false),
		}),
	}
}

func filterState(key, format string) *setstatev3.FilterStateValue {
	return &setstatev3.FilterStateValue{
		Key:        &setstatev3.FilterStateValue_ObjectKey{ObjectKey: key},
		FactoryKey: "envoy.string",
		Value: &setstatev3.FilterStateValue_FormatString{FormatString: &corev3.SubstitutionFormatString{
			Format:          &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: inline(format)},
			OmitEmptyValues: true,
		}},
	}
}

// listener accepts HTTP/1 and HTTP/2 without TLS and speaks to the upstream as the client speaks to it.
func listener(c Config, name string, filters []*hcmv3.HttpFilter) *listenerv3.Listener {
	virtualService := filter("virtual-service", &httpstatev3.Config{OnRequestHeaders: []*setstatev3.FilterStateValue{
		filterState(lua.VirtualServiceKey, "%METADATA(ROUTE:istio:config)%"),
	}})
	filters = append([]*hcmv3.HttpFilter{virtualService}, filters...)
	filters = append(filters, filter("router", &routerv3.Router{}))
	manager := &hcmv3.HttpConnectionManager{
		StatPrefix:       name,
		CodecType:        hcmv3.HttpConnectionManager_AUTO,
		HttpFilters:      filters,
		UseRemoteAddress: wrapperspb.Bool(true),
		// One trusted hop, so that a test chooses the client address by X-Forwarded-For.
		XffNumTrustedHops:   1,
		NormalizePath:       wrapperspb.Bool(true),
		HttpProtocolOptions: &corev3.Http1ProtocolOptions{EnableTrailers: true},
		// As istiod has it for all gateways.
		UpgradeConfigs: []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routes(name)},
	}
	if c.AccessLog != "" {
		manager.AccessLog = []*accesslogv3.AccessLog{accessLog(c)}
	}
	return &listenerv3.Listener{
		Name:    name,
		Address: address("127.0.0.1", 0),
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name:       "http",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(manager)},
		}}}},
	}
}

// accessLog writes to where Envoy logs.
func accessLog(c Config) *accesslogv3.AccessLog {
	l := &accesslogv3.AccessLog{
		Name: "stderr",
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: packed(&streamv3.StderrAccessLog{
			AccessLogFormat: &streamv3.StderrAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
				Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: inline(c.AccessLog + "\n")},
			}},
		})},
	}
	if c.AccessLogIf != "" {
		l.Filter = &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{
			ExtensionFilter: &accesslogv3.ExtensionFilter{
				Name: "envoy.access_loggers.extension_filters.cel",
				ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{
					TypedConfig: packed(&celv3.ExpressionFilter{Expression: c.AccessLogIf}),
				},
			},
		}}
	}
	return l
}

// routes is OtherRoute and one for everything else, with the metadata that istiod gives to a VirtualService's routes.
func routes(name string) *routev3.RouteConfiguration {
	config := "/apis/networking.istio.io/v1/namespaces/default/virtual-service/" + name
	route := func(name, prefix string) *routev3.Route {
		return &routev3.Route{
			Name:  name,
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: prefix}},
			Metadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
				"istio": {Fields: map[string]*structpb.Value{"config": structpb.NewStringValue(config)}},
			}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: Upstream.Cluster()},
			}},
		}
	}
	return &routev3.RouteConfiguration{
		Name: name,
		VirtualHosts: []*routev3.VirtualHost{{
			Name:    name,
			Domains: []string{"*"},
			Routes:  []*routev3.Route{route(name+" other", OtherRoute), route(name, "/")},
		}},
	}
}

func cluster(name, hostPort string) *clusterv3.Cluster {
	protocols := &upstreamv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstreamv3.HttpProtocolOptions_UseDownstreamProtocolConfig{
			UseDownstreamProtocolConfig: &upstreamv3.HttpProtocolOptions_UseDownstreamHttpConfig{
				HttpProtocolOptions:  &corev3.Http1ProtocolOptions{EnableTrailers: true},
				Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
			},
		},
	}
	return &clusterv3.Cluster{
		Name:                 name,
		ConnectTimeout:       durationpb.New(5 * time.Second),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: name,
			Endpoints:   endpoints(hostPort),
		},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed(protocols),
		},
	}
}

func endpoints(hostPort string) []*endpointv3.LocalityLbEndpoints {
	if hostPort == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		panic(err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		panic(err)
	}
	return []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: address(host, uint32(number)),
		}},
	}}}}
}

// http2 makes a cluster speak HTTP/2 whatever the client speaks.
func http2(c *clusterv3.Cluster) *clusterv3.Cluster {
	c.TypedExtensionProtocolOptions["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"] = packed(&upstreamv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
					Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
				},
			},
		},
	})
	return c
}

func filter(name string, config proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(config)}}
}

func packed(m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	return a
}

func inline(text string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: text}}
}

func address(host string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       host,
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}
