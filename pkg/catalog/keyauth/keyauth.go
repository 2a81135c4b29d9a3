// Package keyauth is the built-in plugin key-auth: a client proves itself with a secret key. schema.yaml documents it.
package keyauth

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"slices"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/authn"
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
	problems = slices.Clone(problems)
	if !s.KeyInHeader && !s.KeyInQuery && !s.KeyInBody {
		problems = append(problems, builtin.Problem{
			Message: "key_in_header, key_in_query and key_in_body are all false, so that no request has a key",
			Warning: true,
		})
	}
	chunk := config.Value{
		"names":     authn.List(s.KeyNames),
		"header":    s.KeyInHeader,
		"query":     s.KeyInQuery,
		"body":      s.KeyInBody,
		"hide":      s.HideCredentials,
		"preflight": s.RunOnPreflight,
		"challenge": authn.Challenge("Key", s.Realm),
		"known":     authn.Table(credentials, entry),
	}
	problems = append(problems, authn.Anonymous(chunk, credentials, s.Anonymous)...)
	return []part.Part{part.Lua{Plugin: use.Plugin, Source: authn.Source(handler), Config: chunk, FailOpen: use.FailOpen}}, problems
}

// entry is found by the SHA-256 of its key, and the key itself is not there: the gateway's configuration can be read by
// more people than the Secrets.
func entry(c builtin.Credential) (string, config.Value) {
	digest := sha256.Sum256(c.Data["key"])
	fields := config.Value{"id": c.ID}
	if !c.Ends.IsZero() {
		fields["ends"] = c.Ends.Unix()
	}
	return hex.EncodeToString(digest[:]), fields
}
