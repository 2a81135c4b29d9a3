// Package keyauth is the built-in plugin key-auth: a client proves itself with a secret key. schema.yaml documents it.
package keyauth

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

//go:embed schema.yaml
var schema []byte

//go:embed handler.lua
var handler string

// name of the plugin, and of the type of its credentials.
const name = "key-auth"

// Builtin is the plugin.
var Builtin = &builtin.Builtin{
	Name:   name,
	Schema: builtin.MustSchema(schema),
	Auth:   true,
	Build:  build,
}

type settings struct {
	KeyNames        []string `json:"key_names"`
	KeyInHeader     bool     `json:"key_in_header"`
	KeyInQuery      bool     `json:"key_in_query"`
	KeyInBody       bool     `json:"key_in_body"`
	HideCredentials bool     `json:"hide_credentials"`
	Anonymous       string   `json:"anonymous"`
	RunOnPreflight  bool     `json:"run_on_preflight"`
	Realm           string   `json:"realm"`
	ConsumersFrom   []string `json:"consumers_from"`
}

func build(use builtin.Use, c config.Value) ([]part.Part, []builtin.Problem) {
	var s settings
	builtin.DecodeInto(c, &s)
	credentials, problems := use.Consumers.In(use.Namespace, s.ConsumersFrom, name)
	if !s.KeyInHeader && !s.KeyInQuery && !s.KeyInBody {
		problems = append(slices.Clone(problems), builtin.Problem{
			Message: "key_in_header, key_in_query and key_in_body are all false, so that no request has a key",
			Warning: true,
		})
	}
	chunk := config.Value{
		"names":     list(s.KeyNames),
		"header":    s.KeyInHeader,
		"query":     s.KeyInQuery,
		"body":      s.KeyInBody,
		"hide":      s.HideCredentials,
		"preflight": s.RunOnPreflight,
		"challenge": challenge(s.Realm),
		"keys":      part.Shared{Name: credentials.ID, Table: table(credentials)},
	}
	if s.Anonymous != "" {
		anonymous, found := find(credentials.Consumers, s.Anonymous)
		if !found {
			problems = append(slices.Clone(problems), builtin.Problem{
				Path:    "anonymous",
				Message: fmt.Sprintf("anonymous consumer %s is configured but doesn't exist", s.Anonymous),
			})
		}
		value := consumer(anonymous)
		value["anonymous"] = true
		chunk["anonymous"] = value
	}
	return []part.Part{part.Lua{Plugin: use.Plugin, Source: handler, Config: chunk, FailOpen: use.FailOpen}}, problems
}

// challenge is the value of WWW-Authenticate, the realm as a quoted string (RFC 9110 §5.6.4).
func challenge(realm string) string {
	if realm == "" {
		return "Key"
	}
	return `Key realm="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(realm) + `"`
}

// table is what the chunk looks keys up in. Keys are there as their SHA-256 only: the gateway's configuration can be
// read by more people than the Secrets. Consumers are listed once, as they may have several keys.
func table(c *builtin.Credentials) config.Value {
	var consumers []any
	position := map[string]int{}
	keys := make(map[string]any, len(c.All))
	for _, credential := range c.All {
		at, listed := position[credential.Consumer.ID]
		if !listed {
			consumers = append(consumers, map[string]any(consumer(credential.Consumer)))
			at = len(consumers)
			position[credential.Consumer.ID] = at
		}
		digest := sha256.Sum256(credential.Data["key"])
		keys[hex.EncodeToString(digest[:])] = []any{json.Number(strconv.Itoa(at)), credential.ID}
	}
	return config.Value{"consumers": consumers, "keys": keys}
}

// consumer is a consumer as pdk.authenticate takes it.
func consumer(c builtin.Consumer) config.Value {
	v := config.Value{"id": c.ID, "name": c.Name}
	if c.Username != "" {
		v["username"] = c.Username
	}
	if c.CustomID != "" {
		v["custom_id"] = c.CustomID
	}
	if len(c.Groups) > 0 {
		v["groups"] = list(c.Groups)
	}
	return v
}

// find returns the consumer of that username, or else of that name.
func find(consumers []builtin.Consumer, wanted string) (builtin.Consumer, bool) {
	for _, is := range []func(builtin.Consumer) bool{
		func(c builtin.Consumer) bool { return c.Username == wanted },
		func(c builtin.Consumer) bool { return c.Name == wanted },
	} {
		if i := slices.IndexFunc(consumers, is); i >= 0 {
			return consumers[i], true
		}
	}
	return builtin.Consumer{}, false
}

func list(words []string) []any {
	out := make([]any, len(words))
	for i, w := range words {
		out[i] = w
	}
	return out
}
