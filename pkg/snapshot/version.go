package snapshot

import (
	"cmp"
	"fmt"
)

// Version is a minor version of Istio.
type Version struct{ Major, Minor int }

// Oldest and Newest are the supported versions. Oldest is the first whose Envoy (1.37) has filter_chain in composite.
var (
	Oldest = Version{1, 29}
	Newest = Version{1, 31}
)

// ParseVersion reads `1.31`, `v1.31` or `1.31.2`, and refuses what is not supported.
func ParseVersion(s string) (Version, error) {
	var v Version
	text := s
	if len(text) > 0 && text[0] == 'v' {
		text = text[1:]
	}
	if n, _ := fmt.Sscanf(text, "%d.%d", &v.Major, &v.Minor); n != 2 {
		return v, fmt.Errorf("%q is no Istio version, give it as 1.31", s)
	}
	if v.Less(Oldest) {
		return v, fmt.Errorf("Istio %s is not supported, the oldest is %s", v, Oldest)
	}
	return v, nil
}

// Less says whether v is older than w.
func (v Version) Less(w Version) bool {
	return cmp.Or(cmp.Compare(v.Major, w.Major), cmp.Compare(v.Minor, w.Minor)) < 0
}

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }
