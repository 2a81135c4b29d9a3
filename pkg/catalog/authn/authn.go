// Package authn is what the plugins that authenticate Consumers share: how Consumers and their credentials stand in a
// chunk's config, and the Lua around finding out who calls.
package authn

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

//go:embed authn.lua
var text string

// Source is a handler's chunk with authn.lua in front, as the local `authn`.
func Source(handler string) string {
	return "local authn = (function()\n" + text + "end)()\n" + handler
}

// Table is what a chunk looks credentials up in: `consumers`, a list, and `credentials`, whose entries hold their
// consumer's number in it as `consumer`. Consumers are listed once, as they may have several credentials. entry says
// under which key a credential is found and what else its entry holds.
func Table(c *builtin.Credentials, entry func(builtin.Credential) (key string, fields config.Value)) part.Shared {
	var consumers []any
	// By more than the id: an object in a file may have been copied with its uid, and is somebody else all the same.
	type person struct{ id, name, username, customID string }
	position := map[person]int{}
	credentials := make(map[string]any, len(c.All))
	for _, credential := range c.All {
		who := person{credential.Consumer.ID, credential.Consumer.Name, credential.Consumer.Username, credential.Consumer.CustomID}
		at, listed := position[who]
		if !listed {
			consumers = append(consumers, map[string]any(Consumer(credential.Consumer)))
			at = len(consumers)
			position[who] = at
		}
		key, fields := entry(credential)
		fields["consumer"] = json.Number(strconv.Itoa(at))
		credentials[key] = map[string]any(fields)
	}
	return part.Shared{Name: c.ID, Table: config.Value{"consumers": consumers, "credentials": credentials}}
}

// Consumer is a consumer as pdk.authenticate takes it.
func Consumer(c builtin.Consumer) config.Value {
	v := config.Value{"id": c.ID, "name": c.Name}
	if c.Username != "" {
		v["username"] = c.Username
	}
	if c.CustomID != "" {
		v["custom_id"] = c.CustomID
	}
	if len(c.Groups) > 0 {
		v["groups"] = List(c.Groups)
	}
	return v
}

// Anonymous puts the consumer of the field `anonymous` into a chunk's config: the one of that username, or else of
// that name. Without one there is nothing to put.
func Anonymous(chunk config.Value, c *builtin.Credentials, wanted string) []builtin.Problem {
	if wanted == "" {
		return nil
	}
	at := slices.IndexFunc(c.Consumers, func(c builtin.Consumer) bool { return c.Username == wanted })
	if at < 0 {
		at = slices.IndexFunc(c.Consumers, func(c builtin.Consumer) bool { return c.Name == wanted })
	}
	if at < 0 {
		return []builtin.Problem{{Path: "anonymous", Message: fmt.Sprintf("anonymous consumer %s is configured but doesn't exist", wanted), Missing: true}}
	}
	value := Consumer(c.Consumers[at])
	value["anonymous"] = true
	chunk["anonymous"] = value
	return nil
}

// Challenge is a value of WWW-Authenticate, the realm as a quoted string (RFC 9110 §5.6.4).
func Challenge(scheme, realm string) string {
	if realm == "" {
		return scheme
	}
	return scheme + ` realm="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(realm) + `"`
}

// List is a list of words as a chunk's config holds it.
func List(words []string) []any {
	out := make([]any, len(words))
	for i, w := range words {
		out[i] = w
	}
	return out
}
