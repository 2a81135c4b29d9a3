package lua_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/lua"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// parts are the parts of one chain; chains are given by what is unusual about them.
type parts = []part.Part

func plugin(name, source string) part.Lua { return part.Lua{Plugin: name, Source: source} }

func request(name, body string) part.Lua {
	return plugin(name, "return {request = function(handle)\n"+body+"\nend}")
}

func response(name, body string) part.Lua {
	return plugin(name, "return {response = function(handle)\n"+body+"\nend}")
}

func open(l part.Lua) part.Lua {
	l.FailOpen = true
	return l
}

// calling lets a plugin call the upstream.
func calling(l part.Lua) part.Lua {
	l.Services = map[string]part.Service{"upstream": envoytest.Upstream}
	return l
}

// tag marks that a plugin ran in either phase.
func tag(name string) part.Lua {
	return plugin(name, fmt.Sprintf(`return {
		request = function(handle) pdk.add_header(handle, "x-ran", %[1]q) end,
		response = function(handle) pdk.add_header(handle, "x-ran", %[1]q) end,
	}`, name))
}

// onEnvoys runs f on every version.
func onEnvoys(t *testing.T, c envoytest.Config, f func(*testing.T, *envoytest.Envoy)) {
	t.Helper()
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			f(t, envoytest.Start(t, version, c))
		})
	}
}

func ran(values []string) string { return strings.Join(values, " ") }

func TestRequestsRunInOrderAndResponsesInReverse(t *testing.T) {
	onEnvoys(t, envoytest.Config{Chains: map[string][]part.Part{
		"one":     {tag("a"), tag("b"), tag("c")},
		"refused": {tag("a"), request("no", `pdk.fail(handle, 403, "no")`), tag("c")},
	}}, func(t *testing.T, envoy *envoytest.Envoy) {
		answer := envoy.Gateway("one").Get(t, "/")
		if got := ran(answer.Upstream.Values("x-ran")); got != "a b c" {
			t.Errorf("requests ran %q", got)
		}
		if got := ran(answer.Header.Values("x-ran")); got != "c b a" {
			t.Errorf("responses ran %q", got)
		}
		answer = envoy.Gateway("refused").Get(t, "/")
		if answer.Status != 403 || answer.Upstream != nil {
			t.Errorf("the answer is %+v", answer)
		}
		if got := ran(answer.Header.Values("x-ran")); got != "c a" {
			t.Errorf("responses of a refused request ran %q", got)
		}
	})
}

func TestYieldsInsidePlugins(t *testing.T) {
	call := `local body = pdk.call(handle, "upstream", {headers = {["echo-body"] = "called"}}).body`
	onEnvoys(t, envoytest.Config{Chains: map[string][]part.Part{
		"body": {tag("a"), request("body", `
			local body = handle:body()
			pdk.set_header(handle, "x-body", body:getBytes(0, body:length()))
			body:setBytes("changed")`), tag("c")},
		"call":            {tag("a"), calling(request("call", call+` pdk.set_header(handle, "x-body", body)`)), tag("c")},
		"call, then body": {calling(request("call", call)), request("body", `pdk.set_header(handle, "x-body", handle:body():getBytes(0, 5))`), tag("c")},
		"call, then fail": {calling(request("call", call+` error("after the call")`))},
		"own coroutine": {calling(request("call", `
			local inner = coroutine.wrap(function(first)
				local second = coroutine.yield(first + 1)
				local mine = handle:body()
				mine = mine:getBytes(0, mine:length())
				`+call+`
				return body .. second .. mine
			end)
			pdk.set_header(handle, "x-body", inner(1) .. inner("-mid-"))`)), tag("c")},
		"answer in a coroutine": {request("answer", `
			coroutine.wrap(function() pcall(pdk.fail, handle, 403, "no") end)()`), request("next", `error("ran")`)},
		"yield": {request("yield", `coroutine.yield()`), request("next", `pdk.set_header(handle, "x-next", "ran")`)},
		"response body": {tag("a"), response("body", `
			local body = handle:body()
			body:setBytes(string.upper(body:getBytes(0, body:length())))`), tag("c")},
	}}, func(t *testing.T, envoy *envoytest.Envoy) {
		for chain, want := range map[string]string{"body": "hello", "call": "called", "own coroutine": "2called-mid-hello", "call, then body": "hello"} {
			answer := envoy.Gateway(chain).Do(t, envoytest.Request{Method: "POST", Body: "hello"})
			if answer.Upstream == nil {
				t.Errorf("%s: the answer is %+v\n%s", chain, answer, envoy.Log())
				continue
			}
			if got := answer.Upstream.Value("x-body"); got != want {
				t.Errorf("%s: x-body is %q, want %q", chain, got, want)
			}
			if got := ran(answer.Upstream.Values("x-ran")); !strings.HasSuffix(got, "c") {
				t.Errorf("%s: requests ran %q", chain, got)
			}
		}
		if got := envoy.Gateway("body").Do(t, envoytest.Request{Method: "POST", Body: "hello"}).Upstream.Body; got != "changed" {
			t.Errorf("the upstream saw the body %q", got)
		}
		if answer := envoy.Gateway("call, then fail").Get(t, "/"); answer.Status != 500 || answer.Upstream != nil {
			t.Errorf("after a call that failed: %+v", answer)
		}
		if answer := envoy.Gateway("answer in a coroutine").Get(t, "/"); answer.Status != 403 || answer.Upstream != nil {
			t.Errorf("an answer in a coroutine: %+v", answer)
		}
		if answer := envoy.Gateway("yield").Get(t, "/"); answer.Status != 500 || answer.Upstream != nil {
			t.Errorf("a yield outside a coroutine: %+v", answer)
		}
		answer := envoy.Gateway("response body").Get(t, "/", envoytest.EchoBody+": quiet")
		if answer.Body != "QUIET" || ran(answer.Header.Values("x-ran")) != "c a" {
			t.Errorf("the answer is %+v", answer)
		}
	})
}

