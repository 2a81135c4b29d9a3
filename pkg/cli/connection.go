package cli

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/cluster"
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
	rules.WarnIfAllMissing = false // the error says it
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: c.context})
}

func (c *connection) config() (*rest.Config, error) { return c.loader().ClientConfig() }

// given says whether the user has chosen a cluster.
func (c *connection) given() bool { return c.kubeconfig != "" || c.context != "" }

// contextNamespace is the namespace of the kubeconfig's context.
func (c *connection) contextNamespace() (string, error) {
	namespace, _, err := c.loader().Namespace()
	return namespace, wordy(err)
}

// reader reads from the cluster's API server.
func (c *connection) reader() (client.Reader, error) {
	config, err := c.config()
	if err != nil {
		return nil, wordy(err)
	}
	config.QPS = -1 // The API server knows best how much it can bear.
	config.WarningHandlerWithContext = rest.NoWarnings{}
	// What is wrong is in the errors.
	ctrl.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())
	r, err := client.New(config, client.Options{Scheme: cluster.NewScheme()})
	if err != nil {
		return nil, wordy(err)
	}
	return cluster.Paged(r), nil
}

// clusterHelp is for commands that read a cluster.
const clusterHelp = `A cluster is read with kubectl's kubeconfig and context, or those of --kubeconfig
and --context. That takes the right to list, in all namespaces,
  virtualservices, gateways and serviceentries (networking.istio.io)
  plugins, clusterplugins and consumers (plugins.istio.io)
  referencegrants and httproutes (gateway.networking.k8s.io), if there are such
  services and secrets; of Secrets those with a credential label are listed
in Istio's root namespace
  envoyfilters (networking.istio.io), wasmplugins (extensions.istio.io)
and to get the configmaps and secrets that Plugins name. Nothing is written.`

// wordy says what to do about an error of a cluster.
func wordy(err error) error {
	var missing *meta.NoKindMatchError
	var unreachable *url.Error
	switch {
	case clientcmd.IsEmptyConfig(err):
		return errors.New("there is no kubeconfig that says where a cluster is: name files or folders with -f, or a kubeconfig with --kubeconfig or $KUBECONFIG")
	case clientcmd.IsContextNotFound(err):
		return fmt.Errorf("the kubeconfig has no such context, kubectl config get-contexts lists them: %w", err)
	case errors.As(err, &missing) && missing.GroupKind.Group == pluginsv1alpha1.GroupVersion.Group:
		return fmt.Errorf("the cluster has no kind %s: install the CRDs by kubectl apply --server-side -f crds/, or choose another cluster by --context", missing.GroupKind)
	case errors.As(err, &missing):
		return fmt.Errorf("the cluster has no kind %s: install Istio, or choose another cluster by --context", missing.GroupKind)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("the cluster does not let you read what is needed; ask for the rights that --help lists: %w", err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("the cluster does not know you; log in to it anew, or choose another context by --context: %w", err)
	case errors.As(err, &unreachable):
		return fmt.Errorf("the cluster does not answer; look whether it runs, or choose another one by --context: %w", err)
	}
	return err
}
