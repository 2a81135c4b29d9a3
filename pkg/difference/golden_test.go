package difference_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/difference"
	"github.com/istio-plugins/istio-plugins/pkg/files"
	"github.com/istio-plugins/istio-plugins/pkg/lint"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// TestGolden runs every folder of testdata: a new folder is a new test. A folder has
//
//	before.yaml   what there is, besides testdata/gateway.yaml
//	change.yaml   what is laid over it, with a comment on top that says what the case shows
//	diff.txt      what people see of it
//
// Secrets read "not to be shown" and, where they change, "also not to be shown". UPDATE_GOLDEN=1 writes the outputs anew.
func TestGolden(t *testing.T) {
	cases, err := filepath.Glob("testdata/*/change.yaml")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, change := range cases {
		folder := filepath.Dir(change)
		t.Run(filepath.Base(folder), func(t *testing.T) {
			text, err := os.ReadFile(change)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(text), "# ") {
				t.Errorf("%s does not start with a comment that says what it shows", change)
			}
			before := load(t, "testdata/gateway.yaml", filepath.Join(folder, "before.yaml"))
			after := snapshot.Overlay(before, load(t, change))
			d := difference.Compare(side(before), side(after), false)
			got := print(t, d)
			file := filepath.Join(folder, "diff.txt")
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatalf("%v; `make golden` writes it", err)
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("%s (-want +got, `make golden` accepts it):\n%s", file, diff)
			}
			raw, err := json.Marshal(d)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(got+string(raw), "not to be shown") {
				t.Error("a secret is shown")
			}
			if same := difference.Compare(side(after), side(after), true); !same.Empty() {
				t.Errorf("what is the same differs:\n%s", print(t, same))
			}
			testBack(t, side(before), side(after), d)
		})
	}
}

func TestTheReadmeShowsADifference(t *testing.T) {
	page, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	shown, err := os.ReadFile("testdata/config/diff.txt")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "```\n"+string(shown)+"```\n") {
		t.Error("README.md shows something else than testdata/config/diff.txt")
	}
}

// testBack compares the other way round: what appears one way goes away the other.
func testBack(t *testing.T, before, after difference.Side, d difference.Difference) {
	t.Helper()
	back := difference.Compare(after, before, false)
	if len(back.Appear) != len(d.Vanish) || len(back.Vanish) != len(d.Appear) || len(back.Objects) != len(d.Objects) || routes(back) != routes(d) {
		t.Errorf("the way back is another one:\n%s", print(t, back))
	}
}

// routes counts those that change.
func routes(d difference.Difference) int {
	n := 0
	for _, c := range d.Routes {
		n += len(c.Routes)
	}
	return n
}

func print(t *testing.T, d difference.Difference) string {
	t.Helper()
	var out strings.Builder
	if err := difference.Text(&out, d); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func load(t *testing.T, paths ...string) *snapshot.Snapshot {
	t.Helper()
	s, err := files.Load(snapshot.Options{}, "demo", paths, strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Malformed) > 0 {
		t.Fatalf("malformed: %v", s.Malformed)
	}
	return s
}

func side(s *snapshot.Snapshot) difference.Side {
	r := compile.Compile(s)
	return difference.Side{Snapshot: s, Result: r, Findings: append(r.Findings, lint.Check(s, r)...)}
}
