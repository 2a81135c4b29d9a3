package lua_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// show answers with the values of an expression, `|` between them.
func show(expression string) part.Lua {
	return request("show", `
		local out = {`+expression+`}
		for i = 1, select("#", `+expression+`) do out[i] = tostring(out[i]) end
		pdk.exit(handle, 200, {}, table.concat(out, "|"))`)
}

func TestPDKReadsTheRequest(t *testing.T) {
	cases := []struct {
		expression, path, want string
		header                 []string
	}{
		{`pdk.header(handle, "x-a")`, "", "1", []string{"x-a: 1", "x-a: 2"}},
		{`pdk.header(handle, "x-none")`, "", "nil", nil},
		{`pdk.header(handle, "X-A")`, "", "1", []string{"x-a: 1"}},
		{`pdk.header(handle, "x-a")`, "", "", []string{"x-a:"}},
		{`table.concat(pdk.headers(handle, "x-a"), ",")`, "", "1,2,1", []string{"x-a: 1", "x-a: 2", "x-a: 1"}},
		{`#pdk.headers(handle, "x-none")`, "", "0", nil},
		{`pdk.path(handle)`, "/a%20b?c=d?e", "/a%20b|c=d?e", nil},
		{`pdk.path(handle)`, "/a", "/a|nil", nil},
		{`pdk.path(handle)`, "/a?", "/a|", nil},
		{`#pdk.query(select(2, pdk.path(handle)))`, "/", "0", nil},
		{`pdk.query("a=%41")[1].value`, "", "A", nil},
		{`pdk.client_ip(handle)`, "", "9.8.7.6", []string{"x-forwarded-for: 9.8.7.6"}},
		{`pdk.client_ip(handle)`, "", "2001:db8::7", []string{"x-forwarded-for: 2001:db8::7"}},
		{`pdk.client_ip(handle)`, "", "127.0.0.1", nil},
		{`pdk.is_grpc(handle)`, "", "false", nil},
		{`pdk.is_grpc(handle)`, "", "true", []string{"content-type: application/grpc+proto"}},
		{`pdk.cookie(handle, "b")`, "", "2", []string{"cookie: a=1; b=2; c=3"}},
		{`pdk.cookie(handle, "b")`, "", "x=y", []string{"cookie: a=1;b=x=y"}},
		{`pdk.cookie(handle, "b")`, "", "2", []string{"cookie: a=1", "cookie: b=2"}},
		{`pdk.cookie(handle, "b")`, "", "", []string{"cookie: b="}},
		{`pdk.cookie(handle, "b")`, "", "x y", []string{"cookie: a=1;\t b \t=  x y ; c=2"}},
		// Blanks must not make it look at the others again and again: this would not end.
		{`pdk.cookie(handle, "b")`, "", "2", []string{"cookie: a;" + strings.Repeat(" ", 40_000) + ";b=2"}},
		{`pdk.cookie(handle, "b")`, "", "nil", []string{"cookie: bb=1; ab=2; b"}},
		{`pdk.cookie(handle, "b")`, "", "nil", nil},
		{`pdk.cookie(handle, "b")`, "", "2 = 3", []string{"cookie: a = 1; \t b\t =  2 = 3 \t;c"}},
		{`pdk.cookie(handle, "b")`, "", "", []string{"cookie: b = ; c"}},
		{`pdk.cookie(handle, "b")`, "", "3", []string{"cookie: = ; =b; b c=2;  ;; b=3; b=4"}},
		{`#pdk.request_id(handle)`, "", "36", nil},
		{`pdk.saved(handle, "x"), pdk.metadata(handle, "none", "x"), pdk.consumer(handle)`, "", "nil|nil|nil", nil},
		{`pdk.equal("a", "a"), #pdk.uuid()`, "", "true|36", nil},
		{`pdk.base64.encode("a"), pdk.base64.decode("YQ"), pdk.base64.encode_url("a"), pdk.base64.decode_url("YQ")`, "", "YQ==|a|YQ|a", nil},
		{`pdk.url.encode("a b"), pdk.url.decode("a+b", true)`, "", "a%20b|a b", nil},
		{`pdk.json.encode(pdk.json.array({})), pdk.json.decode("{")`, "", "[]|nil|a key is needed at byte 2", nil},
	}
	chains := make(map[string][]part.Part)
	for i, c := range cases {
		chains[fmt.Sprint(i)] = parts{show(c.expression)}
	}
	chains["names"] = parts{show(`pdk.route(handle), pdk.virtual_service(handle)`)}
	onEnvoys(t, envoytest.Config{Chains: chains}, func(t *testing.T, envoy *envoytest.Envoy) {
		for i, c := range cases {
			answer := envoy.Gateway(fmt.Sprint(i)).Get(t, c.path, c.header...)
			got := answer.Body
			if message := answer.Header.Get("grpc-message"); message != "" {
				got = message
			}
			if got != c.want {
				t.Errorf("%s for %q %q is %q, want %q", c.expression, c.path, c.header, got, c.want)
			}
		}
		if got := envoy.Gateway("names").Get(t, "/").Body; got != "names|default/names" {
			t.Errorf("the route is %q", got)
		}
	})
}

