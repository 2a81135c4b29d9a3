package manifest

import (
	"encoding/json"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/istio-plugins/istio-plugins/pkg/emit"
)

// YAML writes objects as documents of one file.
func YAML(w io.Writer, objects []emit.Object) error {
	if len(objects) == 0 {
		return nil // the library cannot end what it has not begun
	}
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	for _, o := range objects {
		if err := e.Encode(safe(Of(o))); err != nil {
			return err
		}
	}
	return e.Close()
}

// safe quotes texts of several lines that begin with white space: the library writes them as blocks without saying how
// far they are indented, and reads other texts back.
func safe(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, item := range v {
			v[k] = safe(item)
		}
	case []any:
		for i, item := range v {
			v[i] = safe(item)
		}
	case string:
		if strings.Contains(v, "\n") && strings.TrimLeft(v, " \t\r\n") != v {
			return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: v}
		}
	}
	return v
}

// JSON writes objects as one List, indented.
func JSON(w io.Writer, objects []emit.Object) error {
	items := make([]any, len(objects))
	for i, o := range objects {
		items[i] = Of(o)
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(map[string]any{"apiVersion": "v1", "kind": "List", "items": items})
}