// Above what Envoy holds in memory it ends the request or the response itself. Nothing of a body gets past a plugin that wanted
// to see or replace it.
func TestLargeBodies(t *testing.T) {
	large := strings.Repeat("secret,", 400_000)
	onEnvoys(t, envoytest.Config{Chains: map[string][]part.Part{
		"nobody":          {tag("a")},
		"request":         {tag("a"), request("body", `local body = handle:body() body:getBytes(0, body:length())`), tag("c")},
		"response":        {tag("a"), response("body", `local body = handle:body() body:getBytes(0, body:length())`), tag("c")},
		"replaced":        {response("exit", `pdk.exit(handle, 403, {}, "no")`)},
		"failed":          {response("error", `error("no")`)},
		"nothing to read": {request("body", `local body = handle:body() pdk.set_header(handle, "x-body", tostring(body))`), tag("c")},
	}}, func(t *testing.T, envoy *envoytest.Envoy) {
		for chain, want := range map[string]struct {
			status int
			body   string
		}{
			"request": {413, "Payload Too Large"}, "response": {500, "Internal Server Error"},
			"replaced": {500, "Internal Server Error"}, "failed": {500, "Internal Server Error"},
		} {
			// Over HTTP/2 it holds as much as the window of a stream.
			answer := envoy.Gateway(chain).Do(t, envoytest.Request{Method: "POST", Body: large})
			if answer.Status != want.status || answer.Body != want.body || (answer.Upstream != nil) != (chain != "request") {
				t.Errorf("%s: %d %.99q", chain, answer.Status, answer.Body)
			}
		}
		answer := envoy.Gateway("nobody").Do(t, envoytest.Request{Method: "POST", Body: large})
		if answer.Status != 200 || answer.Upstream.Body != large || !strings.Contains(answer.Body, large) {
			t.Errorf("nobody: %d, %d bytes", answer.Status, len(answer.Body))
		}
		answer = envoy.Gateway("nothing to read").Get(t, "/")
		if answer.Status != 200 || answer.Upstream.Value("x-body") != "nil" || ran(answer.Upstream.Values("x-ran")) != "c" {
			t.Errorf("nothing to read: %+v", answer)
		}
	})
}

