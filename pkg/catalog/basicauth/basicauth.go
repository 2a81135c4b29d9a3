// Package basicauth is the built-in plugin basic-auth: a client proves itself with a username and a password.
// schema.yaml documents it.
//
// Envoy's own basic_auth filter is not used: it has no Consumers, no anonymous and no hiding, takes only the exact
// scheme `Basic`, and answers with a text and a realm of its own.
package basicauth

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"fmt"
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
const name = "basic-auth"

// Builtin is the plugin.
var Builtin = &builtin.Builtin{
	Name:   name,
	Schema: builtin.MustSchema(schema),
	Auth:   true,
	Build:  build,
}

// longest is how many characters of base64 are looked at. Hashing takes time, and who sends them is not known yet.
const longest = 8192

type settings struct {
	HideCredentials bool     `json:"hide_credentials"`
	Realm           string   `json:"realm"`
	Anonymous       string   `json:"anonymous"`
	ConsumersFrom   []string `json:"consumers_from"`
}

func build(use builtin.Use, c config.Value) ([]part.Part, []builtin.Problem) {
	var s settings
	builtin.DecodeInto(c, &s)
	credentials, problems := use.Consumers.In(use.Namespace, s.ConsumersFrom, name)
	chunk := config.Value{
		"hide":      s.HideCredentials,
		"challenge": authn.Challenge("Basic", s.Realm),
		"longest":   int64(longest),
		"known":     authn.Table(credentials, entry),
	}
	problems = slices.Concat(problems, tooLong(credentials), authn.Anonymous(chunk, credentials, s.Anonymous))
	return []part.Part{use.Lua(authn.Source(handler), chunk)}, problems
}

// tooLong warns of credentials that no request can hold.
func tooLong(c *builtin.Credentials) []builtin.Problem {
	var problems []builtin.Problem
	for _, credential := range c.All {
		pair := len(credential.Data["username"]) + len(":") + len(credential.Data["password"])
		if base64.StdEncoding.EncodedLen(pair) > longest {
			problems = append(problems, builtin.Problem{Warning: true, Message: fmt.Sprintf(
				"a basic-auth credential of consumer %s is longer than %d characters of base64, and authenticates nobody", credential.Consumer.Name, longest)})
		}
	}
	return problems
}

// entry is found by its username. The password is there as a salted SHA-256 only: the gateway's configuration can be
// read by more people than the Secrets.
func entry(c builtin.Credential) (string, config.Value) {
	salt := salt(c.ID)
	digest := sha256.Sum256(slices.Concat([]byte(salt), c.Data["password"]))
	return string(c.Data["username"]), config.Value{"salt": salt, "digest": hex.EncodeToString(digest[:])}
}

// salt is different for each credential and always the same for one, as what is generated may depend on nothing but
// the objects. All have one length, so that hashing with one takes as long as with another.
func salt(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:16])
}
