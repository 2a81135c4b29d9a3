package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// CredentialLabel is the label of a Secret that holds a credential; its value is the credential's type, for example key-auth.
const CredentialLabel = "plugins.istio.io/credential"

// KongCredentialLabel is the label of Kong's ingress controller with the same meaning. It counts where a Secret does not
// have ours, so that Secrets which serve Kong can be named by a Consumer as they are.
const KongCredentialLabel = "konghq.com/credential"

// CredentialType is what a Secret's labels say about the type of its credential; ok is false for one that is none.
func CredentialType(labels map[string]string) (name string, ok bool) {
	for _, label := range []string{CredentialLabel, KongCredentialLabel} {
		if name, ok = labels[label]; ok {
			return name, true
		}
	}
	return "", false
}

// Consumer is somebody who calls a route: a user, an application, a partner. Authentication plugins map
// credentials to Consumers; what comes later in a chain can decide by the Consumer.
//
//	apiVersion: plugins.istio.io/v1alpha1
//	kind: Consumer
//	metadata: {name: alice, namespace: shop}
//	spec:
//	  username: alice
//	  credentials: [alice-key]
//	---
//	apiVersion: v1
//	kind: Secret
//	metadata: {name: alice-key, namespace: shop, labels: {plugins.istio.io/credential: key-auth}}
//	stringData: {key: s3cr3t}
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=consumers,categories={istio-plugins,istio-io}
// +kubebuilder:printcolumn:name="Username",type=string,JSONPath=`.spec.username`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Consumer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec says who the consumer is.
	// +required
	Spec ConsumerSpec `json:"spec"`
	// Status says whether the consumer's credentials can be used.
	// +optional
	Status ConsumerStatus `json:"status,omitempty"`
}

// ConsumerList is a list of Consumers.
//
// +kubebuilder:object:root=true
type ConsumerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Consumer `json:"items"`
}

// ConsumerSpec says who a consumer is. The field names are Kong's.
//
// +kubebuilder:validation:XValidation:rule="has(self.username) || has(self.custom_id)",message="username or custom_id must be set"
type ConsumerSpec struct {
	// Username is sent upstream as X-Consumer-Username.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Username string `json:"username,omitempty"`
	// CustomID is your own id of the consumer, sent upstream as X-Consumer-Custom-ID.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	CustomID string `json:"custom_id,omitempty"`
	// Credentials are names of Secrets in the Consumer's namespace, each with the label plugins.istio.io/credential, or
	// konghq.com/credential.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=set
	Credentials []string `json:"credentials,omitempty"`
	// Groups that the consumer belongs to.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=set
	Groups []string `json:"groups,omitempty"`
}

// ConsumerStatus says whether a consumer's credentials can be used.
type ConsumerStatus struct {
	// ObservedGeneration is the generation of the spec that this status speaks of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Conditions: Accepted (all credentials are usable), CredentialConflict.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