// The work that a client's blanks make grows with their number, not with its square.
func TestPDKReadsManyBlanks(t *testing.T) {
	blanks := strings.Repeat(" ", 50_000)
	chains := map[string][]part.Part{"cookie": parts{show(`pdk.cookie(handle, "b")`)}}
	onEnvoys(t, envoytest.Config{Chains: chains}, func(t *testing.T, envoy *envoytest.Envoy) {
		for line, want := range map[string]string{
			"cookie: a" + blanks + "a": "nil", "cookie: a;" + blanks + ";a": "nil", "cookie: b" + blanks + "=" + "2": "2",
			"cookie: b=2" + blanks + ";": "2", "cookie: a=" + blanks + "; b=2": "2", "cookie: a" + blanks + "c=" + "; b=2": "2",
		} {
			for _, answer := range envoy.Gateway("cookie").DoAtOnce(t, envoytest.Request{Header: []string{line}}) {
				if answer.Body != want {
					t.Fatalf("%q, want %q, for %.20q", answer.Body, want, line)
				}
			}
		}
	})
}

func TestPDKChangesTheRequest(t *testing.T) {
	onEnvoys(t, envoytest.Config{Chains: map[string][]part.Part{
		"all": {request("all", `
			pdk.set_header(handle, "x-set", "new")
			pdk.add_header(handle, "x-add", 2)
			pdk.remove_header(handle, "x-gone")
			pdk.set_path(handle, "/b%2Fc", "d=e")`)},
		"no query": {request("path", `pdk.set_path(handle, "/b")`)},
		"bad path": {request("path", `pdk.set_path(handle, "/b\r\nx: y")`)},
	}}, func(t *testing.T, envoy *envoytest.Envoy) {
		saw := envoy.Gateway("all").Get(t, "/a?b", "x-set: 1", "x-set: 2", "x-add: 1", "x-gone: 1", "x-gone: 2").Upstream
		for name, want := range map[string]string{"x-set": "new", "x-add": "1 2", "x-gone": ""} {
			if got := ran(saw.Values(name)); got != want {
				t.Errorf("the upstream saw %s %q, want %q", name, got, want)
			}
		}
		if saw.Path != "/b%2Fc?d=e" {
			t.Errorf("the upstream saw %s", saw.Path)
		}
		if saw := envoy.Gateway("no query").Get(t, "/a?b").Upstream; saw.Path != "/b" {
			t.Errorf("the upstream saw %s", saw.Path)
		}
		if answer := envoy.Gateway("bad path").Get(t, "/"); answer.Status != 500 {
			t.Errorf("a path with a line break: %+v", answer)
		}
	})
}

