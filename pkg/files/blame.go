package files

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/istio-plugins/istio-plugins/pkg/config"
)

// blame finds the field for which Istio's decoder refuses an object's spec; its own errors name none. It decodes ever
// smaller parts, so it asks the decoder itself and knows no rule of its own. False if the object has no spec of Istio's.
func blame(object any, fields map[string]any) (problem, bool) {
	spec := reflect.ValueOf(object).Elem().FieldByName("Spec")
	if !spec.IsValid() || !spec.CanAddr() {
		return problem{}, false
	}
	message, ok := spec.Addr().Interface().(proto.Message)
	if !ok {
		return problem{}, false
	}
	descriptor := message.ProtoReflect().Descriptor()
	if refusal(descriptor, fields["spec"]) == nil {
		return problem{}, false
	}
	return blamePart(descriptor, fields["spec"], "spec"), true
}

// refusal is the decoder's error for a part of a spec, nil for what it accepts and for types that are not Istio's.
func refusal(descriptor protoreflect.MessageDescriptor, part any) error {
	found, err := protoregistry.GlobalTypes.FindMessageByName(descriptor.FullName())
	if err != nil {
		return nil
	}
	decoder, ok := found.New().Interface().(json.Unmarshaler)
	if !ok {
		return nil
	}
	raw, err := json.Marshal(part)
	if err != nil {
		return err
	}
	return decoder.UnmarshalJSON(raw)
}

// blamePart goes down from a part that is refused to the smallest part that is.
func blamePart(descriptor protoreflect.MessageDescriptor, part any, path string) problem {
	fields, ok := part.(map[string]any)
	if !ok {
		return wrongPart(path, nil, part, refusal(descriptor, part))
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		err := refusal(descriptor, map[string]any{name: fields[name]})
		if err == nil {
			continue
		}
		field := descriptor.Fields().ByJSONName(name)
		if field == nil {
			field = descriptor.Fields().ByTextName(name)
		}
		return blameField(descriptor, field, name, fields[name], path+"."+name, err)
	}
	return wrongPart(path, nil, part, refusal(descriptor, part)) // each field is fine, together they are not
}

func blameField(parent protoreflect.MessageDescriptor, field protoreflect.FieldDescriptor, name string, value any, path string, err error) problem {
	if field == nil {
		return wrongPart(path, nil, value, err)
	}
	items, isList := value.([]any)
	for i, item := range items {
		at := fmt.Sprintf("%s[%d]", path, i)
		if field.Message() != nil && refusal(field.Message(), item) != nil {
			return blamePart(field.Message(), item, at)
		}
		if err := refusal(parent, map[string]any{name: []any{item}}); err != nil && field.IsList() {
			return wrongPart(at, field, item, err)
		}
	}
	if !isList && field.Message() != nil && !field.IsList() && !field.IsMap() && refusal(field.Message(), value) != nil {
		return blamePart(field.Message(), value, path)
	}
	return wrongPart(path, field, value, err)
}

// wrongPart words the problem. The decoder's own words are the last resort: they speak of JSON and Go.
func wrongPart(path string, field protoreflect.FieldDescriptor, value any, err error) problem {
	_, isMap := value.(map[string]any)
	_, isList := value.([]any)
	switch {
	case field == nil && !isMap:
		return problem{path, "must be a map, not " + config.Kind(value)}
	case field == nil:
		return problem{path, fmt.Sprintf("istiod cannot read this: %v", err)}
	case field.IsList() && !isList && !strings.HasSuffix(path, "]"):
		return problem{path, "must be a list, not " + config.Kind(value)}
	case field.Enum() != nil:
		return problem{path, fmt.Sprintf("%v is unknown, known are %s", value, strings.Join(enumNames(field.Enum()), ", "))}
	case field.Message() == nil:
		return problem{path, fmt.Sprintf("must be of type %s, not %s", field.Kind(), config.Kind(value))}
	case field.Message().FullName() == "google.protobuf.Duration":
		return problem{path, fmt.Sprintf("%v is no duration: write it as 1.5s", value)}
	}
	return problem{path, fmt.Sprintf("istiod cannot read this: %v", err)}
}

func enumNames(enum protoreflect.EnumDescriptor) []string {
	names := make([]string, enum.Values().Len())
	for i := range names {
		names[i] = string(enum.Values().Get(i).Name())
	}
	return names
}
