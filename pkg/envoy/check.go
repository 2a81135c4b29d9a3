package envoy

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	xdsmatcher "github.com/cncf/xds/go/xds/type/matcher/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	localratelimit "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	envoytype "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	setfilterstate "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"

	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
)

// ReservedPrefix starts every filter state key that decides what a route runs; a plugin must not write one.
const ReservedPrefix = "istio-plugins."

// Decode reads the typedConfig of an HTTP filter, `@type` and all, and checks everything that can be known without an
// Envoy.
func Decode(typed config.Value) (proto.Message, error) {
	url, _ := typed["@type"].(string)
	if url == "" {
		return nil, errors.New(`"@type" is missing, for example type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer`)
	}
	name := protoreflect.FullName(url[strings.LastIndexByte(url, '/')+1:])
	if why, no := refused[name]; no {
		return nil, fmt.Errorf("%s cannot be a plugin: %s", name, why)
	}
	f, known := filters[name]
	if !known {
		return nil, fmt.Errorf("%s is no HTTP filter of Istio's proxy%s", name, nearFilter(name))
	}
	m := f.config.ProtoReflect().New().Interface()
	body := make(map[string]any, len(typed))
	for k, v := range typed {
		if k != "@type" {
			body[k] = v
		}
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	if err := protojson.Unmarshal(text, m); err != nil {
		return nil, decodeError(err, m)
	}
	if err := Check(m); err != nil {
		return nil, err
	}
	return m, writesReserved(m)
}

// writesReserved refuses a filter that would change what a route runs.
func writesReserved(m proto.Message) error {
	c, ok := m.(*setfilterstate.Config)
	if !ok {
		return nil
	}
	for _, f := range c.GetOnRequestHeaders() {
		if strings.HasPrefix(f.GetObjectKey(), ReservedPrefix) {
			return fmt.Errorf("filter state %q is reserved: it decides what a route runs", f.GetObjectKey())
		}
	}
	return nil
}

func nearFilter(name protoreflect.FullName) string {
	known := make([]string, 0, len(filters))
	for n := range filters {
		known = append(known, string(n))
	}
	slices.Sort(known)
	if near, ok := finding.Nearest(string(name), known); ok {
		return ", did you mean " + near + "?"
	}
	return ""
}

var unknownField = regexp.MustCompile(`unknown field "([^"]+)"`)

// decodeError says in our words what protojson found: its own text starts with a position in JSON that the user never wrote,
// and has blanks that differ between builds.
func decodeError(err error, m proto.Message) error {
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	if _, after, ok := strings.Cut(text, "): "); ok {
		text = after
	}
	text = strings.TrimSpace(strings.TrimPrefix(text, "proto:"))
	if found := unknownField.FindStringSubmatch(text); found != nil {
		if near, ok := finding.Nearest(found[1], fieldNames(m.ProtoReflect().Descriptor(), map[protoreflect.FullName]bool{})); ok {
			return fmt.Errorf("%s, did you mean %q?", text, near)
		}
	}
	return errors.New(text)
}

// fieldNames are the names of all fields of a message and of those inside it.
func fieldNames(d protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) []string {
	if seen[d.FullName()] {
		return nil
	}
	seen[d.FullName()] = true
	var out []string
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		out = append(out, string(f.Name()))
		if f.Message() != nil {
			out = append(out, fieldNames(f.Message(), seen)...)
		}
	}
	return out
}

// Check applies the rules that Envoy applies when it loads a configuration, as far as they can be known: the validation
// rules of the protos at every depth, also inside Any, regular expressions (Go's have RE2's syntax, as Envoy's), format
// strings, and how fast a local rate limit may refill.
func Check(m proto.Message) error {
	if v, ok := m.(interface{ ValidateAll() error }); ok {
		if err := v.ValidateAll(); err != nil {
			return errors.New(strings.TrimPrefix(err.Error(), "invalid "))
		}
	}
	return walk(m.ProtoReflect())
}

func walk(m protoreflect.Message) error {
	switch v := m.Interface().(type) {
	case *matcher.RegexMatcher:
		return checkRegex(v.GetRegex())
	case *xdsmatcher.RegexMatcher:
		return checkRegex(v.GetRegex())
	case *anypb.Any:
		if v.GetTypeUrl() == "" {
			return nil
		}
		inner, err := v.UnmarshalNew()
		if err != nil {
			return fmt.Errorf("%s is not known to Istio's proxy", v.GetTypeUrl())
		}
		return Check(inner)
	case *localratelimit.LocalRateLimit:
		if err := cmp.Or(checkRefill(v), checkDescriptors(v)); err != nil {
			return err
		}
	case *core.HeaderValueOption:
		if name := v.GetHeader().GetKey(); strings.HasPrefix(name, ":") || strings.EqualFold(name, "host") {
			return fmt.Errorf("header %q cannot be set: Envoy keeps names with a colon in front, and host, to itself", name)
		}
	case *core.HeaderValue, *core.SubstitutionFormatString:
		return checkFormats(v)
	}
	var err error
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() && f.MapValue().Message() != nil:
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				err = walk(v.Message())
				return err == nil
			})
		case f.IsList() && f.Message() != nil:
			for i := 0; i < v.List().Len() && err == nil; i++ {
				err = walk(v.List().Get(i).Message())
			}
		case f.Message() != nil && !f.IsMap():
			err = walk(v.Message())
		}
		return err == nil
	})
	return err
}

// fastestRefill is the shortest fill_interval that Envoy takes
// (source/extensions/filters/common/local_ratelimit/local_ratelimit_impl.cc).
const fastestRefill = 50 * time.Millisecond

func checkRefill(l *localratelimit.LocalRateLimit) error {
	buckets := []*envoytype.TokenBucket{l.GetTokenBucket()}
	for _, d := range l.GetDescriptors() {
		buckets = append(buckets, d.GetTokenBucket())
	}
	for _, b := range buckets {
		if b != nil && b.GetFillInterval().AsDuration() < fastestRefill {
			return fmt.Errorf("fill_interval must be at least %s, not %s", fastestRefill, b.GetFillInterval().AsDuration())
		}
	}
	return nil
}

// checkDescriptors refuses a descriptor that is there twice, as Envoy does.
func checkDescriptors(l *localratelimit.LocalRateLimit) error {
	known := map[string]bool{}
	for i, d := range l.GetDescriptors() {
		var entries strings.Builder
		for _, e := range d.GetEntries() {
			fmt.Fprintf(&entries, "%q=%q ", e.GetKey(), e.GetValue())
		}
		if known[entries.String()] {
			return fmt.Errorf("descriptors[%d] has the same entries as an earlier one", i)
		}
		known[entries.String()] = true
	}
	return nil
}

func checkRegex(expression string) error {
	if _, err := regexp.Compile(expression); err != nil {
		return fmt.Errorf("regular expression %q: %w", expression, err)
	}
	return nil
}
