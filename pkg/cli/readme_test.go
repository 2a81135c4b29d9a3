package cli

import (
	"os"
	"strings"
	"testing"
)

// TestTranscriptsInTheReadme runs the commands of README.md's console blocks from the root of the repository and compares
// what they print. UPDATE_GOLDEN=1 writes the outputs anew.
func TestTranscriptsInTheReadme(t *testing.T) {
	t.Chdir("../..")
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	transcript, err := os.ReadFile("e2e/controller/testdata/status.txt")
	if err != nil {
		t.Fatal(err)
	}
	const open, end = "```console\n", "```\n"
	parts := strings.Split(string(page), open)
	if len(parts) < 2 {
		t.Fatal("README.md has no transcript")
	}
	out := []string{parts[0]}
	for _, part := range parts[1:] {
		block, rest, ok := strings.Cut(part, end)
		if !ok {
			t.Fatal("a console block does not end")
		}
		command, _, _ := strings.Cut(block, "\n")
		if strings.HasPrefix(command, "$ kubectl ") {
			// What the controller says is golden where it runs.
			if !strings.Contains(string(transcript), block) {
				t.Errorf("no test has seen this:\n%s", block)
			}
			out = append(out, open, part)
			continue
		}
		words, ok := strings.CutPrefix(command, "$ istio-plugins ")
		if !ok {
			t.Fatalf("%q is no command of ours", command)
		}
		_, stdout, stderr := run("", strings.Fields(words)...)
		out = append(out, open, command, "\n", stdout, stderr, end, rest)
	}
	got := strings.Join(out, "")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile("README.md", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if got != string(page) {
		t.Errorf("README.md shows something else than the commands print, which `make golden` corrects:\n%s", got)
	}
}
