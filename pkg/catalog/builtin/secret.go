package builtin

import (
	"slices"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Secret says whether the value at a path of a config must not be shown: the schema marks it, or a map above it, with the
// standard keyword `writeOnly: true`. Items of a list are written as any step.
func (s *Schema) Secret(path ...string) bool {
	return secret(s.root, path)
}

func secret(s *jsonschema.Schema, path []string) bool {
	if s == nil {
		return false
	}
	if s.WriteOnly || secret(s.Ref, path) {
		return true
	}
	forms := slices.Concat(s.OneOf, s.AnyOf, s.AllOf)
	if slices.ContainsFunc(forms, func(form *jsonschema.Schema) bool { return secret(form, path) }) {
		return true
	}
	if len(path) == 0 {
		return false
	}
	if property, ok := s.Properties[path[0]]; ok {
		return secret(property, path[1:])
	}
	other, _ := s.AdditionalProperties.(*jsonschema.Schema)
	return secret(other, path[1:]) || secret(s.Items2020, path[1:])
}
