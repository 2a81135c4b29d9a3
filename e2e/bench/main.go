// Command bench prints what plugins cost, as tables: istiod's time, Envoy's CPU time per request, for chains and for each
// built-in, Envoy's memory, and the controller's time to effect. It runs istiod's own code in its own process, and real
// Envoys; for the controller the whole stack. Every table compares variants that were measured side by side, in rounds
// A B C, A B C; the ratios mean something on a noisy machine, too, the absolute numbers only on the one that made them. No
// number makes it fail; a gateway that does not run what it is measured with does, and so does a built-in without a case in
// builtins.yaml.
//
// What a compilation costs is measured where it is made, by the benchmarks of pkg/compile.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"istio.io/istio/pilot/pkg/features"
	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/security"
)

// setup is what all measurements share.
type setup struct {
	// envoy is the program.
	envoy string
	// dir is a folder for bootstraps and logs.
	dir string
	// short measures less of everything.
	short bool
}

func main() {
	envoy := flag.String("envoy", "../.bin/envoy-1.40.0", "the Envoy to measure")
	short := flag.Bool("short", false, "fewer rounds, and no gateway with 10,000 routes on Envoy: a few minutes")
	only := flag.String("only", "istiod,cpu,builtins,memory,attachments,controller", "what to measure")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, *envoy, *short, strings.Split(*only, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, envoy string, short bool, parts []string) error {
	configureIstiod()
	envoy, err := filepath.Abs(envoy)
	if err != nil {
		return err
	}
	if _, err := os.Stat(envoy); err != nil {
		return fmt.Errorf("%w: `make %s` provides it", err, filepath.Join(".bin", filepath.Base(envoy)))
	}
	dir, err := os.MkdirTemp("", "istio-plugins-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := setup{envoy: envoy, dir: dir, short: short}
	measurements := map[string]func(context.Context, setup) error{
		"istiod":      measureIstiod,
		"cpu":         measureRequests,
		"builtins":    measureBuiltins,
		"memory":      measureMemory,
		"attachments": measureAttachments,
		"controller":  measureController,
	}
	for _, part := range parts {
		measure, ok := measurements[part]
		if !ok {
			return fmt.Errorf("nothing to measure is called %q", part)
		}
		if err := measure(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
	}
	return nil
}

// configureIstiod makes istiod's code serve the public Envoy, which lacks the filters that istio-proxy adds, and take
// the word of a gateway that connects without TLS for who it is.
func configureIstiod() {
	features.ALPNFilter = false
	features.MetadataExchange = false
	security.AuthPlaintext = true
	for _, scope := range log.Scopes() {
		scope.SetOutputLevel(log.NoneLevel)
	}
}
