package ratelimiting

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// parts are those of a config that has to be right.
func parts(t testing.TB, instance, text string) []part.Part {
	t.Helper()
	return catalogtest.Parts(t, Builtin, builtin.Use{Plugin: "limit", Instance: instance}, text)
}

// authenticates stands for an authentication plugin: the consumer and credential are what the request says.
var authenticates = part.Lua{Plugin: "auth", Source: `
return {request = function(handle)
  local id = pdk.header(handle, "as")
  if id then
    pdk.authenticate(handle, {id = id, username = id}, pdk.header(handle, "credential"), "auth")
  end
end}`}

// refuses stands for a plugin that answers requests itself.
var refuses = part.Lua{Plugin: "refuse", Source: `
return {request = function(handle)
  if pdk.header(handle, "refuse") then
    pdk.fail(handle, 401, "Unauthorized")
  end
end}`}

// limits are the headers that tell a client of its limits, but for those that say when.
func limits(h http.Header) map[string]string {
	out := map[string]string{}
	for name := range h {
		lower := strings.ToLower(name)
		if strings.Contains(lower, "ratelimit") || strings.Contains(lower, "rate-limited") || lower == "retry-after" {
			out[lower] = strings.Join(h[name], ",")
		}
	}
	for _, name := range []string{"ratelimit-reset", "retry-after"} {
		if _, ok := out[name]; ok {
			out[name] = "…"
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
	if a.Status != status {
		t.Errorf("%s: status %d, want %d; body %s", what, a.Status, status, a.Body)
	}
	if reached := a.Upstream != nil; reached != (status == 200) {
		t.Errorf("%s: reached the upstream: %v", what, reached)
	}
}

func TestOneWindow(t *testing.T) {
	chains := map[string][]part.Part{"hour": parts(t, "a", `{hour: 2}`)}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		gateway := envoy.Gateway("hour")
		for i, remaining := range []string{"1", "0"} {
			a := gateway.Get(t, "/")
			wantStatus(t, fmt.Sprint("request ", i), a, 200)
			want := map[string]string{
				"x-ratelimit-limit-hour": "2", "x-ratelimit-remaining-hour": remaining,
				"ratelimit-limit": "2", "ratelimit-remaining": remaining, "ratelimit-reset": "…",
			}
			if d := cmp.Diff(want, limits(a.Header)); d != "" {
				t.Errorf("request %d: headers (-want +got):\n%s", i, d)
			}
		}
		a := gateway.Get(t, "/", "x-request-id: 7")
		wantStatus(t, "third request", a, 429)
		want := map[string]string{
			"x-ratelimit-limit-hour": "2", "x-ratelimit-remaining-hour": "0",
			"ratelimit-limit": "2", "ratelimit-remaining": "0", "ratelimit-reset": "…", "retry-after": "…",
		}
		if d := cmp.Diff(want, limits(a.Header)); d != "" {
			t.Errorf("headers of the refusal (-want +got):\n%s", d)
		}
		if n := seconds(t, a, "retry-after"); n < 1 || n > 1800 || n != seconds(t, a, "ratelimit-reset") {
			t.Errorf("retry-after %d, ratelimit-reset %d; the next of 2 tokens per hour comes within 1800 s", n, seconds(t, a, "ratelimit-reset"))
		}
		if got := a.Header.Get("content-type"); got != "application/json; charset=utf-8" {
			t.Errorf("content-type %q", got)
		}
		var body map[string]string
		if err := json.Unmarshal([]byte(a.Body), &body); err != nil {
			t.Fatalf("body %q: %v", a.Body, err)
		}
		if body["message"] != "API rate limit exceeded" || body["request_id"] == "" || len(body) != 2 {
			t.Errorf("body %s", a.Body)
		}
		if got := a.Header.Get("content-length"); got != strconv.Itoa(len(a.Body)) {
			t.Errorf("content-length %s for a body of %d", got, len(a.Body))
		}
		head := gateway.Do(t, envoytest.Request{Method: "HEAD"})
		wantStatus(t, "HEAD", head, 429)
		wantStatus(t, "preflight", gateway.Do(t, envoytest.Request{Method: "OPTIONS", Header: []string{"origin: a", "access-control-request-method: GET"}}), 429)
	})
}

