package lua_test

import (
	"strings"
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// TestSandbox lets a plugin look for a way out. Each probe is an expression that must be true.
func TestSandbox(t *testing.T) {
	probes := []string{
		// Globals that are not there.
		`io == nil and debug == nil and ffi == nil and jit == nil and package == nil and require == nil`,
		`load == nil and loadstring == nil and loadfile == nil and dofile == nil and module == nil`,
		`getfenv == nil and setfenv == nil and collectgarbage == nil and newproxy == nil and gcinfo == nil`,
		`_G.io == nil and rawget(_G, "io") == nil and _G._G == _G`,
		`string.dump == nil and ("").dump == nil`,
		`os.execute == nil and os.exit == nil and os.getenv == nil and os.remove == nil and os.tmpname == nil`,
		`envoy_on_request == nil and modules == nil and D == nil and J == nil`,
		// Globals that are.
		`type(os.time()) == "number" and type(os.date()) == "string" and type(os.clock()) == "number"`,
		`select("#", unpack({1, 2, 3})) == 3 and tonumber("0x10") == 16 and #table.concat({"a", "b"}) == 2`,
		`bit.band(6, 3) == 2 and math.floor(1.5) == 1 and ("abc"):upper() == "ABC"`,
		`pcall(error, "x") == false and xpcall(function() return 1 end, function() end) == true`,
		// Metatables.
		`getmetatable("") == nil and getmetatable(handle) == nil and getmetatable(handle:headers()) == nil`,
		`getmetatable(print) == nil and getmetatable(coroutine.create(print)) == nil and getmetatable(pdk.json.null) == nil`,
		`getmetatable(1LL) == nil`,
		`getmetatable(_G) == false and not pcall(setmetatable, _G, {})`,
		`not pcall(setmetatable, "", {}) and not pcall(setmetatable, handle, {})`,
		`getmetatable(setmetatable({}, {a = 1})).a == 1 and setmetatable({}, {__index = {x = 2}}).x == 2`,
		`getmetatable(pdk.json.decode("{}")) == false and getmetatable(pdk.json.array({})) == false`,
		// Envoy's objects.
		`handle.__gc == nil and handle.__index == nil and handle:headers().__gc == nil and handle:streamInfo().__gc == nil`,
		`handle.bodyChunks == nil and handle.clearRouteCache == nil and handle:streamInfo():filterState().set == nil`,
		`not pcall(function() handle.body = nil end) and not pcall(rawset, handle, "x", 1)`,
		`handle:streamInfo():dynamicMetadata().__gc == nil and handle:streamInfo():filterState().__gc == nil`,
		`(function() for name, value in pairs(handle:headers()) do if name == ":path" then return value == "/" end end end)()`,
		// Coroutines of others.
		`coroutine.running() == nil and not pcall(coroutine.yield)`,
		`coroutine.resume(coroutine.create(function() return coroutine.running() ~= nil end))`,
		`select(2, coroutine.resume(coroutine.create(function(a) local b = coroutine.yield(a + 1) return b end), 1)) == 2`,
		`(function() local f = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end return "end" end)
			return f() == 1 and f() == 2 and f() == 3 and f() == "end" and not pcall(f) end)()`,
		`(function() local ok, problem = coroutine.resume(coroutine.create(function() error({code = 5}) end))
			return not ok and problem.code == 5 end)()`,
		`(function() local f = coroutine.wrap(function() local g = coroutine.wrap(function() coroutine.yield("in") end)
			coroutine.yield(g() .. "ner") end) return f() == "inner" end)()`,
		`not pcall(coroutine.resume, 5)`,
		// What a function leads to.
		`pcall(string.gsub, "x", "x", function() error("x") end) == false`,
		`tostring(setmetatable({}, {__tostring = function() return "mine" end})) == "mine"`,
		`(function() local seen; xpcall(function() error("m") end, function(m) seen = m end) return type(seen) == "string" end)()`,
		`select("#", pcall(table.sort, {3, 2, 1}, function() return true end)) > 0`,
		`(function() local out = {} table.foreach({a = 1}, function(k) out[1] = k end) return out[1] == "a" end)()`,
		// The library.
		`pdk.json.quote == nil and pdk.json.encode({a = 1}) == '{"a":1}'`,
		`not pcall(pdk.log, handle, "critical", "x")`,
		`(function() math.randomseed(1) local a = math.random() math.randomseed(1) return a ~= math.random() end)()`,
	}
	chains := make(map[string][]part.Part)
	for _, probe := range probes {
		chains[probe] = parts{request("probe", `pdk.exit(handle, 200, {}, tostring(`+probe+`))`)}
	}
	onEnvoys(t, envoytest.Config{Chains: chains}, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, probe := range probes {
			if answer := envoy.Gateway(probe).Get(t, "/"); answer.Body != "true" {
				t.Errorf("%s\n\tis %d %s", probe, answer.Status, answer.Body)
			}
		}
		if t.Failed() {
			t.Log(envoy.Log())
		}
	})
}

