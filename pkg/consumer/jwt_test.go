package consumer_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/consumer"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

func publicPEM(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func TestJWTCredentials(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edKey, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaPEM, ecPEM, edPEM := publicPEM(t, &rsaKey.PublicKey), publicPEM(t, &ecKey.PublicKey), publicPEM(t, edKey)
	for _, c := range []struct {
		name string
		data []string
		want string // part of the finding; empty where the credential is usable
	}{
		{"HS256 is the default", []string{"secret", "s"}, ""},
		{"HS256 without secret", nil, "HS256 needs secret"},
		{"RS256", []string{"algorithm", "RS256", "rsa_public_key", rsaPEM}, ""},
		{"RS256 with only a secret", []string{"algorithm", "RS256", "secret", "s"}, "RS256 needs rsa_public_key, a public key in PEM"},
		{"RS256 with an EC key", []string{"algorithm", "RS256", "rsa_public_key", ecPEM}, "rsa_public_key: RS256 needs an RSA public key"},
		{"ES256", []string{"algorithm", "ES256", "rsa_public_key", ecPEM}, ""},
		{"ES256 with an RSA key", []string{"algorithm", "ES256", "rsa_public_key", rsaPEM}, "rsa_public_key: ES256 needs an EC public key"},
		{"ES384 with a key of another curve", []string{"algorithm", "ES384", "rsa_public_key", ecPEM}, "rsa_public_key: ES384 needs a key of curve P-384, not P-256"},
		{"RS256 with something else than PEM", []string{"algorithm", "RS256", "rsa_public_key", "x"}, "rsa_public_key: no public key in PEM"},
		{"PEM around nothing", []string{"algorithm", "RS256", "rsa_public_key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"}, "rsa_public_key: no public key (PKIX)"},
		{"PS256 is not supported", []string{"algorithm", "PS256", "rsa_public_key", rsaPEM}, "algorithm must be one of"},
		{"EdDSA is not supported", []string{"algorithm", "EdDSA", "rsa_public_key", edPEM}, "algorithm must be one of"},
	} {
		t.Run(c.name, func(t *testing.T) {
			index, findings := consumer.New(&snapshot.Snapshot{
				Consumers: []*pluginsv1alpha1.Consumer{user("alice", "a1")},
				Secrets:   []*corev1.Secret{secret("a1", "jwt", append([]string{"key", "issuer"}, c.data...)...)},
			})
			usable, _ := index.In("shop", nil, "jwt")
			if c.want == "" {
				if len(findings) > 0 || len(usable.All) != 1 {
					t.Errorf("%d usable, findings %v", len(usable.All), findings)
				}
				return
			}
			if len(findings) != 1 || !strings.Contains(findings[0].String(), c.want) || len(usable.All) != 0 {
				t.Errorf("%d usable, findings %v, want %q", len(usable.All), findings, c.want)
			}
		})
	}
}