func TestShortWindowsRefuseWithoutChargingLongOnes(t *testing.T) {
	chains := map[string][]part.Part{
		"short": parts(t, "a", `{hour: 1, day: 10}`),
		"long":  parts(t, "b", `{minute: 600, hour: 601, day: 601, month: 602, year: 602, second: 600}`),
		"equal": parts(t, "c", `{hour: 2, day: 2}`),
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		short := envoy.Gateway("short")
		first := short.Get(t, "/")
		if d := cmp.Diff(map[string]string{
			"x-ratelimit-limit-hour": "1", "x-ratelimit-remaining-hour": "0",
			"x-ratelimit-limit-day": "10", "x-ratelimit-remaining-day": "9",
			"ratelimit-limit": "1", "ratelimit-remaining": "0", "ratelimit-reset": "…",
		}, limits(first.Header)); d != "" {
			t.Errorf("allowed (-want +got):\n%s", d)
		}
		for range 3 {
			refused := short.Get(t, "/")
			if d := cmp.Diff(map[string]string{
				"x-ratelimit-limit-hour": "1", "x-ratelimit-remaining-hour": "0",
				"ratelimit-limit": "1", "ratelimit-remaining": "0", "ratelimit-reset": "…", "retry-after": "…",
			}, limits(refused.Header)); d != "" {
				t.Errorf("refused by the hour, the day was not asked (-want +got):\n%s", d)
			}
		}

		// Short windows may have their token back by the time that the answer is written.
		all := limits(envoy.Gateway("long").Get(t, "/").Header)
		for _, name := range []string{"x-ratelimit-remaining-second", "x-ratelimit-remaining-minute", "ratelimit-remaining"} {
			if all[name] == "600" {
				all[name] = "599"
			}
		}
		if d := cmp.Diff(map[string]string{
			"x-ratelimit-limit-second": "600", "x-ratelimit-remaining-second": "599",
			"x-ratelimit-limit-minute": "600", "x-ratelimit-remaining-minute": "599",
			"x-ratelimit-limit-hour": "601", "x-ratelimit-remaining-hour": "600",
			"x-ratelimit-limit-day": "601", "x-ratelimit-remaining-day": "600",
			"x-ratelimit-limit-month": "602", "x-ratelimit-remaining-month": "601",
			"x-ratelimit-limit-year": "602", "x-ratelimit-remaining-year": "601",
			"ratelimit-limit": "600", "ratelimit-remaining": "599", "ratelimit-reset": "…",
		}, all); d != "" {
			t.Errorf("all windows (-want +got):\n%s", d)
		}

		equal := envoy.Gateway("equal")
		equal.Get(t, "/")
		a := equal.Get(t, "/")
		if n := seconds(t, a, "ratelimit-reset"); n <= 1800 || n > 12*3600 {
			t.Errorf("of windows with equally many left the longer one is told; ratelimit-reset is %d", n)
		}
	})
}

// A longer window that refuses tells all windows that were asked.
func TestLongWindowRefuses(t *testing.T) {
	// For the day to refuse, the second must have a token. Both start with 1000, and the second gets one back each
	// millisecond, so that is soon.
	chains := map[string][]part.Part{"chain": parts(t, "a", `{second: 1000, day: 1000}`)}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		gateway := envoy.Gateway("chain")
		for range 5000 {
			a := gateway.Get(t, "/")
			if a.Status == 200 {
				continue
			}
			got := limits(a.Header)
			remaining := got["x-ratelimit-remaining-second"]
			delete(got, "x-ratelimit-remaining-second")
			if got["x-ratelimit-limit-day"] == "" {
				continue // the second refused: this millisecond's token is not there yet
			}
			if d := cmp.Diff(map[string]string{
				"x-ratelimit-limit-second": "1000", "x-ratelimit-limit-day": "1000", "x-ratelimit-remaining-day": "0",
				"ratelimit-limit": "1000", "ratelimit-remaining": "0", "ratelimit-reset": "…", "retry-after": "…",
			}, got); d != "" {
				t.Errorf("refused by the day (-want +got):\n%s", d)
			}
			if remaining == "" {
				t.Error("the second was asked, but is not told")
			}
			if a.Message() != "API rate limit exceeded" {
				t.Errorf("body %s", a.Body)
			}
			return
		}
		t.Error("the day never refused")
	})
}

