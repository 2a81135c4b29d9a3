package httplog

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

func use() builtin.Use {
	return builtin.Use{Plugin: "http-log", Instance: "i", Services: catalogtest.Services("logs.test", "down.test", "unknown.test")}
}

func TestConfig(t *testing.T) {
	const noURL = "http_endpoint: is no URL such as http://logs.logging:8080/in"
	for _, c := range []struct {
		config string
		want   []string
	}{
		{`{http_endpoint: "http://logs.test"}`, nil},
		{`{http_endpoint: "http://u:p@LOGS.test:81/a b?c=d", method: PUT, content_type: application/json; charset=utf-8, timeout: 1e3, headers: {X-A: b}, redact: [], max_in_flight: 1}`, nil},
		{`{}`, []string{"http_endpoint: is required"}},
		{`{http_endpoint: ""}`, []string{"http_endpoint: must not be shorter than 1 characters"}},
		{`{http_endpoint: logs.test}`, []string{noURL}},
		{`{http_endpoint: "ftp://logs.test"}`, []string{noURL}},
		{`{http_endpoint: "http://"}`, []string{noURL}},
		{`{http_endpoint: "http://logs.test/?a b"}`, []string{noURL}},
		{`{http_endpoint: "http://u:secret@logs.test\n"}`, []string{noURL}},
		{`{http_endpoint: "http://logs.test:0"}`, []string{"http_endpoint: has the port 0, which is not between 1 and 65535"}},
		{`{http_endpoint: "http://logs.test:65536"}`, []string{"http_endpoint: has the port 65536, which is not between 1 and 65535"}},
		{`{http_endpoint: "https://logs.test"}`, []string{"http_endpoint: ServiceEntry / has no port 443; its ports: 80, 81"}},
		{`{http_endpoint: "http://gone.test"}`, []string{`http_endpoint: there is no Service test/gone, nor a ServiceEntry with the host "gone.test"`}},
		{`{http_endpoint: "http://logs.test", headers: {Host: a, CONTENT-length: "1", content-type: x, Connection: close}}`, []string{
			"headers.CONTENT-length: cannot be set", "headers.Connection: cannot be set", "headers.Host: cannot be set", "headers.content-type: cannot be set",
		}},
		{`{http_endpoint: "http://logs.test", headers: {"a b": x, c: "x\ny", D: "1", d: "2", "": x}}`, []string{
			"headers.: is no name of a header", "headers.a b: is no name of a header", "headers.c: has a line break or NUL", "headers.d: is there twice",
		}},
		{`{http_endpoint: "http://u:secret@logs.test", headers: {Authorization: a}}`, []string{"headers: has Authorization, and http_endpoint has a username: give one of them"}},
		{`{http_endpoint: "http://logs.test", method: GET}`, []string{`method: "GET" is not allowed, allowed are "POST", "PUT", "PATCH"`}},
		{`{http_endpoint: "http://logs.test", content_type: text/plain}`, []string{`content_type: "text/plain" is not allowed, allowed are "application/json", "application/json; charset=utf-8"`}},
		{`{http_endpoint: "http://logs.test", timeout: 0, max_in_flight: 1001}`, []string{"max_in_flight: 1001 is too large, at most 1000", "timeout: 0 is too small, at least 1"}},
		{`{http_endpoint: "http://logs.test", queue: {max_batch_size: 5}, retry_count: 3, keepalive: 60000, queue_size: 1, flush_timeout: 2}`, []string{
			"warning flush_timeout: has no meaning here and is ignored", "warning keepalive: has no meaning here and is ignored", "warning queue: has no meaning here and is ignored",
			"warning queue_size: has no meaning here and is ignored", "warning retry_count: has no meaning here and is ignored",
		}},
		{`{http_endpoint: "http://logs.test", redact: [""], headers: {":path": x}}`, []string{"redact[0]: must not be shorter than 1 characters"}},
		{`{http_endpoint: "http://logs.test", headers: {":path": x, "X-\u00e9": x, "x:": x}}`, []string{
			"headers.:path: is no name of a header", "headers.X-é: is no name of a header", "headers.x:: is no name of a header",
		}},
		{`{http_endpoint: "http://logs.test", timeout: 300001}`, []string{"timeout: 300001 is too large, at most 300000"}},
		{`{http_endpoint: "http://u:secret@[::1]/"}`, []string{
			`http_endpoint: there is no ServiceEntry with the host "::1"; a Service is written with its namespace here, as ::1.NAMESPACE`,
		}},
		{`{http_endpoint: "http://u:secret@logs.test:port/"}`, []string{noURL}},
		{`{http_endpoint: "http://u:sec%zzret@logs.test/"}`, []string{noURL}},
		{`{http_endpoint: "http://u:secret@gone.test/?token=secret"}`, []string{`http_endpoint: there is no Service test/gone, nor a ServiceEntry with the host "gone.test"`}},
		{`{http_endpoint: "http://logs.test", custom_fields_by_lua: {a: return 1}}`, []string{
			"custom_fields_by_lua: unknown field, known ones are content_type, headers, http_endpoint, max_in_flight, method, redact, timeout",
		}},
	} {
		_, got := catalogtest.Build(t, Builtin, use(), c.config)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.config, diff)
		}
	}
}