func TestPDKAnswers(t *testing.T) {
	onEnvoys(t, envoytest.Config{Chains: map[string][]part.Part{
		"exit": {request("exit", `pdk.exit(handle, 418, {["X-One"] = "1", ["x-list"] = {"a", "b"}, ["content-type"] = "text/x"}, "tea")
			error("it returned")`)},
		"json":     {request("exit", `pdk.exit(handle, 200, {["x-one"] = "1"}, {["a list"] = {"x", 1, pdk.json.null, 'a"b'}})`)},
		"own type": {request("exit", `pdk.exit(handle, 402, {["Content-Type"] = "application/problem+json"}, {title = "pay"})`)},
		"no json":  {request("exit", `pdk.exit(handle, 200, {}, {f = print})`)},
		"204":      {request("exit", `pdk.exit(handle, 204, {["x-one"] = "1"}, "body")`)},
		"304":      {request("exit", `pdk.exit(handle, 304, {}, "body")`)},
		"redirect": {request("exit", `pdk.exit(handle, 302, {location = "/x"})`)},
		"fail":     {request("fail", `pdk.fail(handle, 401, 'no "key"', {headers = {["www-authenticate"] = "Key"}, request_id = true}) error("it returned")`)},
		"plain":    {request("fail", `pdk.fail(handle, 403, "no")`)},
		"limit":    {request("fail", `pdk.fail(handle, 429, "slow down", {request_id = true})`)},
	}}, func(t *testing.T, envoy *envoytest.Envoy) {
		do := func(chain, method string, header ...string) *envoytest.Answer {
			return envoy.Gateway(chain).Do(t, envoytest.Request{Method: method, Header: header, HTTP2: len(header) > 1})
		}
		answer := do("exit", "GET")
		if answer.Status != 418 || answer.Body != "tea" || answer.Header.Get("x-one") != "1" || ran(answer.Header.Values("x-list")) != "a b" || answer.Header.Get("content-type") != "text/x" {
			t.Errorf("exit: %+v", answer)
		}
		answer = do("json", "GET")
		if answer.Status != 200 || answer.Header.Get("x-one") != "1" || answer.Header.Get("content-type") != "application/json; charset=utf-8" || answer.Body != `{"a list":["x",1,null,"a\"b"]}` {
			t.Errorf("exit with a table: %+v", answer)
		}
		answer = do("own type", "GET")
		if answer.Status != 402 || answer.Body != `{"title":"pay"}` || fmt.Sprint(answer.Header["Content-Type"]) != "[application/problem+json]" {
			t.Errorf("exit with a table and a type of its own: %+v", answer)
		}
		if answer = do("no json", "GET"); answer.Status != 500 {
			t.Errorf("exit with what is no JSON: %+v", answer)
		}
		answer = do("exit", "HEAD")
		if answer.Status != 418 || answer.Body != "" || answer.Header.Get("content-length") != "3" {
			t.Errorf("exit for HEAD: %+v", answer)
		}
		for _, chain := range []string{"204", "304"} {
			answer = do(chain, "GET")
			if fmt.Sprint(answer.Status) != chain || answer.Body != "" || answer.Header.Get("content-length") != "" {
				t.Errorf("exit %s: %+v", chain, answer)
			}
		}
		if answer = do("redirect", "GET"); answer.Status != 302 || answer.Header.Get("location") != "/x" || answer.Body != "" {
			t.Errorf("redirect: %+v", answer)
		}
		answer = do("fail", "GET")
		form := regexp.MustCompile(`^\{"message":"no \\"key\\"","request_id":"[0-9a-f-]{36}"\}$`)
		if answer.Status != 401 || !form.MatchString(answer.Body) || answer.Header.Get("www-authenticate") != "Key" || answer.Header.Get("content-type") != "application/json; charset=utf-8" {
			t.Errorf("fail: %+v", answer)
		}
		if answer = do("plain", "GET"); answer.Status != 403 || answer.Body != `{"message":"no"}` {
			t.Errorf("fail without request_id: %+v", answer)
		}
		grpc := []string{"content-type: application/grpc", "te: trailers"}
		for chain, want := range map[string]string{"fail": `16 no "key"`, "limit": "8 slow down", "plain": "7 no"} {
			answer = do(chain, "POST", grpc...)
			if got := answer.Header.Get("grpc-status") + " " + answer.Header.Get("grpc-message"); answer.Status != 200 || got != want {
				t.Errorf("%s for gRPC: %+v", chain, answer)
			}
		}
		if answer = do("limit", "POST", "content-type: application/grpc+proto", "te: trailers"); answer.Status != 200 || answer.Header.Get("grpc-status") != "8" {
			t.Errorf("limit for gRPC of a type: %+v", answer)
		}
		// Envoy does not take these for gRPC.
		for _, like := range []string{"application/grpc-web", "application/grpc-web-text+proto", "application/grpc;a=b", "application/grpcx", "Application/gRPC"} {
			answer = do("limit", "POST", "content-type: "+like, "te: trailers")
			if answer.Status != 429 || answer.Message() != "slow down" || answer.Header.Get("grpc-status") != "" {
				t.Errorf("limit for %s: %+v", like, answer)
			}
		}
	})
}

