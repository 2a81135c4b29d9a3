package lua

import (
	"errors"
	"fmt"
	"regexp"
	"sort"
	"strings"

	"github.com/yuin/gopher-lua/parse"
)

// CheckSyntax reports why Envoy's LuaJIT would not compile source, with the line. It never refuses what LuaJIT accepts;
// the few errors that are no matter of grammar (a goto without its label, more than 200 locals) only show at the gateway.
//
// The grammar is checked by gopher-lua's parser, which knows Lua 5.1. LuaJIT has more tokens (1LL, 0x1p4, '\x41'), and
// Envoy builds it with parts of Lua 5.2. So the tokens are read here, and the parser gets them in the simplest form.
func CheckSyntax(source string) error {
	tokens, err := scan(source)
	if err != nil {
		return err
	}
	text, starts := plain(tokens)
	_, err = parse.Parse(strings.NewReader(text), "")
	if err == nil {
		return nil
	}
	var wrong *parse.Error
	if !errors.As(err, &wrong) {
		return err
	}
	if wrong.Pos.Line == parse.EOF || len(tokens) == 0 {
		return &SyntaxError{Line: 1 + strings.Count(source, "\n"), Message: "the chunk ends too early, is an `end` or a bracket missing?"}
	}
	at := sort.Search(len(starts), func(i int) bool { return starts[i] >= wrong.Pos.Column }) - 1
	t := tokens[max(at, 0)]
	return &SyntaxError{Line: t.line, Message: fmt.Sprintf("unexpected %s", shown(t.text))}
}

// SyntaxError is the first error in a chunk.
type SyntaxError struct {
	Line    int
	Message string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Message) }

// shown quotes a token for a message; a long one is cut.
func shown(text string) string {
	const most = 30
	if len(text) > most {
		text = text[:most] + "…"
	}
	return fmt.Sprintf("%q", text)
}

// plain writes tokens on one line for the parser, and returns the offset of each. On one line, because Lua 5.1 refuses
// a call whose bracket is on a new line, and Envoy's LuaJIT does not.
func plain(tokens []token) (string, []int) {
	var b strings.Builder
	starts := make([]int, len(tokens))
	for i, t := range tokens {
		starts[i] = b.Len()
		switch {
		case t.kind == number:
			b.WriteString("0")
		case t.kind == text:
			b.WriteString(`""`)
		case t.kind == name:
			b.WriteString(notASCII.ReplaceAllString(t.text, "_"))
		case t.text == "break":
			// Lua 5.1 wants it last in its block.
			b.WriteString("do break end")
		default:
			b.WriteString(t.text)
		}
		b.WriteByte(' ')
	}
	return b.String(), starts
}

type kind int

const (
	symbol kind = iota // operators, brackets and keywords
	name
	number
	text
)

type token struct {
	kind kind
	text string
	line int
}

var (
	notASCII = regexp.MustCompile(`[^\x00-\x7f]`)
	// LuaJIT takes every byte above ASCII for a letter.
	nameToken = regexp.MustCompile(`^(?s-i:[A-Za-z_]|[^\x00-\x7f])(?:[A-Za-z0-9_]|[^\x00-\x7f])*`)
	// What LuaJIT's lexer takes for one number: a sign belongs to it after an exponent's letter.
	numberToken = regexp.MustCompile(`^\.?[0-9](?:[eEpP][+-]|[A-Za-z0-9_.]|[^\x00-\x7f])*`)
	// What LuaJIT's lj_strscan.c accepts of these.
	goodNumber  = regexp.MustCompile(`^(?i:(?:0x[0-9a-f]+|[0-9]+|0b[01]+)(?:u?ll|llu)|(?:0x(?:[0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(?:p[+-]?[0-9]+)?|0b[01]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)i?)$`)
	longBracket = regexp.MustCompile(`^\[=*\[`)
	escape      = regexp.MustCompile(`^(?:[abfnrtv\\"'\n]|\r\n?|x[0-9a-fA-F]{2}|z\s*|u\{[0-9a-fA-F]+\}|[0-9]{1,3})`)
)

