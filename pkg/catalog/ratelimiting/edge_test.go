package ratelimiting

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// Requests of all kinds spend a token each.
func TestAllMethodsCount(t *testing.T) {
	chains := map[string][]part.Part{"c": parts(t, "a", `{day: 6}`)}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct {
			remaining string
			request   envoytest.Request
		}{
			{"5", envoytest.Request{Method: "HEAD"}},
			{"4", envoytest.Request{Method: "OPTIONS", Header: []string{"origin: http://a.test", "access-control-request-method: GET"}}},
			{"3", envoytest.Request{Method: "POST", Body: "body"}},
			{"2", envoytest.Request{Method: "BREW", HTTP2: true}},
			{"1", envoytest.Request{Method: "POST", HTTP2: true, Header: []string{"content-type: application/grpc"}}},
			{"0", envoytest.Request{Header: []string{envoytest.EchoStatus + ": 500"}}},
		} {
			a := envoy.Gateway("c").Do(t, c.request)
			if got := a.Header.Get("ratelimit-remaining"); got != c.remaining {
				t.Errorf("%+v: status %d, remaining %s, want %s", c.request, a.Status, got, c.remaining)
			}
		}
		get := envoy.Gateway("c").Get(t, "/")
		for _, http2 := range []bool{false, true} {
			head := envoy.Gateway("c").Do(t, envoytest.Request{Method: "HEAD", HTTP2: http2})
			if d := cmp.Diff(limits(get.Header), limits(head.Header)); d != "" || head.Status != 429 || head.Body != "" {
				t.Errorf("HEAD: status %d, body %s, headers (-GET +HEAD):\n%s", head.Status, head.Body, d)
			}
		}
	})
}

// Two entries of one Plugin have one instance, and filters of their own.
func TestOnePluginTwiceInAChain(t *testing.T) {
	twice := func(text string) []part.Part { return slices.Concat(parts(t, "a", text), parts(t, "a", text)) }
	chains := map[string][]part.Part{"one": twice(`{hour: 2}`), "windows": twice(`{hour: 1, day: 5}`)}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, remaining := range []string{"1", "0"} {
			a := envoy.Gateway("one").Get(t, "/")
			wantStatus(t, remaining, a, 200)
			if d := cmp.Diff(map[string]string{
				"x-ratelimit-limit-hour": "2", "x-ratelimit-remaining-hour": remaining,
				"ratelimit-limit": "2", "ratelimit-remaining": remaining, "ratelimit-reset": "…",
			}, limits(a.Header)); d != "" {
				t.Errorf("allowed (-want +got):\n%s", d)
			}
		}
		envoy.Gateway("windows").Get(t, "/")
		for chain, limit := range map[string]string{"one": "2", "windows": "1"} {
			a := envoy.Gateway(chain).Get(t, "/")
			wantStatus(t, chain, a, 429)
			if d := cmp.Diff(map[string]string{
				"x-ratelimit-limit-hour": limit, "x-ratelimit-remaining-hour": "0",
				"ratelimit-limit": limit, "ratelimit-remaining": "0", "ratelimit-reset": "…", "retry-after": "…",
			}, limits(a.Header)); d != "" || a.Message() != "API rate limit exceeded" {
				t.Errorf("%s is refused with %s (-want +got):\n%s", chain, a.Body, d)
			}
		}
	})
}

// What a later plugin refuses was counted, and tells so.
func TestRefusedLater(t *testing.T) {
	chains := map[string][]part.Part{"c": append(parts(t, "a", `{hour: 2, day: 9}`), refuses)}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		a := envoy.Gateway("c").Get(t, "/", "refuse: yes")
		if d := cmp.Diff(map[string]string{
			"x-ratelimit-limit-hour": "2", "x-ratelimit-remaining-hour": "1", "x-ratelimit-limit-day": "9", "x-ratelimit-remaining-day": "8",
			"ratelimit-limit": "2", "ratelimit-remaining": "1", "ratelimit-reset": "…",
		}, limits(a.Header)); d != "" || a.Status != 401 || a.Message() != "Unauthorized" {
			t.Errorf("status %d, body %s, headers (-want +got):\n%s", a.Status, a.Body, d)
		}
	})
}

