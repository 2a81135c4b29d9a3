package faultinjection

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// use builds the parts of one use of the plugin.
func use(t testing.TB, instance, text string) ([]part.Part, []string) {
	t.Helper()
	return catalogtest.Build(t, Builtin, builtin.Use{Plugin: "fault", Instance: instance}, text)
}

func parts(t testing.TB, instance, text string) []part.Part {
	t.Helper()
	return catalogtest.Parts(t, Builtin, builtin.Use{Plugin: "fault", Instance: instance}, text)
}

// filter is the native part.
func filter(t testing.TB, parts []part.Part) *faultv3.HTTPFault {
	t.Helper()
	for _, p := range parts {
		if n, ok := p.(part.Native); ok {
			return n.Config.(*faultv3.HTTPFault)
		}
	}
	t.Fatal("no native part")
	return nil
}

func onEach(t *testing.T, texts map[string]string, test func(t *testing.T, envoy *envoytest.Envoy)) {
	chains := map[string][]part.Part{}
	for name, text := range texts {
		chains[name] = parts(t, name, text)
	}
	catalogtest.OnEach(t, chains, test)
}

func TestConfig(t *testing.T) {
	const grpc = "warning abort.grpc_status: a request that is not gRPC is answered 200, use http_status for those"
	for _, c := range []struct {
		config string
		want   []string
	}{
		{`{delay: {fixed_delay: 250ms}}`, nil},
		{`{delay: {fixed_delay: 1h30m, percentage: 0.0001}, abort: {http_status: 503, percentage: 0}}`, nil},
		{`{delay: {fixed_delay: 1.5s, percentage: 1e-4}}`, nil},
		{`{abort: {grpc_status: 14}}`, []string{grpc}},
		{`{}`, []string{"needs delay or abort"}},
		{`{response_rate_limit_kbps: 1}`, []string{"needs delay or abort"}},
		{`{delay: {}}`, []string{"delay.fixed_delay: is required"}},
		{`{delay: {fixed_delay: 5}}`, []string{"delay.fixed_delay: must be a string, not a number"}},
		{`{delay: {fixed_delay: "5"}}`, []string{`delay.fixed_delay: "5" is no duration such as 250ms or 1.5s`}},
		{`{delay: {fixed_delay: 0s}}`, []string{`delay.fixed_delay: 0s is not between 1ms and 24h`}},
		{`{delay: {fixed_delay: -1s}}`, []string{`delay.fixed_delay: -1s is not between 1ms and 24h`}},
		{`{delay: {fixed_delay: 25h}}`, []string{`delay.fixed_delay: 25h is not between 1ms and 24h`}},
		{`{delay: {fixed_delay: 1500us}}`, []string{`delay.fixed_delay: 1500us has a fraction of a millisecond`}},
		{`{delay: {fixed_delay: 1s, percentage: 100.1}}`, []string{"delay.percentage: 100.1 is too large, at most 100"}},
		{`{delay: {fixed_delay: 1s, percentage: -1}}`, []string{"delay.percentage: -1 is too small, at least 0"}},
		{`{delay: {fixed_delay: 1s, percentage: 0.00001}}`, []string{"delay.percentage: 0.00001 is not a multiple of 0.0001"}},
		{`{delay: {fixed_delay: 1s, percentage: "5"}}`, []string{"delay.percentage: must be a number, not a string"}},
		{`{abort: {}}`, []string{"abort: needs http_status or grpc_status"}},
		{`{abort: {percentage: 5}}`, []string{"abort: needs http_status or grpc_status"}},
		{`{abort: {http_status: 503, grpc_status: 14}}`, []string{"abort: has http_status and grpc_status, one of them is needed"}},
		{`{abort: {http_status: 199}}`, []string{"abort.http_status: 199 is too small, at least 200"}},
		{`{abort: {http_status: 600}}`, []string{"abort.http_status: 600 is too large, at most 599"}},
		{`{abort: {grpc_status: 17}}`, []string{"abort.grpc_status: 17 is too large, at most 16"}},
		{`{abort: {grpc_status: -1}}`, []string{"abort.grpc_status: -1 is too small, at least 0"}},
		{`{abort: {http_code: 503}}`, []string{"abort.http_code: unknown field, known ones are grpc_status, http_status, percentage"}},
		{`{abort: {http_status: 503}, headers: [{name: a}]}`, []string{"headers[0]: needs one of exact, prefix, present, and has 0"}},
		{`{abort: {http_status: 503}, headers: [{name: a, exact: b, prefix: b}]}`, []string{"headers[0]: needs one of exact, prefix, present, and has 2"}},
		{`{abort: {http_status: 503}, headers: [{exact: b}]}`, []string{"headers[0].name: is required"}},
		{`{abort: {http_status: 503}, headers: [{name: 'a b', present: true}]}`, []string{`headers[0].name: "a b" is no valid http header name`}},
		{`{abort: {http_status: 503}, headers: [{name: a, prefix: ''}]}`, []string{"headers[0].prefix: must not be shorter than 1 characters"}},
		{`{abort: {http_status: 503}, max_active_faults: -1}`, []string{"max_active_faults: -1 is too small, at least 0"}},
		{`{abort: {http_status: 503}, response_rate_limit_kbps: 0}`, []string{"response_rate_limit_kbps: 0 is too small, at least 1"}},
	} {
		_, got := use(t, "i", c.config)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.config, diff)
		}
	}
}

