package cors

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/re2"
)

// rules is what the list of origins means: all, or a single one that is sent to everybody, or plain origins and
// expressions that the request's origin is compared with.
type rules struct {
	all         bool
	single      string
	plain       map[string]any
	expressions []expression
}

// expression is a regular expression for the whole origin, or for its host.
type expression struct {
	regex    string
	hostOnly bool
}

var (
	// plainOrigin is Kong's rule for what is no regular expression, and in addition an IPv6 address in brackets.
	plainOrigin = regexp.MustCompile(`^[A-Za-z0-9.:/-]+$|^[A-Za-z][A-Za-z0-9+.-]*://\[[0-9A-Fa-f:.]+\](:[0-9]*)?$`)
	// syntaxColons are the colons of a regular expression that match none.
	syntaxColons = regexp.MustCompile(`\(\?[A-Za-z-]*:|\[:\^?[a-z]+:\]`)
	// origin is scheme, host and port; what follows is no part of an origin.
	origin = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]*))?(.*)$`)
)

func parseOrigins(entries []string) (rules, []builtin.Problem) {
	if len(entries) == 0 {
		return rules{all: true}, nil
	}
	r := rules{plain: map[string]any{}}
	var problems []builtin.Problem
	for i, entry := range entries {
		if entry == "*" {
			r.all = true
			continue
		}
		path := fmt.Sprintf("origins[%d]", i)
		if !plainOrigin.MatchString(entry) {
			if err := re2.Check(entry, anyCase); err != nil {
				problems = append(problems, builtin.Problem{Path: path, Message: err.Error()})
				continue
			}
			e := expression{regex: entry, hostOnly: !strings.Contains(entry, ":")}
			if !e.hostOnly && !strings.Contains(syntaxColons.ReplaceAllString(entry, ""), ":") {
				problems = append(problems, builtin.Problem{Path: path, Warning: true,
					Message: "is compared with the whole origin, not with its host, since there is a colon, although only in (?:…) or [:…:]"})
			}
			r.expressions = append(r.expressions, e)
			continue
		}
		normal, warning := normalise(entry)
		if warning != "" {
			problems = append(problems, builtin.Problem{Path: path, Message: warning, Warning: true})
		}
		r.plain[normal] = true
		if len(entries) == 1 {
			r.single = normal
		}
	}
	if r.all {
		return rules{all: true}, problems
	}
	return r, problems
}

// normalise writes a plain origin as the chunk writes that of a request: in lower case, without default port and path.
// The warning says why no browser sends such an origin.
func normalise(entry string) (normal, warning string) {
	if entry == "null" {
		return entry, ""
	}
	m := origin.FindStringSubmatch(entry)
	if m == nil {
		return strings.ToLower(entry), "is no origin, which is written as scheme://host or scheme://host:port"
	}
	scheme, host, port, rest := strings.ToLower(m[1]), strings.ToLower(m[2]), m[3], m[4]
	if scheme == "http" && port == "80" || scheme == "https" && port == "443" {
		port = ""
	}
	if port != "" {
		port = ":" + port
	}
	if rest != "" {
		warning = fmt.Sprintf("has %q behind the host, which an origin has not", rest)
	}
	return scheme + "://" + host + port, warning
}

// anyCase frees an expression of case. What it is matched against is in lower case.
func anyCase(text string) string { return "(?i:" + text + ")" }