func TestIdentity(t *testing.T) {
	with := func(instance, text string) []part.Part {
		return append([]part.Part{authenticates, refuses}, parts(t, instance, text)...)
	}
	long := strings.Repeat("k", 3000)
	chains := map[string][]part.Part{
		"consumer":   with("a", `{hour: 1}`),
		"credential": with("b", `{hour: 1, limit_by: credential}`),
		"ip":         with("c", `{hour: 1, limit_by: ip}`),
		"header":     with("d", `{hour: 1, limit_by: header, header_name: X-Key}`),
		"path":       with("e", `{hour: 1, limit_by: path, path: /paid}`),
		"service":    with("f", `{hour: 1, limit_by: service}`),
	}
	type step struct {
		what   string
		path   string
		header []string
		status int
	}
	from := func(ip string, more ...string) []string { return append([]string{"x-forwarded-for: " + ip}, more...) }
	cases := map[string][]step{
		"consumer": {
			{"a consumer", "/", from("10.0.0.1", "as: alice"), 200},
			{"the same from elsewhere", "/", from("10.0.0.2", "as: alice"), 429},
			{"another one", "/", from("10.0.0.1", "as: bob"), 200},
			{"nobody is counted by ip", "/", from("10.0.0.1"), 200},
			{"nobody again", "/", from("10.0.0.1"), 429},
			{"nobody from elsewhere", "/", from("10.0.0.2"), 200},
			{"a consumer whose id is an address in use", "/", from("10.0.0.3", "as: 10.0.0.1"), 200},
		},
		"credential": {
			{"a credential", "/", from("10.0.0.1", "as: alice", "credential: k1"), 200},
			{"another one of the same consumer", "/", from("10.0.0.1", "as: alice", "credential: k2"), 200},
			{"the first again", "/", from("10.0.0.1", "as: alice", "credential: k1"), 429},
			{"none is counted by ip", "/", from("10.0.0.1"), 200},
			{"none again", "/", from("10.0.0.1"), 429},
			{"a consumer without one", "/", from("10.0.0.2", "as: anonymous"), 200},
			{"the same from elsewhere", "/", from("10.0.0.3", "as: anonymous"), 200},
		},
		"ip": {
			{"an address", "/", from("10.0.0.1"), 200},
			{"again, as a consumer", "/", from("10.0.0.1", "as: alice"), 429},
			{"a forged hop in front", "/", from("1.1.1.1, 10.0.0.1"), 429},
			{"IPv6", "/", from("2001:db8::1"), 200},
			{"IPv6 in another spelling", "/", from("2001:DB8:0::1"), 429},
			{"another IPv6", "/", from("2001:db8::2"), 200},
		},
		"header": {
			{"a value", "/", from("10.0.0.1", "x-key: a"), 200},
			{"the name in another case, from elsewhere", "/", from("10.0.0.2", "X-KEY: a"), 429},
			{"another value", "/", from("10.0.0.1", "x-key: b"), 200},
			{"values are exact", "/", from("10.0.0.1", "x-key: A"), 200},
			{"the first of several", "/", from("10.0.0.1", "x-key: a", "x-key: new"), 429},
			{"an empty value is an identity", "/", from("10.0.0.1", "x-key:"), 200},
			{"an empty value from elsewhere", "/", from("10.0.0.2", "x-key:"), 429},
			{"none is counted by ip", "/", from("10.0.0.1"), 200},
			{"none again", "/", from("10.0.0.1"), 429},
			{"a value like an address in use", "/", from("10.0.0.9", "x-key: 10.0.0.1"), 200},
			{"a very long value", "/", from("10.0.0.1", "x-key: "+long), 200},
			{"it again", "/", from("10.0.0.1", "x-key: "+long), 429},
			{"another one that differs at its end", "/", from("10.0.0.1", "x-key: "+long+"!"), 200},
			{"bytes beyond ASCII", "/", from("10.0.0.1", "x-key: caf\xc3\xa9"), 200},
			{"other bytes beyond ASCII", "/", from("10.0.0.1", "x-key: caf\xe9"), 200},
			{"them again", "/", from("10.0.0.1", "x-key: caf\xe9"), 429},
		},
		"path": {
			{"the path", "/paid", from("10.0.0.1"), 200},
			{"with a query, from elsewhere", "/paid?a=b", from("10.0.0.2"), 429},
			{"another path is counted by ip", "/paid/", from("10.0.0.1"), 200},
			{"any other path", "/free", from("10.0.0.1"), 429},
			{"another path from elsewhere", "/free", from("10.0.0.2"), 200},
		},
		"service": {
			{"all requests together", "/", from("10.0.0.1", "as: alice"), 200},
			{"from elsewhere", "/x", from("10.0.0.2"), 429},
		},
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for name, steps := range cases {
			t.Run(name, func(t *testing.T) {
				for _, s := range steps {
					wantStatus(t, s.what, envoy.Gateway(name).Get(t, s.path, s.header...), s.status)
				}
			})
		}
	})
}

