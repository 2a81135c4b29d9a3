package webhook

import (
	"context"
	"strconv"
	"strings"

	extensionsv1alpha1 "istio.io/client-go/pkg/apis/extensions/v1alpha1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	kjson "sigs.k8s.io/json"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/cluster"
	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// plugins judges a Plugin or ClusterPlugin as a compilation does in which it is the only one and nothing names it.
func plugins(reader client.Reader, options snapshot.Options) judge {
	return func(ctx context.Context, request *admission.Request, object []byte) (verdict, error) {
		only := onlyPlugin{Reader: reader}
		var spec *pluginsv1alpha1.PluginSpec
		var err error
		if request.Kind.Kind == "ClusterPlugin" {
			only.cluster = make([]pluginsv1alpha1.ClusterPlugin, 1)
			spec, err = &only.cluster[0].Spec, kjson.UnmarshalCaseSensitivePreserveInts(object, &only.cluster[0])
		} else {
			only.plugins = make([]pluginsv1alpha1.Plugin, 1)
			spec, err = &only.plugins[0].Spec, kjson.UnmarshalCaseSensitivePreserveInts(object, &only.plugins[0])
		}
		if err != nil {
			return verdict{}, err
		}
		s, err := cluster.Read(ctx, only, options)
		if err != nil {
			return verdict{}, err
		}
		return pluginVerdict(spec, compile.Compile(s).Plugins[0].Findings), nil
	}
}

// pluginVerdict tells what lies in a Plugin itself from what may come later: an object that it refers to, or an entry
// of an annotation that completes its config.
func pluginVerdict(spec *pluginsv1alpha1.PluginSpec, findings []finding.Finding) verdict {
	traffic := "a route that names it answers 503"
	if spec.FailurePolicy == pluginsv1alpha1.FailOpen {
		traffic = "a route that names it runs without it"
	}
	var v verdict
	for _, f := range findings {
		path, inConfig := strings.CutPrefix(f.Place+".", "spec.config.")
		switch {
		case f.Severity() == finding.Warning:
			v.warned = append(v.warned, f)
		case f.Reason == finding.RefNotFound && inConfig && f.Object.Kind == "ClusterPlugin":
			// Whose Consumers a ClusterPlugin means is known only where it is named.
		case f.Reason == finding.RefNotFound,
			f.Place == "spec.lua.configMapRef",
			strings.HasSuffix(f.Place, ".secretKeyRef"),
			f.Reason == finding.InvalidConfig && inConfig && !holds(spec, strings.TrimSuffix(path, ".")):
			f.Traffic = traffic
			v.warned = append(v.warned, f)
		default:
			f.Traffic = ""
			v.refused = append(v.refused, f)
		}
	}
	return v
}

// holds says whether a config has a field of this path. One that it has not may come from an annotation's entry.
func holds(spec *pluginsv1alpha1.PluginSpec, path string) bool {
	if spec.Config == nil || path == "" {
		return false
	}
	c, err := config.Decode(spec.Config.Raw)
	return err != nil || has(map[string]any(c), path)
}

func has(v any, path string, steps ...string) bool {
	if builtin.Path(steps...) == path {
		return true
	}
	switch v := v.(type) {
	case map[string]any:
		for name, child := range v {
			if has(child, path, append(steps, name)...) {
				return true
			}
		}
	case []any:
		for i, child := range v {
			if has(child, path, append(steps, strconv.Itoa(i))...) {
				return true
			}
		}
	}
	return false
}

// onlyPlugin reads a cluster in which one Plugin or ClusterPlugin is the only one and nothing is attached to, so that
// it is judged with what it refers to, and nothing else is.
type onlyPlugin struct {
	client.Reader
	plugins []pluginsv1alpha1.Plugin
	cluster []pluginsv1alpha1.ClusterPlugin
}

// List implements client.Reader.
func (r onlyPlugin) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	switch list := list.(type) {
	case *pluginsv1alpha1.PluginList:
		list.Items = r.plugins
	case *pluginsv1alpha1.ClusterPluginList:
		list.Items = r.cluster
	case *networkingv1.VirtualServiceList, *networkingv1.GatewayList, *gatewayv1.HTTPRouteList,
		*networkingv1alpha3.EnvoyFilterList, *extensionsv1alpha1.WasmPluginList:
	default:
		return r.Reader.List(ctx, list, options...)
	}
	return nil
}
