package ratelimitingglobal

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/ratelimiting"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// hosts are a service that counts, others that do not, one where nobody listens, and one without a cluster.
var hosts = []string{"count.test", "hang.test", "broken.test", "wrong.test", "down.test", "unknown.test", "odd.test"}

func parts(t testing.TB, instance, text string) []part.Part {
	t.Helper()
	u := builtin.Use{Plugin: "limit", Instance: instance, Services: catalogtest.Services(hosts...)}
	return catalogtest.Parts(t, Builtin, u, text)
}

func TestConfig(t *testing.T) {
	const service = `service: {host: count.test, port: 81}`
	for _, c := range []struct {
		text string
		want []string
	}{
		{`{` + service + `, minute: 1}`, nil},
		{`{` + service + `, year: 1}`, nil},
		{`{minute: 1}`, []string{"service: is required"}},
		{`{` + service + `}`, []string{"needs at least one of second, minute, hour, day, month, year"}},
		{`{` + service + `, minute: 2, hour: 1}`, []string{"hour: 1 is less than the 2 of minute, so the limit per minute could never be reached"}},
		{`{` + service + `, minute: 1, limit_by: header}`, []string{"header_name: is required where limit_by is header"}},
		{`{` + service + `, minute: 1, domain: a b}`, []string{`domain: "a b" does not match ^[!-~]+$`}},
		{`{` + service + `, minute: 1, timeout: 0s}`, []string{"timeout: 0s is not between 1ms and 5m"}},
		{`{` + service + `, minute: 1, policy: redis}`, []string{"warning policy: has no meaning here and is ignored"}},
		{`{` + service + `, minute: 1, domain: ""}`, []string{`domain: "" does not match ^[!-~]+$`}},
		{`{` + service + `, minute: 1, domain: "` + strings.Repeat("d", 257) + `"}`, []string{"domain: must not be longer than 256 characters"}},
		{`{` + service + `, minute: 0, hour: 4294967296, day: 1.5, month: "5"}`, []string{
			"day: must be an integer, not a number", "hour: 4294967296 is too large, at most 4294967295",
			"minute: 0 is too small, at least 1", "month: must be an integer, not a string",
		}},
		{`{` + service + `, minutes: 1, hour: 2}`, []string{`minutes: unknown field, did you mean "minute"?`}},
		{`{` + service + `, minute: 1, max_identities: 5}`, []string{
			"max_identities: unknown field, known ones are day, domain, error_code, error_message, fault_tolerant, header_name, " +
				"hide_client_headers, hour, limit_by, minute, month, path, scope, second, service, timeout, year",
		}},
		{`{` + service + `, minute: 1, limit_by: user, scope: gateway, error_code: 399}`, []string{
			"error_code: 399 is too small, at least 400",
			`limit_by: "user" is not allowed, allowed are "consumer", "credential", "ip", "service", "header", "path"`,
			`scope: "gateway" is not allowed, allowed are "attachment", "route", "plugin"`,
		}},
		{`{` + service + `, minute: 1, error_code: 600, error_message: 5, hide_client_headers: 1, fault_tolerant: maybe}`, []string{
			"error_code: 600 is too large, at most 599", "error_message: must be a string, not a number",
			"fault_tolerant: must be a boolean, not a string", "hide_client_headers: must be a boolean, not a number",
		}},
		{`{` + service + `, minute: 1, limit_by: path}`, []string{"path: is required where limit_by is path"}},
		{`{` + service + `, minute: 1, limit_by: path, path: a}`, []string{`path: "a" does not match ^/`}},
		{`{` + service + `, minute: 1, limit_by: header, header_name: "a b"}`, []string{`header_name: "a b" is no valid http header name`}},
		{`{` + service + `, minute: 1, timeout: 5}`, []string{"timeout: must be a string, not a number"}},
		{`{` + service + `, minute: 1, timeout: "5"}`, []string{`timeout: "5" is no duration such as 250ms or 1.5s`}},
		{`{` + service + `, minute: 1, timeout: 301s}`, []string{"timeout: 301s is not between 1ms and 5m"}},
		{`{` + service + `, minute: 1, timeout: 500us}`, []string{"timeout: 500us is not between 1ms and 5m"}},
		{`{` + service + `, minute: 1, timeout: 1500us}`, []string{"timeout: 1500us has a fraction of a millisecond"}},
		{`{service: {host: "a b", port: 0}, minute: 1}`, []string{
			`service.host: "a b" does not match ^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?$`, "service.port: 0 is too small, at least 1",
		}},
		{`{service: {host: count.test, port: 65536, name: a}, minute: 1}`, []string{
			"service.name: unknown field, known ones are host, port", "service.port: 65536 is too large, at most 65535",
		}},
		{`{service: count.test, minute: 1}`, []string{"service: must be a map, not a string"}},
		{`{service: {host: count.test}, minute: 1}`, []string{"service.port: is required"}},
		{`{service: {host: count.test, port: 82}, minute: 1}`, []string{"service: ServiceEntry / has no port 82; its ports: 80, 81"}},
		{`{service: {host: count.test, port: 80}, minute: 1}`, []string{"warning service.port: port 80 of count.test is not declared to be gRPC, and gateways speak HTTP/1.1 to it: give the port appProtocol grpc, or a name such as grpc-check"}},
		{`{service: {host: gone.test, port: 81}, minute: 1}`, []string{`service: there is no Service test/gone, nor a ServiceEntry with the host "gone.test"`}},
	} {
		_, got := catalogtest.Build(t, Builtin, builtin.Use{Services: catalogtest.Services(hosts...)}, c.text)
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.text, d)
		}
	}
	calls := parts(t, "a", `{`+service+`, minute: 1}`)[0].(part.Lua).Services
	if d := cmp.Diff(map[string]part.Service{"limits": {Host: "count.test", Port: 81}}, calls); d != "" {
		t.Errorf("services (-want +got):\n%s", d)
	}
}