// call is what the endpoint got.
type call struct {
	line   string
	header http.Header
	body   string
	record map[string]any
}

// endpoint keeps calls, and answers the test's gateways when it may.
type endpoint struct {
	calls chan call
	may   chan struct{}
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	c := call{line: fmt.Sprint(r.Method, " ", r.Host, " ", r.RequestURI, " ", r.Proto), header: r.Header, body: string(body)}
	if err := json.Unmarshal(body, &c.record); err != nil {
		c.record = map[string]any{"no JSON": string(body)}
	}
	e.calls <- c
	if r.URL.Path == "/hang" {
		select {
		case <-e.may:
		case <-r.Context().Done():
		}
	}
	w.WriteHeader(http.StatusInternalServerError) // which nobody reads
}

// next is the next call.
func (e *endpoint) next(t *testing.T) call {
	t.Helper()
	select {
	case c := <-e.calls:
		return c
	case <-time.After(20 * time.Second):
		t.Fatal("no record comes")
		return call{}
	}
}

// onEach runs chains with an endpoint for each version of Envoy.
func onEach(t *testing.T, chains map[string][]part.Part, f func(*testing.T, *envoytest.Envoy, *endpoint)) {
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			e := &endpoint{calls: make(chan call, 1000), may: make(chan struct{})}
			server := httptest.NewUnstartedServer(e)
			server.Config.Protocols = new(http.Protocols)
			server.Config.Protocols.SetHTTP1(true)
			server.Config.Protocols.SetUnencryptedHTTP2(true)
			server.Start()
			t.Cleanup(server.Close)
			t.Cleanup(func() { close(e.may) })
			address := server.Listener.Addr().String()
			f(t, envoytest.Start(t, version, envoytest.Config{
				Chains:        chains,
				Clusters:      map[string]string{"outbound|80||logs.test": address, "outbound|80||down.test": envoytest.Nobody},
				HTTP2Clusters: map[string]string{"outbound|81||logs.test": address},
			}), e)
		})
	}
}

func parts(t testing.TB, config string) []part.Part {
	t.Helper()
	return catalogtest.Parts(t, Builtin, use(), config)
}

// guard refuses, fails or authenticates as a header says.
var guard = part.Lua{Plugin: "guard", Source: `return {request = function(handle)
	local what = pdk.header(handle, "guard")
	if what == "refuse" then pdk.fail(handle, 403, "no") end
	if what == "fail" then error("failed") end
	if what == "anna" then pdk.authenticate(handle, {id = "id-1", username = "anna", name = "a"}, "key", "guard") end
end}`}

