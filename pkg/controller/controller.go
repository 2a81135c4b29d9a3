package controller

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/istio-plugins/istio-plugins/pkg/cluster"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
	"github.com/istio-plugins/istio-plugins/pkg/webhook"
)

const (
	// name of the controller in logs, metrics and Events.
	name = "istio-plugins"
	// A pass that fails is made again after retryFirst, then ever later up to retryLast.
	retryFirst = 200 * time.Millisecond
	retryLast  = 30 * time.Second
	// requestTimeout bounds a request to the API server. It gives an admission webhook 10 s if nobody has said otherwise,
	// as Istio does not for that of EnvoyFilters.
	requestTimeout = 15 * time.Second
	// stopTimeout bounds the end of a pass when the controller stops.
	stopTimeout = 10 * time.Second
)

// Options of the controller.
type Options struct {
	Snapshot snapshot.Options
	// Namespaces to watch, besides the root namespace; empty for all.
	Namespaces []string
	// DryRun lets the API server judge every write and keep none.
	DryRun bool
	Istiod Istiod

	// Webhooks are switched off by nil.
	Webhooks *Webhooks

	// LeaderElection lets one of several replicas work; its Lease is in Namespace.
	LeaderElection bool
	// Namespace of the controller itself.
	Namespace string
	// Addresses to listen on, each empty for not at all.
	MetricsAddress, HealthAddress, PprofAddress string
	Log                                         logr.Logger
}

// Webhooks say where the admission webhooks are reached.
type Webhooks struct {
	// URL, for a controller outside of the cluster; the Service that is installed with the controller if it is empty.
	URL string
	// Host and Port to listen on; all addresses if Host is empty.
	Host string
	Port int
}

// The Lease is installed with the controller. Who gets it says so in an Event.
//
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=istio-system,resources=leases,resourceNames=istio-plugins,verbs=get;update
// +kubebuilder:rbac:groups="",namespace=istio-system,resources=events,verbs=create

// Run runs the controller until ctx ends.
func Run(ctx context.Context, config *rest.Config, o Options) error {
	o.Snapshot = o.Snapshot.Defaults()
	config = rest.CopyConfig(config)
	// The API server's priority and fairness bound what a client may ask for, better than a number here could.
	config.QPS = -1
	config.WarningHandlerWithContext = noWarnings{} // it warns of every EnvoyFilter
	stop := stopTimeout
	m, err := ctrl.NewManager(config, manager.Options{
		Scheme: cluster.NewScheme(), Logger: o.Log, Cache: cacheOptions(o, 0),
		Metrics:                metricsserver.Options{BindAddress: orOff(o.MetricsAddress)},
		HealthProbeBindAddress: orOff(o.HealthAddress), PprofBindAddress: o.PprofAddress,
		LeaderElection: o.LeaderElection, LeaderElectionID: lease(o.Snapshot.Revision), LeaderElectionNamespace: o.Namespace, LeaderElectionReleaseOnCancel: true,
		GracefulShutdownTimeout: &stop,
	})
	if err != nil {
		return err
	}
	if err := add(m, o); err != nil {
		return err
	}
	return m.Start(ctx)
}

// lease is the name of the Lease: controllers of different revisions do not wait for each other.
func lease(revision string) string {
	if revision == "" {
		return name
	}
	return name + "-" + revision
}

func orOff(address string) string {
	if address == "" {
		return "0"
	}
	return address
}

// noWarnings is told by the API server, on every write of an EnvoyFilter, that it exposes internals.
type noWarnings struct{}

func (noWarnings) HandleWarningHeaderWithContext(context.Context, int, string, string) {}

// newClient writes, and reads past the informers. Unlike the manager's clients, which also watch, it waits for no answer for
// ever: one request without an answer would hold up everything.
func newClient(m manager.Manager) (client.Client, error) {
	config := rest.CopyConfig(m.GetConfig())
	config.Timeout = requestTimeout
	return client.New(config, client.Options{Scheme: m.GetScheme(), Mapper: m.GetRESTMapper()})
}

// add puts the controller together.
func add(m manager.Manager, o Options) error {
	direct, err := newClient(m)
	if err != nil {
		return err
	}
	numbers := newMetrics(ctrlmetrics.Registry)
	writer := newWriter(direct, m.GetCache(), o.DryRun, numbers)
	inputs, err := newInputs(m, direct, o, writer)
	if err != nil {
		return err
	}
	asked, err := newIstiod(o.Istiod, o.Snapshot, direct)
	if err != nil {
		return err
	}
	if o.DryRun {
		asked = nil // what was not written need not be waited for
	}
	accepted := newAcceptance(asked, direct, o.Snapshot.Revision, clock.RealClock{}, o.Log.WithName("istiod"))
	statuses := direct
	if o.DryRun {
		statuses = client.NewDryRunClient(statuses)
	}
	if w := o.Webhooks; w != nil && !o.DryRun {
		err := webhook.Add(m, webhook.Options{
			Namespace: o.Namespace, URL: w.URL, Host: w.Host, Port: w.Port, Namespaces: o.Namespaces, Reader: inputs, Snapshot: o.Snapshot,
		})
		if err != nil {
			return err
		}
	}
	reporter := newReporter(statuses, m.GetCache(), accepted, m.GetEventRecorder(name), numbers, o.Log.WithName("report"))

	var applied atomic.Bool
	r := &reconciler{
		options: o.Snapshot, inputs: inputs, writer: writer, accepted: accepted, metrics: numbers, pulse: &pulse{}, compared: map[string]comparison{},
		publish: func(out *outcome) {
			applied.Store(true)
			reporter.publish(out)
		},
	}
	one := false
	c, err := controller.New(name, m, controller.Options{
		Reconciler: r,
		// One key needs no priorities.
		UsePriorityQueue: &one,
		RateLimiter:      workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](retryFirst, retryLast),
	})
	if err != nil {
		return err
	}
	if err := inputs.watch(m, c, r.pulse.wake); err != nil {
		return err
	}
	// A verdict may be what the last part of a change waits for.
	verdicts := source.Func(func(_ context.Context, q workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		accepted.onChange(func() {
			if r.unfinished.Load() {
				r.pulse.wake(q)
			}
		})
		return nil
	})
	if err := c.Watch(verdicts); err != nil {
		return err
	}
	for _, run := range []func(context.Context) error{accepted.watch, reporter.run} {
		if err := m.Add(manager.RunnableFunc(run)); err != nil {
			return err
		}
	}
	if err := m.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	// A replica that waits for the lease is ready for its part, which is to wait.
	return m.AddReadyzCheck("applied", func(*http.Request) error {
		select {
		case <-m.Elected():
		default:
			return nil
		}
		if !applied.Load() {
			return errors.New("nothing has been applied yet")
		}
		return nil
	})
}