// limitService is a rate limit service. Its windows do not end.
type limitService struct {
	rlsv3.UnimplementedRateLimitServiceServer
	limits map[string]uint32 // by domain
	mu     sync.Mutex
	counts map[string]uint32
	asked  []string
	fail   func(context.Context) error
}

func (s *limitService) ShouldRateLimit(ctx context.Context, r *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	if s.fail != nil {
		return nil, s.fail(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OK}
	for _, d := range r.GetDescriptors() {
		code, of := rlsv3.RateLimitResponse_OK, &rlsv3.RateLimitResponse_DescriptorStatus{}
		if most := s.limits[r.GetDomain()]; most > 0 {
			key := descriptorText(d)
			s.asked = append(s.asked, key)
			s.counts[key] += max(1, r.GetHitsAddend())
			of.CurrentLimit = &rlsv3.RateLimitResponse_RateLimit{RequestsPerUnit: most, Name: "n"}
			of.DurationUntilReset = &durationpb.Duration{Seconds: 300, Nanos: 1}
			if n := s.counts[key]; n > most {
				code = rlsv3.RateLimitResponse_OVER_LIMIT
				out.OverallCode = code
			} else {
				of.LimitRemaining = most - n
			}
		}
		of.Code = code
		out.Statuses = append(out.Statuses, of)
	}
	return out, nil
}

func descriptorText(d *ratelimitv3.RateLimitDescriptor) string {
	var entries []string
	for _, e := range d.GetEntries() {
		entries = append(entries, e.GetKey()+"="+e.GetValue())
	}
	return strings.Join(entries, " ")
}

func count(t *testing.T, fail func(context.Context) error) (*limitService, string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, server := &limitService{limits: map[string]uint32{"plugins": math.MaxUint32, "low": 1}, counts: map[string]uint32{}, fail: fail}, grpc.NewServer()
	rlsv3.RegisterRateLimitServiceServer(server, s)
	go func() { _ = server.Serve(listener) }() // until Stop
	t.Cleanup(server.Stop)
	return s, listener.Addr().String()
}

// onEach runs a test on each version, with a service of its own.
func onEach(t *testing.T, chains map[string][]part.Part, test func(*testing.T, *envoytest.Envoy, *limitService)) {
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s, address := count(t, nil)
			_, hang := count(t, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
			_, broken := count(t, func(context.Context) error { return status.Error(codes.Internal, "no Redis") })
			protocols := &http.Protocols{}
			protocols.SetUnencryptedHTTP2(true)
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			wrong := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("\x00\x00\x00\x00\x02\x12\xff")) })}
			go func() { _ = wrong.Serve(listener) }() // until Close
			t.Cleanup(func() { _ = wrong.Close() })
			test(t, envoytest.Start(t, version, envoytest.Config{Chains: chains, HTTP2Clusters: map[string]string{
				"outbound|81||count.test": address, "outbound|81||hang.test": hang, "outbound|81||broken.test": broken,
				"outbound|81||wrong.test": listener.Addr().String(), "outbound|81||down.test": envoytest.Nobody,
			}}), s)
		})
	}
}

func of(host, more string) string {
	return `{service: {host: ` + host + `, port: 81}, timeout: 5s, ` + more + `}`
}

// limits are the headers that tell a client of its limits, but for those that say when.
func limits(h http.Header) map[string]string {
	out := map[string]string{}
	for name := range h {
		lower := strings.ToLower(name)
		if strings.Contains(lower, "ratelimit") && lower != "ratelimit-reset" || lower == "retry-after" {
			out[lower] = h.Get(name)
		}
	}
	return out
}

