package envoy_test

import (
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extauthz "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/istio-plugins/istio-plugins/pkg/envoy"
)

func TestServices(t *testing.T) {
	calls := func(cluster string) proto.Message {
		return &extauthz.ExtAuthz{StatPrefix: "outbound", Services: &extauthz.ExtAuthz_GrpcService{GrpcService: &core.GrpcService{
			TargetSpecifier: &core.GrpcService_EnvoyGrpc_{EnvoyGrpc: &core.GrpcService_EnvoyGrpc{ClusterName: cluster}},
		}}}
	}
	inside, err := anypb.New(calls("outbound|81|v1|b.test"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config proto.Message
		want   []string
	}{
		"istiod's cluster":  {calls("outbound|80||a.shop.svc.cluster.local"), []string{"a.shop.svc.cluster.local"}},
		"inside Any":        {&core.TypedExtensionConfig{Name: "x", TypedConfig: inside}, []string{"b.test"}},
		"a foreign cluster": {calls("xds-grpc"), nil},
		"an inbound one":    {calls("inbound|80||"), nil},
	} {
		if diff := cmp.Diff(c.want, envoy.Services(c.config)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