func TestRequestsRefusedEarlierAreNotCounted(t *testing.T) {
	chains := map[string][]part.Part{"chain": append([]part.Part{refuses}, parts(t, "a", `{hour: 1}`)...)}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		gateway := envoy.Gateway("chain")
		for range 3 {
			a := gateway.Get(t, "/", "refuse: yes")
			if a.Status != 401 || a.Message() != "Unauthorized" {
				t.Errorf("status %d, body %s", a.Status, a.Body)
			}
			if d := cmp.Diff(map[string]string{}, limits(a.Header)); d != "" {
				t.Errorf("an answer that was not counted tells of limits:\n%s", d)
			}
		}
		wantStatus(t, "the first that gets here", gateway.Get(t, "/"), 200)
		wantStatus(t, "the second", gateway.Get(t, "/"), 429)
	})
}

func TestTwoOnOneRoute(t *testing.T) {
	both := func(first, second string) []part.Part {
		return append(parts(t, "first", first), parts(t, "second", second)...)
	}
	chains := map[string][]part.Part{
		"inner tighter": both(`{hour: 5, limit_by: ip}`, `{hour: 1, limit_by: header, header_name: k}`),
		"outer tighter": both(`{hour: 1, limit_by: header, header_name: k}`, `{hour: 5, limit_by: ip}`),
		"windows":       both(`{day: 3}`, `{hour: 2, limit_by: service}`),
		"outer hidden":  both(`{day: 1, hide_client_headers: true}`, `{hour: 2}`),
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		inner := envoy.Gateway("inner tighter")
		wantStatus(t, "k=a", inner.Get(t, "/", "k: a"), 200)
		a := inner.Get(t, "/", "k: a")
		wantStatus(t, "k=a again", a, 429)
		if d := cmp.Diff(map[string]string{
			"x-ratelimit-limit-hour": "1", "x-ratelimit-remaining-hour": "0",
			"ratelimit-limit": "1", "ratelimit-remaining": "0", "ratelimit-reset": "…", "retry-after": "…",
		}, limits(a.Header)); d != "" {
			t.Errorf("the tighter one of a window is told (-want +got):\n%s", d)
		}
		a = inner.Get(t, "/", "k: b")
		wantStatus(t, "k=b is another bucket of the second", a, 200)
		// The first has counted three requests, the refused one too: it came before.
		a = inner.Get(t, "/", "k: c")
		if got := a.Header.Get("x-ratelimit-remaining-hour"); got != "0" {
			t.Errorf("remaining %s", got)
		}
		wantStatus(t, "the fifth of the first", inner.Get(t, "/", "k: d"), 200)
		wantStatus(t, "the sixth of the first", inner.Get(t, "/", "k: e"), 429)

		outer := envoy.Gateway("outer tighter")
		wantStatus(t, "k=a", outer.Get(t, "/", "k: a"), 200)
		for range 10 {
			wantStatus(t, "refused by the first, not counted by the second", outer.Get(t, "/", "k: a"), 429)
		}
		a = outer.Get(t, "/", "k: b")
		wantStatus(t, "k=b", a, 200)
		if got := a.Header.Get("x-ratelimit-remaining-hour"); got != "0" {
			t.Errorf("remaining %s, want the first one's", got)
		}

		windows := envoy.Gateway("windows").Get(t, "/")
		if d := cmp.Diff(map[string]string{
			"x-ratelimit-limit-day": "3", "x-ratelimit-remaining-day": "2",
			"x-ratelimit-limit-hour": "2", "x-ratelimit-remaining-hour": "1",
			"ratelimit-limit": "2", "ratelimit-remaining": "1", "ratelimit-reset": "…",
		}, limits(windows.Header)); d != "" {
			t.Errorf("windows of both (-want +got):\n%s", d)
		}

		hidden := envoy.Gateway("outer hidden")
		a = hidden.Get(t, "/")
		if d := cmp.Diff(map[string]string{
			"x-ratelimit-limit-hour": "2", "x-ratelimit-remaining-hour": "1",
			"ratelimit-limit": "2", "ratelimit-remaining": "1", "ratelimit-reset": "…",
		}, limits(a.Header)); d != "" {
			t.Errorf("the first hides (-want +got):\n%s", d)
		}
		a = hidden.Get(t, "/")
		wantStatus(t, "refused by the hidden one", a, 429)
		if d := cmp.Diff(map[string]string{}, limits(a.Header)); d != "" {
			t.Errorf("the hidden one refuses without headers:\n%s", d)
		}
	})
}

