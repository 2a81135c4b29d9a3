package cli

import (
	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// connection are the flags that say which cluster is meant. Without them it is kubectl's, or the one that the program
// runs in.
type connection struct{ kubeconfig, context string }

func (c *connection) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.kubeconfig, "kubeconfig", "", "path of a kubeconfig; $KUBECONFIG or ~/.kube/config if not given")
	cmd.Flags().StringVar(&c.context, "context", "", "context of the kubeconfig")
	must(cmd.MarkFlagFilename("kubeconfig"))
}

func (c *connection) loader() clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.kubeconfig
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: c.context})
}

func (c *connection) config() (*rest.Config, error) { return c.loader().ClientConfig() }
