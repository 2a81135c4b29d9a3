package envoy

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
)

// Services are the hosts of the services that a configuration calls, sorted: those of istiod's clusters that it names, also
// inside Any.
func Services(m proto.Message) []string {
	var out []string
	// The function returns no error, and nothing else does.
	_ = protorange.Range(m.ProtoReflect(), func(p protopath.Values) error {
		if text, ok := p.Index(-1).Value.Interface().(string); ok {
			// outbound|PORT|SUBSET|HOST
			if parts := strings.Split(text, "|"); len(parts) == 4 && parts[0] == "outbound" && parts[3] != "" {
				out = append(out, parts[3])
			}
		}
		return nil
	})
	slices.Sort(out)
	return slices.Compact(out)
}