// TestFailureIsAnswered500 raises what a plugin can raise. None may get past the plugin.
func TestFailureIsAnswered500(t *testing.T) {
	raised := map[string]string{
		"a text":             `error("boom")`,
		"a table":            `error({})`,
		"nothing":            `error()`,
		"a trap":             `error(setmetatable({}, {__tostring = function() error("again") end, __concat = function() error("again") end}))`,
		"a function":         `error(function() end)`,
		"a nil call":         `local x = nil; x()`,
		"a line break":       "error('boom\\n[critical] forged')",
		"stack overflow":     `local function f() return 1 + f() end f()`,
		"a bad header value": `pdk.set_header(handle, "x", "a\r\nb: c")`,
		"a bad header name":  `pdk.set_header(handle, "x y", "a")`,
		"no header value":    `pdk.set_header(handle, "x", nil)`,
		"a bad status":       `pdk.exit(handle, 199)`,
		"no such service":    `pdk.call(handle, "nowhere")`,
		"a dead wrapper":     `local h = handle:headers(); handle:body(); h:get("a")`,
	}
	chains := make(map[string][]part.Part)
	for what, body := range raised {
		chains[what] = parts{tag("a"), request("bad", body), request("next", `pdk.set_header(handle, "x-next", "ran")`)}
		chains[what+", open"] = parts{open(request("bad", body)), request("next", `pdk.set_header(handle, "x-next", "ran")`)}
		chains[what+", response"] = parts{tag("a"), response("bad", body), tag("c")}
		chains[what+", response, open"] = parts{tag("a"), open(response("bad", body)), tag("c")}
	}
	// These are no failures of a response function.
	delete(chains, "a bad status, response")
	onEnvoys(t, envoytest.Config{Chains: chains}, func(t *testing.T, envoy *envoytest.Envoy) {
		for what := range raised {
			post := envoytest.Request{Method: "POST", Body: "hello", Header: []string{"x-request-id: id-1"}}
			answer := envoy.Gateway(what).Do(t, post)
			if answer.Status != 500 || answer.Message() != "An unexpected error occurred" || answer.Upstream != nil {
				t.Errorf("%s: the answer is %+v", what, answer)
			}
			var body struct {
				RequestID string `json:"request_id"`
			}
			if err := json.Unmarshal([]byte(answer.Body), &body); err != nil || len(body.RequestID) != 36 {
				t.Errorf("%s: the body is %s", what, answer.Body)
			}
			answer = envoy.Gateway(what+", open").Do(t, post)
			if answer.Status != 200 || answer.Upstream.Value("x-next") != "ran" {
				t.Errorf("%s, open: the answer is %+v", what, answer)
			}
			if what == "a bad status" {
				continue
			}
			answer = envoy.Gateway(what+", response").Do(t, post)
			if answer.Status != 500 || answer.Message() != "An unexpected error occurred" || ran(answer.Header.Values("x-ran")) != "c a" {
				t.Errorf("%s, response: the answer is %+v", what, answer)
			}
			answer = envoy.Gateway(what+", response, open").Do(t, post)
			if answer.Status != 200 || !strings.Contains(answer.Body, "hello") || ran(answer.Header.Values("x-ran")) != "c a" {
				t.Errorf("%s, response, open: the answer is %+v", what, answer)
			}
		}
		envoy.WaitLog(t, "istio-plugins: plugin bad, route a text: failed: plugin:2: boom")
		envoy.WaitLog(t, "istio-plugins: plugin bad, route a text, open: skipped: plugin:2: boom")
		if strings.Contains(envoy.Log(), "\n[critical] forged") {
			t.Error("a plugin forged a line of the log")
		}
	})
}

func TestPluginThatDoesNotLoad(t *testing.T) {
	broken := map[string]string{
		"syntax":          `return {request = function(handle) end`,
		"escape":          `end return {} --`,
		"raises":          `error("no")`,
		"no table":        `return 5`,
		"nothing":         ``,
		"no function":     `return {request = "x"}`,
		"yields":          `coroutine.yield()`,
		"trap":            `return setmetatable({}, {__index = function() error({}) end})`,
		"bytecode":        "\x1bLJ\x02",
		"hidden bytecode": "#!\n\x1bLJ\x02",
	}
	chains := map[string][]part.Part{"good": {tag("a")}}
	for what, source := range broken {
		chains[what] = parts{tag("a"), plugin("bad", source), tag("c")}
		chains[what+", open"] = parts{tag("a"), open(plugin("bad", source)), tag("c")}
	}
	onEnvoys(t, envoytest.Config{Chains: chains}, func(t *testing.T, envoy *envoytest.Envoy) {
		for what := range broken {
			for range 2 {
				answer := envoy.Gateway(what).Get(t, "/")
				if answer.Status != 503 || answer.Body != `{"message":"plugin bad is not available"}` || answer.Upstream != nil {
					t.Errorf("%s: the answer is %+v", what, answer)
				}
				if got := answer.Header.Get("content-type"); got != "application/json" {
					t.Errorf("%s: content-type is %q", what, got)
				}
				answer = envoy.Gateway(what+", open").Get(t, "/")
				if answer.Status != 200 || ran(answer.Upstream.Values("x-ran")) != "a c" {
					t.Errorf("%s, open: the answer is %+v", what, answer)
				}
			}
			line := "plugin bad, route " + what + ": does not load: "
			envoy.WaitLog(t, line)
			if n := strings.Count(envoy.Log(), line); n != 1 {
				t.Errorf("%s: it was loaded %d times", what, n)
			}
			if answer := envoy.Gateway("good").Get(t, "/"); answer.Status != 200 {
				t.Errorf("beside %s: the answer is %+v", what, answer)
			}
		}
	})
}

