package jwt

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// key is one of a JSON Web Key Set (RFC 7517, RFC 7518 §6). Private parts are only asked for whether they are there.
type key struct {
	KeyType string          `json:"kty"`
	Curve   string          `json:"crv"`
	N       string          `json:"n"`
	E       string          `json:"e"`
	X       string          `json:"x"`
	Y       string          `json:"y"`
	Private json.RawMessage `json:"d"`

	// What YAML makes of y and n without quotes.
	True  json.RawMessage `json:"true"`
	False json.RawMessage `json:"false"`
}

// readJWKS returns the text of a key set that is given as a JSON string or as an object. Its keys must be public ones of
// which Envoy can make use.
func readJWKS(given json.RawMessage) (string, error) {
	text := []byte(given)
	var quoted string
	if json.Unmarshal(given, &quoted) == nil {
		text = []byte(quoted)
	}
	var set struct {
		Keys []key `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return "", errors.New("is no JSON Web Key Set, which is a JSON object with a list `keys`")
	}
	if len(set.Keys) == 0 {
		return "", errors.New("has no keys")
	}
	for i, k := range set.Keys {
		if err := k.check(); err != nil {
			return "", fmt.Errorf("keys[%d] %w", i, err)
		}
	}
	return string(text), nil
}

func (k key) check() error {
	if k.KeyType == "oct" {
		return errors.New("is a secret, not a public key; give it to a Consumer, as a credential of type jwt")
	}
	if k.Private != nil {
		return errors.New("is a private key, which nobody but the issuer should have; take its public part")
	}
	if k.True != nil || k.False != nil {
		return errors.New("has a field true or false, which YAML makes of y and n: write them in quotes, or the key set as a JSON string")
	}
	switch k.KeyType {
	case "RSA":
		if len(bytesOf(k.N)) == 0 || len(bytesOf(k.E)) == 0 {
			return errors.New("needs n and e in base64url")
		}
		return nil
	case "EC":
		return k.checkPoint()
	case "OKP":
		const size = 32 // of Ed25519
		if k.Curve != "Ed25519" || len(bytesOf(k.X)) != size {
			return errors.New("needs crv Ed25519, and x in base64url")
		}
		return nil
	}
	return fmt.Errorf("has the kty %q, known are RSA, EC and OKP", k.KeyType)
}

func (k key) checkPoint() error {
	curves := []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()}
	at := slices.IndexFunc(curves, func(c elliptic.Curve) bool { return c.Params().Name == k.Curve })
	if at < 0 {
		return fmt.Errorf("has the crv %q, known are P-256, P-384 and P-521", k.Curve)
	}
	point := slices.Concat([]byte{4}, bytesOf(k.X), bytesOf(k.Y)) // uncompressed (SEC 1, 2.3.3)
	if _, err := ecdsa.ParseUncompressedPublicKey(curves[at], point); err != nil {
		return fmt.Errorf("needs x and y of a point on %s in base64url", k.Curve)
	}
	return nil
}

// bytesOf decodes base64url; nil where it is none.
func bytesOf(text string) []byte {
	decoded, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	return decoded
}
