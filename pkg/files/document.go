package files

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// chunk is one YAML document, or one value of a JSON file.
type chunk struct {
	text []byte
	// line of the file on which the text starts, from 1.
	line int
}

// document is one object.
type document struct {
	// fields as JSON has them; numbers are int64 or float64.
	fields map[string]any
	// line of the file on which the object starts.
	line int
	// steps lead from the chunk's root to the object: none, or `items[3]`.
	steps string
	// tree has the lines of the fields.
	tree *tree
	// repeated are the fields that are given more than once.
	repeated []repetition
}

// repetition is a field that is given again on a line of the file.
type repetition struct {
	line int
	key  string
}

// syntaxError is unreadable text. It reads as it stands behind the file's name.
type syntaxError struct {
	line    int
	message string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("%d: %s", e.line, e.message) }

// split cuts a file into documents without parsing it, so that one unreadable document does not hide the others and
// each can be parsed again for its lines when a message needs them.
func split(text []byte) []chunk {
	if chunks, ok := splitJSON(text); ok {
		return chunks
	}
	var chunks []chunk
	start, startLine, some := 0, 1, false
	cut := func(end, nextLine int) {
		if some {
			chunks = append(chunks, chunk{text: text[start:end], line: startLine})
			start, startLine, some = end, nextLine, false
		}
	}
	line, offset := 1, 0
	for current := range bytes.Lines(text) {
		if isMarker(current, startMarker) {
			cut(offset, line)
		}
		some = some || len(content(current)) > 0
		offset += len(current)
		line++
		if isMarker(current, endMarker) {
			cut(offset, line)
		}
	}
	cut(offset, line)
	return chunks
}

// The lines that start and end a YAML document. Something may follow on the same line.
const startMarker, endMarker = "---", "..."

func isMarker(line []byte, marker string) bool {
	rest, ok := bytes.CutPrefix(line, []byte(marker))
	return ok && (len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0)
}

// content is what of a line belongs to an object: nothing of blank lines, comments, directives and bare markers.
func content(line []byte) []byte {
	if isMarker(line, startMarker) || isMarker(line, endMarker) {
		line = line[len(startMarker):]
	}
	line = bytes.TrimSpace(bytes.TrimPrefix(line, []byte("\ufeff")))
	if len(line) > 0 && (line[0] == '#' || line[0] == '%') {
		return nil
	}
	return line
}

// splitJSON takes a file of JSON values apart; false if it is none.
func splitJSON(text []byte) ([]chunk, bool) {
	if trimmed := bytes.TrimLeft(text, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return nil, false
	}
	var chunks []chunk
	d := json.NewDecoder(bytes.NewReader(text))
	for {
		var raw json.RawMessage
		err := d.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return chunks, true
		}
		if err != nil {
			return nil, false
		}
		end := int(d.InputOffset())
		chunks = append(chunks, chunk{text: raw, line: 1 + bytes.Count(text[:end-len(raw)], []byte("\n"))})
	}
}

// head is the first content of the chunk and the line of the file where it stands.
func (c chunk) head() (line int, first []byte) {
	line = c.line
	for current := range bytes.Lines(c.text) {
		if first := content(current); len(first) > 0 {
			return line, first
		}
		line++
	}
	return c.line, nil
}

// objects are the maps that the chunk holds: itself, or the items of a list.
func (c chunk) objects() ([]document, error) {
	raw, repeated, err := c.json()
	if err != nil {
		return nil, err
	}
	fields, ok := decodeMap(raw)
	if !ok {
		return nil, nil
	}
	line, _ := c.head()
	t := newTree(c)
	items, ok := listItems(fields)
	if !ok {
		return []document{{fields: fields, line: line, tree: t, repeated: repeated}}, nil
	}
	var documents []document
	for i, item := range items {
		itemFields, ok := item.(map[string]any)
		if !ok {
			continue
		}
		inferKind(fields, itemFields)
		steps := fmt.Sprintf("items[%d]", i)
		documents = append(documents, document{fields: itemFields, line: t.line(steps), steps: steps, tree: t})
	}
	attribute(repeated, documents)
	return documents, nil
}

// attribute gives each repeated field to the item in whose lines it is.
func attribute(repeated []repetition, items []document) {
	for _, r := range repeated {
		for i := len(items) - 1; i >= 0; i-- {
			if items[i].line <= r.line {
				items[i].repeated = append(items[i].repeated, r)
				break
			}
		}
	}
}

// decodeMap decodes JSON that is a map.
func decodeMap(raw []byte) (map[string]any, bool) {
	var v any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &v); err != nil {
		return nil, false
	}
	fields, ok := v.(map[string]any)
	return fields, ok
}

// listItems are the items of `kind: List`, or of a kind's own list such as PluginList.
func listItems(fields map[string]any) ([]any, bool) {
	kind, _ := fields["kind"].(string)
	items, ok := fields["items"].([]any)
	return items, ok && strings.HasSuffix(kind, "List")
}

// inferKind gives the items of a kind's own list their kind, which the API server leaves out there.
func inferKind(list, item map[string]any) {
	kind := strings.TrimSuffix(list["kind"].(string), "List")
	if _, ok := item["kind"]; ok || kind == "" {
		return
	}
	item["kind"], item["apiVersion"] = kind, list["apiVersion"]
}

// json is the chunk as JSON, read as kubectl reads it. Repeated fields are not unreadable: kubectl apply refuses the
// object that has them, and no other.
func (c chunk) json() (raw []byte, repeated []repetition, err error) {
	raw, err = yaml.YAMLToJSONStrict(c.text)
	if err == nil {
		err = c.trailing()
	}
	if err == nil {
		return raw, nil, nil
	}
	for _, m := range repeatedField.FindAllStringSubmatch(err.Error(), -1) {
		repeated = append(repeated, repetition{line: c.lineOf(m[1]), key: m[2]})
	}
	if repeated != nil {
		raw, err = yaml.YAMLToJSON(c.text)
	}
	if err != nil && json.Valid(c.text) {
		return c.text, nil, nil // such as a surrogate pair, which YAML does not know
	}
	if err != nil {
		return nil, nil, c.syntaxError(err)
	}
	return raw, repeated, nil
}

// trailing finds text behind an object in braces, which the parser would not look at.
func (c chunk) trailing() error {
	if _, first := c.head(); first[0] != '{' || json.Valid(c.text) {
		return nil
	}
	d := yamlv3.NewDecoder(bytes.NewReader(c.text))
	var node yamlv3.Node
	if err := d.Decode(&node); err != nil {
		return err
	}
	switch err := d.Decode(&node); {
	case err == nil:
		return fmt.Errorf("yaml: line %d: another object starts without ---", node.Line)
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

var (
	repeatedField = regexp.MustCompile(`line (\d+): key (".*") already set in map`)
	yamlLine      = regexp.MustCompile(`line (\d+): `)
)

// lineOf turns a line of the chunk into one of the file.
func (c chunk) lineOf(digits string) int {
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 {
		return c.line
	}
	return c.line + n - 1
}

func (c chunk) syntaxError(err error) *syntaxError {
	message := err.Error()
	if _, after, ok := strings.Cut(message, "yaml: "); ok {
		message = after
	}
	at, _ := c.head()
	if m := yamlLine.FindStringSubmatch(message); m != nil {
		at, message = c.lineOf(m[1]), strings.Replace(message, m[0], "", 1)
	}
	return &syntaxError{line: at, message: "this is not valid YAML: " + message}
}
