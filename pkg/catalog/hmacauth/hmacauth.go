// Package hmacauth is the built-in plugin hmac-auth: a client proves itself by signing its requests with a secret.
// schema.yaml documents it.
package hmacauth

import (
	_ "embed"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

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
const name = "hmac-auth"

// Builtin is the plugin.
var Builtin = &builtin.Builtin{
	Name:   name,
	Schema: builtin.MustSchema(schema),
	Auth:   true,
	Build:  build,
}

// largestBody is up to how many bytes of a body are hashed, which keeps a worker busy for some 15 ms.
const largestBody = 1 << 20

type settings struct {
	ClockSkew           json.Number `json:"clock_skew"`
	EnforceHeaders      []string    `json:"enforce_headers"`
	Algorithms          []string    `json:"algorithms"`
	ValidateRequestBody bool        `json:"validate_request_body"`
	HideCredentials     bool        `json:"hide_credentials"`
	Anonymous           string      `json:"anonymous"`
	Realm               string      `json:"realm"`
	ConsumersFrom       []string    `json:"consumers_from"`
}

func build(use builtin.Use, c config.Value) ([]part.Part, []builtin.Problem) {
	var s settings
	builtin.DecodeInto(c, &s)
	credentials, problems := use.Consumers.In(use.Namespace, s.ConsumersFrom, name)
	chunk := config.Value{
		"skew":       s.ClockSkew,
		"enforced":   authn.List(s.EnforceHeaders),
		"algorithms": authn.List(s.Algorithms),
		"hide":       s.HideCredentials,
		"challenge":  authn.Challenge("hmac", s.Realm),
		"known":      authn.Table(credentials, entry),
	}
	if s.ValidateRequestBody {
		chunk["largest"] = int64(largestBody)
	}
	problems = slices.Concat(problems, check(s), authn.Anonymous(chunk, credentials, s.Anonymous))
	return []part.Part{part.Lua{Plugin: use.Plugin, Source: authn.Source(handler), Config: chunk, FailOpen: use.FailOpen}}, problems
}

// check warns of what looks like a mistake.
func check(s settings) []builtin.Problem {
	var problems []builtin.Problem
	for i, header := range s.EnforceHeaders {
		if header != strings.ToLower(header) {
			problems = append(problems, builtin.Problem{
				Path:    builtin.Path("enforce_headers", strconv.Itoa(i)),
				Message: "is not in lower case; clients must write it in the same way",
				Warning: true,
			})
		}
	}
	if s.ValidateRequestBody && !slices.Contains(s.EnforceHeaders, "digest") {
		problems = append(problems, builtin.Problem{
			Path:    "validate_request_body",
			Message: "enforce_headers does not have digest, so that who changes a body can also change its digest",
			Warning: true,
		})
	}
	return problems
}

// entry is found by the username and holds the secret as it is, since only itself can verify what it has signed.
func entry(c builtin.Credential) (string, config.Value) {
	return string(c.Data["username"]), config.Value{"secret": string(c.Data["secret"])}
}
