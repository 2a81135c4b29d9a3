package builtin

import (
	"strings"
	"testing"
)

func TestSecretFieldsAreThoseThatTheSchemaMarks(t *testing.T) {
	s := MustSchema([]byte(`
$schema: https://json-schema.org/draft/2020-12/schema
type: object
properties:
  open: {type: string}
  password: {type: string, writeOnly: true}
  redis: {type: object, properties: {host: {type: string}, password: {$ref: "#/$defs/key"}}}
  keys: {type: array, items: {$ref: "#/$defs/key"}}
  users: {type: object, additionalProperties: {writeOnly: true}}
  auth: {oneOf: [{type: boolean}, {type: object, properties: {token: {writeOnly: true}}}]}
$defs:
  key: {type: string, writeOnly: true}
`))
	for path, want := range map[string]bool{
		"open": false, "password": true, "redis": false, "redis.host": false, "redis.password": true, "keys": false, "keys.0": true,
		"users.anna": true, "auth.token": true, "auth": false, "unknown": false, "open.below": false,
	} {
		if got := s.Secret(strings.Split(path, ".")...); got != want {
			t.Errorf("secret %s is %v", path, got)
		}
	}
}
