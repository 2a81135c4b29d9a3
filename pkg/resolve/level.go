package resolve

import (
	"fmt"
	"slices"
	"strings"

	"github.com/istio-plugins/istio-plugins/pkg/annotation"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
)

// Level is what one object's annotation asks for, with names resolved. Levels are put on top of each other by Compose.
type Level struct {
	// Object that is annotated.
	Object finding.Object
	// Entries in the order of the annotation.
	Entries []*Entry
	// Refused is set if the annotation cannot be parsed: every route of the object is refused.
	Refused *Refusal
	// text and routes are what it was made from, library the last one that was found to give the same.
	text    string
	routes  []string
	library *Library
}

// Entry is one entry of an annotation, resolved.
type Entry struct {
	// Level it belongs to.
	Level *Level
	// Place in the object.
	Place string
	// Name as written.
	Name string
	// Plugin it means; nil if there is none that it may use, which missing tells.
	Plugin  *Plugin
	missing *Issue
	// Ordinal tells entries of one Plugin on one level apart.
	Ordinal int
	Config  config.Value
	// Routes it is limited to; nil for all.
	Routes   []string
	OptOut   bool
	Override bool
	// Refused is set if the entry cannot be honoured; RefusedRoutes are the routes that it would cover, nil for all.
	Refused       *Refusal
	RefusedRoutes []string
}

// Refusal is why routes answer 503.
type Refusal struct {
	// Plugin to name in the answer; empty where it is not known.
	Plugin string
	// Override says that the entry cannot be opted out of.
	Override bool
	Issue    *Issue
}

// NewLevel reads and resolves the annotation of an object. routes are the names of a VirtualService's http routes;
// nil for an object that has none to choose from.
func NewLevel(l *Library, object finding.Object, text string, routes []string) *Level {
	level := &Level{Object: object, text: text, routes: routes, library: l}
	place := fmt.Sprintf("metadata.annotations[%s]", annotation.Key)
	parsed, problem := annotation.Parse(text)
	if problem != nil {
		level.Refused = &Refusal{Issue: &Issue{Finding: finding.Finding{
			Reason: finding.InvalidAnnotation, Object: object, Place: place + problem.Place, Problem: problem.Message,
		}}}
		return level
	}
	ordinals := map[string]int{}
	for _, a := range parsed {
		e := &Entry{
			Level: level, Place: place + a.Place, Name: a.Name,
			Config: a.Config, Routes: a.Routes, OptOut: a.OptOut, Override: a.Override,
		}
		refuse := func(reason finding.Reason, at, problem, remedy string, covered []string) {
			if e.Refused != nil {
				return
			}
			e.Refused = &Refusal{Plugin: a.Name, Override: a.Override, Issue: &Issue{Finding: finding.Finding{
				Reason: reason, Object: object, Place: place + at, Problem: problem, Remedy: remedy,
			}}}
			e.RefusedRoutes = covered
		}
		for _, p := range a.Problems {
			refuse(finding.InvalidEntry, p.Place, p.Message, "", p.Routes)
		}
		for _, r := range a.Routes {
			switch {
			case routes == nil:
				refuse(finding.InvalidEntry, a.Place+".routes", "routes can be chosen on a VirtualService only", "remove routes", nil)
			case !slices.Contains(routes, r):
				refuse(finding.UnknownRoute, a.Place+".routes", unknownRoute(r, routes), "", nil)
			}
		}
		plugin, issue := l.Find(a.Name, object.Kind, object.Namespace)
		e.Plugin, e.missing = plugin, issue
		switch {
		case plugin != nil:
			e.Ordinal = ordinals[plugin.ID]
			ordinals[plugin.ID]++
			if plugin.Malformed != nil && !e.OptOut && e.Refused == nil {
				e.Refused = &Refusal{Plugin: a.Name, Override: a.Override, Issue: plugin.Malformed}
				e.RefusedRoutes = a.Routes
			}
		case !e.OptOut && e.Refused == nil:
			issue.Object, issue.Place = object, e.Place
			e.Refused = &Refusal{Plugin: a.Name, Override: a.Override, Issue: issue}
			e.RefusedRoutes = a.Routes
		}
		level.Entries = append(level.Entries, e)
	}
	return level
}

// Current says whether NewLevel would make the same again: of the same text and routes, of which every name means the same.
func (level *Level) Current(l *Library, text string, routes []string) bool {
	if level.text != text || !slices.Equal(level.routes, routes) {
		return false
	}
	if level.library == l {
		return true
	}
	if slices.ContainsFunc(level.Entries, func(e *Entry) bool {
		plugin, issue := l.Find(e.Name, level.Object.Kind, level.Object.Namespace)
		return plugin != e.Plugin || !issue.saysAs(e.missing)
	}) {
		return false
	}
	level.library = l
	return true
}

// saysAs says whether two answers of Find are the same, in what Find says.
func (i *Issue) saysAs(j *Issue) bool {
	if i == nil || j == nil {
		return i == j
	}
	return i.Reason == j.Reason && i.Problem == j.Problem && i.Remedy == j.Remedy
}

func unknownRoute(name string, routes []string) string {
	var named []string
	for _, r := range routes {
		if r != "" && !slices.Contains(named, r) {
			named = append(named, r)
		}
	}
	if near, ok := finding.Nearest(name, named); ok {
		return fmt.Sprintf("there is no http route %q, did you mean %q?", name, near)
	}
	if len(named) == 0 {
		return fmt.Sprintf("there is no http route %q, none of the routes has a name", name)
	}
	return fmt.Sprintf("there is no http route %q, there are %s", name, strings.Join(named, ", "))
}

// covers says whether the entry is about an http route of its object.
func (e *Entry) covers(route string) bool {
	return e.Routes == nil || slices.Contains(e.Routes, route)
}

// refuses says whether the entry refuses an http route of its object.
func (e *Entry) refuses(route string) bool {
	return e.Refused != nil && (e.RefusedRoutes == nil || slices.Contains(e.RefusedRoutes, route))
}
