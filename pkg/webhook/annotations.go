package webhook

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	kjson "sigs.k8s.io/json"

	"github.com/istio-plugins/istio-plugins/pkg/annotation"
	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/catalog"
	"github.com/istio-plugins/istio-plugins/pkg/cluster"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// target is what of a VirtualService or a Gateway is judged. Whatever else it holds is none of our business, and reading
// no more of it means that no more of it can be a mistake here.
type target struct {
	metav1.ObjectMeta `json:"metadata"`

	Spec struct {
		HTTP []struct {
			Name string `json:"name"`
		} `json:"http"`
	} `json:"spec"`
}

// annotations judges the annotation of a VirtualService or Gateway.
func annotations(reader client.Reader, options snapshot.Options) judge {
	return func(ctx context.Context, request *admission.Request, object []byte) (verdict, error) {
		var o target
		if err := kjson.UnmarshalCaseSensitivePreserveInts(object, &o); err != nil {
			return verdict{}, err
		}
		text, ok := o.Annotations[annotation.Key]
		if label, labelled := o.Labels[snapshot.RevisionLabel]; !ok || labelled && options.Revision != "" && label != options.Revision {
			return verdict{}, nil
		}
		s, err := cluster.Read(ctx, onlyNames{reader}, options)
		if err != nil {
			return verdict{}, err
		}
		var routes []string
		if request.Kind.Kind == "VirtualService" {
			routes = make([]string, len(o.Spec.HTTP))
			for i, r := range o.Spec.HTTP {
				routes[i] = r.Name
			}
		}
		ref := finding.Object{Kind: request.Kind.Kind, Namespace: o.Namespace, Name: o.Name}
		return annotationVerdict(resolve.NewLevel(resolve.NewLibrary(s, catalog.Names()), ref, text, routes)), nil
	}
}

// annotationVerdict tells what is wrong with the text from names that mean nothing yet: objects may be applied in any order.
func annotationVerdict(level *resolve.Level) verdict {
	var v verdict
	if level.Refused != nil {
		v.refused = append(v.refused, level.Refused.Issue.Finding)
	}
	for _, e := range level.Entries {
		if e.Refused == nil {
			continue
		}
		f := e.Refused.Issue.Finding
		switch f.Reason {
		case finding.InvalidEntry, finding.UnknownRoute:
			v.refused = append(v.refused, f)
		default:
			f.Traffic = fmt.Sprintf("a route that runs %s answers 503", e.Name)
			v.warned = append(v.warned, f)
		}
	}
	return v
}

// onlyNames reads a cluster in which there is nothing but what gives names a meaning.
type onlyNames struct{ client.Reader }

// List implements client.Reader.
func (r onlyNames) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	switch list.(type) {
	case *pluginsv1alpha1.PluginList, *pluginsv1alpha1.ClusterPluginList, *gatewayv1beta1.ReferenceGrantList:
		return r.Reader.List(ctx, list, options...)
	}
	return nil
}

// Get implements client.Reader. What a Plugin refers to is not the concern of those that name it.
func (onlyNames) Get(_ context.Context, key client.ObjectKey, _ client.Object, _ ...client.GetOption) error {
	return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
}
