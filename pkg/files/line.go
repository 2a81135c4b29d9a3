package files

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

// tree finds the lines of a chunk's fields. Messages about a few of ten thousand objects need them, so a chunk is
// parsed a second time when its first line is asked for, and not before.
type tree struct {
	chunk chunk
	root  func() *yaml.Node
}

func newTree(c chunk) *tree {
	return &tree{chunk: c, root: sync.OnceValue(func() *yaml.Node {
		var doc yaml.Node
		if err := yaml.Unmarshal(c.text, &doc); err != nil || len(doc.Content) == 0 {
			return nil // JSON that is no YAML has no lines
		}
		return doc.Content[0]
	})}
}

// line of a path such as `spec.rules[0].name`, or of its nearest parent that is there.
func (t *tree) line(path string) int {
	line, _ := t.chunk.head()
	if path == "" {
		return line
	}
	for n := t.root(); n != nil; {
		var at int
		at, n, path = step(n, strings.TrimPrefix(path, "."))
		if at > 0 {
			line = t.chunk.line + at - 1
		}
	}
	return line
}

// step goes from a node to the child at the start of path. It returns the child's line (0 if there is none), the child
// and the path that remains.
func step(n *yaml.Node, path string) (line int, child *yaml.Node, rest string) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch n.Kind {
	case yaml.SequenceNode:
		index, rest, ok := bracket(path)
		i, err := strconv.Atoi(index)
		if ok && err == nil && i >= 0 && i < len(n.Content) {
			return n.Content[i].Line, n.Content[i], rest
		}
	case yaml.MappingNode:
		best := -1
		for i := 0; i+1 < len(n.Content); i += 2 {
			if after, ok := cutKey(path, n.Content[i].Value); ok && (best < 0 || len(after) < len(rest)) {
				best, rest = i, after
			}
		}
		if best >= 0 {
			return n.Content[best].Line, n.Content[best+1], rest
		}
	}
	return 0, nil, ""
}

// cutKey cuts a map's key off a path. Keys may hold dots themselves, as in `data.tls.crt`, or stand in brackets, as in
// `metadata.annotations[istio.io/plugins]`.
func cutKey(path, key string) (rest string, ok bool) {
	if inside, after, isBracket := bracket(path); isBracket {
		return after, inside == key
	}
	rest, ok = strings.CutPrefix(path, key)
	return rest, ok && key != "" && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

func bracket(path string) (inside, rest string, ok bool) {
	if !strings.HasPrefix(path, "[") {
		return "", "", false
	}
	return strings.Cut(path[1:], "]")
}

// fieldLine is Source.FieldLine of the object at steps.
func (t *tree) fieldLine(steps string) func(string) int {
	return func(path string) int {
		if steps == "" {
			return t.line(path)
		}
		return t.line(fmt.Sprintf("%s.%s", steps, path))
	}
}
