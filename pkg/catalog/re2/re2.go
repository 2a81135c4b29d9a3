// Package re2 judges regular expressions that users write and Envoy's RE2 is to match.
package re2

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode"
)

// maxInstructions bounds the size of one expression. Istio lets Envoy accept programs of 32768 instructions
// (re2.max_program_size.error_level in its bootstrap); what is counted here is an estimate, so half of that.
const maxInstructions = 16384

// Check says why Envoy would refuse an expression: text is what the user wrote, and whole makes of it what Envoy gets.
// Go's syntax is RE2's but for the names of Unicode classes, of which Go knows more. Expressions are ASCII, because
// Envoy 1.37 reads them as UTF-8 and Envoy 1.40 as Latin-1, which even refuses a character above \xff.
func Check(text string, whole func(string) string) error {
	if _, err := syntax.Parse(text, syntax.Perl); err != nil {
		hint := ""
		if strings.HasPrefix(text, "*") {
			hint = `; any text is .* in a regular expression, and a dot \.`
		}
		return fmt.Errorf("is no regular expression of RE2: %s%s", strings.TrimPrefix(err.Error(), "error parsing regexp: "), hint)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r > unicode.MaxASCII }) || beyondASCII.MatchString(text) {
		return errors.New("is not plain ASCII, which versions of Envoy read differently")
	}
	tree, err := syntax.Parse(whole(text), syntax.Perl)
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

// beyondASCII finds Unicode classes, and the escapes of characters that are not ASCII.
var beyondASCII = regexp.MustCompile(`(?i)(^|[^\\])(\\\\)*\\(p|x[89a-f]|x\{0*([89a-f][0-9a-f]|[1-9a-f][0-9a-f]{2,})\}|[23][0-7][0-7])`)

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
