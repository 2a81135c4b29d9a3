package lua_test

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"

	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/lua"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// goodChunks are what LuaJIT accepts and parsers of Lua 5.1 may not.
var goodChunks = []string{
	``, `return {}`, `return;`, ` -- only a comment`, "--[[ long\n]]", "--[==[ ]] ]==] return 1", `--[ short`, "#!/usr/bin/lua\nreturn 1", "#",
	"\ufeffreturn 1", "return 1 --", "\r\nreturn 1\r\n", "\v\freturn 1",
	`for i = 1, 3 do for j = 1, 3 do if j == 2 then goto continue end end ::continue:: end`,
	`do goto l end ::l::`, `::l:: do local x = 1 end goto l`,
	`return 0x1F, 0XA, 0x1p4, 0x.8p-1, 0xA.8, 0x1P+2`, `return 1LL, 2ULL, 3llu, 0x10LL, 0xffULL, 1i, 2.5I, 0x10i`, `return 0b101, 0B11`,
	`return 1., .5, 1e5, 1E+5, 1.5e-3, 3.e2, 08, 1 .. ""`,
	`return "\x41\x7F", "\z   a", "\u{1F600}", "\065\0a", '\'', "\"", "\a\b\f\n\r\t\v\\"`, "return 'a\\\nb'", "return 'a\\\r\nb'", "return 'a\\z \n  b'",
	"return [[a\nb]], [==[ ]] ]==], [[\\x]]", "return '\xff\x00\xc3\xa9'", "return a[ [[x]] ], a['x\\\ny'], a[b[1]]",
	"local größe = 1 return größe", "local \xff = 1", `while true do break; local x = 1 end`, `repeat break x() until true`, `;;; local x = 1;; ;`,
	"local a = f\n(g).x()", "f\n(1)\n(2)", `f{1; 2, 3;}`, `f"x" 'y' [[z]]`, `a.b:c "x"`, `local function f(...) return ... end`, `return function(a, b, ...) end`,
	`return not a and b or c .. d .. e ^ -f ^ #g`, `return (...)`, `a.b.c, d[1] = 1, 2`, `local a`, `function a.b.c:d() end`, `if a then elseif b then else end`,
	`return -2 ^ 2, - - 1, not not a, #"x", -x.y`, `for k, v in pairs {} do end`, `for i = 1, 2, 3 do end`, `local x = {[1] = 2, a = 3, 4, ["b"] = 5, function() end}`,
	`return a == b, a ~= b, a <= b, a >= b, a < b, a > b`, `return a - -1, a--` + "\n-1", `local t = {} t.x = 1 t["y"] = 2 t[1] = 3`, `("x"):rep(3)`, `local _ENV = 1`,
	`return "` + strings.Repeat("x", 100000) + `"`, strings.Repeat("local function f() ", 30) + strings.Repeat(" end", 30), `do return end`,
	`return 1 ,2`, `return 0xep1`, `return 1--[[c]]+2`,
}

// badChunks are what LuaJIT refuses, with the line.
var badChunks = []struct {
	source string
	line   int
	says   string
}{
	{"return {request = function(handle) end", 1, "ends too early"},
	{"local x = 1\nx = = 2\n", 2, `unexpected "="`},
	{"local x\n\n\nif x the\nend", 4, `unexpected "the"`},
	{"end", 1, `unexpected "end"`},
	{"return 1 return 2", 1, `unexpected "return"`},
	{"x", 1, "ends too early"},
	{"x y", 1, `unexpected "y"`},
	{"\n'abc\nreturn", 2, "a string without end"},
	{`return "abc`, 1, "a string without end"},
	{"return 'a\\qb'", 1, "invalid escape sequence"},
	{`return "\300"`, 1, "invalid escape sequence"},
	{`return "\xg0"`, 1, "invalid escape sequence"},
	{"\nreturn [[abc", 2, "a string without end"},
	{"--[[ abc", 1, "a comment without end"},
	{"return 1x", 1, `malformed number "1x"`},
	{"return 1..2", 1, "malformed number"},
	{"return 0x", 1, "malformed number"},
	{"return 0xg", 1, "malformed number"},
	{"return 1e", 1, "malformed number"},
	{"return 1.5LL", 1, "malformed number"},
	{"return 1L", 1, "malformed number"},
	{"return 0b12", 1, "malformed number"},
	{"x = 1 @ 2", 1, `unexpected "@"`},
	{"x != 1", 1, `unexpected "!"`},
	{"x = 1 // 2", 1, `unexpected "/"`},
	{"x += 1", 1, `unexpected "+"`},
	{"local function f( return end", 1, `unexpected "return"`},
	{"local a = {1, 2", 1, "ends too early"},
	{"local a = (1, 2)", 1, `unexpected ","`},
	{"for i = 1 do end", 1, `unexpected "do"`},
	{"local end = 1", 1, `unexpected "end"`},
	{"local goto = 1", 1, `unexpected "goto"`},
	{"goto", 1, "ends too early"},
	{"f() = 1", 1, `unexpected "="`},
	{"a.b", 1, "ends too early"},
	{"local x\r\n\r\nx = = 1", 3, `unexpected "="`},
	{"\x1bLJ\x02", 1, `unexpected "\x1b"`},
	{"x = 'a\\\nb' y", 2, "ends too early"},
	{"return \x00", 1, `unexpected "\x00"`},
}

