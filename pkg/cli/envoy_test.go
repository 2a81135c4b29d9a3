package cli

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestEnvoyTakesWhatEveryCaseCompilesTo asks real Envoys, the oldest and the newest that are supported: what a
// compilation does not refuse, Envoy must not refuse either.
func TestEnvoyTakesWhatEveryCaseCompilesTo(t *testing.T) {
	for _, version := range []string{"1.37.0", "1.40.0"} {
		envoy, err := filepath.Abs("../../.bin/envoy-" + version)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(envoy); err != nil {
			t.Fatalf("this test needs Envoy %s as .bin/envoy-%s: %v", version, version, err)
		}
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			for _, c := range goldenCases(t) {
				args := slices.Concat([]string{"lint", "-f", c.input}, c.args)
				_, want, _ := run("", args...)
				_, got, stderr := run("", append(args, "--envoy", envoy)...)
				if got != want || stderr != "" {
					t.Errorf("%s: got %s%s, without Envoy %s", c.name, got, stderr, want)
				}
			}
		})
	}
}
