// Package finding is what istio-plugins has to say about its inputs: values with a stable reason, the object and the
// place in it, what traffic does now and what to do. Every error that a user can cause is a Finding.
package finding

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity says how bad a finding is.
type Severity string

const (
	// Error means that some route does not do what its owner asked for.
	Error Severity = "error"
	// Warning means that everything runs as asked for, but probably not as meant.
	Warning Severity = "warning"
)

// Object names a Kubernetes object. Namespace is empty for cluster-scoped ones.
type Object struct {
	Kind, Namespace, Name string
}

// String is kind/namespace/name with the kind in lower case, as kubectl understands it.
func (o Object) String() string {
	if o.Namespace == "" {
		return strings.ToLower(o.Kind) + "/" + o.Name
	}
	return strings.ToLower(o.Kind) + "/" + o.Namespace + "/" + o.Name
}

// Finding is one thing to say.
type Finding struct {
	Reason Reason `json:"reason"`
	Object Object `json:"object"`
	// Place in the object: a field path, or `metadata.annotations[istio.io/plugins]` with an offset or path behind it.
	Place string `json:"place,omitempty"`
	// Problem says what is wrong, Traffic what requests get now, Remedy what to do. Each is one sentence without a full stop.
	Problem string `json:"problem"`
	Traffic string `json:"traffic,omitempty"`
	Remedy  string `json:"remedy,omitempty"`
	// Source is `file:line` where the object came from a file.
	Source string `json:"source,omitempty"`
	// Related are other objects that take part.
	Related []Object `json:"related,omitempty"`
}

// Severity of the finding, which is its reason's.
func (f Finding) Severity() Severity { return reasons[f.Reason].Severity }

// Message is the text without severity, reason and object.
func (f Finding) Message() string {
	parts := []string{f.Problem}
	if f.Traffic != "" {
		parts = append(parts, f.Traffic)
	}
	if f.Remedy != "" {
		parts = append(parts, f.Remedy)
	}
	return strings.Join(parts, "; ")
}

// String is the line that every command prints: `severity reason kind/namespace/name[:place]: message`.
func (f Finding) String() string {
	place := ""
	if f.Place != "" {
		place = ":" + f.Place
	}
	return fmt.Sprintf("%s %s %s%s: %s", f.Severity(), f.Reason, f.Object, place, f.Message())
}

// Sort puts findings in a total order (object, place, reason, text) and drops repeated ones.
func Sort(fs []Finding) []Finding {
	slices.SortFunc(fs, func(a, b Finding) int {
		return cmp.Or(
			cmp.Compare(a.Object.Namespace, b.Object.Namespace),
			cmp.Compare(a.Object.Kind, b.Object.Kind),
			cmp.Compare(a.Object.Name, b.Object.Name),
			cmp.Compare(a.Place, b.Place),
			cmp.Compare(a.Reason, b.Reason),
			cmp.Compare(a.Message(), b.Message()),
		)
	})
	return slices.CompactFunc(fs, func(a, b Finding) bool {
		return a.Reason == b.Reason && a.Object == b.Object && a.Place == b.Place && a.Message() == b.Message()
	})
}

// Routes lists up to three affected routes and counts the rest, for Traffic sentences.
func Routes(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// Nearest returns the candidate that is nearest to word, if one is near enough to be a likely misspelling.
func Nearest(word string, candidates []string) (string, bool) {
	best, bestDistance := "", len(word)/3+2
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best, best != ""
}

// distance is the Levenshtein distance of a and b, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			above := row[j]
			substitute := diagonal
			if a[i-1] != b[j-1] {
				substitute++
			}
			row[j] = min(above+1, row[j-1]+1, substitute)
			diagonal = above
		}
	}
	return row[len(b)]
}