func TestPercentagesAreExact(t *testing.T) {
	for text, want := range map[string]uint32{"0": 0, "0.0001": 1, "1e-4": 1, "33.3333": 333333, "0.07": 700, "99.9999": 999999, "100": 1_000_000, "100.0": 1_000_000} {
		f := filter(t, parts(t, "i", "{abort: {http_status: 503, percentage: "+text+"}, delay: {fixed_delay: 1s, percentage: "+text+"}}"))
		for _, p := range []*typev3.FractionalPercent{f.GetAbort().GetPercentage(), f.GetDelay().GetPercentage()} {
			if p.GetNumerator() != want || p.GetDenominator() != typev3.FractionalPercent_MILLION {
				t.Errorf("%s %% is %v", text, p)
			}
		}
	}
}

// What somebody sets for other fault filters does not change this one, nor that of another use.
func TestRuntimeKeysAreItsOwn(t *testing.T) {
	const text = `{abort: {http_status: 503}, delay: {fixed_delay: 1s}}`
	keys := func(instance string) []string {
		f := filter(t, parts(t, instance, text))
		if !f.GetDisableDownstreamClusterStats() {
			t.Error("a client's header makes metrics")
		}
		return []string{
			f.GetDelayPercentRuntime(), f.GetDelayDurationRuntime(), f.GetAbortPercentRuntime(), f.GetAbortHttpStatusRuntime(),
			f.GetAbortGrpcStatusRuntime(), f.GetMaxActiveFaultsRuntime(), f.GetResponseRateLimitPercentRuntime(),
		}
	}
	seen := map[string]bool{}
	for _, key := range append(keys("a"), keys("b")...) {
		if !strings.HasPrefix(key, "istio-plugins.fault.") || seen[key] {
			t.Errorf("the runtime key %q is not one use's own", key)
		}
		seen[key] = true
	}
}

const aborted = "fault filter abort"

func TestAborts(t *testing.T) {
	texts := map[string]string{
		"503":     `{abort: {http_status: 503}}`,
		"200":     `{abort: {http_status: 200}}`,
		"204":     `{abort: {http_status: 204}}`,
		"304":     `{abort: {http_status: 304}}`,
		"599":     `{abort: {http_status: 599}}`,
		"grpc 0":  `{abort: {grpc_status: 0}}`,
		"none":    `{abort: {http_status: 503, percentage: 0}}`,
		"grpc 14": `{abort: {grpc_status: 14}}`,
		"delayed": `{delay: {fixed_delay: 1ms}, abort: {http_status: 504}}`,
	}
	onEach(t, texts, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct {
			name, chain string
			request     envoytest.Request
			status      int
			message     string
		}{
			{"an error", "503", envoytest.Request{}, 503, aborted},
			{"over HTTP/2", "503", envoytest.Request{HTTP2: true}, 503, aborted},
			{"with a body", "503", envoytest.Request{Method: "POST", Body: "hello"}, 503, aborted},
			{"HEAD", "503", envoytest.Request{Method: "HEAD"}, 503, ""},
			{"a preflight", "503", envoytest.Request{Method: "OPTIONS", Header: []string{"origin: http://a", "access-control-request-method: GET"}}, 503, aborted},
			{"no error", "200", envoytest.Request{}, 200, aborted},
			{"no content", "204", envoytest.Request{}, 204, ""},
			{"not modified", "304", envoytest.Request{}, 304, ""},
			{"no content, over HTTP/2", "204", envoytest.Request{HTTP2: true}, 204, ""},
			{"the last status", "599", envoytest.Request{}, 599, aborted},
			{"a delay before it", "delayed", envoytest.Request{}, 504, aborted},
			{"a gRPC status, and no gRPC", "grpc 14", envoytest.Request{}, 200, aborted},
		} {
			t.Run(c.name, func(t *testing.T) {
				answer := envoy.Gateway(c.chain).Do(t, c.request)
				if answer.Status != c.status || answer.Message() != c.message || answer.Upstream != nil {
					t.Fatalf("status %d, body %s, upstream %v", answer.Status, answer.Body, answer.Upstream)
				}
				if c.message == "" && answer.Body != "" {
					t.Errorf("body %s", answer.Body)
				}
				if c.message != "" && answer.Body != `{"message":"fault filter abort"}` {
					t.Errorf("body %s", answer.Body)
				}
				if got := answer.Header.Get("content-type"); c.status != 204 && c.status != 304 && got != "application/json; charset=utf-8" {
					t.Errorf("content-type %q", got)
				}
			})
		}
		for chain, status := range map[string]string{"503": "14", "grpc 14": "14", "599": "2", "200": "2", "grpc 0": "0"} {
			answer := envoy.Gateway(chain).Do(t, envoytest.Request{Method: "POST", HTTP2: true, Header: []string{"content-type: application/grpc"}})
			if answer.Status != 200 || answer.Header.Get("grpc-status") != status || answer.Header.Get("grpc-message") != aborted || answer.Body != "" {
				t.Errorf("gRPC and %s: status %d, headers %v, body %s", chain, answer.Status, answer.Header, answer.Body)
			}
		}
		for range 20 {
			if answer := envoy.Gateway("none").Get(t, "/"); answer.Status != 200 {
				t.Fatalf("0 %% aborts: status %d", answer.Status)
			}
		}
		if got := stat(t, envoy, "none", "aborts_injected"); got != 0 {
			t.Errorf("0 %%: %d aborts", got)
		}
		if got := stat(t, envoy, "delayed", "delays_injected"); got != 1 {
			t.Errorf("an abort with a delay: %d delays", got)
		}
	})
}

