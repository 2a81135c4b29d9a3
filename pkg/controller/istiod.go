package controller

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/istio-plugins/istio-plugins/pkg/istiod"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// How istiod is found and trusted in a cluster: as every proxy of the mesh does it.
const (
	istiodService = "istiod"
	// tlsPort is the name of the port with TLS in the Service of an Istio installation, metricsPort of that with metrics.
	tlsPort, metricsPort = "https-dns", "http-monitoring"
	// metricsDefault is for a Service that does not name it.
	metricsDefault = "15014"
	// rootCertificate is the ConfigMap that istiod puts into every namespace, and its key.
	rootCertificate, rootCertificateKey = "istio-ca-root-cert", "root-cert.pem"
)

// Istiod says how istiod is asked what gateways have accepted.
type Istiod struct {
	// Addresses, each `host:port` of the port without TLS, with `=URL` of its debug interface and another `=URL` of its
	// metrics. Empty: the endpoints of the Service of Istio's control plane are asked, over TLS.
	Addresses []string
	// TokenFile holds a service account's token with the audience istio-ca, for TLS.
	TokenFile string
}

// newIstiod makes the client; nil if istiod cannot be asked, which is no error: the status then says so.
func newIstiod(o Istiod, s snapshot.Options, api client.Reader) (*istiod.Client, error) {
	if len(o.Addresses) > 0 {
		addresses, err := parseAddresses(o.Addresses)
		if err != nil {
			return nil, err
		}
		return istiod.New(istiod.Options{
			RootNamespace: s.RootNamespace,
			Addresses:     func(context.Context) ([]istiod.Address, error) { return addresses, nil },
		}), nil
	}
	if _, err := os.Stat(o.TokenFile); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	service := istiodService
	if s.Revision != "" {
		service += "-" + s.Revision
	}
	return istiod.New(istiod.Options{
		RootNamespace: s.RootNamespace,
		Addresses: func(ctx context.Context) ([]istiod.Address, error) {
			return endpoints(ctx, api, s.RootNamespace, service)
		},
		TLS: func(ctx context.Context) (*tls.Config, error) {
			return trust(ctx, api, s.RootNamespace, service)
		},
		Token: func(context.Context) (string, error) {
			token, err := os.ReadFile(o.TokenFile) // the kubelet renews it
			return strings.TrimSpace(string(token)), err
		},
	}), nil
}

func parseAddresses(texts []string) ([]istiod.Address, error) {
	var out []istiod.Address
	for _, text := range texts {
		xds, urls, _ := strings.Cut(text, "=")
		debug, metrics, _ := strings.Cut(urls, "=")
		if _, _, err := net.SplitHostPort(xds); err != nil {
			return nil, fmt.Errorf("%q is no address of istiod: write host:port, host:port=URL or host:port=URL=URL", text)
		}
		out = append(out, istiod.Address{XDS: xds, Debug: debug, Metrics: metrics})
	}
	return out, nil
}

// Where istiod is. Its certificate is in a ConfigMap, and all of those may be read anyway.
//
// +kubebuilder:rbac:groups=discovery.k8s.io,namespace=istio-system,resources=endpointslices,verbs=list

// endpoints are the addresses of every istiod behind a Service, ready or not.
func endpoints(ctx context.Context, api client.Reader, namespace, service string) ([]istiod.Address, error) {
	list := &discoveryv1.EndpointSliceList{}
	if err := api.List(ctx, list, client.InNamespace(namespace), client.MatchingLabels{discoveryv1.LabelServiceName: service}); err != nil {
		return nil, err
	}
	var out []istiod.Address
	for _, slice := range list.Items {
		ports := map[string]string{}
		for _, port := range slice.Ports {
			if port.Name != nil && port.Port != nil {
				ports[*port.Name] = strconv.Itoa(int(*port.Port))
			}
		}
		if ports[tlsPort] == "" {
			continue
		}
		for _, e := range slice.Endpoints {
			for _, a := range e.Addresses {
				out = append(out, istiod.Address{
					XDS:     net.JoinHostPort(a, ports[tlsPort]),
					Metrics: "http://" + net.JoinHostPort(a, cmp.Or(ports[metricsPort], metricsDefault)) + "/metrics",
				})
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("service %s/%s has no endpoints with a port %s", namespace, service, tlsPort)
	}
	slices.SortFunc(out, func(a, b istiod.Address) int { return strings.Compare(a.XDS, b.XDS) })
	return slices.Compact(out), nil
}

// trust is a config that accepts the certificate of an Istio control plane.
func trust(ctx context.Context, api client.Reader, namespace, service string) (*tls.Config, error) {
	m := &corev1.ConfigMap{}
	if err := api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: rootCertificate}, m); err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(m.Data[rootCertificateKey])) {
		return nil, fmt.Errorf("ConfigMap %s/%s has no certificate in %s", namespace, rootCertificate, rootCertificateKey)
	}
	return &tls.Config{RootCAs: roots, ServerName: service + "." + namespace + ".svc", MinVersion: tls.VersionTLS12}, nil
}
