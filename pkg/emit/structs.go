package emit

import (
	"encoding/base64"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// structWriter turns Envoy messages into the structs that an EnvoyFilter holds: protobuf's JSON mapping with the field
// names of the .proto files. It exists because a gateway with 10,000 VirtualServices has tables of some 10 MB, most of
// which are repeated messages: they are converted once, and without going through JSON text. The result is shared and
// must not be modified.
type structWriter struct {
	messages map[proto.Message]*structpb.Value
	// texts are short strings, most of which are in every entry of a table.
	texts map[string]*structpb.Value
	// sizes of what was converted, which are asked for more than once.
	sizes map[*structpb.Struct]int
}

func newStructWriter() *structWriter {
	return &structWriter{
		messages: map[proto.Message]*structpb.Value{}, texts: map[string]*structpb.Value{}, sizes: map[*structpb.Struct]int{},
	}
}

func (w *structWriter) text(s string) *structpb.Value {
	const short = 128
	if len(s) > short {
		return structpb.NewStringValue(s)
	}
	v := w.texts[s]
	if v == nil {
		v = structpb.NewStringValue(s)
		w.texts[s] = v
	}
	return v
}

// extension is a TypedExtensionConfig or HttpFilter of this name. The message is converted as it is, not as the Any that
// it would be packed into, so that what it shares with others stays shared.
func (w *structWriter) extension(name string, m proto.Message) *structpb.Struct {
	if v, ok := w.messages[m]; ok && v.GetStructValue().GetFields()["name"].GetStringValue() == name {
		return v.GetStructValue()
	}
	typed := w.convert(m.ProtoReflect())
	typed.GetStructValue().Fields["@type"] = structpb.NewStringValue("type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()))
	v := structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{
		"name":         structpb.NewStringValue(name),
		"typed_config": typed,
	}})
	w.messages[m] = v
	return v.GetStructValue()
}

// write converts a message.
func (w *structWriter) write(m protoreflect.Message) *structpb.Value {
	if v, ok := w.messages[m.Interface()]; ok {
		return v
	}
	v := w.convert(m)
	w.messages[m.Interface()] = v
	return v
}

func (w *structWriter) convert(m protoreflect.Message) *structpb.Value {
	if m.Descriptor().ParentFile().Package() == "google.protobuf" {
		if a, ok := m.Interface().(*anypb.Any); ok {
			return w.any(a)
		}
		return wellKnown(m)
	}
	out := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		out.Fields[string(f.Name())] = w.field(f, v)
		return true
	})
	return structpb.NewStructValue(out)
}

func (w *structWriter) any(a *anypb.Any) *structpb.Value {
	if a.GetTypeUrl() == "" {
		return structpb.NewStructValue(&structpb.Struct{})
	}
	inner, err := a.UnmarshalNew()
	if err != nil {
		panic(err) // only messages of known types are emitted
	}
	v := w.convert(inner.ProtoReflect())
	fields := v.GetStructValue().GetFields()
	if inner.ProtoReflect().Descriptor().ParentFile().Package() == "google.protobuf" {
		fields = map[string]*structpb.Value{"value": v}
		v = structpb.NewStructValue(&structpb.Struct{Fields: fields})
	}
	fields["@type"] = w.text(a.GetTypeUrl())
	return v
}

// wellKnown converts durations, wrappers and the like, whose mapping is their own.
func wellKnown(m protoreflect.Message) *structpb.Value {
	text, err := protojson.Marshal(m.Interface())
	if err != nil {
		panic(err)
	}
	v := &structpb.Value{}
	if err := protojson.Unmarshal(text, v); err != nil {
		panic(err)
	}
	return v
}

func (w *structWriter) field(f protoreflect.FieldDescriptor, v protoreflect.Value) *structpb.Value {
	switch {
	case f.IsMap():
		out := &structpb.Struct{Fields: make(map[string]*structpb.Value, v.Map().Len())}
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			out.Fields[k.String()] = w.scalar(f.MapValue(), v)
			return true
		})
		return structpb.NewStructValue(out)
	case f.IsList():
		out := &structpb.ListValue{Values: make([]*structpb.Value, v.List().Len())}
		for i := range out.Values {
			out.Values[i] = w.scalar(f, v.List().Get(i))
		}
		return structpb.NewListValue(out)
	}
	return w.scalar(f, v)
}

func (w *structWriter) scalar(f protoreflect.FieldDescriptor, v protoreflect.Value) *structpb.Value {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return w.write(v.Message())
	case protoreflect.BoolKind:
		return structpb.NewBoolValue(v.Bool())
	case protoreflect.StringKind:
		return w.text(v.String())
	case protoreflect.BytesKind:
		return structpb.NewStringValue(base64.StdEncoding.EncodeToString(v.Bytes()))
	case protoreflect.EnumKind:
		if d := f.Enum().Values().ByNumber(v.Enum()); d != nil {
			return w.text(string(d.Name()))
		}
		return structpb.NewNumberValue(float64(v.Enum()))
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return structpb.NewNumberValue(float64(v.Int()))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return structpb.NewNumberValue(float64(v.Uint()))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return structpb.NewStringValue(strconv.FormatInt(v.Int(), 10))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return structpb.NewStringValue(strconv.FormatUint(v.Uint(), 10))
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return structpb.NewNumberValue(v.Float())
	}
	panic(fmt.Sprintf("field %s has a kind that JSON does not map", f.FullName()))
}

// structSize is about how many bytes s has as JSON.
func (w *structWriter) structSize(s *structpb.Struct) int {
	if n, ok := w.sizes[s]; ok {
		return n
	}
	n := 2
	for name, v := range s.GetFields() {
		n += w.entrySize(name, v)
	}
	if n > worthRemembering {
		w.sizes[s] = n
	}
	return n
}

func (w *structWriter) entrySize(name string, v *structpb.Value) int {
	return len(name) + 4 + w.size(v)
}

// worthRemembering is a size below which adding up again is as fast as looking up.
const worthRemembering = 256

// size is about how many bytes v has as JSON. Strings count their escapes.
func (w *structWriter) size(v *structpb.Value) int {
	switch k := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		n := len(k.StringValue) + 2
		for i := range len(k.StringValue) {
			switch c := k.StringValue[i]; {
			case c == '"' || c == '\\' || c == '\n' || c == '\r' || c == '\t':
				n++
			case c < 0x20 || c == '<' || c == '>' || c == '&':
				n += 5
			}
		}
		return n
	case *structpb.Value_StructValue:
		return w.structSize(k.StructValue)
	case *structpb.Value_ListValue:
		n := 2
		for _, v := range k.ListValue.GetValues() {
			n += 1 + w.size(v)
		}
		return n
	}
	return 8
}