func seconds(t *testing.T, a *envoytest.Answer, name string) int {
	t.Helper()
	n, err := strconv.Atoi(a.Header.Get(name))
	if err != nil {
		t.Fatalf("header %s: %v", name, err)
	}
	return n
}

func wantStatus(t *testing.T, what string, a *envoytest.Answer, status int) {
	t.Helper()
	if a.Status != status || (a.Upstream != nil) != (status == 200) {
		t.Errorf("%s: status %d %s, upstream %v; want %d", what, a.Status, a.Body, a.Upstream != nil, status)
	}
}

func TestLimits(t *testing.T) {
	chains := map[string][]part.Part{
		"a":      parts(t, "a", of("count.test", `minute: 2, day: 300`)),
		"hidden": parts(t, "hidden", of("count.test", `year: 1, hide_client_headers: true, error_code: 420, error_message: 'slow "down"'`)),
		"twice":  append(parts(t, "t1", of("count.test", `hour: 3`)), parts(t, "t2", of("count.test", `hour: 1`))...),
		"low":    parts(t, "low", of("count.test", `hour: 3, domain: low`)),
		"local":  append(parts(t, "l1", of("count.test", `hour: 1`)), catalogtest.Parts(t, ratelimiting.Builtin, builtin.Use{Plugin: "local", Instance: "l2"}, `{hour: 2}`)...),
	}
	onEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy, s *limitService) {
		gateway := envoy.Gateway("a")
		for i, remaining := range []string{"1", "0"} {
			a := gateway.Get(t, "/")
			wantStatus(t, fmt.Sprint("request ", i), a, 200)
			want := map[string]string{
				"x-ratelimit-limit-minute": "2", "x-ratelimit-remaining-minute": remaining,
				"x-ratelimit-limit-day": "300", "x-ratelimit-remaining-day": fmt.Sprint(299 - i),
				"ratelimit-limit": "2", "ratelimit-remaining": remaining,
			}
			if d := cmp.Diff(want, limits(a.Header)); d != "" {
				t.Errorf("request %d: headers (-want +got):\n%s", i, d)
			}
			if got := seconds(t, a, "ratelimit-reset"); got != 301 {
				t.Errorf("reset is %d", got)
			}
		}
		a := gateway.Get(t, "/")
		wantStatus(t, "third request", a, 429)
		if a.Message() != "API rate limit exceeded" || !strings.Contains(a.Body, `"request_id"`) || seconds(t, a, "retry-after") != 301 {
			t.Errorf("%s %v", a.Body, a.Header)
		}
		call := envoytest.Request{Method: "POST", Path: "/a.B/C", HTTP2: true, Header: []string{"content-type: application/grpc", "te: trailers"}, Body: "\x00\x00\x00\x00\x00"}
		if a := gateway.Do(t, call); a.Status != 200 || a.Header.Get("grpc-status") != "8" || a.Header.Get("grpc-message") != "API rate limit exceeded" {
			t.Errorf("a gRPC call: %d %v", a.Status, a.Header)
		} else if got := a.Header.Get("x-ratelimit-remaining-day"); got != "296" {
			t.Errorf("requests that the minute refuses count in the day, too: of 300, %s remain after 4", got)
		}
		if a := gateway.Do(t, envoytest.Request{Method: "HEAD"}); a.Status != 429 || a.Body != "" || a.Header.Get("retry-after") != "301" {
			t.Errorf("HEAD: %d %s %v", a.Status, a.Body, a.Header)
		}
		key := builtin.Use{Instance: "a"}.Key()
		want := []string{
			"plugin=" + key + " window=minute identity=default/a ip:127.0.0.1",
			"plugin=" + key + " window=day identity=default/a ip:127.0.0.1",
		}
		if d := cmp.Diff(want, s.asked[:2]); d != "" {
			t.Errorf("the service is asked (-want +got):\n%s", d)
		}

		wantStatus(t, "hidden", envoy.Gateway("hidden").Get(t, "/"), 200)
		a = envoy.Gateway("hidden").Get(t, "/")
		if len(limits(a.Header)) > 0 || a.Status != 420 || a.Message() != `slow "down"` {
			t.Errorf("hidden: %d %s %v", a.Status, a.Body, a.Header)
		}

		a = envoy.Gateway("twice").Get(t, "/")
		wantStatus(t, "two Plugins", a, 200)
		if got := a.Header.Get("ratelimit-limit") + a.Header.Get("ratelimit-remaining"); got != "10" {
			t.Errorf("of two the tighter is told: %v", a.Header)
		}
		wantStatus(t, "two Plugins, one refuses", envoy.Gateway("twice").Get(t, "/"), 429)

		for _, status := range []int{200, 429} {
			a = envoy.Gateway("low").Get(t, "/")
			wantStatus(t, "the service has a lower limit", a, status)
			if got := a.Header.Get("ratelimit-limit") + a.Header.Get("ratelimit-remaining"); got != "10" {
				t.Errorf("the service has a lower limit: %v", a.Header)
			}
		}

		a = envoy.Gateway("local").Get(t, "/")
		wantStatus(t, "a local one behind it", a, 200)
		if got := a.Header.Get("ratelimit-limit") + a.Header.Get("ratelimit-remaining"); got != "10" {
			t.Errorf("of two the tighter is told: %v", a.Header)
		}
		a = envoy.Gateway("local").Get(t, "/")
		wantStatus(t, "a local one behind it, again", a, 429)
		if got := a.Header.Get("x-ratelimit-remaining-hour"); got != "0" || a.Header.Get("retry-after") == "" {
			t.Errorf("%v", a.Header)
		}
		if log := envoy.Log(); strings.Contains(log, "istio-plugins: ") || strings.Contains(log, "script log") {
			t.Errorf("something failed:\n%s", log)
		}
	})
}

