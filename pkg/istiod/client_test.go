package istiod

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

// TestUnknown is about what is no istiod; e2e/istiodstatus has the rest.
func TestUnknown(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, c := range map[string]struct {
		addresses func(context.Context) ([]Address, error)
		want      string
	}{
		"no addresses": {
			func(context.Context) ([]Address, error) { return nil, nil },
			"no istiod is known",
		},
		"addresses are not known": {
			func(context.Context) ([]Address, error) { return nil, errors.New("forbidden") },
			"its addresses are not known: forbidden",
		},
		"it accepts connections and says nothing": {
			func(context.Context) ([]Address, error) { return []Address{{XDS: silent.Addr().String()}}, nil },
			"it does not answer",
		},
	} {
		t.Run(name, func(t *testing.T) {
			client := New(Options{Addresses: c.addresses, RootNamespace: "istio-system", Timeout: 100 * time.Millisecond})
			defer client.Close()
			client.Expect(t.Context(), Workload{Parts: map[string]string{"a": "1"}})
			m, err := client.Mark(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			if v := client.Check(t.Context(), m, Workload{})[0]; v.State != Unknown || !strings.Contains(v.Message, c.want) {
				t.Errorf("got %s: %q, want %q", v.State, v.Message, c.want)
			}
		})
	}
}
