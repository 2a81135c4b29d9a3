// Package certificates gives a gateway what it needs for TLS, in the place of Istio's agent: istiod makes Envoy ask the agent
// for `file-cert:<certificate>~<key>` where a Gateway names files, and for `file-root:system`, the authorities that the
// machine trusts, where a DestinationRule names none. There is no agent here.
package certificates

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
)

// lifetime of a certificate, which no test outlives.
const lifetime = 24 * time.Hour

// Server answers Envoy's requests for secrets.
type Server struct {
	secretv3.UnimplementedSecretDiscoveryServiceServer
	listener  net.Listener
	grpc      *grpc.Server
	authority *authority
}

// Start serves on a free port of 127.0.0.1.
func Start() (*Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	trusted, err := newAuthority()
	if err != nil {
		return nil, err
	}
	s := &Server{listener: listener, grpc: grpc.NewServer(), authority: trusted}
	secretv3.RegisterSecretDiscoveryServiceServer(s.grpc, s)
	go func() { _ = s.grpc.Serve(listener) }() // It returns when Stop closes the listener.
	return s, nil
}

// Port that the server listens on.
func (s *Server) Port() int { return s.listener.Addr().(*net.TCPAddr).Port }

// Stop closes the server and its connections.
func (s *Server) Stop() { s.grpc.Stop() }

// For is a certificate for names that gateways trust as one of the machine's authorities.
func (s *Server) For(names ...string) (tls.Certificate, error) {
	template := newTemplate("server")
	template.DNSNames = names
	return sign(template, s.authority.certificate, s.authority.key)
}

// StreamSecrets answers a request for a secret with a certificate made for it, or the trusted authority's. They never change,
// so what follows on the same stream is Envoy's acknowledgement.
func (s *Server) StreamSecrets(stream secretv3.SecretDiscoveryService_StreamSecretsServer) error {
	for {
		request, err := stream.Recv()
		if err != nil {
			return err
		}
		if request.ResponseNonce != "" {
			continue
		}
		response := &discoveryv3.DiscoveryResponse{VersionInfo: "1", Nonce: "1", TypeUrl: request.TypeUrl}
		for _, name := range request.ResourceNames {
			secret, err := s.secret(name)
			if err != nil {
				return err
			}
			response.Resources = append(response.Resources, secret)
		}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
}

// systemRoots is the secret with the authorities that the machine trusts.
const systemRoots = "file-root:system"

func (s *Server) secret(name string) (*anypb.Any, error) {
	if name == systemRoots {
		return anypb.New(&tlsv3.Secret{Name: name, Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: inline(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.authority.certificate.Raw})),
		}}})
	}
	// The subject says for which secret it was made.
	certificate, err := sign(newTemplate(name), nil, nil)
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		return nil, err
	}
	return anypb.New(&tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: inline(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})),
		PrivateKey:       inline(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
	}}})
}

func inline(text []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: text}}
}

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

func newAuthority() (*authority, error) {
	template := newTemplate("authority")
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	own, err := sign(template, nil, nil)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(own.Certificate[0])
	if err != nil {
		return nil, err
	}
	return &authority{certificate, own.PrivateKey.(crypto.Signer)}, nil
}

func newTemplate(subject string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: subject},
		NotBefore:    now.Add(-lifetime),
		NotAfter:     now.Add(lifetime),
	}
}

// sign makes a key and a certificate for it, which nobody has signed but itself where there is no parent.
func sign(template, parent *x509.Certificate, by crypto.Signer) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	if parent == nil {
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
