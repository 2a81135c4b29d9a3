package resolve

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/istio-plugins/istio-plugins/pkg/annotation"
	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// secretKeyRef is the field that refers to a key of a Secret, in configs as in specs.
const secretKeyRef = "secretKeyRef"

// secrets finds the Secret of a namespace/name, or nil.
type secrets func(name string) *corev1.Secret

// secretsOf indexes the Secrets of a snapshot when the first of them is asked for.
func secretsOf(s *snapshot.Snapshot) secrets {
	index := sync.OnceValue(func() map[string]*corev1.Secret {
		out := make(map[string]*corev1.Secret, len(s.Secrets))
		for _, secret := range s.Secrets {
			out[secret.Namespace+"/"+secret.Name] = secret
		}
		return out
	})
	return func(name string) *corev1.Secret { return index()[name] }
}

// SecretNames are the names of the Secrets that the configs of Plugins and ClusterPlugins come from, sorted.
func SecretNames(s *snapshot.Snapshot) []types.NamespacedName {
	names := map[types.NamespacedName]bool{}
	add := func(namespace string, spec *pluginsv1alpha1.PluginSpec) {
		if !refers(spec) {
			return
		}
		p := newPlugin(finding.Object{}, namespace, spec, func(string) *corev1.Secret { return nil })
		for _, source := range p.Secrets {
			names[types.NamespacedName{Namespace: namespace, Name: strings.TrimPrefix(source.Secret, namespace+"/")}] = true
		}
	}
	for _, p := range s.Plugins {
		add(p.Namespace, &p.Spec)
	}
	for _, p := range s.ClusterPlugins {
		add(s.Options.Defaults().RootNamespace, &p.Spec)
	}
	return slices.SortedFunc(maps.Keys(names), func(a, b types.NamespacedName) int { return cmp.Compare(a.String(), b.String()) })
}

// refers says whether a spec may refer to Secrets. Most do not, and there may be many.
func refers(spec *pluginsv1alpha1.PluginSpec) bool {
	return spec.ConfigFrom != nil || len(spec.ConfigPatches) > 0 || spec.Config != nil && bytes.Contains(spec.Config.Raw, []byte(secretKeyRef))
}

// reading is what a key of a Secret was found to hold.
type reading struct {
	secret, key string
	value       []byte
	found       bool
}

// holds says whether it would be found to hold the same.
func (r reading) holds(all secrets) bool {
	value, found := valueOf(all(r.secret), r.key)
	return found == r.found && bytes.Equal(value, r.value)
}

func valueOf(secret *corev1.Secret, key string) ([]byte, bool) {
	if secret == nil {
		return nil, false
	}
	value, ok := secret.Data[key]
	return value, ok
}

// readSecrets completes the Plugin's own config by the values that come from Secrets.
func (p *Plugin) readSecrets(all secrets) {
	spec := p.Spec
	if spec.ConfigFrom != nil {
		if spec.Config != nil || len(spec.ConfigPatches) > 0 {
			p.wrong(finding.InvalidPlugin, "spec.configFrom", "configFrom cannot be used together with config or configPatches")
		}
		p.Config, p.Public = p.whole(all, spec.ConfigFrom.SecretKeyRef), config.Value{}
		return
	}
	if _, ok := p.Config[secretKeyRef]; ok {
		p.wrong(finding.InvalidConfig, "spec.config", "a text stands where a map is needed: a whole config comes from a Secret by spec.configFrom")
		return
	}
	real, public := p.texts(all, map[string]any(p.Config), nil, "spec.config")
	for i, patch := range spec.ConfigPatches {
		place := fmt.Sprintf("spec.configPatches[%d]", i)
		var steps []string
		for step := range strings.SplitSeq(strings.TrimPrefix(patch.Path, "/"), "/") {
			steps = append(steps, strings.NewReplacer("~1", "/", "~0", "~").Replace(step))
		}
		value := p.patch(all, patch.ValueFrom.SecretKeyRef, steps, place)
		patched, problem := put(real, steps, value)
		if problem != "" {
			p.wrong(finding.InvalidPlugin, place+".path", fmt.Sprintf("%q leads nowhere: %s", patch.Path, problem))
			continue
		}
		real = patched
		// What leads into a value that is hidden itself is hidden by it.
		if patched, problem := put(public, steps, config.Hidden); problem == "" {
			public = patched
		}
	}
	p.Config, p.Public = real.(map[string]any), public.(map[string]any)
}

func (p *Plugin) wrong(reason finding.Reason, place, problem string) {
	p.Wrong = append(p.Wrong, finding.Finding{Reason: reason, Object: p.Object, Place: place, Problem: problem})
}

