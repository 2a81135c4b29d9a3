package ratelimitingglobal

import (
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// told is an answer of a service, as bytes.
type told struct {
	status int
	header string
	body   string
}

// counted is the answer of a service that has counted so many requests, of 100.
func counted(t *testing.T, code rlsv3.RateLimitResponse_Code, n uint32, more func(*rlsv3.RateLimitResponse)) string {
	t.Helper()
	r := &rlsv3.RateLimitResponse{Statuses: []*rlsv3.RateLimitResponse_DescriptorStatus{{
		Code: code, CurrentLimit: &rlsv3.RateLimitResponse_RateLimit{RequestsPerUnit: 100, Name: strings.Repeat("n", 300)}, LimitRemaining: 100 - n,
		DurationUntilReset: &durationpb.Duration{Seconds: 1},
	}}}
	if more != nil {
		more(r)
	}
	bytes, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return framed(string(bytes))
}

func framed(message string) string {
	n := len(message)
	return string([]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) + message
}

// oddService answers what it is told to.
func oddService(t *testing.T) (*atomic.Pointer[told], string) {
	t.Helper()
	answer := new(atomic.Pointer[told])
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		a := answer.Load()
		w.Header().Set("grpc-status", a.header)
		w.WriteHeader(a.status)
		_, _ = w.Write([]byte(a.body)) // Envoy may have gone
	})}
	go func() { _ = server.Serve(listener) }() // until Close
	t.Cleanup(func() { _ = server.Close() })
	return answer, listener.Addr().String()
}

