// Package istiod runs istiod's own generation inside the test: the real push context and a real xDS server on a port
// of 127.0.0.1, with objects that live in memory instead of an API server.
package istiod

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pilot/pkg/features"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/constants"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/config/schema/collections"
	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/test"
)

// The public Envoy lacks the filters that istio-proxy adds, so istiod must not put them into a listener.
func init() {
	features.ALPNFilter = false
	features.MetadataExchange = false
	for _, scope := range log.Scopes() {
		scope.SetOutputLevel(log.ErrorLevel)
	}
}

// Server is an istiod without an API server.
type Server struct {
	fake *xds.FakeDiscoveryServer
}

// Start serves no objects yet. The server ends with the test.
func Start(t test.Failer) *Server {
	m := mesh.DefaultMeshConfig()
	// With it, an Envoy without Istio's agent waits for certificates for ever.
	m.EnableAutoMtls = wrapperspb.Bool(false)
	return &Server{fake: xds.NewFakeDiscoveryServer(t, xds.FakeOptions{
		MeshConfig:      m,
		ListenerBuilder: func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") },
	})}
}

// XDS is the address at which gateways connect.
func (s *Server) XDS() string { return s.fake.Listener.Addr().String() }

// Apply creates the objects, or replaces those that are there and differ. Kinds that istiod does not read are passed by.
func (s *Server) Apply(ctx context.Context, objects []*unstructured.Unstructured) error {
	for _, object := range objects {
		if err := s.apply(ctx, object); err != nil {
			return fmt.Errorf("%s %s/%s: %w", object.GetKind(), object.GetNamespace(), object.GetName(), err)
		}
	}
	return nil
}

// Delete removes the objects that are there.
func (s *Server) Delete(_ context.Context, objects []*unstructured.Unstructured) error {
	for _, object := range objects {
		cfg, err := istioConfig(object)
		if err != nil {
			return err
		}
		if cfg == nil || s.fake.Store().Get(cfg.GroupVersionKind, cfg.Name, cfg.Namespace) == nil {
			continue
		}
		if err := s.fake.Store().Delete(cfg.GroupVersionKind, cfg.Name, cfg.Namespace, nil); err != nil {
			return fmt.Errorf("delete %s %s/%s: %w", cfg.GroupVersionKind.Kind, cfg.Namespace, cfg.Name, err)
		}
	}
	return nil
}

func (s *Server) apply(ctx context.Context, object *unstructured.Unstructured) error {
	if object.GroupVersionKind() == corev1.SchemeGroupVersion.WithKind("Secret") {
		return s.applySecret(ctx, object)
	}
	cfg, err := istioConfig(object)
	if err != nil || cfg == nil {
		return err
	}
	if err := validate(*cfg); err != nil {
		return err
	}
	old := s.fake.Store().Get(cfg.GroupVersionKind, cfg.Name, cfg.Namespace)
	if old == nil {
		_, err = s.fake.Store().Create(*cfg)
		return err
	}
	// As on an API server: an object keeps its age, and an apply that changes nothing is no event.
	cfg.CreationTimestamp, cfg.ResourceVersion = old.CreationTimestamp, old.ResourceVersion
	if cfg.Equals(old) {
		return nil
	}
	_, err = s.fake.Store().Update(*cfg)
	return err
}

// applySecret gives istiod's fake cluster a Secret; certificates are all that istiod reads from one.
func (s *Server) applySecret(ctx context.Context, object *unstructured.Unstructured) error {
	secret := &corev1.Secret{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, secret); err != nil {
		return err
	}
	secrets := s.fake.KubeClient().Kube().CoreV1().Secrets(secret.Namespace)
	if err := secrets.Delete(ctx, secret.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	_, err := secrets.Create(ctx, secret, metav1.CreateOptions{})
	return err
}

// istioConfig is the object as istiod holds it, or nil where istiod does not read that kind.
func istioConfig(object *unstructured.Unstructured) (*config.Config, error) {
	text, err := object.MarshalJSON()
	if err != nil {
		return nil, err
	}
	configs, _, err := crd.ParseInputs(string(text))
	if err != nil || len(configs) == 0 {
		return nil, err
	}
	// istiod's reader of an API server does the same: it makes `reviews` in a route reviews.<namespace>.svc.cluster.local.
	configs[0].Domain = constants.DefaultClusterLocalDomain
	return &configs[0], nil
}

// harmless is the warning that istiod gives for every EnvoyFilter, whatever it holds.
const harmless = "EnvoyFilter exposes internal implementation details"

// validate is the check of Istio's webhook. Its warnings are errors here: what this project emits should cause none.
func validate(cfg config.Config) error {
	schema, ok := collections.PilotGatewayAPI().FindByGroupVersionKind(cfg.GroupVersionKind)
	if !ok {
		return fmt.Errorf("istiod has no schema for %v", cfg.GroupVersionKind)
	}
	warnings, err := schema.ValidateConfig(cfg)
	if err != nil {
		return err
	}
	for _, warning := range unwrap(warnings) {
		if !strings.HasPrefix(warning.Error(), harmless) {
			return fmt.Errorf("istiod's validation warns: %w", warning)
		}
	}
	return nil
}

// unwrap lists the errors of which err is made.
func unwrap(err error) []error {
	var several interface{ WrappedErrors() []error }
	if errors.As(err, &several) {
		return several.WrappedErrors()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// Routes are the route configurations of a gateway in a namespace whose pod has these labels, once everything that was
// applied has been taken in.
func (s *Server) Routes(namespace string, labels map[string]string) []*route.RouteConfiguration {
	s.fake.EnsureSynced(s.fake.T())
	proxy := s.fake.SetupProxy(&model.Proxy{
		Type: model.Router, ConfigNamespace: namespace, Labels: labels,
		Metadata: &model.NodeMetadata{Namespace: namespace, IstioVersion: "1.31.0", Labels: labels},
	})
	return s.fake.RoutesFromListeners(proxy, s.fake.Listeners(proxy))
}
