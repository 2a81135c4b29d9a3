// Package certificates keeps a server's self-signed certificates in one Secret that all replicas of the server share:
// made where they are missing, renewed long before they expire, and never exchanged before clients trust the new ones.
// It needs no file system and no restart. Set is the pure part, what the Secret holds and what becomes of it; Keeper
// does the reading, writing and serving.
//
// A certificate authority (CA) lives for a year and signs one serving certificate, which expires with it:
//
//	day   0  bundle [CA 1]        served: by CA 1
//	day 243  bundle [CA 2, CA 1]  served: by CA 1   CA 2 is made and published, nothing is served with it yet
//	  + 10m  bundle [CA 2, CA 1]  served: by CA 2   once the clients have had CA 2 for ten minutes
//	day 365  bundle [CA 2]        served: by CA 2   CA 1 has expired
//
// So at every moment, whatever a replica serves that has not seen the last change, clients can verify it.
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
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

const (
	lifetime = 365 * 24 * time.Hour
	// renewal is the age at which a CA gets its successor: the rest is time for somebody to notice that it fails.
	renewal = lifetime * 2 / 3
	// skew is how far a client's clock may be behind.
	skew = time.Hour
	// settling is how long clients have had a new CA before it is used. API servers learn of it by a watch, in
	// milliseconds; one whose watch is broken needs longer.
	settling = 10 * time.Minute
)

// The keys of the Secret, which is of type kubernetes.io/tls. ca.crt holds the bundle, the newest CA first.
const (
	servingCertKey = corev1.TLSCertKey
	servingKeyKey  = corev1.TLSPrivateKeyKey
	bundleKey      = "ca.crt"
	caKeyKey       = "ca.key"
)

// Set is the certificates that belong together. It is not modified after it was made.
type Set struct {
	// authorities, the newest first.
	authorities []*x509.Certificate
	// key of the newest authority; nil if it is not usable.
	key crypto.Signer
	// serving is nil if there is none that can be used.
	serving *tls.Certificate
	data    map[string][]byte
}

// Decode reads a Secret's data. What cannot be used is left out: Next makes it anew.
func Decode(data map[string][]byte) *Set {
	s := &Set{data: data}
	if authorities, err := cert.ParseCertsPEM(data[bundleKey]); err == nil {
		s.authorities = slices.DeleteFunc(authorities, func(c *x509.Certificate) bool { return !c.IsCA })
	}
	if key, err := keyutil.ParsePrivateKeyPEM(data[caKeyKey]); err == nil && len(s.authorities) > 0 {
		if signer, ok := key.(crypto.Signer); ok && samePublicKey(signer.Public(), s.authorities[0].PublicKey) {
			s.key = signer
		}
	}
	if serving, err := tls.X509KeyPair(data[servingCertKey], data[servingKeyKey]); err == nil {
		s.serving = &serving
	}
	return s
}

func samePublicKey(a, b crypto.PublicKey) bool {
	known, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && known.Equal(b)
}

// Data is what the Secret holds.
func (s *Set) Data() map[string][]byte { return s.data }

// Bundle is what clients verify the server with, in PEM.
func (s *Set) Bundle() []byte { return s.data[bundleKey] }

// Serving is what the server shows; nil if there is none.
func (s *Set) Serving() *tls.Certificate { return s.serving }

// Next is what the set has to become now for a server of these names; itself if nothing changes. settled says that
// clients have had its bundle for long enough.
func (s *Set) Next(now time.Time, names []string, settled bool) (*Set, error) {
	next := &Set{key: s.key, serving: s.serving}
	for _, ca := range s.authorities {
		if now.Before(ca.NotAfter) {
			next.authorities = append(next.authorities, ca)
		}
	}
	if len(next.authorities) > 0 && next.authorities[0] != s.authorities[0] {
		next.key = nil // it is the key of one that has expired
	}
	if next.due(now) {
		if err := next.addAuthority(now); err != nil {
			return nil, err
		}
		settled = false
	}
	if !next.serves(now, names) || settled && !next.servesNewest() {
		if err := next.sign(now, names); err != nil {
			return nil, err
		}
	}
	if next.serving == s.serving && slices.EqualFunc(next.authorities, s.authorities, (*x509.Certificate).Equal) {
		return s, nil
	}
	return next, next.encode()
}

