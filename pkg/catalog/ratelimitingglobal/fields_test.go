package ratelimitingglobal

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"

	"github.com/istio-plugins/istio-plugins/pkg/config"
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
		"large":     parts(t, "large", of("count.test", `hour: 100, fault_tolerant: false`)),
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
			// What arrives meanwhile waits, too, be it more than Envoy buffers.
			body := strings.Repeat("b", 5<<20)
			for _, http2 := range []bool{false, true} {
				for _, unknown := range []bool{false, true} {
					a := envoy.Gateway("large").Do(t, envoytest.Request{Method: "POST", Body: body, HTTP2: http2, UnknownLength: unknown})
					wantStatus(t, "a large body", a, 200)
					if a.Upstream != nil && a.Upstream.Body != body {
						t.Errorf("%d bytes got upstream", len(a.Upstream.Body))
					}
				}
			}
			wantStatus(t, "impatient", envoy.Gateway("impatient").Get(t, "/"), 500)
		})
	}
}

// attached are parts as the compiler makes them for an entry.
func attached(t *testing.T, counter, text string) []part.Part {
	l := parts(t, "x", text)[0].(part.Lua)
	l.Config = config.Merge(l.Config, config.Value{"counter": counter})
	return []part.Part{l}
}

// Entries of one Plugin count for themselves, also in one chain, and each tells what it counted. Where all have one counter,
// a request counts once in it, however many entries it meets, unless they count it by different identities.
func TestEntriesOfOnePlugin(t *testing.T) {
	one, two := of("count.test", `day: 3`), of("count.test", `day: 3, scope: plugin`)
	login := part.Lua{Plugin: "login", Source: `return { request = function(handle) pdk.authenticate(handle, { id = "alice" }, "key", "login") end }`}
	chains := map[string][]part.Part{
		"first":        attached(t, "1", one),
		"both":         slices.Concat(attached(t, "1", one), attached(t, "2", one)),
		"all":          slices.Concat(attached(t, "all", two), attached(t, "all", two)),
		"all by two":   slices.Concat(attached(t, "all", two), []part.Part{login}, attached(t, "all", two)),
		"all of other": attached(t, "all", two),
	}
	onEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy, s *limitService) {
		for _, c := range []struct {
			chain     string
			status    int
			remaining string
			counts    int
		}{
			{"both", 200, "2", 2},
			{"first", 200, "2", 1}, // another VirtualService
			{"both", 200, "1", 2},
			{"all", 200, "2", 1},
			{"all of other", 200, "1", 1},
			{"all by two", 200, "0", 2},
			{"all", 429, "0", 1},
			{"both", 200, "0", 2},
			{"both", 429, "0", 1},
		} {
			before := len(s.asked)
			a := envoy.Gateway(c.chain).Get(t, "/")
			wantStatus(t, c.chain, a, c.status)
			if got := a.Header.Get("ratelimit-remaining"); got != c.remaining {
				t.Errorf("%s: remaining is %s, want %s", c.chain, got, c.remaining)
			}
			if got := s.asked[before:]; len(got) != c.counts {
				t.Errorf("%s: counted %q, want %d", c.chain, got, c.counts)
			}
		}
		if want := "plugin=2 window=day identity=default/both ip:127.0.0.1"; s.asked[1] != want {
			t.Errorf("the second entry asks %s, want %s", s.asked[1], want)
		}
	})
}

// The tighter of two entries in a chain is told, whichever it is.
func TestTheTighterEntryIsTold(t *testing.T) {
	text := of("count.test", `day: 9, scope: route`)
	chains := map[string][]part.Part{"c": slices.Concat(attached(t, "1", text), attached(t, "2", text))}
	onEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy, s *limitService) {
		identity := " window=day identity=default/c route:c ip:127.0.0.1"
		s.counts["plugin=1"+identity] = 5
		for _, remaining := range []string{"3", "2"} {
			if got := envoy.Gateway("c").Get(t, "/").Header.Get("x-ratelimit-remaining-day"); got != remaining {
				t.Errorf("remaining is %s, want %s", got, remaining)
			}
		}
		if got := s.counts["plugin=2"+identity]; got != 2 {
			t.Errorf("the second entry counted %d: %v", got, s.counts)
		}
	})
}
