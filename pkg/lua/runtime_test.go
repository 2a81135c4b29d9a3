package lua_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// TestModules runs testdata/*_test.lua: the modules that need no stream, in the LuaJIT of the machine. A case is a file;
// there is nothing to register.
func TestModules(t *testing.T) {
	luajit, err := exec.LookPath("luajit")
	if err != nil {
		t.Fatal("luajit is not in PATH; Debian has it in the package luajit")
	}
	files, err := filepath.Glob("testdata/*_test.lua")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			if out, err := exec.Command(luajit, file).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// checkInEnvoy stands in for testdata/check.lua in a plugin: the modules are those of pdk, and what fails is answered.
const checkInEnvoy = `
local failures, count = {}, 0
local check = {load = function() return {
	base64 = pdk.base64, date = pdk.date, equal = pdk.equal, hex = pdk.hex, hmac = pdk.hmac, ip = pdk.ip,
	trim = pdk.trim, sha1 = pdk.sha1, sha256 = pdk.sha256, sha512 = {sha384 = pdk.sha384, sha512 = pdk.sha512},
	url = {decode = pdk.url.decode, encode = pdk.url.encode, parse = pdk.url.parse, query = pdk.query},
} end}
function check.equal(got, want, what)
	count = count + 1
	if got ~= want then
		failures[#failures + 1] = ("%s: got %s, want %s"):format(what, tostring(got), tostring(want))
	end
end
function check.finish() end
function dofile() return check end
`

// TestModulesInEnvoy runs the same checks as plugins of the Envoys, whose LuaJIT is another one.
func TestModulesInEnvoy(t *testing.T) {
	names := []string{"base64", "date", "digests", "hex", "hmac", "ip", "trim", "url"}
	chains := make(map[string][]part.Part)
	for _, name := range names {
		text, err := os.ReadFile("testdata/" + name + "_test.lua")
		if err != nil {
			t.Fatal(err)
		}
		chains[name] = parts{part.Lua{Plugin: name, Source: checkInEnvoy + `return {request = function(handle)
			local function run() ` + string(text) + ` end
			run()
			pdk.exit(handle, 200, {["x-count"] = count}, table.concat(failures, "\n"))
		end}`}}
	}
	onEnvoys(t, envoytest.Config{Chains: chains}, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, name := range names {
			answer := envoy.Gateway(name).Get(t, "/")
			if answer.Status != 200 || answer.Body != "" || answer.Header.Get("x-count") == "0" {
				t.Errorf("%s: status %d, %s checks\n%s\n%s", name, answer.Status, answer.Header.Get("x-count"), answer.Body, envoy.Log())
			}
		}
	})
}
