// Package publickey reads the public keys with which JSON Web Signatures are verified (RFC 7518).
package publickey

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// curves of the algorithms with elliptic curves.
var curves = map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()}

// Supports says whether an algorithm is known whose keys are public.
func Supports(algorithm string) bool {
	switch algorithm {
	case "RS256", "RS384", "RS512", "ES256", "ES384", "ES512":
		return true
	}
	return false
}

// DER is the key in PEM (PKIX, or PKCS #1 for RSA) as a SubjectPublicKeyInfo, if it is one for the algorithm.
func DER(text []byte, algorithm string) ([]byte, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no public key in PEM")
	}
	key, err := parse(block)
	if err != nil {
		return nil, err
	}
	switch key := key.(type) {
	case *rsa.PublicKey:
		if curves[algorithm] != nil {
			return nil, fmt.Errorf("%s needs an EC public key", algorithm)
		}
	case *ecdsa.PublicKey:
		curve := curves[algorithm]
		if curve == nil {
			return nil, fmt.Errorf("%s needs an RSA public key", algorithm)
		}
		if key.Curve != curve {
			return nil, fmt.Errorf("%s needs a key of curve %s, not %s", algorithm, curve.Params().Name, key.Curve.Params().Name)
		}
	default:
		return nil, fmt.Errorf("%s has no keys of this kind", algorithm)
	}
	return x509.MarshalPKIXPublicKey(key)
}

func parse(block *pem.Block) (any, error) {
	if block.Type == "RSA PUBLIC KEY" {
		if key, err := x509.ParsePKCS1PublicKey(block.Bytes); err == nil {
			return key, nil
		}
		return nil, errors.New("no RSA public key (PKCS #1)")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, errors.New("no public key (PKIX)")
	}
	return key, nil
}