// The largest limits, the largest message, and one of signs that JSON and gRPC must escape.
func TestExtremes(t *testing.T) {
	odd := "a\n\t\x01\\\"\u2028€😀%"
	chains := map[string][]part.Part{
		"most": parts(t, "a", `{second: 4294967295, year: 4294967295, max_identities: 1000000}`),
		"long": parts(t, "b", `{hour: 1, error_code: 599, error_message: "`+strings.Repeat("é", 4096)+`"}`),
		"odd":  parts(t, "c", `{hour: 1, error_code: 400, error_message: "a\n\t\x01\\\"\u2028€😀%"}`),
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		a := envoy.Gateway("most").Get(t, "/")
		// A token of the year comes back every 7 ms.
		limit, remaining := a.Header.Get("x-ratelimit-limit-year"), a.Header.Get("x-ratelimit-remaining-year")
		if a.Status != 200 || limit != "4294967295" || remaining != limit && remaining != "4294967294" {
			t.Errorf("status %d, of %s in a year %s remain", a.Status, limit, remaining)
		}
		for chain, want := range map[string]struct {
			status  int
			message string
		}{"long": {599, strings.Repeat("é", 4096)}, "odd": {400, odd}} {
			wantStatus(t, chain, envoy.Gateway(chain).Get(t, "/"), 200)
			if a := envoy.Gateway(chain).Get(t, "/"); a.Status != want.status || a.Message() != want.message {
				t.Errorf("%s: status %d, body %q", chain, a.Status, a.Body)
			}
			grpc := envoy.Gateway(chain).Do(t, envoytest.Request{Method: "POST", HTTP2: true, Header: []string{"content-type: application/grpc"}})
			if got := grpc.Header.Get("grpc-message"); grpc.Header.Get("grpc-status") != "8" || percentDecoded(t, got) != want.message {
				t.Errorf("%s by gRPC: %v", chain, grpc.Header)
			}
		}
	})
}

func percentDecoded(t *testing.T, text string) string {
	t.Helper()
	plain, err := url.PathUnescape(text)
	if err != nil {
		t.Errorf("%q: %v", text, err)
	}
	return plain
}

// All that Kong has for other policies, and for all plugins.
func TestIgnored(t *testing.T) {
	const text = `{hour: 1, fault_tolerant: false, sync_rate: 1, redis: {}, redis_host: a, redis_port: 1, redis_username: a, redis_password: a, redis_ssl: true,
		redis_ssl_verify: true, redis_server_name: a, redis_timeout: 1, redis_database: 1, protocols: [http], consumer: a, service: a, route: a, tags: [a], instance_name: a}`
	built, problems := catalogtest.Build(t, Builtin, builtin.Use{Plugin: "limit", Instance: "a"}, text)
	if len(built) == 0 || len(problems) != 18 {
		t.Errorf("%d parts, %d problems: %v", len(built), len(problems), problems)
	}
	for _, p := range problems {
		if !strings.HasPrefix(p, "warning ") || !strings.HasSuffix(p, ": has no meaning here and is ignored") {
			t.Error(p)
		}
	}
}

// The id in a refusal is the request's, by which it is found in the log.
func TestRequestID(t *testing.T) {
	chains := map[string][]part.Part{"c": parts(t, "a", `{hour: 1}`)}
	catalogtest.OnEachWith(t, envoytest.Config{Chains: chains, AccessLog: "%RESPONSE_CODE% %REQ(X-REQUEST-ID)%."}, func(t *testing.T, envoy *envoytest.Envoy) {
		envoy.Gateway("c").Get(t, "/")
		for _, http2 := range []bool{false, true} {
			a := envoy.Gateway("c").Do(t, envoytest.Request{HTTP2: http2})
			var body struct {
				ID string `json:"request_id"`
			}
			if err := json.Unmarshal([]byte(a.Body), &body); err != nil || body.ID == "" {
				t.Fatalf("body %s: %v", a.Body, err)
			}
			envoy.WaitLog(t, "429 "+body.ID+".")
		}
	})
}
