package lua_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// service is what plugins call: it answers by the path, and remembers what came.
type service struct {
	mu   sync.Mutex
	came []string
	// arrived gets the path of each request to /hang.
	arrived chan string
	hanging chan struct{}
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the caller went away
	}
	s.mu.Lock()
	s.came = append(s.came, fmt.Sprint(r.Method, " ", r.Host, " ", r.RequestURI, " ", r.Proto, " ", len(body)))
	s.mu.Unlock()
	w.Header()["X-Twice"] = []string{"1", "2"}
	switch {
	case r.URL.Path == "/hang":
		s.arrived <- r.RequestURI
		select {
		case <-s.hanging:
		case <-r.Context().Done():
		}
	case r.URL.Path == "/abort":
		w.Header().Set("content-length", "100")
		_, _ = io.WriteString(w, "begin")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case strings.HasPrefix(r.URL.Path, "/big/"):
		size, _ := strconv.Atoi(r.URL.Path[len("/big/"):])
		_, _ = io.Copy(w, io.LimitReader(zeros{}, int64(size)))
	case strings.HasPrefix(r.URL.Path, "/status/"):
		status, _ := strconv.Atoi(r.URL.Path[len("/status/"):])
		w.WriteHeader(status)
	default:
		fmt.Fprintf(w, "%s:%s:%s", r.Method, r.Header.Get("x-a"), body)
	}
}

// zeros is an endless text.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0'
	}
	return len(p), nil
}

// has waits for nothing: a call that was answered has come.
func (s *service) has(line string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.came {
		if c == line {
			return true
		}
	}
	return false
}

// onServices is onEnvoys with services that plugins may call: web and rpc, which speaks HTTP/2; down, where nobody listens;
// empty, which has no endpoints; and nowhere, which the gateway does not know.
func onServices(t *testing.T, chains map[string][]part.Part, f func(*testing.T, *envoytest.Envoy, *service)) {
	t.Helper()
	services := map[string]part.Service{}
	for name, port := range map[string]uint32{"web": 80, "rpc": 8081, "down": 80, "empty": 80, "nowhere": 80} {
		services[name] = part.Service{Host: name + ".test", Port: port}
	}
	for _, chain := range chains {
		for i, p := range chain {
			l := p.(part.Lua)
			l.Services = services
			chain[i] = l
		}
	}
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := &service{arrived: make(chan string, 1000), hanging: make(chan struct{})}
			server := httptest.NewUnstartedServer(s)
			server.Config.Protocols = new(http.Protocols)
			server.Config.Protocols.SetHTTP1(true)
			server.Config.Protocols.SetUnencryptedHTTP2(true)
			server.Start()
			t.Cleanup(server.Close)
			t.Cleanup(func() { close(s.hanging) })
			address := server.Listener.Addr().String()
			f(t, envoytest.Start(t, version, envoytest.Config{
				Chains: chains,
				Clusters: map[string]string{
					services["web"].Cluster(): address, services["down"].Cluster(): envoytest.Nobody, services["empty"].Cluster(): "",
				},
				HTTP2Clusters: map[string]string{services["rpc"].Cluster(): address},
			}), s)
		})
	}
}