func TestCalls(t *testing.T) {
	chains := map[string][]part.Part{}
	for name, text := range map[string]string{
		"plain":  `{http_endpoint: "http://logs.test"}`,
		"full":   `{http_endpoint: "http://Us%40er:pa%3Ass@LOGS.test:80/in/a b?c=d&e", method: PUT, content_type: application/json; charset=utf-8, headers: {X-A: "1", User-Agent: me}}`,
		"http2":  `{http_endpoint: "http://logs.test:81/two", method: PATCH, headers: {Authorization: Bearer t}}`,
		"nobody": `{http_endpoint: "http://@logs.test/"}`,
	} {
		chains[name] = parts(t, text)
	}
	onEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy, e *endpoint) {
		for _, c := range []struct {
			chain, line string
			header      map[string]string
		}{
			{"plain", "POST logs.test / HTTP/1.1", map[string]string{"Content-Type": "application/json", "Authorization": ""}},
			{"full", "PUT LOGS.test:80 /in/a%20b?c=d&e HTTP/1.1", map[string]string{
				"Content-Type": "application/json; charset=utf-8", "X-A": "1", "User-Agent": "me", "Authorization": "Basic VXNAZXI6cGE6c3M=",
			}},
			{"http2", "PATCH logs.test:81 /two HTTP/2.0", map[string]string{"Authorization": "Bearer t"}},
			{"nobody", "POST logs.test / HTTP/1.1", map[string]string{"Authorization": "Basic Og=="}},
		} {
			if got := envoy.Gateway(c.chain).Get(t, "/"); got.Status != 200 {
				t.Errorf("%s: %+v", c.chain, got)
			}
			got := e.next(t)
			if got.line != c.line || got.record["response"] == nil {
				t.Errorf("%s: the endpoint got %q with %s", c.chain, got.line, got.body)
			}
			for name, want := range c.header {
				if v := strings.Join(got.header.Values(name), "|"); v != want {
					t.Errorf("%s: %s is %q, want %q", c.chain, name, v, want)
				}
			}
		}
	})
}

// at is a field of a record, as text.
func at(record map[string]any, path string) string {
	var v any = record
	for step := range strings.SplitSeq(path, "/") {
		m, ok := v.(map[string]any)
		if !ok {
			return "none"
		}
		if v, ok = m[step]; !ok {
			return "none"
		}
	}
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // it was JSON
	}
	return string(text)
}

