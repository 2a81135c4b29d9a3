package annotation

import (
	"strconv"
	"strings"
)

// parseComma reads a comma list; each item is judged on its own, so there is no problem of the whole.
func parseComma(text string) ([]Entry, *Problem) {
	var entries []Entry
	offset := 0
	for _, item := range strings.Split(text, ",") {
		start := offset + len(item) - len(strings.TrimLeft(item, blanks))
		offset += len(item) + len(",")
		item = strings.Trim(item, blanks)
		if item == "" {
			continue
		}
		e := Entry{Place: "@" + strconv.Itoa(start)}
		if message := e.setName(item); message != "" {
			e.problem("", "%s", message)
		}
		entries = append(entries, e)
	}
	return entries, nil
}
