package difference

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"sigs.k8s.io/yaml"

	"github.com/istio-plugins/istio-plugins/pkg/explain"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
)

const (
	// most is how many routes, entries and lines of a config are listed; JSON has all.
	most = 20
	// width is how much of a line is shown.
	width = 160
)

// Text writes a difference for people. What is there as it was begins with a blank, what is new with +, what will be gone
// with -, what changes with ~, and a plugin that changes its place with >.
func Text(w io.Writer, d Difference) error {
	t := &text{}
	if !d.Empty() {
		t.routes(d.Routes)
		t.findings("findings that appear", "+", d.Appear)
		t.findings("findings that go away", "-", d.Vanish)
		t.objects(d.Objects, d.Total)
	}
	_, err := io.WriteString(w, t.out.String())
	return err
}

type text struct{ out strings.Builder }

// line writes a line, cut where it is too long.
func (t *text) line(format string, args ...any) {
	s := strings.TrimRight(fmt.Sprintf(format, args...), " ")
	if r := []rune(s); len(r) > width {
		s = fmt.Sprintf("%s… (%d characters)", string(r[:width]), len(r))
	}
	t.out.WriteString(s + "\n")
}

// title begins a part, with a blank line above.
func (t *text) title(format string, args ...any) {
	if t.out.Len() > 0 {
		t.out.WriteString("\n")
	}
	t.line(format, args...)
}

func (t *text) routes(changes []RouteChange) {
	if len(changes) == 0 {
		t.title("no route runs other plugins than before")
		return
	}
	for _, c := range changes {
		t.names(c.names)
		t.line("  through %s", paths(c.Paths))
		t.states(c)
		for _, s := range c.Steps {
			t.step(s)
		}
	}
}

// names lists the routes that change alike.
func (t *text) names(names []string) {
	for i, name := range names[:min(len(names), most)] {
		if i == 0 {
			t.title("%s", name)
			continue
		}
		t.line("%s", name)
	}
	t.more(len(names)-most, "")
}

func (t *text) more(n int, indent string) {
	if n > 0 {
		t.line("%sand %d more (-o json shows all)", indent, n)
	}
}

func paths(paths []Path) string {
	out := make([]string, len(paths))
	for i, p := range paths {
		out[i] = p.Gateway.String()
		switch p.Port {
		case "":
		case OtherPorts:
			out[i] += ", any other port"
		default:
			out[i] += ", port " + p.Port
		}
	}
	return strings.Join(out, "; ")
}

func (t *text) states(c RouteChange) {
	t.refused("- answered 503:", c.Before.Refused)
	switch {
	case c.Before.Serves == Absent:
		t.line("  + is reached there now")
	case c.After.Serves == Absent:
		t.line("  - is reached there no more")
	}
	t.refused("+ will answer 503:", c.After.Refused)
	if c.Before.Serves == Refuses && c.After.Serves == Runs && len(c.Steps) == 0 {
		t.line("  + will run no plugins")
	}
}

func (t *text) refused(what string, reasons []explain.Reason) {
	for _, r := range reasons {
		t.out.WriteString("  " + what + " " + string(r.Reason) + " " + r.Object.String())
		if r.Source != "" {
			t.out.WriteString(" (" + r.Source + ")")
		}
		t.out.WriteString(": " + r.Message + "\n") // never cut
	}
}

var signs = map[Kind]string{Added: "+", Removed: "-", Changed: "~", Moved: ">", Unchanged: " "}

func (t *text) step(s Step) {
	title := s.Plugin
	switch {
	case s.Object != nil && s.Type != s.Plugin:
		title += fmt.Sprintf(" (%s, %s)", s.Type, s.Object)
	case s.Object != nil:
		title += fmt.Sprintf(" (%s)", s.Object)
	}
	t.line("  %s %s", signs[s.Change], title)
	switch {
	case s.Before != nil && s.After != nil:
		t.differs(s)
	case s.After != nil && s.After.Skipped:
		t.line("      skipped, because it is invalid")
	case s.After != nil:
		t.config("+", nil, s.After.Config)
	}
}

// differs says in what a plugin has changed.
func (t *text) differs(s Step) {
	for _, aspect := range s.Differs {
		switch aspect {
		case Config:
			t.config("~", s.Before.Config, s.After.Config)
		case FailurePolicy:
			t.line("      failurePolicy: %s -> %s", s.Before.FailurePolicy, s.After.FailurePolicy)
		case Skipped:
			t.line("      %s", map[bool]string{true: "will be skipped, because it is invalid", false: "was skipped, and will run"}[s.After.Skipped])
		case Type:
			t.line("      is of another type")
		case Source:
			t.line("      its Lua source changes")
		case Module:
			t.line("      its Wasm module or settings change")
		case References:
			t.line("      what it knows of other objects, such as consumers, changes")
		}
	}
}

// config shows the lines of a config that differ, with those around them.
func (t *text) config(sign string, before, after map[string]any) {
	was, is := configLines(before), configLines(after)
	if len(is) == 0 && len(was) == 0 {
		return
	}
	t.line("      config")
	shown := 0
	show := func(sign string, lines []string) {
		for _, l := range lines {
			if shown++; shown <= most {
				t.line("      %s %s", sign, l)
			}
		}
	}
	if sign == "+" {
		show(" ", is)
	} else {
		for _, group := range difflib.NewMatcher(was, is).GetGroupedOpCodes(2) {
			for _, op := range group {
				if op.Tag == 'e' {
					show(" ", is[op.J1:op.J2])
					continue
				}
				show("-", was[op.I1:op.I2])
				show("+", is[op.J1:op.J2])
			}
		}
	}
	t.more(shown-most, "      ")
}

func configLines(c map[string]any) []string {
	if len(c) == 0 {
		return nil
	}
	raw, err := yaml.Marshal(c)
	if err != nil {
		panic(err) // a config came from JSON
	}
	return strings.Split(strings.TrimRight(string(raw), "\n"), "\n")
}

func (t *text) findings(title, sign string, findings []finding.Finding) {
	if len(findings) == 0 {
		return
	}
	t.title("%s", title)
	for _, f := range findings {
		t.out.WriteString("  " + sign + " " + f.String() + "\n") // never cut
	}
}

func (t *text) objects(changes []ObjectChange, total int) {
	if len(changes) == 0 {
		t.title("no generated object changes")
		return
	}
	t.title("generated objects that change: %d (there will be %d)", len(changes), total)
	for _, c := range changes {
		t.line("  %s %s", signs[c.Change], c.Object)
		lines := entryLines(c)
		for _, l := range lines[:min(len(lines), most)] {
			t.line("      %s", l)
		}
		t.more(len(lines)-most, "      ")
	}
	for _, c := range changes {
		if c.Diff != "" {
			t.out.WriteString("\n" + c.Diff)
		}
	}
}

// entryLines are the entries that change. An object that is new or gone is of interest only for what it has for routes.
func entryLines(c ObjectChange) []string {
	if c.Change == Changed && len(c.Entries) == 0 {
		return []string{"the same in another order"}
	}
	var out []string
	for _, e := range c.Entries {
		if c.Change != Changed && e.Key == "" {
			continue
		}
		what := e.Resource
		if what == "" {
			what = "selector, labels or annotations"
		}
		switch {
		case e.Of != nil:
			what += ": " + e.Of.String()
		case e.Key != "":
			what += ": " + e.Key
		}
		out = append(out, signs[e.Change]+" "+what)
	}
	return slices.Compact(out)
}