// TestPDKDropBody: a body is dropped whatever its size is, and whatever other plugins make of it.
func TestPDKDropBody(t *testing.T) {
	drops := response("drops", `pdk.drop_body(handle)`)
	writes := response("writes", `handle:body(true):setBytes("another")`)
	onEnvoys(t, envoytest.Config{Chains: map[string][]part.Part{
		"drops":      {tag("a"), drops, tag("c")},
		"before":     {tag("a"), drops, writes, tag("c")},
		"behind":     {tag("a"), writes, drops, tag("c")},
		"answered":   {tag("a"), response("exit", `pdk.exit(handle, 418, {}, "tea")`), drops, tag("c")},
		"in request": {request("drops", `pdk.drop_body(handle)`)},
	}}, func(t *testing.T, envoy *envoytest.Envoy) {
		large := strings.Repeat("x", 2<<20)
		for _, http2 := range []bool{false, true} {
			for _, c := range []struct{ chain, body string }{{"drops", "x"}, {"drops", large}, {"before", "x"}, {"behind", "x"}} {
				answer := envoy.Gateway(c.chain).Do(t, envoytest.Request{Method: "POST", Body: c.body, HTTP2: http2})
				if answer.Status != 200 || answer.Body != "" || ran(answer.Header.Values("x-ran")) != "c a" {
					t.Errorf("%s, HTTP/2 %v: %d %v %.100q", c.chain, http2, answer.Status, answer.Header, answer.Body)
				}
			}
		}
		if answer := envoy.Gateway("drops").Get(t, "/", envoytest.EchoStatus+": 204"); answer.Status != 204 || answer.Body != "" {
			t.Errorf("no body: %+v", answer)
		}
		if answer := envoy.Gateway("drops").Do(t, envoytest.Request{Method: "HEAD"}); answer.Status != 200 || answer.Header.Get("content-length") == "" {
			t.Errorf("HEAD: %+v", answer)
		}
		for method, body := range map[string]string{"GET": "tea", "HEAD": ""} {
			if answer := envoy.Gateway("answered").Do(t, envoytest.Request{Method: method}); answer.Status != 418 || answer.Body != body {
				t.Errorf("answered, %s: %+v", method, answer)
			}
		}
		if answer := envoy.Gateway("in request").Get(t, "/"); answer.Status != 500 {
			t.Errorf("in the request phase: %+v", answer)
		}
	})
}