func TestCall(t *testing.T) {
	cases := []struct {
		call string
		// came is what the service saw, answer what the plugin got, or problem what was wrong.
		came, answer, problem string
	}{
		{call: `"web"`, came: "GET web.test / HTTP/1.1 0", answer: "200 GET::"},
		{call: `"rpc"`, came: "GET rpc.test:8081 / HTTP/2.0 0", answer: "200 GET::"},
		{call: `"web", {}`, answer: "200 GET::"},
		{call: `"web", {method = "POST", path = "/a%20b?c=d", headers = {["X-A"] = "1"}, body = "hello\0\255"}`, came: "POST web.test /a%20b?c=d HTTP/1.1 7", answer: "200 POST:1:hello\x00\xff"},
		{call: `"rpc", {method = "PUT", headers = {["x-a"] = 5}, body = ("x"):rep(1e6)}`, came: "PUT rpc.test:8081 / HTTP/2.0 1000000", answer: "200 PUT:5:" + strings.Repeat("x", 1e6)},
		{call: `"web", {headers = {Host = "other.test:8080"}}`, came: "GET other.test:8080 / HTTP/1.1 0", answer: "200 GET::"},
		{call: `"web", {method = "HEAD"}`, came: "HEAD web.test / HTTP/1.1 0", answer: "200 "},
		{call: `"web", {path = "/status/204"}`, answer: "204 "},
		{call: `"web", {path = "/status/503"}`, answer: "503 "},
		{call: `"rpc", {path = "/status/504"}`, answer: "504 "},
		{call: `"web", {path = "/big/3000000", timeout = 20000}`, answer: "200 " + strings.Repeat("0", 3000000)},
		{call: `"rpc", {path = "/big/3000000", timeout = 20000}`, answer: "200 " + strings.Repeat("0", 3000000)},

		{call: `"web", {path = "/hang", timeout = 20}`, problem: "service web does not answer: upstream request timeout"},
		{call: `"rpc", {path = "/hang", timeout = 20}`, problem: "service rpc does not answer: upstream request timeout"},
		{call: `"web", {path = "/abort"}`, problem: "service web does not answer: upstream failure"},
		{call: `"rpc", {path = "/abort"}`, problem: "service rpc does not answer: upstream failure"},
		{call: `"web", {path = "/big/40000000", timeout = 20000}`, problem: "service web does not answer: upstream failure"},
		{call: `"down"`, problem: "service down does not answer: upstream connect error or disconnect/reset before headers"},
		{call: `"empty"`, problem: "service empty does not answer: no healthy upstream"},
		{call: `"nowhere"`, problem: "service nowhere cannot be called: http call cluster invalid. Must be configured"},

		{call: `"gone"`, problem: "this plugin declares no service gone"},
		{call: `nil`, problem: "this plugin declares no service that is a nil"},
		{call: `"web", {timout = 5}`, problem: "the call has an unknown field timout"},
		{call: `"web", {in_flight = 5}`, problem: "the call has an unknown field in_flight"},
		{call: `"web", {timeout = 0}`, problem: "the call has a timeout that is no integer from 1 to 300000"},
		{call: `"web", {timeout = 1.5}`, problem: "the call has a timeout that is no integer"},
		{call: `"web", {timeout = "5"}`, problem: "the call has a timeout that is no integer"},
		{call: `"web", {timeout = 0/0}`, problem: "the call has a timeout that is no integer"},
		{call: `"web", {method = "A B"}`, problem: "the call has no method"},
		{call: `"web", {path = "a"}`, problem: "the call has no path"},
		{call: `"web", {path = "/a b"}`, problem: "the call has no path"},
		{call: `"web", {path = "/a\r\nx: y"}`, problem: "the call has no path"},
		{call: `"web", {body = 5}`, problem: "the call has a body that is a number, not a string"},
		{call: `"web", {headers = {[":path"] = "/b"}}`, problem: "the call cannot have this header :path"},
		{call: `"web", {headers = {["Content-Length"] = "5"}}`, problem: "the call cannot have this header content-length"},
		{call: `"web", {headers = {host = {"a", "b"}}}`, problem: "the call cannot have this header host"},
		{call: `"web", {headers = {["x-a"] = "a\nb"}}`, problem: "the value of header x-a has CR, LF or NUL"},
		{call: `"web", {headers = {["x a"] = "a"}}`, problem: "not a header name: x a"},
	}
	chains := map[string][]part.Part{
		"unhandled": {request("call", `pdk.call(handle, pdk.header(handle, "service"), {path = "/hang", timeout = 20})`)},
		"headers": {request("call", `
			local answer = pdk.call(handle, "web", {headers = {["x-a"] = {"1", "2"}}})
			pdk.exit(handle, answer.status, answer.headers, table.concat(answer.headers["x-twice"], "+") .. tostring(answer.headers["content-length"]))`)},
		"raw": {request("raw", `pdk.exit(handle, 200, {}, tostring(handle.httpCall))`)},
	}
	for i, c := range cases {
		chains[fmt.Sprint(i)] = parts{request("call", `
			local ok, answer = pcall(pdk.call, handle, `+c.call+`)
			pdk.exit(handle, 200, {}, ok and answer.status .. " " .. answer.body or answer)`)}
	}
	onServices(t, chains, func(t *testing.T, envoy *envoytest.Envoy, s *service) {
		for i, c := range cases {
			answer := envoy.Gateway(fmt.Sprint(i)).Get(t, "/")
			if c.problem == "" && answer.Body != c.answer || !strings.Contains(answer.Body, c.problem) {
				t.Errorf("pdk.call(handle, %s) is %.200q, want %.200q", c.call, answer.Body, c.answer+c.problem)
			}
			if c.came != "" && !s.has(c.came) {
				t.Errorf("pdk.call(handle, %s): the service saw %q, want %q", c.call, s.came, c.came)
			}
		}
		if got := envoy.Gateway("headers").Get(t, "/"); got.Body != "1+2nil" || strings.Join(got.Header.Values("x-twice"), " ") != "1 2" {
			t.Errorf("headers: the answer is %+v", got)
		}
		if got := envoy.Gateway("raw").Get(t, "/").Body; got != "nil" {
			t.Errorf("a plugin reaches httpCall: %s", got)
		}
		for _, name := range []string{"down", "empty", "nowhere", "gone", "web"} {
			answer := envoy.Gateway("unhandled").Get(t, "/", "service: "+name)
			if answer.Status != 500 || answer.Message() != "An unexpected error occurred" || answer.Upstream != nil {
				t.Errorf("%s: the answer is %+v", name, answer)
			}
		}
		envoy.WaitLog(t, "istio-plugins: plugin call, route unhandled: failed: service empty does not answer: no healthy upstream")
	})
}

