package cli

import (
	"fmt"
	"os"
	"strings"

	"github.com/go-logr/logr"
	"github.com/go-logr/zapr"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/istio-plugins/istio-plugins/pkg/controller"
)

// istiodTokenFile is where a pod finds the token by which istiod knows it, in the manifests of this project as in Istio's.
const istiodTokenFile = "/var/run/secrets/tokens/istio-token"

func newController() *cobra.Command {
	var in installation
	var kube connection
	var o controller.Options
	var level, format string
	var webhooks controller.Webhooks
	var withWebhooks bool
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Keep a cluster's gateways running the plugins of their routes",
		Long: `controller watches VirtualServices, Gateways, Plugins and what belongs to them,
and keeps the generated objects in Istio's root namespace as they should be. It
reports on the status of Plugins, and by Events on annotated objects, which it
never changes.

It runs in a cluster, or outside with a kubeconfig.`,
		Example: `  # in a cluster, as the manifests start it
  istio-plugins controller --leader-elect

  # on a laptop, to see what it would do
  istio-plugins controller --context staging --dry-run --webhooks=false --log-level debug

  # with an istiod that is reached without TLS, by kubectl port-forward
  istio-plugins controller --istiod 127.0.0.1:15010=http://127.0.0.1:8080=http://127.0.0.1:15014/metrics`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Snapshot, err = in.options(); err != nil {
				return err
			}
			log, err := newLogger(level, format)
			if err != nil {
				return err
			}
			config, err := kube.config()
			if err != nil {
				return err
			}
			if o.Namespace == "" {
				o.Namespace = ownNamespace(o.Snapshot.RootNamespace)
			}
			if o.Log = log; withWebhooks {
				o.Webhooks = &webhooks
			}
			ctrl.SetLogger(log)
			klog.SetLogger(log)
			return controller.Run(ctrl.SetupSignalHandler(), config, o)
		},
	}
	in.flags(cmd)
	kube.flags(cmd)
	f := cmd.Flags()
	f.StringSliceVar(&o.Namespaces, "watch-namespaces", nil, "namespaces to watch, besides the root namespace; all if not given")
	f.BoolVar(&o.DryRun, "dry-run", false, "let the API server judge every write, and keep none")
	f.StringSliceVar(&o.Istiod.Addresses, "istiod", nil, "host:port of each istiod without TLS, with =URL of its debug interface and =URL of its metrics; the endpoints of its Service, with TLS, if not given")
	f.StringVar(&o.Istiod.TokenFile, "istiod-token-file", istiodTokenFile, "service account token with the audience istio-ca")
	f.BoolVar(&withWebhooks, "webhooks", true, "refuse wrong Plugins and annotations when they are written")
	f.StringVar(&webhooks.Host, "webhook-host", "", "address to listen on for the API server; all if not given")
	f.IntVar(&webhooks.Port, "webhook-port", 9443, "port to listen on for the API server")
	f.StringVar(&webhooks.URL, "webhook-url", "", "URL at which the API server reaches the webhooks, outside of a cluster; the installed Service if not given")
	f.BoolVar(&o.LeaderElection, "leader-elect", false, "let one of several replicas work")
	f.StringVar(&o.Namespace, "namespace", "", "namespace of the controller itself; its own in a cluster, the root namespace outside")
	f.StringVar(&o.MetricsAddress, "metrics-address", "", "address for Prometheus metrics, for example :8080; none if empty")
	f.StringVar(&o.HealthAddress, "health-address", "", "address for /healthz and /readyz, for example :8081; none if empty")
	f.StringVar(&o.PprofAddress, "pprof-address", "", "address for Go's profiles, for example 127.0.0.1:6060; none if empty")
	choice(cmd, &level, "", "log-level", "what is logged: info, debug or error", "info", "debug", "error")
	choice(cmd, &format, "", "log-format", "how it is logged: json or console", "json", "console")
	return cmd
}

// newLogger logs to stderr.
func newLogger(level, format string) (logr.Logger, error) {
	levels := map[string]zapcore.Level{"error": zapcore.ErrorLevel, "info": zapcore.InfoLevel, "debug": zapcore.DebugLevel}
	l, ok := levels[level]
	if !ok {
		return logr.Logger{}, fmt.Errorf("--log-level: %q is none of info, debug, error", level)
	}
	config := zap.NewProductionConfig()
	switch format {
	case "json":
	case "console":
		config.Encoding = "console"
	default:
		return logr.Logger{}, fmt.Errorf("--log-format: %q is neither json nor console", format)
	}
	config.Level = zap.NewAtomicLevelAt(l)
	config.DisableStacktrace, config.DisableCaller = true, true
	config.EncoderConfig.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	// Samples are for programs that repeat themselves; what is missing here cannot be found out later.
	config.Sampling = nil
	z, err := config.Build()
	if err != nil {
		return logr.Logger{}, err
	}
	return zapr.NewLogger(z), nil
}

// ownNamespace is that of the pod, or another outside of a cluster.
func ownNamespace(outside string) string {
	text, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	if err != nil {
		return outside
	}
	return strings.TrimSpace(string(text))
}
