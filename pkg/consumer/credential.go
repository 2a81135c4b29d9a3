package consumer

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/istio-plugins/istio-plugins/pkg/publickey"
)

// credentialType is what a Secret of one type holds. The types and their keys are those of Kong's ingress controller
// (Kong/kubernetes-ingress-controller, internal/admission/validation/consumers/credentials).
type credentialType struct {
	name string
	// required keys, which must not be empty either.
	required []string
	// unique is the key by which a credential is found; two credentials with one value of it are a conflict.
	unique string
	// group is the key that names a group of the consumer. Such a Secret is no credential to authenticate with.
	group string
	// ttl says that the type has an optional ttl.
	ttl bool
	// check is what else must hold. Its error must not contain a value.
	check func(data map[string][]byte) error
}

// types are all credential types, by name. One more is one more row.
var types = []credentialType{
	{name: "acl", required: []string{"group"}, group: "group", check: checkACL},
	{name: "basic-auth", required: []string{"username", "password"}, unique: "username", check: checkBasicAuth},
	{name: "hmac-auth", required: []string{"username", "secret"}, unique: "username", check: checkHMACAuth},
	{name: "jwt", required: []string{"key"}, unique: "key", check: checkJWT},
	{name: "key-auth", required: []string{"key"}, unique: "key", ttl: true, check: checkTTL},
}

func typeNamed(name string) (credentialType, bool) {
	i := slices.IndexFunc(types, func(t credentialType) bool { return t.name == name })
	if i < 0 {
		return credentialType{}, false
	}
	return types[i], true
}

func typeNames() []string {
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = t.name
	}
	return names
}

func (t credentialType) missing(data map[string][]byte) []string {
	var missing []string
	for _, key := range t.required {
		if len(data[key]) == 0 {
			missing = append(missing, key)
		}
	}
	return missing
}

func checkTTL(data map[string][]byte) error {
	ttl, set := data["ttl"]
	if !set {
		return nil
	}
	if _, err := strconv.ParseUint(string(ttl), 10, 32); err != nil {
		return errors.New("ttl must be a whole number of seconds")
	}
	return nil
}

// checkBasicAuth checks that a client can send the username (RFC 7617 §2), and the upstream get it in a header.
func checkBasicAuth(data map[string][]byte) error {
	name := string(data["username"])
	if strings.Contains(name, ":") {
		return errors.New("username has a colon, at which clients end it")
	}
	return checkName("username", name)
}

// checkHMACAuth checks that a client can send the username, which stands between quotes, and the upstream get it in a
// header.
func checkHMACAuth(data map[string][]byte) error {
	if strings.Contains(string(data["username"]), `"`) {
		return errors.New("username has a quote, at which it would end")
	}
	return checkName("username", string(data["username"]))
}

// checkJWT checks that a token can name the credential, and that this has the key that its algorithm needs. The public
// key of an ES algorithm, too, is under rsa_public_key, as in Kong.
func checkJWT(data map[string][]byte) error {
	if err := checkName("key", string(data["key"])); err != nil {
		return err
	}
	algorithm := "HS256"
	if given, set := data["algorithm"]; set {
		algorithm = string(given)
	}
	switch {
	case algorithm == "HS256" || algorithm == "HS384" || algorithm == "HS512":
		if len(data["secret"]) == 0 {
			return fmt.Errorf("%s needs secret", algorithm)
		}
		return nil
	case publickey.Supports(algorithm):
		if len(data["rsa_public_key"]) == 0 {
			return fmt.Errorf("%s needs rsa_public_key, a public key in PEM", algorithm)
		}
		if _, err := publickey.DER(data["rsa_public_key"], algorithm); err != nil {
			return fmt.Errorf("rsa_public_key: %w", err)
		}
		return nil
	}
	return errors.New("algorithm must be one of HS256, HS384, HS512, RS256, RS384, RS512, ES256, ES384, ES512")
}

// checkACL checks that the group can stand in the list of a header.
func checkACL(data map[string][]byte) error {
	return checkGroup("group", string(data["group"]))
}

func checkGroup(key, name string) error {
	if strings.Contains(name, ",") {
		return fmt.Errorf("%s has a comma, which separates groups in X-Consumer-Groups", key)
	}
	return checkName(key, name)
}

// checkName checks that the upstream can get a credential's name in a header.
func checkName(key, name string) error {
	switch {
	case !utf8.ValidString(name):
		return fmt.Errorf("%s is no UTF-8", key)
	case strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("%s has a control character, such as a line break; write it for example with `printf` instead of `echo`", key)
	}
	return nil
}

func endsInSpace(value []byte) bool {
	return len(value) > 0 && strings.ContainsRune(" \t\r\n\v\f", rune(value[len(value)-1]))
}