func TestUpstreamHeaders(t *testing.T) {
	chains := map[string][]part.Part{
		"shown":  parts(t, "a", `{hour: 100, day: 200}`),
		"hidden": parts(t, "b", `{hour: 100, hide_client_headers: true}`),
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		sent := []string{
			envoytest.EchoHeader + ": x-ratelimit-limit: 7", envoytest.EchoHeader + ": x-ratelimit-limit: 8",
			envoytest.EchoHeader + ": x-ratelimit-reset: 9", envoytest.EchoHeader + ": x-envoy-ratelimited: true",
			envoytest.EchoHeader + ": ratelimit-limit: 1000", envoytest.EchoStatus + ": 429",
		}
		a := envoy.Gateway("shown").Get(t, "/", sent...)
		if d := cmp.Diff(map[string]string{
			"x-ratelimit-limit": "7,8", "x-ratelimit-reset": "9", "x-envoy-ratelimited": "true",
			"x-ratelimit-limit-hour": "100", "x-ratelimit-remaining-hour": "99",
			"x-ratelimit-limit-day": "200", "x-ratelimit-remaining-day": "199",
			"ratelimit-limit": "100", "ratelimit-remaining": "99", "ratelimit-reset": "…",
		}, limits(a.Header)); d != "" {
			t.Errorf("the upstream's own stay, but for names of ours (-want +got):\n%s", d)
		}
		if a.Message() != "" {
			t.Errorf("the upstream's own 429 got another body: %s", a.Body)
		}
		a = envoy.Gateway("hidden").Get(t, "/", sent...)
		if d := cmp.Diff(map[string]string{
			"x-ratelimit-limit": "7,8", "x-ratelimit-reset": "9", "x-envoy-ratelimited": "true", "ratelimit-limit": "1000",
		}, limits(a.Header)); d != "" {
			t.Errorf("hidden (-want +got):\n%s", d)
		}
	})
}

func TestRefusal(t *testing.T) {
	chains := map[string][]part.Part{
		"own":    parts(t, "a", `{hour: 1, error_code: 430, error_message: 'Slow "down", 100 % é'}`),
		"hidden": parts(t, "b", `{hour: 1, error_code: 503, hide_client_headers: true}`),
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		own := envoy.Gateway("own")
		own.Get(t, "/")
		a := own.Get(t, "/")
		if a.Status != 430 || a.Message() != `Slow "down", 100 % é` {
			t.Errorf("status %d, body %s", a.Status, a.Body)
		}
		grpc := own.Do(t, envoytest.Request{Method: "POST", Header: []string{"content-type: application/grpc"}, HTTP2: true})
		if grpc.Status != 200 || grpc.Header.Get("grpc-status") != "8" || grpc.Header.Get("grpc-message") != `Slow "down", 100 %25 %C3%A9` {
			t.Errorf("gRPC: status %d, headers %v", grpc.Status, grpc.Header)
		}
		if got := grpc.Header.Get("retry-after"); got == "" {
			t.Error("gRPC: no retry-after")
		}

		hidden := envoy.Gateway("hidden")
		wantStatus(t, "allowed", hidden.Get(t, "/"), 200)
		a = hidden.Get(t, "/")
		if a.Status != 503 || a.Message() != "API rate limit exceeded" {
			t.Errorf("hidden: status %d, body %s", a.Status, a.Body)
		}
		if d := cmp.Diff(map[string]string{}, limits(a.Header)); d != "" {
			t.Errorf("hidden headers:\n%s", d)
		}
	})
}

func TestBurst(t *testing.T) {
	const n = 40
	chains := map[string][]part.Part{"chain": parts(t, "a", fmt.Sprintf(`{hour: %d, day: %d}`, n, n+1))}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		gateway := envoy.Gateway("chain")
		statuses := make([]int, 2*n)
		var group sync.WaitGroup
		for i := range statuses {
			group.Go(func() { statuses[i] = gateway.Get(t, "/").Status })
		}
		group.Wait()
		count := map[int]int{}
		for _, s := range statuses {
			count[s]++
		}
		if d := cmp.Diff(map[int]int{200: n, 429: n}, count); d != "" {
			t.Errorf("statuses of a burst (-want +got):\n%s", d)
		}
	})
}

