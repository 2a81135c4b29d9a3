package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/security"
	"istio.io/istio/pkg/test"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// startIstiod serves a world by xDS, complete from the first moment, so that no gateway ever holds an older state. It
// returns its address.
func startIstiod(t test.Failer, w world) string {
	configs, err := w.configs()
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := w.secrets()
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, configs, secrets)
}

// serve is startIstiod with the objects themselves.
func serve(t test.Failer, configs []config.Config, secrets []runtime.Object) string {
	m := mesh.DefaultMeshConfig()
	// With it, an Envoy without Istio's agent waits for certificates for ever.
	m.EnableAutoMtls = wrapperspb.Bool(false)
	s := xds.NewFakeDiscoveryServer(t, xds.FakeOptions{
		MeshConfig:                 m,
		Configs:                    configs,
		KubernetesObjects:          secrets,
		DisableSecretAuthorization: true,
		ListenerBuilder:            func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") },
	})
	s.Discovery.Authenticators = []security.Authenticator{trusting{}}
	return s.Listener.Addr().String()
}

// trusting takes everybody for a gateway: istiod gives certificates to nobody else.
type trusting struct{}

func (trusting) Authenticate(security.AuthContext) (*security.Caller, error) {
	return &security.Caller{Identities: []string{"spiffe://cluster.local/ns/" + gatewayNamespace + "/sa/gateway"}}, nil
}

func (trusting) AuthenticatorType() string { return "trusting" }

// secrets are the certificates of the TLS servers.
func (w world) secrets() ([]runtime.Object, error) {
	var out []runtime.Object
	for i := range w.tlsServers {
		certificate, key, err := selfSigned("*." + w.domain(i))
		if err != nil {
			return nil, err
		}
		out = append(out, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: secretName(i), Namespace: gatewayNamespace},
			Type:       corev1.SecretTypeTLS,
			Data:       map[string][]byte{corev1.TLSCertKey: certificate, corev1.TLSPrivateKeyKey: key},
		})
	}
	return out, nil
}

func selfSigned(host string) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return nil, nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), nil
}
