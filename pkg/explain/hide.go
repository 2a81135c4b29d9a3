package explain

import (
	"regexp"
	"slices"
	"strings"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/catalog"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/config"
)

// Hidden stands for a value that must not be shown.
const Hidden = config.Hidden

// hide replaces what may be a secret in a config, besides what comes from Secrets and is not in it. A built-in's schema says
// what is one. Other plugins' configs have no schema, so there, and in headers that a built-in sets, names decide, and
// rather hide too much: an explanation is pasted into tickets.
func hide(spec *pluginsv1alpha1.PluginSpec, c config.Value) map[string]any {
	// In one of Envoy's messages, and in a schema of ours, a plain `key` is the name of something.
	h := hider{keys: spec.Envoy == nil && spec.Builtin == ""}
	if b, ok := catalog.Find(spec.Builtin); ok {
		h.schema = b.Schema
	}
	return h.fields(c, nil, false)
}

type hider struct {
	schema *builtin.Schema
	// keys says that a field `key` or `keys` is a secret, too.
	keys bool
}

func (h hider) fields(in map[string]any, path []string, secret bool) map[string]any {
	out := make(map[string]any, len(in))
	for k, v := range in {
		at := append(slices.Clone(path), k)
		out[k] = h.value(v, at, secret || !h.declared(at) && telling(k) || h.keys && (k == "key" || k == "keys"))
	}
	return out
}

// declared says whether a field is one that a schema names, and so marks where it is a secret.
func (h hider) declared(path []string) bool {
	at := builtin.Path(path...)
	return h.schema != nil && h.schema.Known(at) == at
}

func (h hider) value(v any, path []string, secret bool) any {
	if h.schema != nil && h.schema.Secret(path...) {
		return Hidden
	}
	switch v := v.(type) {
	case map[string]any:
		return h.fields(v, path, secret)
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = h.value(item, append(slices.Clone(path), "0"), secret)
		}
		return out
	case string:
		if secret {
			return Hidden
		}
		return hideHeader(userInfo.ReplaceAllString(v, "://"+Hidden+"@"))
	}
	return v // a number or a boolean is no secret, whatever its name
}

// userInfo is what a URL says about who asks.
var userInfo = regexp.MustCompile(`://[^/@\s]+@`)

// hideHeader hides the value in `name: value`, the form in which header plugins take headers.
func hideHeader(text string) string {
	if name, value, ok := strings.Cut(text, ":"); ok && telling(strings.TrimSpace(name)) && strings.TrimSpace(value) != "" {
		return name + ":" + Hidden
	}
	return text
}

// telling says whether a field or header of this name is likely to hold a secret.
func telling(name string) bool {
	word := strings.NewReplacer("_", "", "-", "", ".", "").Replace(strings.ToLower(name))
	for _, part := range []string{"secret", "password", "passwd", "passphrase", "credential", "privatekey", "apikey", "authorization", "cookie", "inlinestring", "inlinebytes"} {
		if strings.Contains(word, part) {
			return true
		}
	}
	for _, end := range []string{"token", "tokens", "key"} {
		if strings.HasSuffix(word, end) && word != "key" {
			return true // but not token_bucket, key_names or the name of a header
		}
	}
	return false
}