func TestCheckSyntaxAccepts(t *testing.T) {
	for _, source := range goodChunks {
		if err := lua.CheckSyntax(source); err != nil {
			t.Errorf("%.80q: %v", source, err)
		}
	}
}

func TestCheckSyntaxSaysWhatIsWrong(t *testing.T) {
	for _, c := range badChunks {
		var wrong *lua.SyntaxError
		if err := lua.CheckSyntax(c.source); !errors.As(err, &wrong) || wrong.Line != c.line || !strings.Contains(wrong.Message, c.says) {
			t.Errorf("%q: %v, want line %d: …%s…", c.source, err, c.line, c.says)
		}
	}
}

// compiler is an Envoy whose LuaJIT compiles what it is sent.
func compiler() part.Part {
	return part.Native{Config: &luav3.Lua{DefaultSourceCode: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: `
		function envoy_on_request(handle)
			local body = handle:body()
			local source = body and body:getBytes(0, body:length()) or ""
			source = source:gsub("^\239\187\191", ""):gsub("^#[^\n]*", "")
			local chunk, problem = loadstring(source, "=chunk", "t")
			handle:respond({[":status"] = chunk and "200" or "400"}, problem)
		end`}}}}
}

// TestCheckSyntaxAgreesWithEnvoy: Envoy's LuaJIT is the authority on both lists.
func TestCheckSyntaxAgreesWithEnvoy(t *testing.T) {
	onEnvoys(t, envoytest.Config{Chains: map[string][]part.Part{"compiler": {compiler()}}}, func(t *testing.T, envoy *envoytest.Envoy) {
		compile := func(source string) *envoytest.Answer {
			return envoy.Gateway("compiler").Do(t, envoytest.Request{Method: http.MethodPost, Body: source})
		}
		for _, source := range goodChunks {
			if answer := compile(source); answer.Status != 200 {
				t.Errorf("%.80q: Envoy says %s", source, answer.Body)
			}
		}
		for _, c := range badChunks {
			if answer := compile(c.source); answer.Status != 400 {
				t.Errorf("%q: Envoy compiles it", c.source)
			}
		}
	})
}

// TestRuntimeCompiles holds the shipped Lua to both.
func TestRuntimeCompiles(t *testing.T) {
	files, err := filepath.Glob("runtime/*.lua")
	if err != nil || len(files) == 0 {
		t.Fatalf("no runtime: %v", err)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := lua.CheckSyntax(string(source)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if out, err := exec.Command("luajit", "-bl", file).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
	}
}

// FuzzCheckSyntax: whatever the text, an answer with a line that the text has.
func FuzzCheckSyntax(f *testing.F) {
	for _, source := range goodChunks {
		f.Add(source)
	}
	for _, c := range badChunks {
		f.Add(c.source)
	}
	f.Fuzz(func(t *testing.T, source string) {
		err := lua.CheckSyntax(source)
		if err == nil {
			return
		}
		var wrong *lua.SyntaxError
		if !errors.As(err, &wrong) || wrong.Line < 1 || wrong.Line > 1+strings.Count(source, "\n") {
			t.Errorf("%q: %v", source, err)
		}
	})
}
