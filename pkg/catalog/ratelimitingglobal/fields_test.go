package ratelimitingglobal

import (
	"context"
	"net"
	"testing"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"

	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

func TestAllWindows(t *testing.T) {
	chains := map[string][]part.Part{"c": parts(t, "c", of("count.test", `second: 11, minute: 12, hour: 13, day: 14, month: 15, year: 16`))}
	onEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy, _ *limitService) {
		a := envoy.Gateway("c").Get(t, "/")
		wantStatus(t, "all windows", a, 200)
		for window, limit := range map[string]string{"second": "11", "minute": "12", "hour": "13", "day": "14", "month": "15", "year": "16"} {
			if got := a.Header.Get("x-ratelimit-limit-" + window); got != limit {
				t.Errorf("%s: %q, want %s", window, got, limit)
			}
		}
	})
}

func TestPath(t *testing.T) {
	chains := map[string][]part.Part{"c": parts(t, "c", of("count.test", `day: 1, limit_by: path, path: /limited`))}
	onEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy, _ *limitService) {
		for _, c := range []struct {
			path, ip string
			status   int
		}{{"/limited", "10.0.0.1", 200}, {"/limited", "10.0.0.2", 429}, {"/other", "10.0.0.1", 200}, {"/other", "10.0.0.2", 200}, {"/other", "10.0.0.2", 429}} {
			wantStatus(t, c.path+" from "+c.ip, envoy.Gateway("c").Get(t, c.path, "x-forwarded-for: "+c.ip), c.status)
		}
	})
}

// slowService takes longer than it has unless the config says otherwise.
type slowService struct{ *limitService }

func (s slowService) ShouldRateLimit(ctx context.Context, r *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	select {
	case <-time.After(500 * time.Millisecond):
		return s.limitService.ShouldRateLimit(ctx, r)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestTimeout(t *testing.T) {
	chains := map[string][]part.Part{
		"patient":   parts(t, "patient", of("count.test", `hour: 1, fault_tolerant: false`)),
		"impatient": parts(t, "impatient", `{service: {host: count.test, port: 81}, hour: 1, fault_tolerant: false}`),
	}
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := grpc.NewServer()
			rlsv3.RegisterRateLimitServiceServer(server, slowService{&limitService{limits: map[string]uint32{"plugins": 9}, counts: map[string]uint32{}}})
			go func() { _ = server.Serve(listener) }() // until Stop
			t.Cleanup(server.Stop)
			envoy := envoytest.Start(t, version, envoytest.Config{Chains: chains, HTTP2Clusters: map[string]string{"outbound|81||count.test": listener.Addr().String()}})
			wantStatus(t, "patient", envoy.Gateway("patient").Get(t, "/"), 200)
			wantStatus(t, "impatient", envoy.Gateway("impatient").Get(t, "/"), 500)
		})
	}
}