// Wake is when Next may have something to do again, if nothing else happens.
func (s *Set) Wake(now time.Time) time.Time {
	wake := now.Add(lifetime)
	for i, ca := range s.authorities {
		at := ca.NotAfter
		if i == 0 {
			at = ca.NotBefore.Add(skew + renewal)
		}
		if at.Before(wake) {
			wake = at
		}
	}
	return wake
}

// Pending says whether the newest authority waits for clients to know it.
func (s *Set) Pending() bool { return s.serving != nil && !s.servesNewest() }

// due says whether there has to be a new authority.
func (s *Set) due(now time.Time) bool {
	return len(s.authorities) == 0 || s.key == nil || !now.Before(s.authorities[0].NotBefore.Add(skew+renewal))
}

// serves says whether clients that have the bundle accept what is served, under each of the names. What is not valid yet
// will be: if the clocks of two replicas are far apart, nobody here can tell which one is wrong, and replicas that made
// anew what the other one has made would never end.
func (s *Set) serves(now time.Time, names []string) bool {
	if s.serving == nil {
		return false
	}
	if from := s.serving.Leaf.NotBefore; now.Before(from) {
		now = from
	}
	roots := x509.NewCertPool()
	for _, ca := range s.authorities {
		roots.AddCert(ca)
	}
	return !slices.ContainsFunc(names, func(name string) bool {
		_, err := s.serving.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: now})
		return err != nil
	})
}

// servesNewest says whether the newest authority has signed what is served.
func (s *Set) servesNewest() bool {
	return len(s.authorities) > 0 && s.serving.Leaf.CheckSignatureFrom(s.authorities[0]) == nil
}

// addAuthority puts a new authority before the others.
func (s *Set) addAuthority(now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := certificate(now, "istio-plugins webhook CA")
	template.NotAfter = now.Add(lifetime)
	template.KeyUsage = x509.KeyUsageCertSign
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	ca, err := create(template, template, key.Public(), key)
	if err != nil {
		return err
	}
	s.authorities, s.key = slices.Insert(s.authorities, 0, ca), key
	return nil
}

// sign makes what is served, by the newest authority.
func (s *Set) sign(now time.Time, names []string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := s.authorities[0]
	template := certificate(now, "istio-plugins webhook")
	if template.NotBefore.Before(ca.NotBefore) {
		template.NotBefore = ca.NotBefore
	}
	template.NotAfter = ca.NotAfter
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	leaf, err := create(template, ca, key.Public(), s.key)
	if err != nil {
		return err
	}
	s.serving = &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	return nil
}

func certificate(now time.Time, name string) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-skew)}
}

func create(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial.Add(serial, big.NewInt(1)) // which may not be zero
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// encode writes the set as a Secret's data.
func (s *Set) encode() error {
	bundle, err := cert.EncodeCertificates(s.authorities...)
	if err != nil {
		return err
	}
	caKey, err := keyutil.MarshalPrivateKeyToPEM(s.key)
	if err != nil {
		return err
	}
	servingKey, err := keyutil.MarshalPrivateKeyToPEM(s.serving.PrivateKey)
	if err != nil {
		return err
	}
	s.data = map[string][]byte{
		servingCertKey: pem.EncodeToMemory(&pem.Block{Type: cert.CertificateBlockType, Bytes: s.serving.Leaf.Raw}),
		servingKeyKey:  servingKey,
		bundleKey:      bundle,
		caKeyKey:       caKey,
	}
	return nil
}
