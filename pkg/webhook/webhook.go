// Package webhook is the validating admission webhook: it refuses, at the moment of writing, Plugins and ClusterPlugins
// that are wrong in themselves, and annotations istio.io/plugins that cannot be honoured, with the words that every other
// command has for them. It judges by the code that compiles.
//
// It is a courtesy, not a guard. It can be switched off, it fails open (Configuration says why), and whatever it refuses
// the controller survives, too, if it is stored nevertheless. So it refuses only what nothing else can make right:
//
//   - What refers to something that is not there, or not permitted, is admitted with a warning, since objects are applied
//     in any order: ConfigMaps, Secrets, Consumers, grants, and the names in annotations. So is what a Secret holds wrongly.
//   - A Plugin's config that lacks something is admitted with a warning, since the config of an annotation's entry is
//     merged over it. A value that is there and wrong is refused, and so is the typedConfig of an Envoy filter if Envoy
//     would refuse it with the Plugin's own config.
//   - A change is refused for what it brings: mistakes that the stored object has already are warnings.
//   - A deletion is always admitted.
//
// The CRDs' own rules are not judged again: the API server has held the object against them before it asks.
package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/istio-plugins/istio-plugins/pkg/cluster"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
	"github.com/istio-plugins/istio-plugins/pkg/webhook/certificates"
)

// Options say where the webhooks are and what they know.
type Options struct {
	// Namespace of the controller, in which the Secret and the Service are.
	Namespace string
	// Service that leads to the webhooks; DefaultName if it is empty.
	Service string
	// URL of the webhooks without a path, for a controller outside of the cluster. It takes the place of the Service, and
	// the ValidatingWebhookConfiguration is then made when the webhooks start and removed when they stop; in a cluster it
	// is installed, and removed, with the controller.
	URL string
	// Host and Port to listen on: all addresses if Host is empty, and 9443 if Port is 0.
	Host string
	Port int
	// Secret for the certificates; DefaultName if it is empty.
	Secret string
	// Namespaces that the controller watches, besides the root namespace; all if there are none. Objects elsewhere are
	// admitted.
	Namespaces []string
	// Reader of what objects refer to, for package cluster; the manager's client if it is nil.
	Reader client.Reader
	// Snapshot options of the controller.
	Snapshot snapshot.Options
	// Clock by which certificates are renewed; the real one if it is nil.
	Clock clock.Clock
}

// DefaultName is the name of the Service and of the Secret.
const DefaultName = "istio-plugins-webhook"

// The Secret and the configuration are installed with the controller, and read and written by name. To create Secrets is not
// among the rights: who may do that, and read them, can get a token of every service account of the namespace.
//
// +kubebuilder:rbac:groups="",namespace=istio-system,resources=secrets,resourceNames=istio-plugins-webhook,verbs=list;watch;update
// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=validatingwebhookconfigurations,resourceNames=istio-plugins,verbs=list;watch;patch

// Add adds the webhooks and their certificates to a manager. Every replica serves, whoever is the leader.
func Add(mgr manager.Manager, o Options) error {
	o.Snapshot = o.Snapshot.Defaults()
	if o.Service == "" {
		o.Service = DefaultName
	}
	if o.Secret == "" {
		o.Secret = DefaultName
	}
	if o.Reader == nil {
		o.Reader = mgr.GetClient()
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	at, name, err := o.address()
	if err != nil {
		return err
	}
	watched, err := o.watch(mgr)
	if err != nil {
		return err
	}
	p := &publisher{reader: watched, client: mgr.GetClient(), revision: o.Snapshot.Revision, at: at}
	changed := make(chan struct{}, 1)
	keeper := &certificates.Keeper{
		Reader: watched, Writer: mgr.GetClient(), Secret: types.NamespacedName{Namespace: o.Namespace, Name: o.Secret},
		Names: []string{name}, Publish: p.publish, Changed: changed, Clock: o.Clock,
	}
	server := ctrlwebhook.NewServer(ctrlwebhook.Options{Host: o.Host, Port: o.Port, TLSOpts: []func(*tls.Config){func(c *tls.Config) {
		c.MinVersion = tls.VersionTLS12
		c.GetCertificate = keeper.GetCertificate
	}}})
	for path, handler := range Handlers(o.Reader, o.Snapshot, o.Namespaces) {
		server.Register(path, handler)
	}
	return errors.Join(
		mgr.Add(server),
		mgr.Add(&runner{options: o, watched: watched, changed: changed, keeper: keeper, publisher: p}),
		// A replica whose certificate is not there yet is not to be asked.
		mgr.AddReadyzCheck("webhook", server.StartedChecker()),
	)
}

// Handlers are the webhooks alone, by their paths. They look up in reader what objects refer to, and judge those of these
// namespaces and of the root namespace; all if there are none.
func Handlers(reader client.Reader, o snapshot.Options, namespaces []string) map[string]http.Handler {
	o = o.Defaults()
	if len(namespaces) > 0 {
		namespaces = append(slices.Clone(namespaces), o.RootNamespace)
	}
	return map[string]http.Handler{
		pluginsPath:     &admission.Webhook{Handler: handler{judge: plugins(reader, o), namespaces: namespaces}},
		annotationsPath: &admission.Webhook{Handler: handler{judge: annotations(reader, o), namespaces: namespaces}},
	}
}

// address is where API servers find the webhooks, and the name that the certificate needs.
func (o Options) address() (at admissionregistrationv1.WebhookClientConfig, name string, err error) {
	if o.URL == "" {
		at.Service = &admissionregistrationv1.ServiceReference{Namespace: o.Namespace, Name: o.Service}
		return at, fmt.Sprintf("%s.%s.svc", o.Service, o.Namespace), nil
	}
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return at, "", fmt.Errorf("%q is no URL of webhooks: it is written https://host:port", o.URL)
	}
	at.URL = &o.URL
	return at, u.Hostname(), nil
}