// Whatever a service answers, it is understood, or it is a failure with a reason.
func TestAnswers(t *testing.T) {
	const ok, over = rlsv3.RateLimitResponse_OK, rlsv3.RateLimitResponse_OVER_LIMIT
	all := []struct {
		name string
		told told
		// want is the remaining requests, "refused", or what the log says of a failure.
		want string
	}{
		{"the first request", told{200, "0", counted(t, ok, 1, nil)}, "2"},
		{"the last one", told{200, "0", counted(t, ok, 3, nil)}, "0"},
		{"one too many", told{200, "0", counted(t, ok, 4, nil)}, "refused"},
		{"the service's own limit", told{200, "0", counted(t, over, 100, nil)}, "refused"},
		{"a limit of nothing", told{200, "0", counted(t, over, 100, func(r *rlsv3.RateLimitResponse) {
			r.Statuses[0].CurrentLimit.RequestsPerUnit, r.Statuses[0].LimitRemaining = 0, 0
		})}, "refused"},
		{"what else it may say", told{200, "0", counted(t, ok, 1, func(r *rlsv3.RateLimitResponse) {
			r.RawBody, r.OverallCode = []byte("no"), over
			r.DynamicMetadata = &structpb.Struct{Fields: map[string]*structpb.Value{"a": structpb.NewNumberValue(1)}}
			r.ResponseHeadersToAdd = []*corev3.HeaderValue{{Key: "x-said", Value: "1"}}
			r.Statuses = append(r.Statuses, r.Statuses[0])
		})}, "2"},
		{"fields that nobody knows", told{200, "0", counted(t, ok, 1, nil) + "\x7d1234\x79" + "12345678" + "\xf8\xff\xff\xff\x0f\x01"}, "2"},
		{"nothing", told{200, "0", ""}, "it gives no answer that can be read"},
		{"half a frame", told{200, "0", "\x00\x00"}, "it has no limit for the hour in the domain plugins"},
		{"a compressed message", told{200, "0", "\x01" + counted(t, ok, 1, nil)[1:]}, "it gives no answer that can be read"},
		{"an empty message", told{200, "0", framed("")}, "it has no limit for the hour in the domain plugins"},
		{"no limit", told{200, "0", framed("\x12\x02\x08\x01")}, "it has no limit for the hour in the domain plugins"},
		{"over no limit", told{200, "0", framed("\x12\x02\x08\x02")}, "it has no limit for the hour in the domain plugins"},
		{"a number without an end", told{200, "0", framed("\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")}, "it ends too early"},
		{"a text that is too long", told{200, "0", framed("\x12\x7f\x08\x01")}, "it ends too early"},
		{"a group", told{200, "0", framed("\x13\x14")}, "it is no protocol buffer"},
		{"a number for a message", told{200, "0", framed("\x10\x01")}, ""},
		{"a number for a limit", told{200, "0", framed("\x12\x04\x08\x01\x10\x05")}, ""},
		{"a message for a number", told{200, "0", framed("\x12\x08\x12\x02\x08\x64\x1a\x02\x08\x01")}, ""},
		{"a status of HTTP", told{404, "0", counted(t, ok, 1, nil)}, "it answers 404"},
		{"a status of gRPC", told{200, "8", counted(t, ok, 1, nil)}, "it answers grpc-status 8"},
		{"a status that is none", told{200, "no", counted(t, ok, 1, nil)}, "it answers grpc-status no"},
	}
	failOpen := builtin.Use{Plugin: "limit", Instance: "policy", FailOpen: true, Services: catalogtest.Services(hosts...)}
	chains := map[string][]part.Part{
		"policy": catalogtest.Parts(t, Builtin, failOpen, of("odd.test", `hour: 3, fault_tolerant: false`)),
		"open":   parts(t, "open", of("odd.test", `hour: 3`)),
		"closed": parts(t, "closed", of("odd.test", `hour: 3, fault_tolerant: false`)),
	}
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			answer, address := oddService(t)
			envoy := envoytest.Start(t, version, envoytest.Config{Chains: chains, HTTP2Clusters: map[string]string{"outbound|81||odd.test": address}})
			for _, c := range all {
				answer.Store(&c.told)
				for chain, failed := range map[string]int{"open": 200, "closed": 500, "policy": 500} {
					a := envoy.Gateway(chain).Get(t, "/")
					switch got := a.Header.Get("ratelimit-remaining"); {
					case c.want == "refused":
						if a.Status != 429 || a.Message() != "API rate limit exceeded" || got != "0" {
							t.Errorf("%s, %s: status %d, remaining %s, body %s", c.name, chain, a.Status, got, a.Body)
						}
					case len(c.want) == 1:
						if a.Status != 200 || got != c.want {
							t.Errorf("%s, %s: status %d, remaining %s, want %s", c.name, chain, a.Status, got, c.want)
						}
					default:
						if a.Status != failed || got != "" || len(limits(a.Header)) > 0 {
							t.Errorf("%s, %s: status %d, headers %v", c.name, chain, a.Status, a.Header)
						}
						if failed == 500 && (a.Message() != "An unexpected error occurred" || !strings.Contains(a.Body, `"request_id":"`) || a.Upstream != nil) {
							t.Errorf("%s, %s: body %s", c.name, chain, a.Body)
						}
						envoy.WaitLog(t, "rate limit service: "+c.want)
					}
				}
			}
		})
	}
}

// A service that is down for long does not fill the log.
func TestTheLogTellsOfChanges(t *testing.T) {
	chains := map[string][]part.Part{"open": parts(t, "open", of("odd.test", `hour: 3`))}
	down, broken, up := told{503, "14", ""}, told{200, "13", ""}, told{200, "0", counted(t, rlsv3.RateLimitResponse_OK, 1, nil)}
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			answer, address := oddService(t)
			envoy := envoytest.Start(t, version, envoytest.Config{Chains: chains, HTTP2Clusters: map[string]string{"outbound|81||odd.test": address}})
			for _, now := range []told{up, down, down, down, broken, broken, up, up, down} {
				answer.Store(&now)
				wantStatus(t, "any", envoy.Gateway("open").Get(t, "/"), 200)
			}
			const plugin = "plugin limit, route open: "
			want := []string{"it answers 503", "it answers grpc-status 13 ", "counted again", "it answers 503"}
			var got []string
			// A line may come after the answer of its request, so the last one is waited for.
			for end := time.Now().Add(20 * time.Second); len(got) < len(want) && time.Now().Before(end); runtime.Gosched() {
				got = nil
				for line := range strings.Lines(envoy.Log()) {
					if _, text, ours := strings.Cut(strings.TrimRight(line, "\n"), plugin); ours {
						got = append(got, strings.TrimPrefix(text, "not counted: rate limit service: "))
					}
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("the log (-want +got):\n%s", d)
			}
		})
	}
}