func TestRecords(t *testing.T) {
	log := parts(t, `{http_endpoint: "http://logs.test/in"}`)
	chains := map[string][]part.Part{
		"log":   append(log, guard),
		"open":  append(parts(t, `{http_endpoint: "http://logs.test/in", redact: []}`), guard),
		"own":   append(parts(t, `{http_endpoint: "http://logs.test/in", redact: [X-Mine, q]}`), guard),
		"late":  append([]part.Part{guard}, log...),
		"twice": append(parts(t, `{http_endpoint: "http://logs.test/in"}`), log...),
	}
	onEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy, e *endpoint) {
		secrets := []string{"authorization: Bearer one", "cookie: a=two", "cookie: b=three", "apikey: four", "X-Api-Key: five", "x-mine: six"}
		for _, c := range []struct {
			name, chain string
			request     envoytest.Request
			want        map[string]string
		}{
			{"everything", "log", envoytest.Request{
				Method: "POST", Path: "/a%2Fb?c=d&c=e&f&g=%C3%A9&&h=", Host: "shop.test", Body: "hello",
				Header: []string{"x-a: 1", "x-a: 2", "x-forwarded-for: 192.0.2.9", "guard: anna", envoytest.EchoStatus + ": 418", envoytest.EchoHeader + ": x-b: 3", envoytest.EchoHeader + ": x-b: 4", envoytest.EchoBody + ": teapot"},
			}, map[string]string{
				"request/method": `"POST"`, "request/uri": `"/a%2Fb?c=d\u0026c=e\u0026f\u0026g=%C3%A9\u0026h="`, "request/size": `5`,
				"request/url":         `"http://shop.test/a%2Fb?c=d\u0026c=e\u0026f\u0026g=%C3%A9\u0026h="`,
				"request/querystring": `{"c":["d","e"],"f":true,"g":"é","h":""}`, "request/headers/x-a": `["1","2"]`, "request/headers/host": `"shop.test"`,
				"request/headers/:path": "none", "response/status": "418", "response/size": "6", "response/headers/x-b": `["3","4"]`, "response/headers/:status": "none",
				"response/headers/content-type": `"text/plain"`, "client_ip": `"192.0.2.9"`, "route": `{"name":"log"}`, "consumer": `{"id":"id-1","username":"anna"}`,
			}},
			{"nothing", "log", envoytest.Request{Path: "/", Host: "shop.test"}, map[string]string{
				"request/uri": `"/"`, "request/url": `"http://shop.test/"`, "request/size": "none", "request/querystring": "{}", "consumer": "none", "response/status": "200",
			}},
			{"a question mark", "log", envoytest.Request{Path: "/?"}, map[string]string{"request/uri": `"/"`}},
			{"HEAD by HTTP/2", "log", envoytest.Request{Method: "HEAD", HTTP2: true, Host: "shop.test"}, map[string]string{"request/method": `"HEAD"`, "request/url": `"http://shop.test/"`}},
			{"no content", "log", envoytest.Request{Header: []string{envoytest.EchoStatus + ": 204"}}, map[string]string{"response/status": "204"}},
			{"refused", "log", envoytest.Request{Path: "/x", Header: []string{"guard: refuse"}}, map[string]string{"request/uri": `"/x"`, "response/status": "403", "latencies": "{}"}},
			{"failed", "log", envoytest.Request{Path: "/x", Header: []string{"guard: fail"}}, map[string]string{"request/uri": `"/x"`, "response/status": "500"}},
			{"before the log", "late", envoytest.Request{Path: "/x", Header: []string{"guard: refuse"}}, map[string]string{"request": "none", "started_at": "none", "response/status": "403", "route": `{"name":"late"}`}},
			{"no UTF-8", "log", envoytest.Request{Path: "/?a=%ff%FE", Header: []string{"x-a: \xff\"\\é"}}, map[string]string{"request/headers/x-a": `"�\"\\é"`, "request/querystring/a": `"��"`}},
			{"no UTF-8 in the path", "log", envoytest.Request{Path: "/%ff?%fe=%fd"}, map[string]string{"request/uri": `"/%ff?%fe=%fd"`, "request/querystring": `{"�":"�"}`}},
			{"names like those of a list", "log", envoytest.Request{Path: "/?1=a&2=b&=c&__index=d", Header: []string{"1: x"}}, map[string]string{
				"request/querystring": `{"":"c","1":"a","2":"b","__index":"d"}`, "request/headers/1": `"x"`,
			}},
			{"many arguments", "log", envoytest.Request{Path: "/?" + strings.Repeat("a&", 10_000) + "a=" + strings.Repeat("b", 10_000)}, map[string]string{
				"request/querystring": `{"a":[` + strings.Repeat("true,", 10_000) + `"` + strings.Repeat("b", 10_000) + `"]}`,
			}},
			{"a long header", "log", envoytest.Request{Header: []string{"x-a: " + strings.Repeat("a", 50_000)}}, map[string]string{"request/headers/x-a": `"` + strings.Repeat("a", 50_000) + `"`}},
			{"gRPC", "log", envoytest.Request{Method: "POST", HTTP2: true, Header: []string{"content-type: application/grpc", "guard: refuse", "x-forwarded-for: 2001:db8::1"}}, map[string]string{
				"response/headers/grpc-status": `"7"`, "response/status": "200", "client_ip": `"2001:db8::1"`,
			}},
			{"of unknown length", "log", envoytest.Request{Method: "PUT", Body: "b", UnknownLength: true}, map[string]string{"request/method": `"PUT"`, "request/size": "none"}},
			{"an event stream", "log", envoytest.Request{Header: []string{envoytest.EchoHeader + ": content-type: text/event-stream", envoytest.EchoBody + ": data"}}, map[string]string{"response/status": "200"}},
			{"credentials", "log", envoytest.Request{Path: "/?apikey=seven&ApiKey=seven&%61pikey=seven&a=8&token&jwt=a=b", Header: append(secrets, envoytest.EchoHeader+": set-cookie: s=nine")}, map[string]string{
				"request/headers/authorization": `"***"`, "request/headers/cookie": `["***","***"]`, "request/headers/apikey": `"***"`, "request/headers/x-api-key": `"***"`,
				"request/headers/x-mine": `"six"`, "request/querystring": `{"ApiKey":"***","a":"8","apikey":["***","***"],"jwt":"***","token":"***"}`,
				"request/uri":                 `"/?apikey=***\u0026ApiKey=***\u0026%61pikey=***\u0026a=8\u0026token=***\u0026jwt=***"`,
				"response/headers/set-cookie": `"***"`,
			}},
			{"credentials, open", "open", envoytest.Request{Path: "/?apikey=seven", Header: secrets}, map[string]string{
				"request/headers/authorization": `"Bearer one"`, "request/headers/cookie": `["a=two","b=three"]`, "request/uri": `"/?apikey=seven"`,
			}},
			{"own names", "own", envoytest.Request{Path: "/?apikey=seven&Q=1", Header: secrets}, map[string]string{
				"request/headers/x-mine": `"***"`, "request/headers/apikey": `"four"`, "request/uri": `"/?apikey=seven\u0026Q=***"`,
			}},
		} {
			t.Run(c.name, func(t *testing.T) {
				began := time.Now().UnixMilli()
				answer := envoy.Gateway(c.chain).Do(t, c.request)
				ended := time.Now().UnixMilli()
				if answer.Header.Get("content-type") == "" && answer.Status != 204 {
					t.Errorf("the answer is %+v", answer)
				}
				got := e.next(t)
				for path, want := range c.want {
					if v := at(got.record, path); v != want {
						t.Errorf("%s is %s, want %s", path, v, want)
					}
				}
				if started, _ := got.record["started_at"].(float64); c.want["started_at"] == "" && (int64(started) < began || int64(started) > ended) {
					t.Errorf("started_at is %v, not from %d to %d", got.record["started_at"], began, ended)
				}
				if took, known := got.record["latencies"].(map[string]any)["proxy"].(float64); known != (answer.Upstream != nil) || int64(took) > ended-began+1000 {
					t.Errorf("latencies are %v, of %d", got.record["latencies"], ended-began)
				}
				if c.name == "credentials" {
					for _, secret := range []string{"one", "two", "three", "four", "five", "seven"} {
						if strings.Contains(strings.ReplaceAll(got.body, "none", ""), secret) {
							t.Errorf("the record has %q: %s", secret, got.body)
						}
					}
				}
			})
		}
		envoy.Gateway("twice").Get(t, "/")
		for range 2 {
			if got := e.next(t); at(got.record, "request/uri") != `"/"` {
				t.Errorf("two logs: %s", got.body)
			}
		}
		// A record that comes by the route that is logged is not logged again; the next request is.
		envoy.Gateway("log").Do(t, envoytest.Request{Method: "POST", Path: "/in", Host: "LOGS.test", Body: "{}"})
		envoy.Gateway("log").Do(t, envoytest.Request{Method: "GET", Path: "/in", Host: "logs.test"})
		if got := e.next(t); at(got.record, "request/method") != `"GET"` || len(e.calls) > 0 {
			t.Errorf("the record of a record: %s", got.body)
		}
	})
}

