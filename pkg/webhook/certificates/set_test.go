package certificates_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"maps"
	"net"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/istio-plugins/istio-plugins/pkg/webhook/certificates"
)

const day = 24 * time.Hour

var names = []string{"webhook.istio-system.svc", "127.0.0.1"}

// start is the day on which the first certificates of a test are made.
var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// handshake lets a client that has a bundle meet a server at a time.
func handshake(t *testing.T, now time.Time, serving *tls.Certificate, bundle []byte, name string) error {
	t.Helper()
	clock := clocktesting.NewFakePassiveClock(now)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		t.Fatal("the bundle holds no certificate")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		server := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{*serving}, Time: clock.Now})
		_, _ = io.Copy(io.Discard, server) // The client says what is wrong.
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: name, Time: clock.Now}).Handshake()
}

// next goes on as a replica does that reads what another one wrote.
func next(t *testing.T, data map[string][]byte, now time.Time, settled bool) *certificates.Set {
	t.Helper()
	s, err := certificates.Decode(data).Next(now, names, settled)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func authorities(s *certificates.Set) int {
	return bytes.Count(s.Bundle(), []byte("BEGIN CERTIFICATE"))
}

func TestFirstCertificates(t *testing.T) {
	s := next(t, nil, start, false)
	for _, name := range names {
		if err := handshake(t, start, s.Serving(), s.Bundle(), name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := handshake(t, start, s.Serving(), s.Bundle(), "another.istio-system.svc"); err == nil {
		t.Error("it serves under a name that is not its own")
	}
	// The clocks of clients may be behind.
	if err := handshake(t, start.Add(-30*time.Minute), s.Serving(), s.Bundle(), names[0]); err != nil {
		t.Error(err)
	}
	if again := next(t, s.Data(), start.Add(day), true); !maps.EqualFunc(again.Data(), s.Data(), bytes.Equal) {
		t.Error("it changes without need")
	}
	if wake := s.Wake(start).Sub(start); wake < 200*day || wake > 300*day {
		t.Errorf("it wakes after %s", wake)
	}
}

// TestRotation follows the certificates for three years, six hours at a time. All that a replica may serve that has not
// seen the last change must be accepted by all clients, those that have not seen it either included.
func TestRotation(t *testing.T) {
	type version struct {
		set  *certificates.Set
		from time.Time
	}
	current := version{next(t, nil, start, false), start}
	before := current
	changes, most := 0, 0
	for now := start; now.Before(start.Add(3 * 365 * day)); now = now.Add(6 * time.Hour) {
		settled := now.Sub(current.from) >= time.Hour
		s := next(t, current.set.Data(), now, settled)
		if !maps.EqualFunc(s.Data(), current.set.Data(), bytes.Equal) {
			changes++
			before, current = current, version{s, now}
			if err := handshake(t, now, before.set.Serving(), s.Bundle(), names[0]); err != nil && now.Before(before.set.Serving().Leaf.NotAfter) {
				t.Fatalf("after %s clients refuse what was served before: %v", now.Sub(start), err)
			}
			if err := handshake(t, now, s.Serving(), before.set.Bundle(), names[0]); err != nil {
				t.Fatalf("after %s clients with the bundle of before refuse what is served: %v", now.Sub(start), err)
			}
			if err := handshake(t, now, s.Serving(), s.Bundle(), names[0]); err != nil {
				t.Fatal(err)
			}
		}
		most = max(most, authorities(s))
	}
	if most != 2 {
		t.Errorf("up to %d authorities", most)
	}
	// Each of four successors is added and used, and three predecessors have expired.
	if changes != 11 {
		t.Errorf("%d changes in three years", changes)
	}
}

// A successor is not used as long as clients may not know it, however long that takes; but it is, rather than nothing.
func TestUnpublished(t *testing.T) {
	first := next(t, nil, start, false)
	second := next(t, first.Data(), start.Add(250*day), false)
	if authorities(second) != 2 || !second.Pending() {
		t.Fatalf("%d authorities, pending %t", authorities(second), second.Pending())
	}
	later := next(t, second.Data(), start.Add(360*day), false)
	if err := handshake(t, start.Add(360*day), later.Serving(), first.Bundle(), names[0]); err != nil {
		t.Error(err)
	}
	expired := next(t, later.Data(), start.Add(366*day), false)
	if err := handshake(t, start.Add(366*day), expired.Serving(), later.Bundle(), names[0]); err != nil {
		t.Error(err)
	}
	if authorities(expired) != 1 || expired.Pending() {
		t.Errorf("%d authorities, pending %t", authorities(expired), expired.Pending())
	}
}

// Whatever is done to the Secret, the next set is good, and clients lose no authority that may still be in use.
func TestRepair(t *testing.T) {
	good := next(t, nil, start, false)
	other := next(t, nil, start, false)
	for name, c := range map[string]struct {
		spoil func(map[string][]byte)
		// keeps says that clients which have the bundle of before accept what is served then.
		keeps bool
	}{
		"nothing is left":              {func(d map[string][]byte) { clear(d) }, false},
		"no bundle":                    {func(d map[string][]byte) { delete(d, "ca.crt") }, false},
		"a bundle that is none":        {func(d map[string][]byte) { d["ca.crt"] = []byte("x") }, false},
		"no key of the authority":      {func(d map[string][]byte) { delete(d, "ca.key") }, true},
		"another authority's key":      {func(d map[string][]byte) { d["ca.key"] = other.Data()["ca.key"] }, true},
		"no certificate":               {func(d map[string][]byte) { delete(d, "tls.crt") }, true},
		"another server's certificate": {func(d map[string][]byte) { d["tls.crt"] = other.Data()["tls.crt"] }, true},
		"another server's pair": {func(d map[string][]byte) {
			d["tls.crt"], d["tls.key"] = other.Data()["tls.crt"], other.Data()["tls.key"]
		}, true},
		"a leaf among the authorities": {func(d map[string][]byte) { d["ca.crt"] = append(bytes.Clone(d["ca.crt"]), d["tls.crt"]...) }, true},
		"an authority of somebody's":   {func(d map[string][]byte) { d["ca.crt"] = append(bytes.Clone(d["ca.crt"]), other.Data()["ca.crt"]...) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			data := maps.Clone(good.Data())
			c.spoil(data)
			s := next(t, data, start.Add(day), false)
			if err := handshake(t, start.Add(day), s.Serving(), s.Bundle(), names[0]); err != nil {
				t.Error(err)
			}
			err := handshake(t, start.Add(day), s.Serving(), good.Bundle(), names[0])
			if c.keeps != (err == nil) {
				t.Errorf("with the bundle of before: %v", err)
			}
			if again := next(t, s.Data(), start.Add(day), false); !maps.EqualFunc(again.Data(), s.Data(), bytes.Equal) {
				t.Error("it changes again")
			}
		})
	}
}

// A new name of the server needs another certificate, but no other authority.
func TestNewName(t *testing.T) {
	first := next(t, nil, start, false)
	s, err := certificates.Decode(first.Data()).Next(start.Add(day), []string{"other.istio-system.svc"}, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := handshake(t, start.Add(day), s.Serving(), first.Bundle(), "other.istio-system.svc"); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(s.Bundle(), first.Bundle()) {
		t.Error("the bundle changes")
	}
}

// Two replicas whose clocks are far apart come to an end, and one that is ahead does not take from the other what it serves.
func TestClocksApart(t *testing.T) {
	for _, apart := range []time.Duration{-2000 * day, -250 * day, -2 * time.Hour, 2 * time.Hour, 250 * day, 2000 * day} {
		s := next(t, nil, start, false)
		changes := 0
		for range 10 {
			for _, at := range []time.Time{start.Add(apart), start} {
				before := s
				if s = next(t, s.Data(), at, true); !maps.EqualFunc(s.Data(), before.Data(), bytes.Equal) {
					changes++
				}
			}
		}
		if changes > 2 {
			t.Errorf("%s apart: %d changes", apart, changes)
		}
		later := start.Add(max(0, apart))
		if err := handshake(t, later, s.Serving(), s.Bundle(), names[0]); err != nil {
			t.Errorf("%s apart: %v", apart, err)
		}
	}
}
