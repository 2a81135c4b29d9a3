package lint

import (
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

// paths is a set of request paths, as one match condition names it.
type paths struct {
	kind pathKind
	// text is in lower case where case is ignored.
	text       string
	ignoreCase bool
}

type pathKind int

const (
	anyPath pathKind = iota
	prefixPath
	exactPath
	regexPath
)

// requests are what one match condition of an http route takes.
type requests struct {
	paths
	// all says that nothing but the path decides.
	all bool
}

// requestsOf reads the match conditions of a route; without any it takes everything.
func requestsOf(r *networking.HTTPRoute) []requests {
	if len(r.GetMatch()) == 0 {
		return []requests{{all: true}}
	}
	out := make([]requests, len(r.Match))
	for i, m := range r.Match {
		out[i] = requests{paths: pathsOf(m), all: pathDecides(m)}
	}
	return out
}

func pathsOf(m *networking.HTTPMatchRequest) paths {
	p := paths{ignoreCase: m.GetIgnoreUriCase()}
	switch uri := m.GetUri().GetMatchType().(type) {
	case nil:
		return paths{}
	case *networking.StringMatch_Prefix:
		p.kind, p.text = prefixPath, uri.Prefix
	case *networking.StringMatch_Exact:
		p.kind, p.text = exactPath, uri.Exact
	case *networking.StringMatch_Regex:
		p.kind, p.text, p.ignoreCase = regexPath, uri.Regex, false // Envoy knows no case for expressions
	}
	if p.kind == prefixPath && p.text == "/" || p.kind == regexPath && p.text == ".*" {
		return paths{}
	}
	if p.ignoreCase {
		p.text = strings.ToLower(p.text)
	}
	return p
}

// pathDecides says whether a match condition asks for nothing but the path.
func pathDecides(m *networking.HTTPMatchRequest) bool {
	return m.Scheme == nil && m.Method == nil && m.Authority == nil && m.Port == 0 && m.SourceNamespace == "" &&
		len(m.Headers) == 0 && len(m.WithoutHeaders) == 0 && len(m.QueryParams) == 0 && len(m.SourceLabels) == 0 && len(m.Gateways) == 0
}

// wider yields every set that surely holds all of p, p itself first, as long as visit returns true. Sets of expressions
// are only known to hold themselves.
func (p paths) wider(visit func(paths) bool) bool {
	if !visit(p) {
		return false
	}
	if p.kind == prefixPath || p.kind == exactPath {
		if !p.ignoreCase {
			loose := paths{kind: p.kind, text: strings.ToLower(p.text), ignoreCase: true}
			if !visit(loose) {
				return false
			}
		}
		for end := len(p.text); end > 0; end-- {
			if end == len(p.text) && p.kind == prefixPath {
				continue // visited
			}
			if !p.ignoreCase && !visit(paths{kind: prefixPath, text: p.text[:end]}) {
				return false
			}
			if !visit(paths{kind: prefixPath, text: strings.ToLower(p.text[:end]), ignoreCase: true}) {
				return false
			}
		}
	}
	return p.kind == anyPath || visit(paths{})
}