// An upstream may answer as an abort is answered, and another plugin, too.
func TestOtherAnswersStay(t *testing.T) {
	refuses := part.Lua{Plugin: "refuses", Source: `return {request = function(handle)
		if pdk.header(handle, "refuse") then pdk.exit(handle, 503, {}, "refused") end
	end}`}
	fault := parts(t, "i", `{abort: {http_status: 503}, headers: [{name: abort, present: true}]}`)
	chains := map[string][]part.Part{
		"in front": append([]part.Part{refuses}, fault...),
		"behind":   append(fault[:len(fault):len(fault)], refuses),
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for chain := range chains {
			if a := envoy.Gateway(chain).Get(t, "/", "echo-status: 503", "echo-body: mine"); a.Status != 503 || a.Body != "mine" {
				t.Errorf("%s: the upstream's answer became %d %s", chain, a.Status, a.Body)
			}
			if a := envoy.Gateway(chain).Get(t, "/", "refuse: yes"); a.Status != 503 || a.Body != "refused" {
				t.Errorf("%s: another plugin's answer became %d %s", chain, a.Status, a.Body)
			}
			if a := envoy.Gateway(chain).Get(t, "/", "abort: yes"); a.Status != 503 || a.Message() != aborted {
				t.Errorf("%s: an abort is %d %s", chain, a.Status, a.Body)
			}
		}
	})
}

// A client gets no faults by Envoy's own headers for them.
func TestClientsDecideNothing(t *testing.T) {
	const never = `{abort: {http_status: 503, percentage: 0}, delay: {fixed_delay: 24h, percentage: 0}}`
	onEach(t, map[string]string{"never": never}, func(t *testing.T, envoy *envoytest.Envoy) {
		a := envoy.Gateway("never").Get(t, "/", "x-envoy-fault-abort-request: 503", "x-envoy-fault-abort-request-percentage: 100",
			"x-envoy-fault-abort-grpc-request: 5", "x-envoy-fault-delay-request: 86400000", "x-envoy-fault-delay-request-percentage: 100",
			"x-envoy-fault-throughput-response: 1")
		if a.Status != 200 {
			t.Errorf("status %d, body %s", a.Status, a.Body)
		}
	})
}

// Two entries of one Plugin have one instance.
func TestOnePluginTwiceInAChain(t *testing.T) {
	const text = `{abort: {http_status: 503}, headers: [{name: abort, present: true}]}`
	sets := part.Lua{Plugin: "sets", Source: `return {request = function(handle)
		if pdk.header(handle, "late") then pdk.set_header(handle, "abort", "1") end
		if pdk.header(handle, "refuse") then pdk.exit(handle, 503, {}, "refused") end
	end}`}
	chains := map[string][]part.Part{"c": append(append(parts(t, "i", text), sets), parts(t, "i", text)...)}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		const json = `{"message":"fault filter abort"}`
		for header, body := range map[string]string{"abort: 1": json, "late: 1": json, "refuse: 1": "refused", "echo-status: 503": ""} {
			a := envoy.Gateway("c").Get(t, "/", header)
			if a.Status != 503 || body != "" && a.Body != body || (a.Upstream != nil) != (body == "") {
				t.Errorf("%s: status %d, body %s", header, a.Status, a.Body)
			}
		}
	})
}

