package lua_test

import (
	"os/exec"
	"path/filepath"
	"testing"
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
