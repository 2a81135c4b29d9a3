// Package certificates gives a gateway the certificates of its TLS servers, in the place of Istio's agent: istiod makes
// Envoy ask the agent for `file-cert:<certificate>~<key>` where a Gateway names files, and there is no agent here.
package certificates

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
	listener net.Listener
	grpc     *grpc.Server
}

// Start serves on a free port of 127.0.0.1.
func Start() (*Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{listener: listener, grpc: grpc.NewServer()}
	secretv3.RegisterSecretDiscoveryServiceServer(s.grpc, s)
	go func() { _ = s.grpc.Serve(listener) }() // It returns when Stop closes the listener.
	return s, nil
}

// Port that the server listens on.
func (s *Server) Port() int { return s.listener.Addr().(*net.TCPAddr).Port }

// Stop closes the server and its connections.
func (s *Server) Stop() { s.grpc.Stop() }

// StreamSecrets answers a request for a secret with a certificate made for it. Certificates never change, so what
// follows on the same stream is Envoy's acknowledgement.
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
			secret, err := secretFor(name)
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

func secretFor(name string) (*anypb.Any, error) {
	certificate, key, err := selfSigned(name)
	if err != nil {
		return nil, err
	}
	return anypb.New(&tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: inline(certificate),
		PrivateKey:       inline(key),
	}}})
}

func inline(text []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: text}}
}

// selfSigned is a certificate whose subject says for which secret it was made.
func selfSigned(name string) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-lifetime),
		NotAfter:     now.Add(lifetime),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}
