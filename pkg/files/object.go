package files

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	kjson "sigs.k8s.io/json"

	"github.com/istio-plugins/istio-plugins/pkg/annotation"
	objectschema "github.com/istio-plugins/istio-plugins/pkg/apis/schema"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// add puts one object into the snapshot, or what is wrong with it.
func (l *loader) add(file string, d document) error {
	k, problem, err := kindOf(d.fields)
	if err != nil {
		return fmt.Errorf("%s:%d: %w", file, d.line, err)
	}
	if k == nil {
		return nil
	}
	object := l.identify(k, d.fields)
	if !k.wanted(d.fields) {
		l.snapshot.Unlabelled = append(l.snapshot.Unlabelled, object)
		return nil
	}
	if earlier, ok := l.snapshot.Sources[object]; ok && object.Name != "" {
		return fmt.Errorf("%s:%d: %s is in %s:%d already", file, d.line, object, earlier.File, earlier.Line)
	}
	l.snapshot.Sources[object] = snapshot.Source{File: file, Line: d.line, FieldLine: d.tree.fieldLine(d.steps)}

	problems := append(metadataProblems(d.fields), repeatedProblems(d.repeated)...)
	if problem != nil {
		problems = append(problems, *problem)
	}
	if len(problems) == 0 {
		problems = k.decode(k, l.snapshot, d.fields)
	}
	malformed := &l.snapshot.Malformed
	if k.name == "Secret" && !credential(labelsOf(d.fields)) {
		malformed = &l.others
	}
	for _, p := range problems {
		*malformed = append(*malformed, snapshot.Malformed{
			Object: object, Annotation: stringIn(d.fields, "metadata", "annotations", annotation.Key), Place: p.place, Error: p.message,
		})
	}
	return nil
}

// problem is one reason for which an object cannot be used.
type problem struct {
	place, message string
}

// kindOf finds out what an object is. Without kind or apiVersion only what is plainly meant for a compilation is an
// error: a folder may hold anything. A version that is not served is a problem of the object.
func kindOf(fields map[string]any) (*kind, *problem, error) {
	apiVersion, kindName := stringIn(fields, "apiVersion"), stringIn(fields, "kind")
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return nil, nil, nil
	}
	switch {
	case kindName == "" && gv.Group != "" && slices.ContainsFunc(kinds, func(k kind) bool { return k.group == gv.Group }):
		return nil, nil, fmt.Errorf("an object of %s has no kind", apiVersion)
	case apiVersion == "" && slices.ContainsFunc(kinds, func(k kind) bool { return k.name == kindName }) && fields["metadata"] != nil:
		return nil, nil, fmt.Errorf("an object of kind %s has no apiVersion", kindName)
	}
	for i := range kinds {
		k := &kinds[i]
		if k.name != kindName || k.group != gv.Group {
			continue
		}
		if slices.Contains(k.versions, gv.Version) {
			return k, nil, nil
		}
		served := schema.GroupVersion{Group: k.group, Version: k.versions[0]}
		return k, &problem{"apiVersion", fmt.Sprintf("%s has no version %q: write %s", kindName, gv.Version, served)}, nil
	}
	if gv.Group != ourGroup {
		return nil, nil, nil
	}
	unknown := &kind{group: ourGroup, name: kindName}
	known := objectschema.Kinds()
	if near, ok := finding.Nearest(kindName, known); ok {
		return unknown, &problem{"kind", fmt.Sprintf("there is no kind %q in %s, did you mean %q?", kindName, ourGroup, near)}, nil
	}
	return unknown, &problem{"kind", fmt.Sprintf("there is no kind %q in %s, there are %s", kindName, ourGroup, strings.Join(known, ", "))}, nil
}