func TestShares(t *testing.T) {
	onEach(t, map[string]string{"half": `{abort: {http_status: 503, percentage: 50}}`, "rare": `{abort: {http_status: 503, percentage: 0.0001}}`}, func(t *testing.T, envoy *envoytest.Envoy) {
		const all = 400
		hit := map[string]int{}
		for chain := range map[string]bool{"half": true, "rare": true} {
			for range all {
				if envoy.Gateway(chain).Get(t, "/").Status == 503 {
					hit[chain]++
				}
			}
		}
		// Ten standard deviations to each side.
		if hit["half"] < 100 || hit["half"] > 300 || hit["rare"] > 3 {
			t.Errorf("of %d requests %d are aborted at 50 %%, %d at 0.0001 %%", all, hit["half"], hit["rare"])
		}
	})
}

func TestHeaders(t *testing.T) {
	texts := map[string]string{
		"exact":   `{abort: {http_status: 503}, headers: [{name: X-Fault, exact: "yes"}]}`,
		"empty":   `{abort: {http_status: 503}, headers: [{name: x-fault, exact: ""}]}`,
		"prefix":  `{abort: {http_status: 503}, headers: [{name: x-fault, prefix: "yes"}]}`,
		"present": `{abort: {http_status: 503}, headers: [{name: x-fault, present: true}]}`,
		"absent":  `{abort: {http_status: 503}, headers: [{name: x-fault, present: false}]}`,
		"all":     `{abort: {http_status: 503}, headers: [{name: x-fault, present: true}, {name: x-other, exact: a}]}`,
		"odd":     `{abort: {http_status: 503}, headers: [{name: x-fault, exact: "é, \" €"}]}`,
		"twice":   `{abort: {http_status: 503}, headers: [{name: x-fault, prefix: a}, {name: x-fault, prefix: ab}]}`,
	}
	onEach(t, texts, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct {
			chain  string
			header []string
			hit    bool
		}{
			{"exact", []string{"x-fault: yes"}, true},
			{"exact", []string{"X-FAULT: yes"}, true},
			{"exact", []string{"x-fault: YES"}, false},
			{"exact", []string{"x-fault: yes, sir"}, false},
			{"exact", nil, false},
			{"empty", []string{"x-fault:"}, true},
			{"empty", []string{"x-fault: yes"}, false},
			{"empty", nil, false},
			{"prefix", []string{"x-fault: yes, sir"}, true},
			{"prefix", []string{"x-fault: yes", "x-fault: no"}, true},
			{"prefix", []string{"x-fault: no", "x-fault: no"}, false},
			{"prefix", nil, false},
			{"present", []string{"x-fault: no"}, true},
			{"present", []string{"x-fault:"}, true},
			{"present", nil, false},
			{"absent", nil, true},
			{"absent", []string{"x-fault:"}, false},
			{"all", []string{"x-fault: 1", "x-other: a"}, true},
			{"all", []string{"x-fault: 1"}, false},
			{"all", []string{"x-other: a"}, false},
			{"odd", []string{"x-fault: é, \" €"}, true},
			{"odd", []string{"x-fault: \xe9, \" €"}, false},
			{"twice", []string{"x-fault: abc"}, true},
			{"twice", []string{"x-fault: a"}, false},
		} {
			t.Run(fmt.Sprintf("%s, %q", c.chain, c.header), func(t *testing.T) {
				if got := envoy.Gateway(c.chain).Get(t, "/", c.header...).Status == 503; got != c.hit {
					t.Errorf("hit: %v", got)
				}
			})
		}
	})
}

// Envoy has changed how it compares a repeated header; schema.yaml says so.
func TestRepeatedHeader(t *testing.T) {
	joined := map[string]bool{"1.37.0": true, "1.40.0": false}
	for _, version := range envoytest.Versions {
		envoy := envoytest.Start(t, version, envoytest.Config{Chains: map[string][]part.Part{
			"exact":  parts(t, "i", `{abort: {http_status: 503}, headers: [{name: x-fault, exact: "yes"}]}`),
			"joined": parts(t, "i", `{abort: {http_status: 503}, headers: [{name: x-fault, exact: "no,yes"}]}`),
		}})
		for chain, want := range map[string]bool{"exact": !joined[version], "joined": joined[version]} {
			if got := envoy.Gateway(chain).Get(t, "/", "x-fault: no", "x-fault: yes").Status == 503; got != want {
				t.Errorf("%s, %s: hit: %v, want %v", version, chain, got, want)
			}
		}
	}
}

