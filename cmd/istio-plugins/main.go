// Command istio-plugins compiles, checks and explains plugins of Istio's gateways.
package main

import (
	"os"

	"github.com/istio-plugins/istio-plugins/pkg/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