// TestPDKInTheResponse: what the response phase knows, and how it replaces the answer.
func TestPDKInTheResponse(t *testing.T) {
	both := func(request, response string) part.Lua {
		return plugin("both", "return {request = function(handle) "+request+" end, response = function(handle) "+response+" end}")
	}
	onEnvoys(t, envoytest.Config{Chains: map[string][]part.Part{
		"read": {both("", `
			pdk.set_header(handle, "x-id", tostring(pdk.request_id(handle)))
			pdk.set_header(handle, "x-grpc", tostring(pdk.is_grpc(handle)))
			pdk.set_header(handle, "x-route", pdk.route(handle) .. " " .. pdk.virtual_service(handle))
			pdk.set_header(handle, "x-ip", pdk.client_ip(handle))
			pdk.set_header(handle, "x-status", pdk.header(handle, ":status"))
			pdk.add_header(handle, "x-many", "2")
			pdk.set_header(handle, "x-seen", table.concat(pdk.headers(handle, "x-many"), ","))
			pdk.remove_header(handle, "x-gone")`)},
		"saved": {
			both(`pdk.save(handle, "k", "first"); pdk.save(handle, "t", {a = {1, 2}, b = true, n = 1.5})`,
				`pdk.add_header(handle, "x-saved", pdk.saved(handle, "k") .. " " .. pdk.json.encode(pdk.saved(handle, "t")))`),
			both(`pdk.save(handle, "k", "second")`,
				`pdk.add_header(handle, "x-saved", pdk.saved(handle, "k") .. " " .. tostring(pdk.saved(handle, "t")))`),
		},
		"metadata": {both(`pdk.set_metadata(handle, "ns", "k", "v")`, `pdk.set_header(handle, "x-m", pdk.metadata(handle, "ns", "k"))`)},
		"exit":     {tag("a"), response("exit", `pdk.exit(handle, 418, {["x-list"] = {"a", "b"}, ["content-type"] = "text/x"}, "tea")`), tag("c")},
		"json":     {response("exit", `pdk.exit(handle, 418, {}, {tea = true})`)},
		"exit 204": {response("exit", `pdk.exit(handle, 204, {}, "body")`)},
		"fail":     {tag("a"), response("fail", `pdk.fail(handle, 502, "bad", {request_id = true}) error("it returned")`), tag("c")},
		"error":    {both("", `error("boom")`)},
	}}, func(t *testing.T, envoy *envoytest.Envoy) {
		answer := envoy.Gateway("read").Get(t, "/", "x-forwarded-for: 9.8.7.6", envoytest.EchoHeader+": x-many: 1", envoytest.EchoHeader+": x-gone: 1")
		for name, want := range map[string]string{
			"x-grpc": "false", "x-route": "read default/read", "x-ip": "9.8.7.6", "x-status": "200", "x-seen": "1,2", "x-gone": "",
			"x-id": answer.Upstream.Value("x-request-id"),
		} {
			if got := answer.Header.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		if got := ran(envoy.Gateway("saved").Get(t, "/").Header.Values("x-saved")); got != `second nil first {"a":[1,2],"b":true,"n":1.5}` {
			t.Errorf("saved: %s", got)
		}
		if got := envoy.Gateway("metadata").Get(t, "/").Header.Get("x-m"); got != "v" {
			t.Errorf("metadata: %s", got)
		}
		about := []string{envoytest.EchoHeader + ": etag: x", envoytest.EchoHeader + ": content-encoding: x", envoytest.EchoHeader + ": x-list: old", envoytest.EchoBody + ": from upstream"}
		answer = envoy.Gateway("exit").Get(t, "/", about...)
		if answer.Status != 418 || answer.Body != "tea" || ran(answer.Header.Values("x-list")) != "a b" || answer.Header.Get("content-type") != "text/x" ||
			answer.Header.Get("etag")+answer.Header.Get("content-encoding") != "" || ran(answer.Header.Values("x-ran")) != "c a" {
			t.Errorf("exit: %+v", answer)
		}
		answer = envoy.Gateway("json").Get(t, "/", about...)
		if answer.Status != 418 || answer.Body != `{"tea":true}` || answer.Header.Get("content-type") != "application/json; charset=utf-8" {
			t.Errorf("exit with a table: %+v", answer)
		}
		answer = envoy.Gateway("exit").Get(t, "/", envoytest.EchoStatus+": 204")
		if answer.Status != 418 || answer.Body != "tea" {
			t.Errorf("exit for an answer without body: %+v", answer)
		}
		answer = envoy.Gateway("exit").Do(t, envoytest.Request{Method: "HEAD"})
		if answer.Status != 418 || answer.Body != "" {
			t.Errorf("exit for HEAD: %+v", answer)
		}
		answer = envoy.Gateway("exit 204").Get(t, "/", about...)
		if answer.Status != 204 || answer.Body != "" || answer.Header.Get("content-length") != "" {
			t.Errorf("exit 204: %+v", answer)
		}
		answer = envoy.Gateway("fail").Get(t, "/", about...)
		want := `{"message":"bad","request_id":"` + answer.Upstream.Value("x-request-id") + `"}`
		if answer.Status != 502 || answer.Body != want || ran(answer.Header.Values("x-ran")) != "c a" {
			t.Errorf("fail: %+v", answer)
		}
		for _, method := range []string{"GET", "HEAD", "POST"} {
			for _, status := range []string{"200", "204", "304", "404"} {
				answer = envoy.Gateway("error").Do(t, envoytest.Request{Method: method, Header: []string{envoytest.EchoStatus + ": " + status}})
				if answer.Status != 500 || method != "HEAD" && answer.Message() != "An unexpected error occurred" {
					t.Errorf("error after %s %s: %+v", method, status, answer)
				}
			}
		}
		answer = envoy.Gateway("error").Do(t, envoytest.Request{
			Method: "POST", HTTP2: true, Body: "x",
			Header: []string{"content-type: application/grpc", "te: trailers", envoytest.EchoHeader + ": content-type: application/grpc", envoytest.EchoBody + ": secret", envoytest.EchoTrailer + ": grpc-status: 0"},
		})
		if answer.Status != 500 || strings.Contains(answer.Body, "secret") {
			t.Errorf("error in a gRPC answer: %+v", answer)
		}
	})
}

// A WebSocket is no body that anything may wait for: plugins change its headers, or answer in its place.
func TestPDKAndWebSockets(t *testing.T) {
	chains := map[string][]part.Part{
		"open":    {response("headers", `pdk.set_header(handle, "x-a", pdk.header(handle, ":status"))`)},
		"replace": {response("replace", `pdk.exit(handle, 403, {["x-a"] = "1"}, "no")`)},
		"fails":   {response("fails", `error("no")`)},
	}
	onEnvoys(t, envoytest.Config{Chains: chains}, func(t *testing.T, envoy *envoytest.Envoy) {
		if answer, back := envoy.Gateway("open").Upgrade(t, "/", "hello"); answer.Status != 101 || answer.Header.Get("x-a") != "101" || back != "hello" {
			t.Errorf("%d %v, %q came back", answer.Status, answer.Header, back)
		}
		for chain, status := range map[string]int{"replace": 403, "fails": 500} {
			if answer, _ := envoy.Gateway(chain).Upgrade(t, "/", "hello"); answer.Status != status || answer.Body != "" {
				t.Errorf("%s: %d %v %q", chain, answer.Status, answer.Header, answer.Body)
			}
		}
	})
}

func TestPDKIdentity(t *testing.T) {
	alice := `{id = "id-1", username = "alice", custom_id = "crm-1", name = "alice-object", groups = {"a", "b"}}`
	bob := `{id = "id-2", username = "bob"}`
	anonymous := `{id = "id-3", username = "guest", anonymous = true}`
	tell := request("tell", `
		local c = pdk.consumer(handle)
		pdk.set_header(handle, "x-told", c and pdk.json.encode(c) or "nobody")
		pdk.set_header(handle, "x-by", tostring(pdk.metadata(handle, "plugins.istio.io", "authenticated_by")))`)
	auth := func(consumer, credential string) part.Lua {
		return request("auth", `pdk.authenticate(handle, `+consumer+`, `+credential+`, "key-auth")`)
	}
	onEnvoys(t, envoytest.Config{Chains: map[string][]part.Part{
		"nobody":     {request("auth", `pdk.clear_identity(handle)`), tell},
		"alice":      {auth(alice, `"cred-1"`), request("later", `pdk.clear_identity(handle)`), tell},
		"bob":        {auth(bob, "nil"), tell},
		"anonymous":  {auth(anonymous, `"cred-3"`), tell},
		"alice, bob": {auth(alice, `"cred-1"`), auth(bob, "nil"), tell},
		// No header can hold a line break, and Envoy would fail the request at the upstream.
		"two lines": {auth(`{id = "id-4", username = "two\r\nlines"}`, `"cred\n"`), tell},
	}}, func(t *testing.T, envoy *envoytest.Envoy) {
		forged := []string{
			"x-consumer-id: forged", "x-consumer-custom-id: forged", "x-consumer-username: forged",
			"x-credential-identifier: forged", "x-anonymous-consumer: forged", "x-consumer-groups: forged",
		}
		names := []string{"x-consumer-id", "x-consumer-custom-id", "x-consumer-username", "x-credential-identifier", "x-anonymous-consumer", "x-consumer-groups", "x-told", "x-by"}
		for chain, want := range map[string]string{
			"nobody":     `|||||| nobody| nil`,
			"alice":      `id-1| crm-1| alice| cred-1||| {"anonymous":false,"credential_id":"cred-1","custom_id":"crm-1","groups":["a","b"],"id":"id-1","name":"alice-object","username":"alice"}| key-auth`,
			"bob":        `id-2|| bob|||| {"anonymous":false,"groups":{},"id":"id-2","username":"bob"}| key-auth`,
			"anonymous":  `id-3|| guest|| true|| {"anonymous":true,"groups":{},"id":"id-3","username":"guest"}| key-auth`,
			"two lines":  `id-4|||||| {"anonymous":false,"credential_id":"cred\n","groups":{},"id":"id-4","username":"two\r\nlines"}| key-auth`,
			"alice, bob": `id-2|| bob|||| {"anonymous":false,"groups":{},"id":"id-2","username":"bob"}| key-auth`,
		} {
			variants := []string{"X_Consumer_ID: forged", "x-consumer_username: forged", "x.consumer.groups: forged", "x_consumer_custom-id: forged"}
			saw := envoy.Gateway(chain).Get(t, "/", append(variants, append(forged, "x_other: kept", "x-consumer-idx: kept")...)...).Upstream
			if saw == nil {
				t.Errorf("%s: no request arrived\n%s", chain, envoy.Log())
				continue
			}
			got := make([]string, len(names))
			for i, name := range names {
				if got[i] = ran(saw.Values(name)); got[i] != "" && i > 0 {
					got[i] = " " + got[i]
				}
			}
			if strings.Join(got, "|") != want {
				t.Errorf("%s: the upstream saw\n\t%s, want\n\t%s", chain, strings.Join(got, "|"), want)
			}
			if all := strings.Join(saw.Header, "\n"); strings.Contains(all, "forged") || strings.Count(all, "kept") != 2 {
				t.Errorf("%s: the upstream saw\n%s", chain, all)
			}
		}
	})
}

func TestPDKLog(t *testing.T) {
	onEnvoys(t, envoytest.Config{Chains: map[string][]part.Part{
		"log": {request("logger", `
			for _, level in ipairs({"debug", "info", "warn", "error"}) do pdk.log(handle, level, "at " .. level .. "\nforged\r" .. pdk.header(handle, "x-a")) end`)},
	}}, func(t *testing.T, envoy *envoytest.Envoy) {
		envoy.Gateway("log").Get(t, "/", "x-a: b")
		for level, word := range map[string]string{"debug": "debug", "info": "info", "warn": "warning", "error": "error"} {
			envoy.WaitLog(t, "["+word+"][lua] script log: istio-plugins: plugin logger, route log: at "+level+" forged b\n")
		}
	})
}

// TestPDKRemembers: a cache is its entry's own, and lives as long as the entry does.
func TestPDKRemembers(t *testing.T) {
	count := func(name, size string) part.Lua {
		return plugin(name, `local seen = pdk.cache(`+size+`)
			return {request = function(handle)
				local path = pdk.path(handle)
				seen:set(path, (seen:get(path) or 0) + 1, 3600)
				pdk.add_header(handle, "x-seen", seen:get(path))
			end}`)
	}
	onEnvoys(t, envoytest.Config{Chains: map[string][]part.Part{
		"two": {count("first", ""), count("second", "10")}, "wrong": {count("wrong", "-1")},
	}}, func(t *testing.T, envoy *envoytest.Envoy) {
		gateway := envoy.Gateway("two")
		for _, c := range []struct{ path, want string }{{"/a", "1 1"}, {"/b", "1 1"}, {"/a", "2 2"}, {"/a", "3 3"}} {
			if got := ran(gateway.Get(t, c.path).Upstream.Values("x-seen")); got != c.want {
				t.Errorf("%s was seen %s times, want %s", c.path, got, c.want)
			}
		}
		for i := range 20 { // more than the second has room for
			gateway.Get(t, fmt.Sprint("/", i))
		}
		if got := ran(gateway.Get(t, "/a").Upstream.Values("x-seen")); got != "4 1" {
			t.Errorf("/a was seen %s times, want 4 and, forgotten, 1", got)
		}
		if answer := envoy.Gateway("wrong").Get(t, "/"); answer.Status != 503 {
			t.Errorf("a cache of a wrong size: %+v", answer)
		}
	})
}