func TestMaxIdentities(t *testing.T) {
	chains := map[string][]part.Part{"chain": parts(t, "a", `{hour: 1, limit_by: header, header_name: k, max_identities: 2}`)}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		gateway := envoy.Gateway("chain")
		for _, s := range []struct {
			key    string
			status int
		}{{"a", 200}, {"b", 200}, {"a", 429}, {"c", 200}, {"a", 429}, {"b", 200}} {
			wantStatus(t, s.key, gateway.Get(t, "/", "k: "+s.key), s.status)
		}
	})
}

// Which identity is counted under scope route; that attachments and plugins have filters of their own is dispatch's.
func TestScope(t *testing.T) {
	for scope, want := range map[string]struct {
		state    part.State
		perRoute bool
	}{
		"attachment": {part.PerAttachment, false},
		"route":      {part.PerAttachment, true},
		"plugin":     {part.PerPlugin, false},
	} {
		built := parts(t, "a", `{second: 1, minute: 2, scope: `+scope+`}`)
		if got := built[0].(part.Lua).Config["per_route"]; got != want.perRoute {
			t.Errorf("%s: per_route %v", scope, got)
		}
		for _, p := range built[1:] {
			if got := p.(part.Native).State; got != want.state {
				t.Errorf("%s: state %v, want %v", scope, got, want.state)
			}
		}
	}
	chains := map[string][]part.Part{
		"route":      parts(t, "a", `{hour: 1, scope: route, policy: local}`),
		"attachment": parts(t, "a", `{hour: 1}`),
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for chain, other := range map[string]int{"route": 200, "attachment": 429} {
			wantStatus(t, chain+", first", envoy.Gateway(chain).Get(t, "/"), 200)
			wantStatus(t, chain+", second", envoy.Gateway(chain).Get(t, "/"), 429)
			wantStatus(t, chain+", another route", envoy.Gateway(chain).Get(t, envoytest.OtherRoute), other)
			wantStatus(t, chain+", again", envoy.Gateway(chain).Get(t, envoytest.OtherRoute), 429)
		}
	})
}

// Without the identity, which a failing Lua part leaves away, all are one; under FailOpen none is counted.
func TestMissingIdentity(t *testing.T) {
	open := catalogtest.Parts(t, Builtin, builtin.Use{Plugin: "limit", Instance: "a", FailOpen: true}, `{hour: 1}`)
	chains := map[string][]part.Part{"closed": parts(t, "a", `{hour: 1}`)[1:], "open": open[1:]}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		wantStatus(t, "closed", envoy.Gateway("closed").Get(t, "/", "x-forwarded-for: 10.0.0.1"), 200)
		wantStatus(t, "closed, elsewhere", envoy.Gateway("closed").Get(t, "/", "x-forwarded-for: 10.0.0.2"), 429)
		for range 3 {
			wantStatus(t, "open", envoy.Gateway("open").Get(t, "/"), 200)
		}
	})
}

func TestParts(t *testing.T) {
	built := parts(t, "a", `{year: 9, second: 1, day: 5, minute: 2, month: 6, hour: 3, max_identities: 50}`)
	var got []string
	for _, p := range built[1:] {
		c := counterOf(t, p)
		got = append(got, c.Descriptors[0].TokenBucket.FillInterval.AsDuration().String()+" "+fmt.Sprint(c.Descriptors[0].TokenBucket.MaxTokens))
		if n := c.MaxDynamicDescriptors.Value; n != 50 {
			t.Errorf("max_dynamic_descriptors %d", n)
		}
	}
	if d := cmp.Diff([]string{"1s 1", "1m0s 2", "1h0m0s 3", "24h0m0s 5", "720h0m0s 6", "8760h0m0s 9"}, got); d != "" {
		t.Errorf("counters, shortest window first (-want +got):\n%s", d)
	}
	again := parts(t, "a", `{year: 9, second: 1, day: 5, minute: 2, month: 6, hour: 3, max_identities: 50}`)
	other := parts(t, "b", `{year: 9, second: 1, day: 5, minute: 2, month: 6, hour: 3, max_identities: 50}`)
	for i := range built[1:] {
		a, same, b := counterOf(t, built[i+1]), counterOf(t, again[i+1]), counterOf(t, other[i+1])
		if !proto.Equal(a, same) {
			t.Error("equal uses have different counters")
		}
		if proto.Equal(a, b) {
			t.Error("two instances in one chain have one counter")
		}
	}
}
