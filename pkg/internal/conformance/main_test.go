package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Cases are the innermost tests on an Envoy; a failure is that of the test that failed itself.
func TestRead(t *testing.T) {
	events := strings.Join([]string{
		`{"Action":"run","Test":"TestConfig"}`,
		`{"Action":"output","Test":"TestConfig","Output":"x.go:1: conformance config: {\"plugin\":\"p\",\"config\":{}}\n"}`,
		`{"Action":"fail","Test":"TestConfig"}`,
		`{"Action":"run","Test":"TestA"}`,
		`{"Action":"output","Test":"TestA","Output":"x.go:1: conformance config: {\"plugin\":\"p\","}`,
		`{"Action":"output","Test":"TestA","Output":"\"config\":{\"a\":1}}\n"}`,
		`{"Action":"run","Test":"TestA/1.37.0"}`,
		`{"Action":"output","Test":"TestA/1.37.0","Output":"x.go:1: runs on Envoy 1.37.0\n"}`,
		`{"Action":"run","Test":"TestA/1.37.0/good"}`, `{"Action":"pass","Test":"TestA/1.37.0/good"}`,
		`{"Action":"run","Test":"TestA/1.37.0/bad"}`, `{"Action":"fail","Test":"TestA/1.37.0/bad"}`,
		`{"Action":"fail","Test":"TestA/1.37.0"}`,
		`{"Action":"run","Test":"TestA/1.40.0"}`,
		`{"Action":"output","Test":"TestA/1.40.0","Output":"x.go:1: runs on Envoy 1.40.0\n"}`,
		`{"Action":"run","Test":"TestA/1.40.0/good"}`, `{"Action":"pass","Test":"TestA/1.40.0/good"}`,
		`{"Action":"fail","Test":"TestA/1.40.0"}`, // by itself
		`{"Action":"fail","Test":"TestA"}`,
		`{"Action":"run","Test":"TestB"}`,
		`{"Action":"output","Test":"TestB","Output":"x.go:1: runs on Envoy 1.37.0\n"}`,
		`{"Action":"output","Test":"TestB","Output":"x.go:1: runs on Envoy 1.40.0\n"}`,
		`{"Action":"pass","Test":"TestB"}`,
		`{"Action":"fail"}`,
	}, "\n")
	r, err := read(strings.NewReader(events), false)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"TestA/1.37.0/bad", "TestA/1.40.0"}, r.failed); diff != "" {
		t.Errorf("failed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int{"1.37.0": 2, "1.40.0": 2}, r.cases); diff != "" {
		t.Errorf("cases (-want +got):\n%s", diff)
	}
	if len(r.uses) != 1 || r.uses[0].test != "TestA" || string(r.uses[0].Config.Config.JSON()) != `{"a":1}` {
		t.Errorf("uses %+v", r.uses)
	}
	if r, err := read(strings.NewReader(events), true); err != nil || !slices.Equal(r.failed, []string{"TestA/1.37.0/bad"}) {
		t.Errorf("the first that failed is %v, %v", r.failed, err)
	}
}
