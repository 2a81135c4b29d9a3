package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
)

// TestGolden runs every folder of testdata/golden: a new folder is a new test. A folder has
//
//	input.yaml     objects as users write them, with a comment on top that says what they show; its lines
//	               "# args: …" and "# explain: …" are further arguments of all commands, and of explain
//	objects.yaml   what `compile` generates, in short (compact)
//	findings.txt   what `lint` prints
//	explain.txt    what `explain` prints, where the comment asks for it
//
// Secrets in inputs read "not to be shown", and no finding or explanation may show one. Every reason of a finding is
// produced by some case.
//
// UPDATE_GOLDEN=1 writes the outputs anew and removes those that no longer belong.
func TestGolden(t *testing.T) {
	reasons := largeReasons(t)
	for _, c := range goldenCases(t) {
		t.Run(c.name, func(t *testing.T) {
			outputs := c.run(t)
			for _, f := range strings.Fields(outputs["findings.txt"]) {
				reasons[finding.Reason(f)] = true
			}
			if os.Getenv("UPDATE_GOLDEN") != "" {
				c.update(t, outputs)
			}
			c.compare(t, outputs)
			for name, text := range outputs {
				if name != "objects.yaml" && strings.Contains(text, "not to be shown") {
					t.Errorf("%s shows a secret", name)
				}
			}
		})
	}
	if t.Failed() {
		return
	}
	for _, r := range finding.Reasons() {
		if !reasons[r] {
			t.Errorf("no test produces a finding with reason %s", r)
		}
	}
}

type goldenCase struct {
	name, folder, input string
	args, explain       []string
}

func goldenCases(t *testing.T) []goldenCase {
	t.Helper()
	folders, err := filepath.Glob("testdata/golden/*")
	if err != nil || len(folders) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	var out []goldenCase
	for _, folder := range folders {
		c := goldenCase{name: filepath.Base(folder), folder: folder, input: filepath.Join(folder, "input.yaml")}
		text, err := os.ReadFile(c.input)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(text), "# ") {
			t.Errorf("%s does not start with a comment that says what it shows", c.input)
		}
		for line := range strings.Lines(string(text)) {
			if args, ok := strings.CutPrefix(line, "# args: "); ok {
				c.args = strings.Fields(args)
			}
			if args, ok := strings.CutPrefix(line, "# explain: "); ok {
				c.explain = strings.Fields(args)
			}
		}
		out = append(out, c)
	}
	return out
}

// command runs the command line and returns its output and exit code. What compile says on stderr, lint says, too.
func (c goldenCase) command(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := Main(slices.Concat(args, []string{"-f", c.input}, c.args), strings.NewReader(""), &stdout, &stderr)
	if code == exitUsage {
		t.Fatalf("%v: %s", args, stderr.String())
	}
	return fmt.Sprintf("%sexit code %d\n", stdout.String(), code)
}

func (c goldenCase) run(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{"findings.txt": c.command(t, "lint")}
	if len(c.explain) > 0 {
		out["explain.txt"] = c.command(t, append([]string{"explain"}, c.explain...)...)
	}
	r := c.result(t)
	raw, err := yaml.Marshal(compact(r))
	if err != nil {
		t.Fatal(err)
	}
	out["objects.yaml"] = string(raw)
	return out
}

// result compiles the input as the compile command does.
func (c goldenCase) result(t *testing.T) *compile.Result {
	t.Helper()
	var in input
	cmd := &cobra.Command{}
	in.flags(cmd)
	if err := cmd.ParseFlags(append([]string{"-f", c.input}, c.args...)); err != nil {
		t.Fatal(err)
	}
	s, err := in.load(t.Context(), strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	return compile.Compile(s)
}

func (c goldenCase) update(t *testing.T, outputs map[string]string) {
	t.Helper()
	present, err := os.ReadDir(c.folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range present {
		if _, wanted := outputs[f.Name()]; !wanted && f.Name() != "input.yaml" {
			if err := os.Remove(filepath.Join(c.folder, f.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, text := range outputs {
		if err := os.WriteFile(filepath.Join(c.folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func (c goldenCase) compare(t *testing.T, outputs map[string]string) {
	t.Helper()
	present, err := os.ReadDir(c.folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range present {
		if _, wanted := outputs[f.Name()]; !wanted && f.Name() != "input.yaml" {
			t.Errorf("%s does not belong to the case; `make golden` removes it", f.Name())
		}
	}
	for name, got := range outputs {
		want, err := os.ReadFile(filepath.Join(c.folder, name))
		if err != nil {
			t.Errorf("%v; `make golden` writes it", err)
			continue
		}
		if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
			t.Errorf("%s (-want +got, `make golden` accepts it):\n%s", name, diff)
		}
	}
}
