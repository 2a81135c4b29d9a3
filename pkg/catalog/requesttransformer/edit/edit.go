// Package edit is what the request and the response transformer share: five lists of rules (remove, rename, replace,
// add, append) for headers and for named fields, how their entries are written, and the Lua that applies them.
package edit

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
)

//go:embed edit.lua
var text string

// Source is a handler's chunk with edit.lua in front, as the local `edit`.
func Source(handler string) string {
	return "local edit = (function()\n" + text + "end)()\n" + handler
}

// Operations in the order in which they are applied.
var Operations = []string{"remove", "rename", "replace", "add", "append"}

// Lists are the entries of one kind of target, such as headers, for each operation.
type Lists map[string][]string

// Rule is one entry: a name, or two of them, or a name and a value.
type Rule struct {
	// Path of the entry in the config.
	Path string
	// Name is what the rule is about.
	Name string
	// Value is the new name of rename and the value of replace, add and append. Rules of remove have none.
	Value string
}

// Rules by operation.
type Rules map[string][]Rule

// Parse reads the entries of one target: `name` for remove, `old:new` for rename, `name:value` for the others, split
// at the first colon. Both sides are needed.
func Parse(target string, lists Lists) (Rules, []builtin.Problem) {
	rules := make(Rules, len(Operations))
	var problems []builtin.Problem
	for _, operation := range Operations {
		for i, entry := range lists[operation] {
			rule := Rule{Path: builtin.Path(operation, target, fmt.Sprint(i)), Name: entry}
			if operation != "remove" {
				rule.Name, rule.Value, _ = strings.Cut(entry, ":")
			}
			if message := incomplete(operation, rule, entry); message != "" {
				problems = append(problems, builtin.Problem{Path: rule.Path, Message: message})
				continue
			}
			rules[operation] = append(rules[operation], rule)
		}
	}
	return rules, problems
}

func incomplete(operation string, r Rule, entry string) string {
	form := map[string]string{"remove": "name", "rename": "old:new"}[operation]
	if form == "" {
		form = "name:value"
	}
	if r.Name == "" || operation != "remove" && r.Value == "" {
		return fmt.Sprintf("%q is not of the form %s", entry, form)
	}
	return ""
}

// Headers are the rules with names in lower case, which is how Envoy has them, and what is wrong with them. Names in
// framing are refused: with these a message would not be the one that its sender framed.
func Headers(rules Rules, framing []string) (Rules, []builtin.Problem) {
	out := make(Rules, len(rules))
	var problems []builtin.Problem
	refuse := func(r Rule, format string, args ...any) {
		problems = append(problems, builtin.Problem{Path: r.Path, Message: fmt.Sprintf(format, args...)})
	}
	for _, operation := range Operations {
		for _, r := range rules[operation] {
			names := []string{strings.ToLower(r.Name)}
			r.Name = names[0]
			if operation == "rename" {
				r.Value = strings.ToLower(r.Value)
				names = append(names, r.Value)
			} else {
				r.Value = strings.Trim(r.Value, " \t")
			}
			for _, name := range names {
				switch {
				case !Token(name):
					refuse(r, "%q is no header name", name)
				case slices.Contains(framing, name):
					refuse(r, "%s frames the message and cannot be changed", name)
				}
			}
			if operation != "remove" && r.Value == "" {
				refuse(r, "%s has an empty value", r.Name)
			}
			if strings.ContainsFunc(r.Value, control) {
				refuse(r, "a header value cannot hold control characters")
			}
			out[operation] = append(out[operation], r)
		}
	}
	return out, problems
}

// control says whether c is a character that no header value can hold; a tab is one that it can.
func control(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }

// Token says whether name is a token (RFC 9110 §5.6.2), as header names and methods are.
func Token(name string) bool {
	const marks = "!#$%&'*+-.^_`|~"
	return name != "" && !strings.ContainsFunc(name, func(c rune) bool {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		return !letter && !strings.ContainsRune(marks, c)
	})
}

// Lua writes rules for edit.lua; value makes what stands for a rule's value there, by the rule's operation and index.
func (rules Rules) Lua(value func(r Rule, operation string, i int) any) map[string]any {
	out := make(map[string]any, len(Operations))
	for _, operation := range Operations {
		list := []any{}
		for i, r := range rules[operation] {
			switch operation {
			case "remove":
				list = append(list, r.Name)
			case "rename":
				list = append(list, []any{r.Name, r.Value})
			default:
				if v := value(r, operation, i); v != nil {
					list = append(list, []any{r.Name, v})
				}
			}
		}
		out[operation] = list
	}
	return out
}