// Each instance in a chain acts for itself.
func TestSeveral(t *testing.T) {
	chains := map[string][]part.Part{"two": append(
		parts(t, "a", `{abort: {http_status: 501}, headers: [{name: first, present: true}]}`),
		parts(t, "b", `{abort: {http_status: 502}, headers: [{name: second, present: true}]}`)...)}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct {
			header []string
			status int
		}{{[]string{"first: 1"}, 501}, {[]string{"second: 1"}, 502}, {[]string{"first: 1", "second: 1"}, 501}, {nil, 200}} {
			answer := envoy.Gateway("two").Get(t, "/", c.header...)
			if answer.Status != c.status || c.status != 200 && answer.Message() != aborted {
				t.Errorf("%q: status %d %s", c.header, answer.Status, answer.Body)
			}
		}
	})
}

func TestDelays(t *testing.T) {
	texts := map[string]string{
		"delay": `{delay: {fixed_delay: 5ms}}`,
		"never": `{delay: {fixed_delay: 24h, percentage: 0}}`,
		"slow":  `{delay: {fixed_delay: 1ms, percentage: 0}, response_rate_limit_kbps: 1000}`,
		"off":   `{delay: {fixed_delay: 24h}, max_active_faults: 0}`,
	}
	onEach(t, texts, func(t *testing.T, envoy *envoytest.Envoy) {
		for chain, want := range map[string]int{"delay": 2, "never": 0, "slow": 0, "off": 0} {
			body := strings.Repeat("x", 2000)
			if a := envoy.Gateway(chain).Get(t, "/", "echo-body: "+body); a.Status != 200 || a.Body != body {
				t.Errorf("%s: status %d, %d bytes", chain, a.Status, len(a.Body))
			}
			a := envoy.Gateway(chain).Do(t, envoytest.Request{Method: "POST", Body: body, HTTP2: true})
			if a.Status != 200 || a.Upstream.Body != body {
				t.Errorf("%s: status %d over HTTP/2", chain, a.Status)
			}
			if got := stat(t, envoy, chain, "delays_injected"); got != want {
				t.Errorf("%s: %d delays, want %d", chain, got, want)
			}
		}
		if got := stat(t, envoy, "slow", "response_rl_injected"); got != 2 {
			t.Errorf("%d responses are slowed down, want 2", got)
		}
	})
}

// A cap counts those who wait; who goes away waits no more.
func TestMaxActiveFaults(t *testing.T) {
	onEach(t, map[string]string{"cap": `{delay: {fixed_delay: 24h}, max_active_faults: 1}`}, func(t *testing.T, envoy *envoytest.Envoy) {
		gateway := envoy.Gateway("cap")
		ctx, leave := context.WithCancel(t.Context())
		gone := make(chan error)
		go func() {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, gateway.URL, nil)
			if err == nil {
				_, err = http.DefaultTransport.RoundTrip(request)
			}
			gone <- err
		}()
		await(t, envoy, "cap", "active_faults", 1)
		if a := gateway.Get(t, "/"); a.Status != 200 {
			t.Errorf("above the cap: status %d", a.Status)
		}
		if got := stat(t, envoy, "cap", "faults_overflow"); got != 1 {
			t.Errorf("%d requests were above the cap, want 1", got)
		}
		// A day is longer than these.
		for range 100 {
			gateway.Get(t, "/")
		}
		if got := stat(t, envoy, "cap", "active_faults"); got != 1 {
			t.Errorf("%d requests wait, want 1", got)
		}
		leave()
		if err := <-gone; err == nil {
			t.Error("the request was answered")
		}
		await(t, envoy, "cap", "active_faults", 0)
	})
}

// stat is a counter of the fault filters of a chain.
func stat(t *testing.T, envoy *envoytest.Envoy, chain, name string) int {
	t.Helper()
	response, err := http.Get(envoy.Admin + "/stats?filter=fault." + name + "$")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), fmt.Sprintf("http.%s.fault.%s: ", chain, name)); ok {
			n, err := strconv.Atoi(value)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return 0
}

// await asks until a counter has a value.
func await(t *testing.T, envoy *envoytest.Envoy, chain, name string, want int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); stat(t, envoy, chain, name) != want; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%s does not become %d", name, want)
		}
	}
}
