package snapshot

import (
	"fmt"

	"github.com/istio-plugins/istio-plugins/pkg/finding"
)

// Where is `file:line` of a place in an object, or nothing for an object that came from elsewhere.
func (s *Snapshot) Where(object finding.Object, place string) string {
	source, ok := s.Sources[object]
	if !ok {
		return ""
	}
	line := source.Line
	if source.FieldLine != nil && place != "" {
		line = source.FieldLine(place)
	}
	return fmt.Sprintf("%s:%d", source.File, line)
}
