package lua

import (
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"iter"
	"slices"
	"strings"

	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// VirtualServiceKey is the filter state key from which pdk.virtual_service reads the route's VirtualService, in the
// form that istiod writes into a route's metadata: /apis/<group>/<version>/namespaces/<ns>/virtual-service/<name>.
const VirtualServiceKey = "istio-plugins.vs"

// Program is what the runtime of one gateway knows before any request: every plugin source and every shared table that
// a chain may name.
type Program struct {
	Sources []Source
	Shared  []part.Shared
}

// Source is the chunk of a plugin under the name that chains use for it.
type Source struct {
	ID   string
	Text string
}

// NewProgram collects the sources and shared tables of parts.
func NewProgram(parts ...part.Lua) Program {
	var p Program
	for _, l := range parts {
		p.Sources = append(p.Sources, Source{ID: sourceID(l), Text: l.Source})
		collectShared(&p.Shared, map[string]any(l.Config))
	}
	return p
}

func collectShared(into *[]part.Shared, v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, e := range v {
			collectShared(into, e)
		}
	case config.Value:
		collectShared(into, map[string]any(v))
	case []any:
		for _, e := range v {
			collectShared(into, e)
		}
	case part.Shared:
		*into = append(*into, v)
		collectShared(into, map[string]any(v.Table))
	case *part.Shared:
		collectShared(into, *v)
	}
}

// SourceID names a source by its content. 128 bits, so that nobody can write a source that takes another's place.
func SourceID(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// sourceID of a part, which may have been filled in already.
func sourceID(l part.Lua) string {
	if l.SourceID != "" {
		return l.SourceID
	}
	return SourceID(l.Source)
}

// Entry is one plugin of a slot.
type Entry struct {
	// SourceID of the plugin's source in the Program.
	SourceID string
	// Plugin is the name for log lines and for the 503 of a plugin that does not load.
	Plugin string
	// Config is what the chunk gets; nil is the empty table.
	Config config.Value
	// FailOpen skips the plugin where it does not load or fails.
	FailOpen bool
	// Services that the plugin may call, by its names for them.
	Services map[string]part.Service
}

// EntryOf is the entry that runs a part.
func EntryOf(l part.Lua) Entry {
	return Entry{SourceID: sourceID(l), Plugin: l.Plugin, Config: l.Config, FailOpen: l.FailOpen, Services: l.Services}
}

// valuePrefix marks a slot value that the Lua runtime handles; dispatch tells kinds of values apart by it.
const valuePrefix = "l"

// Chain is the slot value that runs entries in order. It is printable ASCII.
func Chain(entries []Entry) string {
	var b strings.Builder
	b.WriteString(valuePrefix + "{")
	for i, e := range entries {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('{')
		writeString(&b, e.SourceID)
		b.WriteByte(',')
		writeString(&b, e.Plugin)
		switch {
		case len(e.Config) > 0:
			b.WriteByte(',')
			writeValue(&b, e.Config)
		case e.FailOpen:
			b.WriteString(",nil")
		}
		if e.FailOpen {
			b.WriteString(",true")
		}
		if len(e.Services) > 0 {
			b.WriteString(",services=")
			writeValue(&b, services(e.Services))
		}
		b.WriteByte('}')
	}
	b.WriteByte('}')
	return b.String()
}

// services are written as the cluster and the authority of each.
func services(declared map[string]part.Service) map[string]any {
	out := make(map[string]any, len(declared))
	for name, s := range declared {
		out[name] = []string{s.Cluster(), s.Authority()}
	}
	return out
}

// Refusal is the slot value that answers 503 for a plugin that is not available; plugin is empty where its name is not
// known.
func Refusal(plugin string) string {
	return valuePrefix + "{refuse=" + Literal(plugin) + "}"
}

// library is the runtime's own Lua.
//
//go:embed runtime/*.lua
var library embed.FS

// modules are the files of the library in the order in which they load: a later one may use an earlier one. Each is a
// chunk that gets the table of the modules before it and returns itself.
var modules = []string{
	"url", "trim", "base64", "hex", "padding", "sha1", "sha256", "sha512", "equal", "uuid", "date", "ip", "cache", "json", "report", "hmac",
	"stream", "identity", "call", "harden", "sandbox", "chain", "dispatch",
}

// programHeader is the first line of a filter's source.
const programHeader = "local modules, sources, shared = {}, {}, {}\n"

// FilterSource is the source of the Lua filter that runs the slot values under the filter state key slotKey. It depends
// on p's content alone, not on its order; of sources or tables with the same name it takes one.
func (p Program) FilterSource(slotKey string) string {
	var b strings.Builder
	b.WriteString(programHeader)
	for _, s := range sortedSources(p.Sources) {
		b.WriteString("sources[")
		writeString(&b, s.ID)
		b.WriteString("] = ")
		writeQuoted(&b, s.Text, "\\\n") // keeps the lines, so that the generated filter can be read
		b.WriteByte('\n')
	}
	for _, s := range sortedShared(p.Shared) {
		b.WriteString("shared[")
		writeString(&b, s.name)
		b.WriteString("] = ")
		writeString(&b, s.literal)
		b.WriteByte('\n')
	}
	b.WriteString("modules.settings = {slot = " + Literal(slotKey) + ", virtual_service = " + Literal(VirtualServiceKey) + "}\n")
	b.WriteString("modules.program = {sources = sources, shared = shared}\n")
	for _, m := range modules {
		b.WriteString("modules." + m + " = (function(...)\n" + moduleText(m) + "end)(modules)\n")
	}
	return b.String()
}

func moduleText(name string) string {
	text, err := library.ReadFile("runtime/" + name + ".lua")
	if err != nil {
		panic(err) // modules and the embedded files are both ours
	}
	return string(text)
}

func sortedSources(in []Source) []Source {
	out := slices.SortedFunc(slices.Values(in), func(a, b Source) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Text, b.Text))
	})
	return slices.CompactFunc(out, func(a, b Source) bool { return a.ID == b.ID })
}

