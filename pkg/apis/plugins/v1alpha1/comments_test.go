package v1alpha1_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/files"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// Every manifest in a comment of a type is one that a user can apply.
func TestManifestsInComments(t *testing.T) {
	sources, err := filepath.Glob("*_types.go")
	if err != nil {
		t.Fatal(err)
	}
	manifests := 0
	for _, source := range sources {
		file, err := parser.ParseFile(token.NewFileSet(), source, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, comment := range file.Comments {
			for _, manifest := range manifestsIn(comment) {
				manifests++
				s, err := files.Load(snapshot.Options{}, "", []string{files.Stdin}, strings.NewReader(manifest))
				if err != nil {
					t.Errorf("%s: %v\n%s", source, err, manifest)
					continue
				}
				for _, m := range s.Malformed {
					t.Errorf("%s: %s %s: %s", source, m.Object, m.Place, m.Error)
				}
				if len(s.Sources) == 0 {
					t.Errorf("%s: no object in\n%s", source, manifest)
				}
			}
		}
	}
	if manifests < 5 {
		t.Errorf("only %d manifests were found", manifests)
	}
}

// manifestsIn are the indented blocks of a comment that start with an apiVersion.
func manifestsIn(comment *ast.CommentGroup) []string {
	var blocks []string
	inside := false
	for _, line := range strings.Split(comment.Text(), "\n") {
		code, indented := strings.CutPrefix(line, "\t")
		starts := indented && !inside && strings.HasPrefix(code, "apiVersion:")
		inside = indented && (inside || starts)
		switch {
		case starts:
			blocks = append(blocks, code+"\n")
		case inside:
			blocks[len(blocks)-1] += code + "\n"
		}
	}
	return blocks
}
