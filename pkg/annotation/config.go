package annotation

import (
	"go.yaml.in/yaml/v3"

	"github.com/istio-plugins/istio-plugins/pkg/config"
)

// Config reads a config that stands alone, by the rules for the config of an entry. What is wrong with it is not said,
// because the text may be a secret.
func Config(text string) (config.Value, bool) {
	root, err := readTree(text)
	if err != nil || root.Kind != yaml.MappingNode || unsupported(root, MaxDepth) != "" {
		return nil, false
	}
	var e Entry
	v := e.value("", root).(map[string]any)
	return v, len(e.Problems) == 0
}