// What becomes of a record does not matter to its request, and records do not pile up.
func TestEndpointThatDoesNotAnswer(t *testing.T) {
	chains := map[string][]part.Part{}
	for name, text := range map[string]string{
		"hang":    `{http_endpoint: "http://logs.test/hang", timeout: 300000}`,
		"few":     `{http_endpoint: "http://logs.test/hang", timeout: 300000, max_in_flight: 3}`,
		"down":    `{http_endpoint: "http://down.test"}`,
		"unknown": `{http_endpoint: "http://unknown.test"}`,
	} {
		chains[name] = append(parts(t, text), guard)
	}
	onEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy, e *endpoint) {
		for chain, want := range map[string]int{"hang": 100, "few": 3, "down": 0, "unknown": 0} {
			for i := range 120 {
				if got := envoy.Gateway(chain).Do(t, envoytest.Request{Method: "POST", Body: "x"}); got.Status != 200 || got.Upstream.Body != "x" {
					t.Fatalf("%s, request %d: %+v", chain, i, got)
				}
			}
			for range want {
				e.next(t)
			}
		}
		if n := len(e.calls); n > 0 {
			t.Errorf("%d records too many", n)
		}
		envoy.WaitLog(t, "plugin http-log, route few: records are lost: 3 are under way")
		if n := strings.Count(envoy.Log(), "route hang: records are lost: 100 are under way"); n != 1 {
			t.Errorf("%d lines tell of lost records", n)
		}
		envoy.WaitLog(t, "plugin http-log, route unknown: skipped: service endpoint cannot be called: http call cluster invalid. Must be configured")
	})
}

// A call that takes longer than it may makes room for the next.
func TestTimeout(t *testing.T) {
	chains := map[string][]part.Part{"brief": parts(t, `{http_endpoint: "http://logs.test/hang", timeout: 1, max_in_flight: 1}`)}
	onEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy, e *endpoint) {
		envoy.Gateway("brief").Get(t, "/first")
		e.next(t)
		for range 500 {
			envoy.Gateway("brief").Get(t, "/next")
			if len(e.calls) > 0 {
				return
			}
		}
		t.Error("the first call has still no end")
	})
}
