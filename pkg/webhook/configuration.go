package webhook

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-plugins/istio-plugins/pkg/annotation"
	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
)

// ConfigurationName is the name of the ValidatingWebhookConfiguration: there is one for each revision of Istio, of which
// most clusters have one without a name.
func ConfigurationName(revision string) string {
	if revision == "" {
		return "istio-plugins"
	}
	return "istio-plugins-" + revision
}

// The paths of the webhooks, and their names in the configuration.
const (
	pluginsPath     = "/validate/plugins"
	annotationsPath = "/validate/annotations"

	pluginName         = "plugin.plugins.istio.io"
	virtualServiceName = "virtualservice.plugins.istio.io"
	gatewayName        = "gateway.plugins.istio.io"
)

// The API server asks only about what can be refused. These conditions are in CEL; where one cannot be evaluated, the
// object is admitted.
const (
	ourAnnotation = "'" + annotation.Key + "'"
	annotated     = "has(object.metadata.annotations) && " + ourAnnotation + " in object.metadata.annotations"
	// sameAnnotation is meant for where object is annotated.
	sameAnnotation = "oldObject != null && has(oldObject.metadata.annotations) && " + ourAnnotation + " in oldObject.metadata.annotations && " +
		"oldObject.metadata.annotations[" + ourAnnotation + "] == object.metadata.annotations[" + ourAnnotation + "]"
	// An entry may name http routes, so their names count where the annotation speaks of routes.
	sameRoutes = "(!object.metadata.annotations[" + ourAnnotation + "].contains('routes') || " +
		"(has(object.spec.http) ? object.spec.http.map(r, has(r.name) ? r.name : '') : []) == " +
		"(has(oldObject.spec.http) ? oldObject.spec.http.map(r, has(r.name) ? r.name : '') : []))"
	sameSpec = "oldObject != null && oldObject.spec == object.spec"
)

// Configuration is the object for which the API server asks the webhooks of a revision's controller. at says where they are: by Service, or by URL
// without a path. Its CABundle may be empty, because running webhooks fill it in.
//
// All webhooks have the failure policy Ignore. For VirtualServices and Gateways because this must never stop Istio; for
// Plugins because an outage of the controller must not keep anybody from mending one, and because nothing is lost: the
// controller judges every object again and refuses it on the routes that name it.
func Configuration(revision string, at admissionregistrationv1.WebhookClientConfig) *admissionregistrationv1.ValidatingWebhookConfiguration {
	return &admissionregistrationv1.ValidatingWebhookConfiguration{
		TypeMeta:   metav1.TypeMeta{APIVersion: admissionregistrationv1.SchemeGroupVersion.String(), Kind: "ValidatingWebhookConfiguration"},
		ObjectMeta: metav1.ObjectMeta{Name: ConfigurationName(revision)},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{
			webhook(pluginName, at, pluginsPath, rule(pluginsv1alpha1.GroupVersion.Group, pluginsv1alpha1.GroupVersion.Version, "plugins", "clusterplugins"),
				condition("changed", "!("+sameSpec+")")),
			webhook(virtualServiceName, at, annotationsPath, rule("networking.istio.io", "v1", "virtualservices"),
				condition("annotated", annotated), condition("changed", "!("+sameAnnotation+" && "+sameRoutes+")")),
			webhook(gatewayName, at, annotationsPath, rule("networking.istio.io", "v1", "gateways"),
				condition("annotated", annotated), condition("changed", "!("+sameAnnotation+")")),
		},
	}
}

// webhook sets every field that the API server would otherwise fill in, so that the object can be compared with a stored one.
func webhook(name string, at admissionregistrationv1.WebhookClientConfig, path string,
	rule admissionregistrationv1.RuleWithOperations, conditions ...admissionregistrationv1.MatchCondition) admissionregistrationv1.ValidatingWebhook {
	client := *at.DeepCopy()
	if client.Service != nil {
		client.Service.Path = &path
		if client.Service.Port == nil {
			client.Service.Port = new(int32(443))
		}
	} else {
		client.URL = new(*client.URL + path)
	}
	return admissionregistrationv1.ValidatingWebhook{
		Name:                    name,
		ClientConfig:            client,
		Rules:                   []admissionregistrationv1.RuleWithOperations{rule},
		FailurePolicy:           new(admissionregistrationv1.Ignore),
		MatchPolicy:             new(admissionregistrationv1.Equivalent),
		NamespaceSelector:       &metav1.LabelSelector{},
		ObjectSelector:          &metav1.LabelSelector{},
		SideEffects:             new(admissionregistrationv1.SideEffectClassNone),
		TimeoutSeconds:          new(int32(5)),
		AdmissionReviewVersions: []string{"v1"},
		MatchConditions:         conditions,
	}
}

// rule leaves DELETE out: a deletion is never asked about.
func rule(group, version string, resources ...string) admissionregistrationv1.RuleWithOperations {
	return admissionregistrationv1.RuleWithOperations{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
		Rule: admissionregistrationv1.Rule{
			APIGroups: []string{group}, APIVersions: []string{version}, Resources: resources, Scope: new(admissionregistrationv1.AllScopes),
		},
	}
}

func condition(name, expression string) admissionregistrationv1.MatchCondition {
	return admissionregistrationv1.MatchCondition{Name: name, Expression: expression}
}