// A call ends Envoy's objects of headers and bodies, for the plugin that makes it and for those after it.
func TestCallInTheMiddle(t *testing.T) {
	const call = `local answer = pdk.call(handle, "web", {headers = {["x-a"] = "1"}})`
	// around changes headers before and after a call, and reads the body before it.
	around := func(phase, read string) part.Lua {
		return plugin("around", `return {`+phase+` = function(handle)
			pdk.set_header(handle, "x-before", "b")
			local headers = handle:headers()
			`+read+call+`
			pdk.add_header(handle, "x-ran", answer.body)
			pdk.set_header(handle, "x-after", (pdk.header(handle, "x-before") or "none") .. "a")
			assert(not pcall(headers.get, headers, "x-before"), "the old headers still live")
		end}`)
	}
	const read = `
		local body = handle:body()
		pdk.set_header(handle, "x-body", body and body:getBytes(0, body:length()) or "none")
		`
	const again = `
		local body = handle:body()
		pdk.set_header(handle, "x-again", body and body:getBytes(0, body:length()) or "none")
		if body then body:setBytes("changed") end
		`
	reader := func(phase string) part.Lua {
		return plugin("reader", `return {`+phase+` = function(handle) `+again+` end}`)
	}
	failing := `pdk.call(handle, "down")`
	chains := map[string][]part.Part{
		"request":             {tag("a"), around("request", ""), tag("c"), around("request", ""), tag("d")},
		"then a body":         {around("request", ""), reader("request"), tag("c")},
		"body, call":          {tag("a"), around("request", read), reader("request"), tag("c")},
		"body, call, body":    {request("both", read+call+again), tag("c")},
		"call, body":          {request("late", call+` handle:body()`)},
		"refused":             {tag("a"), request("no", call+` pdk.fail(handle, 403, answer.body)`), tag("c")},
		"response":            {tag("a"), reader("response"), around("response", ""), tag("c"), around("response", ""), tag("d")},
		"response body, call": {reader("response"), around("response", read), tag("c")},
		"response refused":    {tag("a"), response("no", call+` pdk.fail(handle, 403, answer.body)`)},
		"response failed":     {tag("a"), response("no", failing), tag("c")},
		"response, open":      {tag("a"), open(response("no", failing)), tag("c")},
		"both phases": {plugin("both", `return {
			request = function(handle) `+call+` pdk.save(handle, "answer", answer.body) end,
			response = function(handle) `+call+` pdk.set_header(handle, "x-both", pdk.saved(handle, "answer") .. answer.body) end,
		}`)},
		"several": {request("several", `
			local out = {}
			for i = 1, 3 do out[i] = pdk.call(handle, i == 2 and "rpc" or "web", {headers = {["x-a"] = i}}).body end
			pdk.set_header(handle, "x-all", table.concat(out, ","))`)},
	}
	onServices(t, chains, func(t *testing.T, envoy *envoytest.Envoy, _ *service) {
		const called = "GET:1:"
		for _, http2 := range []bool{false, true} {
			do := func(chain, body string, header ...string) *envoytest.Answer {
				return envoy.Gateway(chain).Do(t, envoytest.Request{Method: "POST", Body: body, HTTP2: http2, UnknownLength: body != "", Header: header})
			}
			check := func(chain string, got *envoytest.Answer, of func(string) string, want map[string]string) {
				t.Helper()
				for name, value := range want {
					if of(name) != value {
						t.Errorf("%s, HTTP/2 %t: %s is %q, want %q: %+v", chain, http2, name, of(name), value, got)
					}
				}
			}
			request := func(chain, body string, want map[string]string, ran, sent string) {
				t.Helper()
				got := do(chain, body)
				if got.Upstream == nil {
					t.Errorf("%s, HTTP/2 %t: %+v\n%s", chain, http2, got, envoy.Log())
					return
				}
				check(chain, got, got.Upstream.Value, want)
				if r := strings.Join(got.Upstream.Values("x-ran"), ","); r != ran || got.Upstream.Body != sent {
					t.Errorf("%s, HTTP/2 %t: ran %q, want %q; the body %q, want %q", chain, http2, r, ran, got.Upstream.Body, sent)
				}
			}
			ba := map[string]string{"x-before": "b", "x-after": "ba"}
			request("request", "hello", ba, "a,GET:1:,c,GET:1:,d", "hello")
			request("request", "", ba, "a,GET:1:,c,GET:1:,d", "")
			request("then a body", "hello", map[string]string{"x-after": "ba", "x-again": "hello"}, "GET:1:,c", "changed")
			request("then a body", "", map[string]string{"x-after": "ba", "x-again": "none"}, "GET:1:,c", "")
			request("body, call", "hello", map[string]string{"x-after": "ba", "x-body": "hello", "x-again": "hello"}, "a,GET:1:,c", "changed")
			request("body, call, body", "hello", map[string]string{"x-body": "hello", "x-again": "hello"}, "c", "changed")
			request("body, call, body", "", map[string]string{"x-body": "none", "x-again": "none"}, "c", "")
			request("several", "hello", map[string]string{"x-all": "GET:1:,GET:2:,GET:3:"}, "", "hello")
			for _, body := range []string{"", "hello"} {
				if got := do("call, body", body); got.Status != 500 || got.Upstream != nil {
					t.Errorf("a body that is read too late: %+v", got)
				}
			}
			if got := do("refused", "hello"); got.Status != 403 || got.Message() != called || got.Upstream != nil {
				t.Errorf("refused: %+v", got)
			}
			if got := do("both phases", "hello"); got.Header.Get("x-both") != called+called {
				t.Errorf("both phases: %+v", got)
			}

			quiet := envoytest.EchoBody + ": quiet"
			got := do("response", "hello", quiet)
			check("response", got, got.Header.Get, map[string]string{"x-before": "b", "x-after": "ba", "x-again": "quiet"})
			if ran := strings.Join(got.Header.Values("x-ran"), ","); ran != "d,GET:1:,c,GET:1:,a" || got.Body != "changed" {
				t.Errorf("response: ran %q, the body is %q", ran, got.Body)
			}
			got = do("response body, call", "hello", quiet)
			check("response body, call", got, got.Header.Get, map[string]string{"x-after": "ba", "x-body": "quiet", "x-again": "quiet"})
			got = do("response body, call", "hello", envoytest.EchoStatus+": 204")
			check("a response without body", got, got.Header.Get, map[string]string{"x-after": "ba", "x-body": "none", "x-again": "none"})
			// Not a byte of the upstream's answer gets past a plugin that fails.
			large := envoytest.EchoBody + ": " + strings.Repeat("secret", 5000)
			for chain, want := range map[string]int{"response refused": 403, "response failed": 500} {
				for _, header := range []string{quiet, large, "x-a: 1", envoytest.EchoHeader + ": content-type: application/grpc", envoytest.EchoHeader + ": content-type: text/event-stream", envoytest.EchoStatus + ": 204"} {
					got := do(chain, "hello", header)
					streaming, status := strings.Contains(header, "content-type"), want
					if streaming {
						status = 500 // such a response cannot wait
					}
					if got.Status != status || (got.Message() == "") != streaming || streaming && got.Body != "" {
						t.Errorf("%s, %.40s: %d %.100q", chain, header, got.Status, got.Body)
					}
				}
			}
			if got := do("response, open", "hello", quiet); got.Status != 200 || got.Body != "quiet" || ran(got.Header.Values("x-ran")) != "c a" {
				t.Errorf("response, open: %+v", got)
			}
			if got := envoy.Gateway("response failed").Do(t, envoytest.Request{Method: "HEAD", HTTP2: http2}); got.Status != 500 || got.Body != "" {
				t.Errorf("response failed, HEAD: %+v", got)
			}
		}
	})
}

