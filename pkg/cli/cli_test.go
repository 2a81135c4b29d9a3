package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/istio-plugins/istio-plugins/pkg/difference"
	"github.com/istio-plugins/istio-plugins/pkg/files"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

func run(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = Main(args, strings.NewReader(stdin), &out, &err)
	return code, out.String(), err.String()
}

func TestExitCodes(t *testing.T) {
	t.Setenv("KUBECONFIG", "/nowhere/config")
	const good, warned, wrong = "testdata/golden/comma-list/input.yaml", "testdata/golden/duplicates/input.yaml", "testdata/golden/missing-plugin/input.yaml"
	for name, c := range map[string]struct {
		args []string
		want int
		// stderr holds this text.
		stderr string
	}{
		"compile, nothing to say":        {[]string{"compile", "-f", good}, 0, ""},
		"compile with a warning":         {[]string{"compile", "-f", warned}, 0, "warning DuplicateEntry virtualservice/demo/shop:"},
		"compile with an error":          {[]string{"compile", "-f", wrong}, 1, "error PluginNotFound virtualservice/demo/shop:"},
		"lint with an error":             {[]string{"lint", "-f", wrong}, 1, ""},
		"lint as JSON with an error":     {[]string{"lint", "-f", wrong, "-o", "json"}, 1, ""},
		"lint with a warning":            {[]string{"lint", "-f", warned}, 0, ""},
		"explain a route that refuses":   {[]string{"explain", "-f", wrong, "demo/shop"}, 1, ""},
		"no input":                       {[]string{"compile"}, 2, "there is no kubeconfig that says where a cluster is: name files or folders with -f"},
		"a kubeconfig that is not there": {[]string{"lint", "--kubeconfig", "/nowhere/config"}, 2, "/nowhere/config"},
		"a context that is not there":    {[]string{"lint", "--kubeconfig", "testdata/kubeconfig", "--context", "nowhere"}, 2, "the kubeconfig has no such context"},
		"a cluster that is not there":    {[]string{"lint", "--kubeconfig", "testdata/kubeconfig"}, 2, "the cluster does not answer; look whether it runs"},
		"diff without files":             {[]string{"diff"}, 2, "nothing to compare: name the files that change with -f"},
		"diff without a cluster":         {[]string{"diff", "-f", good}, 2, "there is no kubeconfig"},
		"files and a cluster":            {[]string{"lint", "-f", good, "--context", "here"}, 2, "give one of them"},
		"a file that is not there":       {[]string{"lint", "-f", "nowhere.yaml"}, 2, "nowhere.yaml"},
		"an unknown flag":                {[]string{"compile", "--file", good}, 2, "unknown flag: --file"},
		"an unknown command":             {[]string{"compil"}, 2, `unknown command "compil"`},
		"an argument too many":           {[]string{"compile", good}, 2, "unknown command"},
		"an unknown output":              {[]string{"compile", "-f", good, "-o", "text"}, 2, `--output: "text" is neither yaml nor json`},
		"an unknown output of lint":      {[]string{"lint", "-f", good, "-o", "yaml"}, 2, `--output: "yaml" is neither text nor json`},
		"an Istio that is too old":       {[]string{"compile", "-f", good, "--istio-version", "1.20"}, 2, "--istio-version: Istio 1.20 is not supported"},
		"a wrong choice":                 {[]string{"compile", "-f", good, "--unknown-routes", "refuse"}, 2, `--unknown-routes: "refuse" is neither allow nor deny`},
		"an Envoy that is not there":     {[]string{"lint", "-f", good, "--envoy", "/nowhere/envoy"}, 2, "--envoy: "},
		"explain without an object":      {[]string{"explain", "-f", good}, 2, "accepts 1 arg(s)"},
		"explain a misspelt object":      {[]string{"explain", "-f", good, "virtualservice/demo/shopp"}, 2, "did you mean virtualservice/demo/shop?"},
		"explain an unknown route":       {[]string{"explain", "-f", good, "demo/shop", "--route", "apj"}, 2, `virtualservice/demo/shop has no route "apj"`},
		"an unknown built-in":            {[]string{"catalog", "show", "key-aut"}, 2, `did you mean "key-auth"?`},
		"help":                           {[]string{"lint", "--help"}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, stderr := run("", c.args...)
			if code != c.want || !strings.Contains(stderr, c.stderr) || c.stderr == "" && stderr != "" {
				t.Errorf("exit code %d, want %d; stderr: %s", code, c.want, stderr)
			}
		})
	}
}

