package publickey_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/publickey"
)

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func TestDER(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edKey, edPrivate, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkix := func(key any) []byte {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	private, err := x509.MarshalPKCS8PrivateKey(edPrivate)
	if err != nil {
		t.Fatal(err)
	}
	rsaDER, ecDER := pkix(&rsaKey.PublicKey), pkix(&p256.PublicKey)
	for _, c := range []struct {
		name      string
		text      []byte
		algorithm string
		der       []byte
		err       string
	}{
		{"RSA", pemOf("PUBLIC KEY", rsaDER), "RS256", rsaDER, ""},
		{"RSA as PKCS #1", pemOf("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)), "RS512", rsaDER, ""},
		{"EC", pemOf("PUBLIC KEY", ecDER), "ES256", ecDER, ""},
		{"text around the key", append([]byte("the key:\n"), pemOf("PUBLIC KEY", ecDER)...), "ES256", ecDER, ""},
		{"another curve", pemOf("PUBLIC KEY", ecDER), "ES384", nil, "ES384 needs a key of curve P-384, not P-256"},
		{"RSA for ES", pemOf("PUBLIC KEY", rsaDER), "ES256", nil, "ES256 needs an EC public key"},
		{"EC for RS", pemOf("PUBLIC KEY", ecDER), "RS256", nil, "RS256 needs an RSA public key"},
		{"Ed25519", pemOf("PUBLIC KEY", pkix(edKey)), "RS256", nil, "RS256 has no keys of this kind"},
		{"a private key", pemOf("PRIVATE KEY", private), "RS256", nil, "no public key (PKIX)"},
		{"PKIX called PKCS #1", pemOf("RSA PUBLIC KEY", rsaDER), "RS256", nil, "no RSA public key (PKCS #1)"},
		{"nothing", nil, "RS256", nil, "no public key in PEM"},
		{"no PEM", rsaDER, "RS256", nil, "no public key in PEM"},
	} {
		t.Run(c.name, func(t *testing.T) {
			der, err := publickey.DER(c.text, c.algorithm)
			if !bytes.Equal(der, c.der) {
				t.Errorf("another key: %x", der)
			}
			if c.err == "" && err != nil || c.err != "" && (err == nil || err.Error() != c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
		})
	}
}