// table is a shared table, written.
type table struct{ name, literal string }

func sortedShared(in []part.Shared) []table {
	out := make([]table, len(in))
	for i, s := range in {
		out[i] = table{s.Name, Literal(s.Table)}
	}
	slices.SortFunc(out, func(a, b table) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.literal, b.literal))
	})
	return slices.CompactFunc(out, func(a, b table) bool { return a.name == b.name })
}

// Keep adds to a filter's source what only an earlier one of the same slot knows: sources and shared tables that gateways
// may still ask for while they get the chains that no longer do. What it cannot read it leaves alone.
func Keep(source, earlier string) string {
	known := map[string]bool{}
	for s := range statements(source) {
		known[s.key] = true
	}
	var kept strings.Builder
	for s := range statements(earlier) {
		if !known[s.key] {
			kept.WriteString(s.text)
		}
	}
	if rest, ok := strings.CutPrefix(source, programHeader); ok && kept.Len() > 0 {
		return programHeader + kept.String() + rest
	}
	return source
}

// Entries are the sources and shared tables in a filter's source, as text by their names, and what stands around them.
func Entries(source string) (entries map[string]string, around string) {
	entries = map[string]string{}
	end := len(programHeader)
	for s := range statements(source) {
		_, name, _ := strings.Cut(s.key, `["`)
		entries[strings.TrimSuffix(name, `"`)] = s.text
		end += len(s.text)
	}
	if len(entries) == 0 {
		return entries, source
	}
	return entries, source[end:]
}

// statement is one assignment to sources or shared, with the key that it assigns to.
type statement struct{ key, text string }

// statements are the assignments at the start of a filter's source, as FilterSource writes them.
func statements(source string) iter.Seq[statement] {
	return func(yield func(statement) bool) {
		rest, ok := strings.CutPrefix(source, programHeader)
		for ok && (strings.HasPrefix(rest, "sources[") || strings.HasPrefix(rest, "shared[")) {
			end := 0
			for line := range strings.Lines(rest) {
				end += len(line)
				if !strings.HasSuffix(line, "\\\n") {
					break
				}
			}
			key, _, _ := strings.Cut(rest, "] = ")
			if !yield(statement{key, rest[:end]}) {
				return
			}
			rest = rest[end:]
		}
	}
}