func TestSourceMayBeginLikeAScript(t *testing.T) {
	onEnvoys(t, envoytest.Config{Chains: map[string][]part.Part{
		"shebang": {plugin("a", "#!/usr/bin/lua\nreturn {request = function(h) pdk.fail(h, 403, 'no') end} -- end")},
		"mark":    {plugin("a", "\ufeffreturn {request = function(h) pdk.fail(h, 403, 'no') end}")},
		"nothing": {plugin("a", "return {}")},
	}}, func(t *testing.T, envoy *envoytest.Envoy) {
		for chain, want := range map[string]int{"shebang": 403, "mark": 403, "nothing": 200} {
			if got := envoy.Gateway(chain).Get(t, "/").Status; got != want {
				t.Errorf("%s: the status is %d", chain, got)
			}
		}
	})
}

func TestSlotValues(t *testing.T) {
	source := tag("a")
	entry := lua.EntryOf(source)
	unknown := lua.Entry{SourceID: "unknown", Plugin: "gone"}
	unknownOpen := unknown
	unknownOpen.FailOpen = true
	noTable := entry
	noTable.Config = config.Value{"table": part.Shared{Name: "unknown"}}
	deep := any("x")
	for range 250 {
		deep = map[string]any{"a": deep}
	}
	tooDeep := entry
	tooDeep.Config = config.Value{"deep": deep}
	values := map[string]string{
		"chain":        lua.Chain([]lua.Entry{entry}),
		"named":        lua.Refusal("shop-limit"),
		"quoted":       lua.Refusal(`50%"\`),
		"unnamed":      lua.Refusal(""),
		"unknown":      lua.Chain([]lua.Entry{entry, unknown}),
		"unknown open": lua.Chain([]lua.Entry{unknownOpen, entry}),
		"no table":     lua.Chain([]lua.Entry{noTable}),
		"too deep":     lua.Chain([]lua.Entry{tooDeep}),
		"no Lua":       "l{",
		"not for us":   "n0123",
		"code":         `l{{os.exit(1)}}`,
		"loop":         `l(function() for k in pairs(_G) do end end)()`,
	}
	onEnvoys(t, envoytest.Config{
		Chains: map[string][]part.Part{"sources": {source}}, Values: values,
	}, func(t *testing.T, envoy *envoytest.Envoy) {
		unavailable := `{"message":"plugin is not available"}`
		for chain, want := range map[string]string{
			"named": `{"message":"plugin shop-limit is not available"}`, "unnamed": unavailable,
			"quoted": `{"message":"plugin 50%\"\\ is not available"}`, "unknown": `{"message":"plugin gone is not available"}`,
			"no table": unavailable, "too deep": unavailable, "no Lua": unavailable, "not for us": unavailable,
			"code": unavailable, "loop": unavailable,
		} {
			answer := envoy.Gateway(chain).Get(t, "/")
			if answer.Status != 503 || answer.Body != want || answer.Header.Get("content-type") != "application/json" || answer.Upstream != nil {
				t.Errorf("%s: the answer is %+v", chain, answer)
			}
		}
		for _, chain := range []string{"chain", "unknown open"} {
			if answer := envoy.Gateway(chain).Get(t, "/"); answer.Status != 200 || answer.Upstream.Value("x-ran") != "a" {
				t.Errorf("%s: the answer is %+v", chain, answer)
			}
		}
		answer := envoy.Gateway("named").Do(t, envoytest.Request{
			Method: "POST", HTTP2: true, Body: "x", Header: []string{"content-type: application/grpc", "te: trailers"},
		})
		if answer.Status != 200 || answer.Header.Get("grpc-status") != "14" || answer.Header.Get("grpc-message") != "plugin shop-limit is not available" {
			t.Errorf("gRPC: the answer is %+v", answer)
		}
		if answer := envoy.Gateway("named").Do(t, envoytest.Request{Method: "HEAD"}); answer.Status != 503 || answer.Body != "" {
			t.Errorf("HEAD: the answer is %+v", answer)
		}
	})
}

func TestConfig(t *testing.T) {
	show := request("show", "")
	show.Source = `local config = ...; return {request = function(handle)
		pdk.exit(handle, 200, {}, type(config) .. " " .. pdk.json.encode(config))
	end}`
	with := func(text string) part.Lua {
		v, err := config.Decode([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		l := show
		l.Config = v
		return l
	}
	configs := map[string]string{
		"nothing": ``, "empty": `{}`,
		"all":    `{"a":[1,2.5,-3,true,false,"x"],"b":{"c":{"d":"e"}},"end":1,"with blank":2,"é":"ü\u0000\n%d\"\\"}`,
		"null":   `{"a":null,"b":[1,null,2]}`,
		"digits": `{"a":"1\u00002"}`,
	}
	wants := map[string]string{
		"nothing": `{}`, "empty": `{}`, "null": `{"b":[1,2]}`,
	}
	chains := make(map[string][]part.Part)
	for name, text := range configs {
		chains[name] = parts{with(text)}
	}
	onEnvoys(t, envoytest.Config{Chains: chains}, func(t *testing.T, envoy *envoytest.Envoy) {
		for name, text := range configs {
			want, ok := wants[name]
			if !ok {
				want = text
			}
			got, _ := strings.CutPrefix(envoy.Gateway(name).Get(t, "/").Body, "table ")
			if !equalJSON(t, got, want) {
				t.Errorf("%s: the plugin got %s, want %s", name, got, want)
			}
		}
	})
}

func equalJSON(t *testing.T, a, b string) bool {
	t.Helper()
	va, err := config.Decode([]byte(a))
	if err != nil {
		t.Errorf("%v: %s", err, a)
		return false
	}
	vb, err := config.Decode([]byte(b))
	if err != nil {
		t.Fatal(err)
	}
	return string(va.JSON()) == string(vb.JSON())
}

func TestSharedTables(t *testing.T) {
	large := config.Value{}
	list := make([]any, 0, 40000)
	for i := range 40000 {
		large[fmt.Sprintf("key-%d", i)] = map[string]any{"id": fmt.Sprintf("id-%d", i), "groups": []any{"a", "b"}}
		list = append(list, fmt.Sprintf("item-%d", i))
	}
	large["list"] = list
	look := `local config = ...; return {request = function(handle)
		local found = config.keys["key-39999"]
		pdk.exit(handle, 200, {}, found.id .. " " .. found.groups[2] .. " " .. #config.keys.list .. " " .. config.keys.list[40000])
	end}`
	shared := part.Shared{Name: "keys/shop", Table: large}
	onEnvoys(t, envoytest.Config{Chains: map[string][]part.Part{
		"keys": {part.Lua{Plugin: "look", Source: look, Config: config.Value{"keys": shared}}},
	}}, func(t *testing.T, envoy *envoytest.Envoy) {
		if got := envoy.Gateway("keys").Get(t, "/").Body; got != "id-39999 b 40000 item-39999" {
			t.Errorf("the plugin found %q\n%s", got, envoy.Log())
		}
	})
}

func TestChainsAreRemembered(t *testing.T) {
	counter := `local n = 0; return {request = function(handle) n = n + 1; pdk.exit(handle, 200, {}, tostring(n)) end}`
	onEnvoys(t, envoytest.Config{Chains: map[string][]part.Part{"count": {plugin("count", counter)}}},
		func(t *testing.T, envoy *envoytest.Envoy) {
			for _, want := range []string{"1", "2", "3"} {
				if got := envoy.Gateway("count").Get(t, "/").Body; got != want {
					t.Errorf("request %s was counted as %s", want, got)
				}
			}
		})
}