func TestInputMayComeFromFilesFoldersAndStdin(t *testing.T) {
	file := "testdata/golden/comma-list/input.yaml"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(t.TempDir(), "deep", "folder")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "a.yml"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	_, want, _ := run("", "compile", "-f", file)
	if _, got, _ := run(string(text), "compile", "-f", "-"); got != want {
		t.Error("stdin compiles to something else than the file")
	}
	if _, got, _ := run("", "compile", "-f", filepath.Dir(folder)); got != want {
		t.Error("a folder compiles to something else than the file")
	}
	gateway, rest, _ := strings.Cut(string(text), "---\n")
	if err := os.WriteFile(filepath.Join(folder, "a.yml"), []byte(gateway), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, got, _ := run(rest, "compile", "-f", folder, "-f", "-"); got != want {
		t.Error("two sources compile to something else than one")
	}
}

func TestTheNamespaceFlagIsForObjectsThatNameNone(t *testing.T) {
	text, err := os.ReadFile("testdata/golden/comma-list/input.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, want, _ := run(string(text), "compile", "-f", "-")
	bare := strings.NewReplacer("  namespace: demo\n", "", ", namespace: demo", "").Replace(string(text))
	if bare == string(text) {
		t.Fatal("the sample names no namespace any more")
	}
	if _, got, _ := run(bare, "compile", "-f", "-", "-n", "demo"); got != want {
		t.Error("-n demo compiles to something else than namespace: demo")
	}
	if _, got, _ := run(bare, "compile", "-f", "-"); got == want {
		t.Error("objects without a namespace are in demo without -n")
	}
}

func TestLintAsJSONSaysWhatTheTextSays(t *testing.T) {
	const file = "testdata/golden/missing-plugin/input.yaml"
	_, lines, _ := run("", "lint", "-f", file)
	_, raw, _ := run("", "lint", "-f", file, "-o", "json")
	var findings []findingJSON
	if err := json.Unmarshal([]byte(raw), &findings); err != nil {
		t.Fatal(err)
	}
	if len(findings) == 0 || len(findings) != strings.Count(lines, "\n") {
		t.Fatalf("%d findings, and this text:\n%s", len(findings), lines)
	}
	for _, f := range findings {
		if f.Source == "" || !strings.Contains(lines, string(f.Severity)+" "+string(f.Reason)+" ") || !strings.Contains(lines, f.Problem) {
			t.Errorf("%+v is not in the text, or has no source:\n%s", f, lines)
		}
	}
	if _, empty, _ := run("", "lint", "-f", "testdata/golden/comma-list/input.yaml", "-o", "json"); empty != "[]\n" {
		t.Errorf("without findings JSON is %q", empty)
	}
}

func TestExplainReadsNamesAsPeopleWriteThem(t *testing.T) {
	const file = "testdata/golden/routes/input.yaml"
	_, want, _ := run("", "explain", "-f", file, "virtualservice/shop.demo")
	for _, name := range []string{"virtualservice/demo/shop", "demo/shop", "VirtualService/shop.demo", "vs/demo/shop", "shop.demo"} {
		if code, got, stderr := run("", "explain", "-f", file, name); got != want {
			t.Errorf("%s: exit code %d, %s", name, code, stderr)
		}
	}
	for _, args := range [][]string{{"shop", "-n", "demo"}, {"virtualservice/shop", "-n", "demo"}} {
		if _, got, stderr := run("", append([]string{"explain", "-f", file}, args...)...); got != want {
			t.Errorf("%v: %s", args, stderr)
		}
	}
	_, want, _ = run("", "explain", "-f", file, "demo/shop", "--route", "api")
	if _, got, stderr := run("", "explain", "-f", file, "shop/api", "-n", "demo"); got != want {
		t.Errorf("shop/api: %s", stderr)
	}
	if !strings.Contains(want, "route api runs:") || strings.Contains(want, "pages") {
		t.Errorf("--route api shows:\n%s", want)
	}
}

func TestExplainAsJSONHasAStableShape(t *testing.T) {
	_, raw, _ := run("", "explain", "-f", "testdata/golden/override/input.yaml", "demo/shop", "-o", "json")
	want, err := os.ReadFile("testdata/explain.json")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		want, err = []byte(raw), os.WriteFile("testdata/explain.json", []byte(raw), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	if raw != string(want) {
		t.Errorf("got %s", raw)
	}
}

func TestADifferenceAsJSONHasAStableShape(t *testing.T) {
	read := func(paths ...string) *snapshot.Snapshot {
		s, err := files.Load(snapshot.Options{}, "demo", paths, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const folder = "../difference/testdata/"
	before := read(folder+"gateway.yaml", folder+"refuse/before.yaml")
	after := snapshot.Overlay(before, read(folder+"refuse/change.yaml"))
	var got strings.Builder
	for _, side := range []*snapshot.Snapshot{after, before} {
		if err := printJSONDifference(&got, difference.Compare(sideOf(before), sideOf(side), false)); err != nil {
			t.Fatal(err)
		}
	}
	text := sourceID.ReplaceAllString(got.String(), `"(a Lua source)",`)
	want, err := os.ReadFile("testdata/diff.json")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		want, err = []byte(text), os.WriteFile("testdata/diff.json", []byte(text), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("got %s", text)
	}
}

func TestEveryCommandHasAnExampleAndEveryExampleIsACommand(t *testing.T) {
	root := newRoot()
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Runnable() && cmd.Name() != "help" && cmd.Example == "" {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		for line := range strings.Lines(strings.ReplaceAll(cmd.Example, "|\n", "")) {
			for part := range strings.SplitSeq(line, "|") {
				words := strings.Fields(part)
				if len(words) < 2 || words[0] != "istio-plugins" {
					continue
				}
				found, rest, err := newRoot().Find(words[1:])
				if err != nil {
					t.Errorf("%q: %v", line, err)
					continue
				}
				for i, w := range rest {
					if w == ">" {
						rest = rest[:i]
						break
					}
				}
				if err := found.ParseFlags(rest); err != nil {
					t.Errorf("%q: %v", line, err)
				}
			}
		}
		for _, c := range cmd.Commands() {
			visit(c)
		}
	}
	visit(root)
}

func TestCatalogShowsEveryBuiltIn(t *testing.T) {
	_, list, _ := run("", "catalog")
	for line := range strings.Lines(list) {
		name := strings.Fields(line)[0]
		if code, page, stderr := run("", "catalog", "show", name); code != 0 || !strings.HasPrefix(page, "# "+name+"\n") {
			t.Errorf("catalog show %s: exit code %d, %s", name, code, stderr)
		}
		if _, err := os.Stat("../../samples/" + name); err != nil {
			t.Errorf("%s has no sample: %v", name, err)
		}
	}
	if !strings.Contains(list, "key-auth") {
		t.Errorf("the list has no key-auth:\n%s", list)
	}
}

func TestSamplesCompileWithoutFindings(t *testing.T) {
	folders, err := filepath.Glob("../../samples/*")
	if err != nil || len(folders) == 0 {
		t.Fatalf("there are no samples: %v", err)
	}
	for _, folder := range folders {
		if code, findings, stderr := run("", "lint", "-f", folder); code != exitFine || findings != "" {
			t.Errorf("%s: exit code %d\n%s%s", folder, code, findings, stderr)
		}
		code, objects, stderr := run("", "compile", "-f", folder)
		if code != exitFine || stderr != "" || !strings.Contains(objects, "kind: EnvoyFilter") {
			t.Errorf("%s compiles to %d bytes, exit code %d, %s", folder, len(objects), code, stderr)
		}
	}
}
