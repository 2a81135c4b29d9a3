package explain

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"sigs.k8s.io/yaml"
)

// width of a terminal that nobody has widened.
const width = 80

// Text writes an explanation for people, no line longer than 80 characters where words allow it.
func Text(w io.Writer, x Explanation) error {
	t := &text{}
	t.line(0, heading(x.Object.String(), x.Source))
	if x.Note != "" {
		t.wrap(0, "", x.Note)
	}
	for _, p := range x.Paths {
		t.path(p, len(x.Paths) > 1)
	}
	_, err := io.WriteString(w, t.out.String())
	return err
}

type text struct{ out strings.Builder }

func (t *text) line(indent int, s string) {
	t.out.WriteString(strings.TrimRight(strings.Repeat(" ", indent)+s, " ") + "\n")
}

// wrap writes words behind a label, further lines under the first word.
func (t *text) wrap(indent int, label, words string) {
	start := strings.Repeat(" ", indent) + label
	line := start
	for _, word := range strings.Fields(words) {
		if line != start && len(line)+1+len(word) > width {
			t.line(0, line)
			line = strings.Repeat(" ", len(start))
			start = line
		}
		if line != start {
			line += " "
		}
		line += word
	}
	t.line(0, line)
}

func heading(what, source string) string {
	if source == "" {
		return what
	}
	return fmt.Sprintf("%s (%s)", what, source)
}

func (t *text) path(p Path, several bool) {
	gateways := make([]string, len(p.Gateways))
	for i, g := range p.Gateways {
		gateways[i] = g.String()
	}
	through := "through " + strings.Join(gateways, " and ")
	switch {
	case len(p.Ports) > 0:
		through += ", port " + strings.Join(p.Ports, " or ")
	case several && len(p.Gateways) > 1:
		through += ", any other port"
	}
	t.line(0, "")
	t.wrap(0, "", through)
	for _, r := range p.Routes {
		t.routes(r)
	}
}

func (t *text) routes(r Routes) {
	t.line(0, "")
	names, run, answer := routeNames(r)
	switch {
	case len(r.Refused) > 0:
		t.wrap(2, "", names+" "+answer+" 503:")
	case len(r.Steps) == 0:
		t.wrap(2, "", names+" "+run+" no plugins")
	default:
		t.wrap(2, "", names+" "+run+":")
	}
	for _, reason := range r.Refused {
		t.wrap(4, "! ", fmt.Sprintf("%s %s", reason.Reason, heading(reason.Object.String(), reason.Source)))
		t.wrap(6, "", reason.Message)
	}
	if len(r.Refused) > 0 && len(r.Steps) > 0 {
		t.line(2, "would run otherwise:")
	}
	for i, s := range r.Steps {
		t.step(i+1, s)
	}
}

// routeNames names routes, with the verbs that go with one or several.
func routeNames(r Routes) (names, run, answer string) {
	if r.All {
		return "all routes", "run", "answer"
	}
	quoted := make([]string, len(r.Names))
	for i, n := range r.Names {
		quoted[i] = n
		if n == "" {
			quoted[i] = "those without a name"
		}
	}
	if len(quoted) == 1 && r.Names[0] != "" {
		return "route " + quoted[0], "runs", "answers"
	}
	return "routes " + strings.Join(quoted, ", "), "run", "answer"
}

func (t *text) step(n int, s Step) {
	title := s.Plugin
	if s.Type != s.Plugin {
		title += " (" + s.Type + ")"
	}
	if s.Skipped {
		title += ": skipped, because it is invalid"
	}
	t.line(2, fmt.Sprintf("%2d. %s", n, title))
	const indent, label = 6, "%-11s"
	if s.Object != nil {
		t.wrap(indent, fmt.Sprintf(label, "plugin"), heading(s.Object.String(), s.Source))
	}
	t.wrap(indent, fmt.Sprintf(label, "attached"), entryText(s.AttachedBy))
	for _, e := range s.MergedFrom {
		t.wrap(indent, fmt.Sprintf(label, "merged"), entryText(e))
	}
	t.config(s)
	for _, from := range s.Secrets {
		t.wrap(indent, fmt.Sprintf(label, "secret"), fmt.Sprintf("%s from key %s of Secret %s", cmp.Or(from.Field, "the Plugin's config"), from.Key, from.Secret))
	}
	t.wrap(indent, fmt.Sprintf(label, "place"), s.Place)
	t.wrap(indent, fmt.Sprintf(label, "on failure"), s.OnFailure)
}

func entryText(e Entry) string {
	return heading(fmt.Sprintf("entry %d of %s", e.Number, e.Object), e.Source)
}

func (t *text) config(s Step) {
	c := s.Config
	if len(c) == 0 && len(s.Secrets) > 0 {
		return
	}
	if len(c) == 0 {
		none := "nothing but defaults"
		if s.Type == "Lua" || s.Type == "Wasm" {
			none = "none"
		}
		t.line(6, "config     "+none)
		return
	}
	raw, err := yaml.Marshal(c)
	if err != nil {
		panic(err) // a config came from JSON
	}
	lead := "config     "
	for line := range strings.SplitSeq(strings.TrimRight(string(raw), "\n"), "\n") {
		t.line(6, lead+line)
		lead = "           "
	}
}
