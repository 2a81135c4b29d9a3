package cors

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
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
	// origin is scheme, host and port; what follows is no part of an origin.
	origin = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]*))?(.*)$`)
)

func parseOrigins(entries []string) (rules, []builtin.Problem) {
	if len(entries) == 0 || slices.Contains(entries, "*") {
		return rules{all: true}, nil
	}
	r := rules{plain: map[string]any{}}
	var problems []builtin.Problem
	for i, entry := range entries {
		path := fmt.Sprintf("origins[%d]", i)
		if !plainOrigin.MatchString(entry) {
			if err := checkExpression(entry); err != nil {
				problems = append(problems, builtin.Problem{Path: path, Message: err.Error()})
				continue
			}
			r.expressions = append(r.expressions, expression{regex: entry, hostOnly: !strings.Contains(entry, ":")})
			continue
		}
		normal, warning := normalise(entry)
		if warning != "" {
			problems = append(problems, builtin.Problem{Path: path, Message: warning, Warning: true})
		}
		r.plain[normal] = true
	}
	if len(entries) == 1 && len(r.expressions) == 0 {
		r.single = entries[0]
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

// maxInstructions bounds the size of one expression. Istio lets Envoy accept programs of 32768 instructions
// (re2.max_program_size.error_level in its bootstrap); what is counted here is an estimate, so half of that.
const maxInstructions = 16384

// checkExpression finds what Envoy's RE2 would refuse. Go's syntax is RE2's but for the names of Unicode classes,
// which have no place in an origin anyway.
func checkExpression(text string) error {
	if _, err := syntax.Parse(text, syntax.Perl); err != nil {
		hint := ""
		if strings.HasPrefix(text, "*") {
			hint = `; any text is .* in a regular expression, and a dot \.`
		}
		return fmt.Errorf("is no regular expression of RE2: %s%s", strings.TrimPrefix(err.Error(), "error parsing regexp: "), hint)
	}
	if unicodeClass.MatchString(text) {
		return errors.New("has a Unicode class, but origins are ASCII")
	}
	tree, err := syntax.Parse(anyCase(text), syntax.Perl)
	if err != nil {
		return fmt.Errorf("is no regular expression of RE2: %v", err)
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return fmt.Errorf("is no regular expression of RE2: %v", err)
	}
	if instructions(program) > maxInstructions {
		return errors.New("is too large a regular expression for Envoy, repeat less or smaller classes")
	}
	return nil
}

var unicodeClass = regexp.MustCompile(`(^|[^\\])(\\\\)*\\[pPC]`)

// anyCase frees an expression of case. What it is matched against is in lower case.
func anyCase(text string) string { return "(?i:" + text + ")" }

// instructions estimates, from above, the size of a program in RE2. That one matches bytes: a range of characters
// takes two instructions at most in ASCII, and several beyond.
func instructions(p *syntax.Prog) int {
	n := 0
	for _, inst := range p.Inst {
		n++
		switch inst.Op {
		case syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			n += 3
		case syntax.InstRune:
			for i := 1; i < len(inst.Rune); i += 2 {
				n += 2
				if inst.Rune[i] > unicode.MaxASCII {
					n += 6
				}
			}
		}
	}
	return n
}
