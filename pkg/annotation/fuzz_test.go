package annotation

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	offsetPlace = regexp.MustCompile(`^@([0-9]+)$`)
	listPlace   = regexp.MustCompile(`(?s)^\[([0-9]+)\]([.\[].*)?$`)
)

// FuzzParse holds what every text must satisfy. It does not check that the right texts are refused.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", ",", "cors", "cors, key-auth, -bot-detection", " a ,\n-b/c,, ", "a, - b", "--a", "A/b c",
		"- cors\n- name: key-auth\n  routes: [api, admin]\n  config: {key_names: [apikey]}\n  override: true\n",
		`[{name: key-auth, config: {a: 1.10, b: [0x1F, .5, 1e999, on, ~, 2026-01-01, "\x7f"]}}, {name: -cors, routes: [api]}, cors-open]`,
		`[{"name": "a", "config": {"b": "\ud83d\ude00", "c": {"<<": null, "": [[], {}]}}}]`,
		"[on, 1.0, null, [a], {}, {name: a, name: b}]", "[&x a, *x]", "[!!str a, ! b, !c d]", "[a", "[a], b", "{a: b}\n---\n",
		"[{name: a, <<: {config: {}}, ? [b] : c}]", "- ", "-", "[]", "{}", "[{name: a, routes: []}]", "- |\n  a\n- >\n  b\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		entries, problem := Parse(text)
		if problem != nil {
			if len(entries) > 0 || problem.Message == "" || problem.Place != "" {
				t.Fatalf("a problem of the whole, %+v, with entries %v", problem, entries)
			}
			return
		}
		if len(text) > MaxBytes || len(entries) > MaxEntries {
			t.Fatalf("%d bytes with %d entries are above the limits", len(text), len(entries))
		}
		var good []Entry
		for i, e := range entries {
			checkPlace(t, text, i, e)
			for _, p := range e.Problems {
				if !strings.HasPrefix(p.Place, e.Place) || p.Message == "" || len(p.Message) > 1000 {
					t.Errorf("problem %+v of entry %s", p, e.Place)
				}
			}
			if len(e.Problems) == 0 {
				good = append(good, e)
			}
		}
		checkRoundTrip(t, good)
	})
}

// checkPlace: an offset leads to the entry's name; an index is the entry's.
func checkPlace(t *testing.T, text string, index int, e Entry) {
	if m := offsetPlace.FindStringSubmatch(e.Place); m != nil {
		offset, err := strconv.Atoi(m[1])
		if err != nil || offset > len(text) || !strings.HasPrefix(text[offset:], e.written()) {
			t.Errorf("%q is not at %s", e.written(), e.Place)
		}
		return
	}
	if m := listPlace.FindStringSubmatch(e.Place); m == nil || m[1] != strconv.Itoa(index) {
		t.Errorf("entry %d has the place %s", index, e.Place)
	}
}

// checkRoundTrip: entries that can be honoured survive printing, and equal ones have equal text.
func checkRoundTrip(t *testing.T, entries []Entry) {
	printed := Print(entries)
	if len(printed) > MaxBytes {
		return // JSON may need more bytes than YAML did
	}
	again, problem := Parse(printed)
	if problem != nil {
		t.Fatalf("%s does not parse: %s", printed, problem.Message)
	}
	if diff := cmp.Diff(entries, again, sameMeaning); diff != "" {
		t.Errorf("%s parses to something else, -before +after:\n%s", printed, diff)
	}
	if reprinted := Print(again); reprinted != printed {
		t.Errorf("%s is printed again as %s", printed, reprinted)
	}
}