// What is sent and forgotten waits for nobody, and does not pile up.
func TestSend(t *testing.T) {
	send := func(what string) part.Lua {
		return request("send", `
			local ok, sent = pcall(pdk.send, handle, `+what+`)
			pdk.set_header(handle, "x-sent", tostring(sent))
			local body = handle:body()
			pdk.set_header(handle, "x-body", body:getBytes(0, body:length()))`)
	}
	chains := map[string][]part.Part{
		"hang": {send(`"web", {method = "POST", path = "/hang?1", body = "x", timeout = 300000}`), tag("b")},
		"few": {send(`"rpc", {path = "/hang?2", timeout = 300000, in_flight = 2}`), request("more", `
			pdk.set_header(handle, "x-more", tostring(pdk.send(handle, "rpc", {timeout = 1, in_flight = 3})))`), tag("b")},
		"down":        {send(`"down"`), tag("b")},
		"empty":       {send(`"empty"`), tag("b")},
		"nowhere":     {send(`"nowhere"`), tag("b")},
		"gone":        {send(`"gone"`), tag("b")},
		"wrong":       {send(`"web", {in_flight = 0}`), tag("b")},
		"in response": {response("send", `pdk.set_header(handle, "x-sent", tostring(pdk.send(handle, "web", {path = "/hang?3"})))`)},
	}
	onServices(t, chains, func(t *testing.T, envoy *envoytest.Envoy, s *service) {
		post := func(chain string) *envoytest.Received {
			t.Helper()
			answer := envoy.Gateway(chain).Do(t, envoytest.Request{Method: "POST", Body: "hello"})
			if answer.Upstream == nil || answer.Upstream.Value("x-body") != "hello" || answer.Upstream.Value("x-ran") != "b" {
				t.Fatalf("%s: %+v", chain, answer)
			}
			return answer.Upstream
		}
		arrived := func(want string, n int) {
			t.Helper()
			for range n {
				if got := <-s.arrived; got != want {
					t.Fatalf("%s came, want %s", got, want)
				}
			}
		}
		sent := map[string]int{}
		for range 130 {
			sent[post("hang").Value("x-sent")]++
		}
		if sent["true"] != 100 || sent["false"] != 30 {
			t.Errorf("sent: %v", sent)
		}
		arrived("/hang?1", 100)
		for chain, want := range map[string]string{
			"down": "true", "empty": "true", "nowhere": "service nowhere cannot be called: http call cluster invalid. Must be configured",
			"gone": "this plugin declares no service gone", "wrong": "the call has an in_flight that is no integer from 1 to 1000",
		} {
			if got := post(chain).Value("x-sent"); !strings.HasSuffix(got, want) {
				t.Errorf("%s: %s, want %s", chain, got, want)
			}
		}
		if got := envoy.Gateway("in response").Get(t, "/").Header.Get("x-sent"); got != "true" {
			t.Errorf("in the response phase: %s", got)
		}
		arrived("/hang?3", 1)
		// Calls to one service count together, whoever makes them.
		first := post("few")
		arrived("/hang?2", 1)
		if first.Value("x-sent") != "true" || first.Value("x-more") != "true" {
			t.Errorf("few: %+v", first)
		}
		// One of them ends in time, so there is room for another.
		for post("few").Value("x-more") != "true" {
			t.Log("not yet")
		}
	})
}