// Replicas share what they count, and so do routes where scope says so.
func TestSharing(t *testing.T) {
	chains := map[string][]part.Part{}
	for _, scope := range []string{"attachment", "route", "plugin"} {
		for _, virtualService := range []string{" one", " two"} {
			chains[scope+virtualService] = parts(t, scope, of("count.test", `day: 1, scope: `+scope))
		}
	}
	s, address := count(t, nil)
	for i, version := range envoytest.Versions {
		envoy := envoytest.Start(t, version, envoytest.Config{Chains: chains, HTTP2Clusters: map[string]string{"outbound|81||count.test": address}})
		for _, scope := range []string{"attachment", "route", "plugin"} {
			for j, virtualService := range []string{" one", " two"} {
				want := 200
				if i > 0 || scope == "plugin" && j > 0 {
					want = 429
				}
				wantStatus(t, version+" "+scope+virtualService, envoy.Gateway(scope+virtualService).Get(t, "/"), want)
			}
		}
	}
	if len(s.counts) != 5 {
		t.Errorf("counters %v", s.counts)
	}
}

// Whatever an identity holds, it has a counter of its own, and the service a question that it can read.
func TestIdentities(t *testing.T) {
	chains := map[string][]part.Part{"c": parts(t, "c", of("count.test", `day: 1, limit_by: header, header_name: X-Key`))}
	onEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy, s *limitService) {
		keys := []string{"", "a", "a b", "a=b", "ä", "\xff\xfe", strings.Repeat("a", 5000), strings.Repeat("a", 5001), "%s", "ip:127.0.0.1"}
		for _, status := range []int{200, 429} {
			for _, key := range keys {
				wantStatus(t, fmt.Sprintf("%.20q", key), envoy.Gateway("c").Get(t, "/", "x-key: "+key), status)
			}
			wantStatus(t, "without one", envoy.Gateway("c").Get(t, "/"), status)
			wantStatus(t, "another address", envoy.Gateway("c").Get(t, "/", "x-forwarded-for: 2001:db8::7"), status)
		}
		if len(s.counts) != len(keys)+2 {
			t.Errorf("%d counters for %d identities: %v", len(s.counts), len(keys)+2, s.counts)
		}
	})
}

// A service that does not say what it counted lets all pass, or none.
func TestFailures(t *testing.T) {
	why := map[string]string{
		"hang.test": "service limits does not answer: upstream request timeout", "broken.test": "it answers grpc-status 13 no Redis", "wrong.test": "it ends too early",
		"down.test": "service limits does not answer: upstream connect error", "unknown.test": "service limits cannot be called", "count.test": "it has no limit for the second in the domain others",
	}
	chains := map[string][]part.Part{}
	for host := range why {
		text := `{service: {host: ` + host + `, port: 81}, timeout: 100ms, domain: others, second: 1, hour: 2`
		chains[host] = parts(t, host, text+`}`)
		chains[host+" closed"] = parts(t, host, text+`, fault_tolerant: false}`)
	}
	onEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy, _ *limitService) {
		for host, why := range why {
			for range 3 {
				a := envoy.Gateway(host).Get(t, "/")
				wantStatus(t, host, a, 200)
				if got := limits(a.Header); len(got) > 0 {
					t.Errorf("%s: %v", host, got)
				}
			}
			envoy.WaitLog(t, "plugin limit, route "+host+": not counted: rate limit service: ")
			a := envoy.Gateway(host+" closed").Get(t, "/")
			wantStatus(t, host+" closed", a, 500)
			if a.Message() != "An unexpected error occurred" {
				t.Errorf("%s closed: %s", host, a.Body)
			}
			envoy.WaitLog(t, why)
		}
	})
}