// identify names an object, as far as it can be named, and puts it into its namespace.
func (l *loader) identify(k *kind, fields map[string]any) finding.Object {
	metadata, ok := fields["metadata"].(map[string]any)
	if !ok {
		return finding.Object{Kind: k.name, Namespace: l.defaultNamespace(k)}
	}
	if k.clusterScoped {
		delete(metadata, "namespace")
	} else if metadata["namespace"] == nil || metadata["namespace"] == "" {
		metadata["namespace"] = l.namespace
	}
	return finding.Object{Kind: k.name, Namespace: stringIn(metadata, "namespace"), Name: stringIn(metadata, "name")}
}

func (l *loader) defaultNamespace(k *kind) string {
	if k.clusterScoped {
		return ""
	}
	return l.namespace
}

// metadataProblems says what the API server would refuse in an object's metadata.
func metadataProblems(fields map[string]any) []problem {
	metadata, ok := fields["metadata"].(map[string]any)
	if !ok {
		return []problem{{"metadata", "is required, a map with a name"}}
	}
	var problems []problem
	for _, field := range []string{"annotations", "labels"} {
		problems = append(problems, stringMapProblems("metadata."+field, metadata[field])...)
	}
	if len(problems) > 0 {
		return problems
	}
	raw, err := json.Marshal(metadata)
	if err != nil {
		return []problem{{"metadata", err.Error()}}
	}
	var typed metav1.ObjectMeta
	strict, err := kjson.UnmarshalStrict(raw, &typed)
	if err != nil {
		return []problem{typeProblem("metadata", err)}
	}
	for _, err := range strict {
		problems = append(problems, problem{"metadata", err.Error()})
	}
	if typed.Name == "" {
		problems = append(problems, problem{"metadata.name", "is required"})
	} else if len(validation.IsDNS1123Subdomain(typed.Name)) > 0 {
		problems = append(problems, problem{"metadata.name", fmt.Sprintf("%q is no name of an object: lower case letters, digits, \"-\" and \".\" make one, up to 253", typed.Name)})
	}
	if typed.Namespace != "" && len(validation.IsDNS1123Label(typed.Namespace)) > 0 {
		problems = append(problems, problem{"metadata.namespace", fmt.Sprintf("%q is no name of a namespace: lower case letters, digits and \"-\" make one, up to 63", typed.Namespace)})
	}
	return problems
}

// stringMapProblems explains values that are no strings, which YAML makes of unquoted text all too easily.
func stringMapProblems(path string, v any) []problem {
	values, ok := v.(map[string]any)
	if v == nil {
		return nil
	}
	if !ok {
		return []problem{{path, "must be a map of strings, not " + config.Kind(v)}}
	}
	var problems []problem
	for _, key := range slices.Sorted(maps.Keys(values)) {
		switch value := values[key].(type) {
		case nil, string:
		case []any, map[string]any:
			problems = append(problems, problem{fmt.Sprintf("%s[%s]", path, key), fmt.Sprintf("must be a string, not %s: write it as text, with | after the colon", config.Kind(value))})
		default:
			problems = append(problems, problem{fmt.Sprintf("%s[%s]", path, key), fmt.Sprintf("must be a string, not %s: put it in quotes", config.Kind(value))})
		}
	}
	return problems
}

func repeatedProblems(repeated []repetition) []problem {
	var problems []problem
	for _, r := range repeated {
		problems = append(problems, problem{"", fmt.Sprintf("the field %s is given again on line %d", r.key, r.line)})
	}
	return problems
}

// typeProblem tells a decoder's error without the value, which may be a secret.
func typeProblem(path string, err error) problem {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return problem{path, err.Error()}
	}
	if wrong.Field != "" {
		path = strings.TrimPrefix(path+"."+wrong.Field, ".")
	}
	given, _, _ := strings.Cut(wrong.Value, " ")
	return problem{path, fmt.Sprintf("is of the wrong type, %s", given)}
}

// stringIn is the string at a path of maps, or "".
func stringIn(fields map[string]any, path ...string) string {
	for _, name := range path[:len(path)-1] {
		fields, _ = fields[name].(map[string]any)
	}
	s, _ := fields[path[len(path)-1]].(string)
	return s
}