// symbols, longest first.
var symbols = []string{
	"...", "..", "==", "~=", "<=", ">=", "::", "+", "-", "*", "/", "%", "^", "#", "<", ">", "=", "(", ")", "{", "}", "[", "]",
	";", ":", ",", ".",
}

// scan splits a chunk into tokens.
func scan(source string) ([]token, error) {
	s := scanner{rest: latin1(strings.TrimPrefix(source, "\ufeff")), line: 1}
	if strings.HasPrefix(s.rest, "#") {
		s.skip(lineLength(s.rest))
	}
	for {
		if err := s.blank(); err != nil || s.rest == "" {
			return s.tokens, err
		}
		if err := s.next(); err != nil {
			return nil, err
		}
	}
}

func lineLength(rest string) int {
	if i := strings.IndexAny(rest, "\r\n"); i >= 0 {
		return i
	}
	return len(rest)
}

// latin1 makes a rune of each byte, so that regular expressions see bytes that are no UTF-8 too.
func latin1(s string) string {
	if !notASCII.MatchString(s) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		b.WriteRune(rune(s[i]))
	}
	return b.String()
}

type scanner struct {
	rest   string
	line   int
	tokens []token
}

func (s *scanner) skip(n int) {
	s.line += strings.Count(s.rest[:n], "\n")
	s.rest = s.rest[n:]
}

func (s *scanner) take(k kind, n int) {
	s.tokens = append(s.tokens, token{k, s.rest[:n], s.line})
	s.skip(n)
}

func (s *scanner) wrong(format string, args ...any) error {
	return &SyntaxError{Line: s.line, Message: fmt.Sprintf(format, args...)}
}

// blank skips white space and comments.
func (s *scanner) blank() error {
	for {
		s.skip(len(s.rest) - len(strings.TrimLeft(s.rest, " \t\r\n\v\f")))
		if !strings.HasPrefix(s.rest, "--") {
			return nil
		}
		if open := longBracket.FindString(s.rest[2:]); open != "" {
			n, ok := longEnd(s.rest[2:], open)
			if !ok {
				return s.wrong("a comment without end")
			}
			s.skip(2 + n)
			continue
		}
		s.skip(lineLength(s.rest))
	}
}

// longEnd is the length of a long string or comment that begins with open.
func longEnd(rest, open string) (int, bool) {
	end := strings.ReplaceAll(open, "[", "]")
	i := strings.Index(rest[len(open):], end)
	return len(open) + i + len(end), i >= 0
}

func (s *scanner) next() error {
	if n := nameToken.FindString(s.rest); n != "" {
		if reserved[n] {
			s.take(symbol, len(n))
		} else {
			s.take(name, len(n))
		}
		return nil
	}
	if n := numberToken.FindString(s.rest); n != "" {
		if !goodNumber.MatchString(n) {
			return s.wrong("malformed number %s", shown(n))
		}
		s.take(number, len(n))
		return nil
	}
	if open := longBracket.FindString(s.rest); open != "" {
		n, ok := longEnd(s.rest, open)
		if !ok {
			return s.wrong("a string without end")
		}
		s.take(text, n)
		return nil
	}
	if c := s.rest[0]; c == '"' || c == '\'' {
		return s.quoted(c)
	}
	for _, o := range symbols {
		if strings.HasPrefix(s.rest, o) {
			s.take(symbol, len(o))
			return nil
		}
	}
	return s.wrong("unexpected %s", shown(s.rest[:1]))
}

// quoted takes a string in quotes.
func (s *scanner) quoted(quote byte) error {
	for i := 1; i < len(s.rest); i++ {
		switch c := s.rest[i]; c {
		case quote:
			s.take(text, i+1)
			return nil
		case '\n', '\r':
			return s.wrong("a string without end")
		case '\\':
			e := escape.FindString(s.rest[i+1:])
			if e == "" || e[0] >= '0' && e[0] <= '9' && len(e) == 3 && e > "255" {
				return s.wrong("invalid escape sequence %s in a string", shown(s.rest[i:min(i+2, len(s.rest))]))
			}
			i += len(e)
		}
	}
	return s.wrong("a string without end")
}
