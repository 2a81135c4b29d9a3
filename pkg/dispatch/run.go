package dispatch

import (
	"fmt"
	"iter"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"

	"github.com/istio-plugins/istio-plugins/pkg/lua"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

const (
	// directSlots are HTTP filters of their own. A composite that misses costs a request 0.5 to 1 us, so there are few.
	directSlots = 3
	// longSlots are nested behind the last direct slot and cost a request about 4 us more, only where they are used. Each
	// costs every HTTP connection manager some 30 kB, used or not.
	longSlots = 12
	// MaxSlots is the longest chain: all but the last direct slot, and the long ones.
	MaxSlots = directSlots - 1 + longSlots
)

// Run is what a route runs: parts in order, or a refusal.
type Run struct {
	Parts []Placed
	// Refused answers 503 instead, naming Plugin (empty where the name is not known).
	Refused bool
	Plugin  string
}

// Placed is a part at its place in a run.
type Placed struct {
	Part part.Part
	// Name that the part has on the gateway: Instance for a native filter, the source's for Lua. A Wasm plugin's tells it
	// from others, and stays the same when the plugin's own config is edited.
	Name string
	// Key tells Lua parts apart: where it is equal, so is the part, as long as a Memory lives. It saves writing their chains
	// and sources again.
	Key string
}

// value is what a slot holds.
type value struct {
	text string
	// native is set for the kinds n and s, lua for l.
	native   proto.Message
	stateful bool
	lua      []Placed
}

// SlotsNeeded is how many slots a run takes.
func (r Run) SlotsNeeded() int {
	if len(r.Parts) <= MaxSlots {
		return len(r.Parts) // at most, which is all that the caller needs to know then
	}
	n := 0
	for run := range r.adjacent() {
		if _, ok := run[0].Part.(part.Lua); ok {
			n += len(lua.Slots(luaParts(run)))
		} else {
			n++
		}
	}
	return n
}

// adjacent cuts a run into stretches of Lua parts, and other parts alone.
func (r Run) adjacent() iter.Seq[[]Placed] {
	return func(yield func([]Placed) bool) {
		for from := 0; from < len(r.Parts); {
			to := from + 1
			if isLua(r.Parts[from]) {
				for to < len(r.Parts) && isLua(r.Parts[to]) {
					to++
				}
			}
			if !yield(r.Parts[from:to]) {
				return
			}
			from = to
		}
	}
}

func isLua(p Placed) bool {
	_, ok := p.Part.(part.Lua)
	return ok
}

// values lays a run out. chains remembers the values of Lua parts by their keys.
func (r Run) values(pool *Pool, chains map[string][]value) []value {
	if r.Refused {
		return []value{{text: lua.Refusal(r.Plugin)}}
	}
	var out []value
	for run := range r.adjacent() {
		switch q := run[0].Part.(type) {
		case part.Native:
			out = append(out, value{text: run[0].Name, native: q.Config, stateful: q.State != part.Stateless})
		case part.Wasm:
			out = append(out, value{text: pool.value(run[0].Name)})
		case part.Lua:
			key := ""
			for _, p := range run {
				key += p.Key + " "
			}
			known, ok := chains[key]
			if !ok {
				left := run
				for _, shared := range lua.Slots(luaParts(run)) {
					known = append(known, luaValue(left[:len(shared)]))
					left = left[len(shared):]
				}
				chains[key] = known
			}
			out = append(out, known...)
		}
	}
	return out
}

func luaParts(run []Placed) []part.Lua {
	out := make([]part.Lua, len(run))
	for i, p := range run {
		out[i] = p.Part.(part.Lua)
	}
	return out
}

func luaValue(run []Placed) value {
	entries := make([]lua.Entry, len(run))
	for i, p := range luaParts(run) {
		entries[i] = lua.EntryOf(p)
	}
	return value{text: lua.Chain(entries), lua: run}
}

// Instance is the name of a native filter in its tables. It says whose the filter is, not what it holds: an edit of its
// config is then one atomic change of one table, and a request never meets a name whose filter is still on its way.
// 64 bits are enough for names that only have to differ within one gateway.
func Instance(n part.Native, identity string) string {
	kind := "n"
	if n.State != part.Stateless {
		kind = "s"
	}
	sum := xxhash.Sum64String(string(n.Config.ProtoReflect().Descriptor().FullName()) + "\x00" + identity)
	return fmt.Sprintf("%s%016x", kind, sum)
}

// place puts a run's values into slots. Slot i of the result, from 1, is empty where nothing runs; values of long
// chains stand behind the fixed filters, and the last of those says so.
func place(values []value) ([]value, error) {
	if len(values) <= directSlots {
		return append([]value{{}}, values...), nil
	}
	if len(values) > MaxSlots {
		return nil, fmt.Errorf("%d slots are needed, there are %d", len(values), MaxSlots)
	}
	out := append([]value{{}}, values[:directSlots-1]...)
	out = append(out, value{text: "m"})
	return append(out, values[directSlots-1:]...), nil // slots 4 and on
}

// Empty says that a run does nothing.
func (r Run) Empty() bool { return len(r.Parts) == 0 && !r.Refused }