// TestPluginsDoNotSeeEachOther lets a plugin change all it can reach, and another one look, in the same chain.
func TestPluginsDoNotSeeEachOther(t *testing.T) {
	vandal := `
		leak = "leaked"
		_G.leak2 = "leaked"
		for _, library in ipairs({string, table, math, bit, os, coroutine, pdk, pdk.json, pdk.url, pdk.base64}) do
			for name in pairs(library) do library[name] = nil end
			library.upper = function() return "stolen" end
		end
		string, table, pdk, pairs, type, tostring = nil, nil, nil, nil, nil, nil
		rawset(_G, "error", function() end)`
	look := `return {request = function(handle)
		assert(leak == nil and leak2 == nil, "a global")
		assert(string.upper("a") == "A" and ("a"):upper() == "A" and string.rep and table.concat and math.floor, "a library")
		assert(pdk.upper == nil and pdk.json.encode({}) == "{}" and pdk.base64.encode("f") == "Zg==", "pdk")
		assert(coroutine.create and os.time and bit.band, "another library")
		assert(pairs and type(1) == "number" and tostring(1) == "1", "a function")
		assert(not pcall(error, "x"), "error")
		assert(pdk.url.decode("%41") == "A" and pdk.query("a=b")[1].value == "b", "url")
		pdk.fail(handle, 403, "seen nothing")
	end}`
	onEnvoys(t, envoytest.Config{Chains: map[string][]part.Part{
		"load":    {plugin("vandal", vandal+"\nreturn {}"), plugin("look", look)},
		"request": {request("vandal", vandal), plugin("look", look)},
		// The same source twice is two plugins.
		"twice": {
			plugin("one", `return {request = function(h) n = (n or 0) + 1; pdk.add_header(h, "x-n", n) end}`),
			plugin("two", `return {request = function(h) n = (n or 0) + 1; pdk.add_header(h, "x-n", n) end}`),
		},
	}}, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, chain := range []string{"load", "request"} {
			if answer := envoy.Gateway(chain).Get(t, "/"); answer.Message() != "seen nothing" {
				t.Errorf("%s: the answer is %+v\n%s", chain, answer, envoy.Log())
			}
		}
		if got := strings.Join(envoy.Gateway("twice").Get(t, "/").Upstream.Values("x-n"), " "); got != "1 1" {
			t.Errorf("the counters are %q", got)
		}
	})
}

// TestSecondImportIsRefused: Envoy would return the first key again.
func TestSecondImportIsRefused(t *testing.T) {
	onEnvoys(t, envoytest.Config{Chains: map[string][]part.Part{
		"twice": {request("imports", `
			handle:importPublicKey("a", 1)
			local ok, problem = pcall(handle["importPublic" .. "Key"], handle, "b", 1)
			pdk.exit(handle, 200, {}, tostring(ok) .. " " .. problem)`)},
		"two plugins": {
			request("one", `handle:importPublicKey("a", 1)`),
			request("two", `handle:importPublicKey("b", 1); pdk.exit(handle, 200, {}, "imported")`),
		},
	}}, func(t *testing.T, envoy *envoytest.Envoy) {
		if got := envoy.Gateway("twice").Get(t, "/").Body; !strings.HasPrefix(got, "false") {
			t.Errorf("the second import in one plugin: %s", got)
		}
		if got := envoy.Gateway("two plugins").Get(t, "/").Body; got != "imported" {
			t.Errorf("the second plugin that imports: %s", got)
		}
	})
}