// watch makes a cache of the two objects that the webhooks keep. The manager's own cache has no such Secrets.
func (o Options) watch(mgr manager.Manager) (cache.Cache, error) {
	named := func(name string) fields.Selector { return fields.OneTermEqualSelector("metadata.name", name) }
	return cache.New(mgr.GetConfig(), cache.Options{
		HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Secret{}: {Namespaces: map[string]cache.Config{o.Namespace: {FieldSelector: named(o.Secret)}}},
			&admissionregistrationv1.ValidatingWebhookConfiguration{}: {Field: named(ConfigurationName(o.Snapshot.Revision))},
		},
	})
}

// runner runs what keeps the certificates.
type runner struct {
	options   Options
	watched   cache.Cache
	changed   chan<- struct{}
	keeper    *certificates.Keeper
	publisher *publisher
}

// NeedLeaderElection says that every replica serves.
func (*runner) NeedLeaderElection() bool { return false }

// Start implements manager.Runnable.
func (r *runner) Start(ctx context.Context) error {
	watching, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- r.watched.Start(watching) }()
	defer func() { stop(); <-done }()
	for _, object := range []client.Object{&corev1.Secret{}, &admissionregistrationv1.ValidatingWebhookConfiguration{}} {
		informer, err := r.watched.GetInformer(ctx, object, cache.BlockUntilSynced(false))
		if err != nil {
			return err
		}
		tell := func() {
			select {
			case r.changed <- struct{}{}:
			default: // It has been told already.
			}
		}
		if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { tell() },
			UpdateFunc: func(any, any) { tell() },
			DeleteFunc: func(any) { tell() },
		}); err != nil {
			return err
		}
	}
	if !r.watched.WaitForCacheSync(ctx) {
		return nil // The manager stops.
	}
	r.warmUp(ctx)
	err := r.keeper.Start(ctx)
	return errors.Join(err, r.publisher.withdraw(context.WithoutCancel(ctx)))
}

// warmUp makes the reader read everything once, so that no request waits for it to list objects for the first time. The
// replica is not asked before, as it has no certificate.
func (r *runner) warmUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, reader := range []client.Reader{onlyPlugin{Reader: r.options.Reader}, onlyNames{r.options.Reader}} {
		if _, err := cluster.Read(ctx, reader, r.options.Snapshot); err != nil {
			log.FromContext(ctx).Error(err, "The webhooks cannot read yet what objects refer to")
		}
	}
}

// publisher tells the API server with which authorities to verify the webhooks.
type publisher struct {
	reader   client.Reader
	client   client.Client
	revision string
	at       admissionregistrationv1.WebhookClientConfig
}

// publish implements certificates.Keeper's Publish. In a cluster it touches nothing but the bundles, and does not bring
// back a configuration that somebody has removed.
func (p *publisher) publish(ctx context.Context, bundle []byte) (had bool, err error) {
	stored := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	err = p.reader.Get(ctx, client.ObjectKey{Name: ConfigurationName(p.revision)}, stored)
	missing := apierrors.IsNotFound(err)
	switch {
	case err != nil && !missing:
		return false, err
	case p.at.URL != nil:
		return p.publishOwn(ctx, stored, missing, bundle)
	case missing:
		return false, nil
	}
	wanted := stored.DeepCopy()
	for i := range wanted.Webhooks {
		wanted.Webhooks[i].ClientConfig.CABundle = bundle
	}
	if equality.Semantic.DeepEqual(wanted.Webhooks, stored.Webhooks) {
		return true, nil
	}
	return false, passing(p.client.Patch(ctx, wanted, client.StrategicMergeFrom(stored, client.MergeFromWithOptimisticLock{})))
}

// publishOwn writes the whole configuration, as is done outside of the cluster.
func (p *publisher) publishOwn(ctx context.Context, stored *admissionregistrationv1.ValidatingWebhookConfiguration, missing bool, bundle []byte) (had bool, err error) {
	at := p.at
	at.CABundle = bytes.Clone(bundle)
	wanted := Configuration(p.revision, at)
	switch {
	case missing:
		return false, passing(p.client.Create(ctx, wanted))
	case equality.Semantic.DeepEqual(wanted.Webhooks, stored.Webhooks):
		return true, nil
	}
	wanted.ObjectMeta = *stored.ObjectMeta.DeepCopy()
	return false, passing(p.client.Update(ctx, wanted))
}

// withdraw removes the configuration that was made for a URL at which nobody answers any more.
func (p *publisher) withdraw(ctx context.Context) error {
	if p.at.URL == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return client.IgnoreNotFound(p.client.Delete(ctx, Configuration(p.revision, p.at)))
}

// passing leaves out errors that the watch mends: somebody else has written at the same time.
func passing(err error) error {
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
