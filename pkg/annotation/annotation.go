package annotation

import (
	"fmt"
	"strings"

	"github.com/istio-plugins/istio-plugins/pkg/config"
)

// Key is the annotation's key. It is written by users on their own objects; generated objects never carry it, because
// istiod pushes on every touch of an Istio object that has a key with "istio.io" in it.
const Key = "istio.io/plugins"

// The limits keep what one object can cost small: a route with more plugins is not served well by a gateway either.
const (
	// MaxBytes is the longest text that is read.
	MaxBytes = 64 << 10
	// MaxEntries is the longest list.
	MaxEntries = 64
	// MaxDepth is the deepest nesting of maps and lists in a config.
	MaxDepth = 64
)

// Entry is one plugin of an annotation.
type Entry struct {
	// Name as written, without a leading "-". It may be "namespace/name".
	Name string
	// OptOut takes the plugin out that a parent attached, instead of attaching one.
	OptOut bool
	// Routes limits the entry to http routes of these names; nil is all.
	Routes []string
	// Config is merged over the Plugin's own; nil is none given.
	Config config.Value
	// Override keeps children from changing or removing the plugin.
	Override bool
	// Place is where the entry stands: "[2]" for the third of a YAML list, "@14" for the byte offset in a comma list.
	Place string
	// Problems say why the entry cannot be honoured; without any it can, as far as the text tells.
	Problems []Problem
}

// Problem is something wrong with an annotation.
type Problem struct {
	// Place is the entry's, with a field path behind it where the problem is in a field, as in "[2].config.minute".
	// It is empty for the annotation as a whole.
	Place string
	// Message says what is wrong and, where it helps, what is right. It is one sentence without a full stop.
	Message string
	// Routes are the http routes that the entry would cover, nil for all.
	Routes []string
}

// Parse reads an annotation. A Problem means that the text as a whole cannot be parsed; there are no entries then.
func Parse(text string) ([]Entry, *Problem) {
	if len(text) > MaxBytes {
		return nil, &Problem{Message: fmt.Sprintf("the annotation has %d bytes, at most %d are read", len(text), MaxBytes)}
	}
	parse := parseComma
	if isYAML(text) {
		parse = parseYAML
	}
	entries, problem := parse(text)
	if problem != nil {
		return nil, problem
	}
	if len(entries) > MaxEntries {
		return nil, &Problem{Message: fmt.Sprintf("the annotation has %d entries, at most %d are allowed", len(entries), MaxEntries)}
	}
	return entries, nil
}

const blanks = " \t\r\n"

// isYAML tells by the first characters, so that nobody's comma list changes its meaning by what comes later in it.
func isYAML(text string) bool {
	text = strings.TrimLeft(text, blanks)
	if text == "" {
		return false
	}
	switch text[0] {
	case '[', '{':
		return true
	case '-':
		return len(text) > 1 && strings.IndexByte(blanks, text[1]) >= 0
	}
	return false
}

// setName takes a name as written and says what is wrong with it.
func (e *Entry) setName(written string) (message string) {
	e.Name = written
	if name, ok := strings.CutPrefix(written, "-"); ok {
		e.Name, e.OptOut = name, true
	}
	return checkName(e.Name)
}

// problem adds a problem at a place within the entry.
func (e *Entry) problem(path, format string, args ...any) {
	e.Problems = append(e.Problems, Problem{Place: e.Place + path, Message: fmt.Sprintf(format, args...)})
}