// read is what a key of a Secret holds.
func (p *Plugin) read(all secrets, ref pluginsv1alpha1.KeyRef, steps []string, place string) (value []byte, ok bool) {
	name := p.Namespace + "/" + ref.Name
	place += "." + secretKeyRef
	p.Secrets = append(p.Secrets, config.Source{Path: slices.Clone(steps), Place: place, Secret: name, Key: ref.Key})
	secret := all(name)
	value, ok = valueOf(secret, ref.Key)
	p.readings = append(p.readings, reading{name, ref.Key, value, ok})
	switch {
	case secret == nil:
		p.wrong(finding.RefNotFound, place, "there is no Secret "+name)
	case !ok:
		p.wrong(finding.RefNotFound, place, fmt.Sprintf("Secret %s has no key %q", name, ref.Key))
	case !utf8.Valid(value):
		p.wrong(finding.InvalidConfig, place, fmt.Sprintf("key %q of Secret %s is no text in UTF-8", ref.Key, name))
		return nil, false
	}
	return value, ok
}

// whole is the config that a key of a Secret holds.
func (p *Plugin) whole(all secrets, ref pluginsv1alpha1.KeyRef) config.Value {
	const place = "spec.configFrom"
	value, ok := p.read(all, ref, nil, place)
	if !ok {
		return nil
	}
	c, ok := annotation.Config(string(value))
	if !ok {
		p.wrong(finding.InvalidConfig, place+"."+secretKeyRef, fmt.Sprintf("key %q of Secret %s/%s holds no config, which is one map in YAML or JSON, without anchors and tags", ref.Key, p.Namespace, ref.Name))
	}
	return c
}

// patch is the value that a key of a Secret holds: JSON, or else a text.
func (p *Plugin) patch(all secrets, ref pluginsv1alpha1.KeyRef, steps []string, place string) any {
	place += ".valueFrom"
	value, ok := p.read(all, ref, steps, place)
	if !ok {
		return nil
	}
	if v, err := config.DecodeAny(value); err == nil {
		return v
	}
	return p.text(value, place)
}

// text is a value as it is.
func (p *Plugin) text(value []byte, place string) string {
	text := string(value)
	if line, ended := strings.CutSuffix(text, "\n"); ended && !strings.Contains(line, "\n") {
		p.wrong(finding.ConfigWarning, place+"."+secretKeyRef, "the value ends in a line break, which is part of it; write it for example with `printf` instead of `echo`")
	}
	return text
}

// texts replaces references in a config by the texts that they stand for, and in a second copy by config.Hidden.
func (p *Plugin) texts(all secrets, v any, steps []string, place string) (real, public any) {
	switch v := v.(type) {
	case map[string]any:
		if given, ok := v[secretKeyRef]; ok {
			ref, ok := keyRef(given)
			if !ok || len(v) > 1 {
				p.wrong(finding.InvalidConfig, place, "secretKeyRef is a map with a name and a key, and nothing stands beside it")
				return nil, nil
			}
			value, _ := p.read(all, ref, steps, place)
			return p.text(value, place), config.Hidden
		}
		a, b := make(map[string]any, len(v)), make(map[string]any, len(v))
		for _, name := range slices.Sorted(maps.Keys(v)) {
			a[name], b[name] = p.texts(all, v[name], append(slices.Clone(steps), name), place+"."+name)
		}
		return a, b
	case []any:
		a, b := make([]any, len(v)), make([]any, len(v))
		for i, item := range v {
			a[i], b[i] = p.texts(all, item, append(slices.Clone(steps), strconv.Itoa(i)), fmt.Sprintf("%s[%d]", place, i))
		}
		return a, b
	}
	return v, v
}

// keyRef reads a reference in a config.
func keyRef(v any) (ref pluginsv1alpha1.KeyRef, ok bool) {
	fields, _ := v.(map[string]any)
	name, _ := fields["name"].(string)
	key, _ := fields["key"].(string)
	return pluginsv1alpha1.KeyRef{Name: name, Key: key}, len(fields) == 2 && name != "" && key != ""
}

// put is `add` of RFC 6902, which also makes what is missing on the way: a list for `-`, and maps. It changes in, or says why it cannot.
func put(in any, steps []string, v any) (out any, problem string) {
	if len(steps) == 0 {
		return v, ""
	}
	step, last := steps[0], len(steps) == 1
	switch in := in.(type) {
	case nil:
		if v, problem = put(nil, steps[1:], v); step == "-" {
			return []any{v}, problem
		}
		return map[string]any{step: v}, problem
	case map[string]any:
		v, problem = put(in[step], steps[1:], v)
		if problem == "" {
			in[step] = v
		}
		return in, problem
	case []any:
		i, err := strconv.Atoi(step)
		switch {
		case last && (step == "-" || step == strconv.Itoa(len(in))):
			return append(in, v), ""
		case err != nil || step != strconv.Itoa(i) || i < 0 || i >= len(in):
			return in, fmt.Sprintf("a list has no item %q", step)
		case last:
			return slices.Insert(in, i, v), ""
		}
		v, problem = put(in[i], steps[1:], v)
		if problem == "" {
			in[i] = v
		}
		return in, problem
	}
	return in, fmt.Sprintf("what %q would be in is neither a map nor a list", step)
}
