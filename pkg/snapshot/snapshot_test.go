package snapshot_test

import (
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]string{
		"1.29": "1.29", "v1.31": "1.31", "1.31.2": "1.31", "1.40": "1.40", "2.0": "2.0",
		"1.28": "", "0.99": "", "": "", "new": "", "1": "",
	} {
		v, err := snapshot.ParseVersion(text)
		if got := v.String(); (err == nil) != (want != "") || want != "" && got != want {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
}
