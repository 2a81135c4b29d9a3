package v1alpha1

import (
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Plugin configures one gateway plugin for the VirtualServices and Gateways of its namespace.
//
// The smallest Plugin names a built-in and configures it:
//
//	apiVersion: plugins.istio.io/v1alpha1
//	kind: Plugin
//	metadata: {name: shop-limit, namespace: shop}
//	spec:
//	  builtin: rate-limiting
//	  config: {minute: 100}
//
// A VirtualService of the same namespace runs it by naming it in its annotation:
//
//	metadata:
//	  annotations:
//	    istio.io/plugins: key-auth, shop-limit
//
// An object of another namespace may name it as `shop/shop-limit` where a ReferenceGrant in namespace
// shop permits that.
//
// Instead of naming a built-in, a Plugin can be written in Lua:
//
//	apiVersion: plugins.istio.io/v1alpha1
//	kind: Plugin
//	metadata: {name: hello, namespace: shop}
//	spec:
//	  lua:
//	    inline: |
//	      local config = ...
//	      return {
//	        request = function(handle) handle:headers():add("x-hello", config.who) end,
//	      }
//	  config: {who: shop}
//
// be a Wasm module:
//
//	apiVersion: plugins.istio.io/v1alpha1
//	kind: Plugin
//	metadata: {name: waf, namespace: shop}
//	spec:
//	  wasm: {url: "oci://registry.example.com/waf:1.2"}
//	  config: {mode: block}
//	  priority: 100              # before everything of priority 0
//
// one of Envoy's own filters:
//
//	apiVersion: plugins.istio.io/v1alpha1
//	kind: Plugin
//	metadata: {name: csrf, namespace: shop}
//	spec:
//	  envoy:
//	    typedConfig:
//	      "@type": type.googleapis.com/envoy.extensions.filters.http.csrf.v3.CsrfPolicy
//	      filter_enabled: {default_value: {numerator: 100}}
//	  failurePolicy: FailOpen    # if it is invalid, requests pass without it
//
// a service that says whether a request may pass:
//
//	apiVersion: plugins.istio.io/v1alpha1
//	kind: Plugin
//	metadata: {name: check, namespace: shop}
//	spec:
//	  extAuth:
//	    service: {host: authz.auth, port: 9000}
//	    protocol: grpc
//	  config: {timeout: 500ms}
//
// or one that changes requests and responses:
//
//	apiVersion: plugins.istio.io/v1alpha1
//	kind: Plugin
//	metadata: {name: redact, namespace: shop}
//	spec:
//	  extProc:
//	    service: {host: redact, port: 9000}
//	  config:
//	    processing_mode: {response_body_mode: BUFFERED}
//
// Values that must not stand in the Plugin come from Secrets of its namespace:
//
//	apiVersion: plugins.istio.io/v1alpha1
//	kind: Plugin
//	metadata: {name: partner-key, namespace: shop}
//	spec:
//	  lua:
//	    inline: |
//	      local config = ...
//	      return {
//	        request = function(handle) handle:headers():replace("x-api-key", config.key) end,
//	      }
//	  config:
//	    key: {secretKeyRef: {name: partner, key: api-key}}
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=plugins,shortName=plg,categories={istio-plugins,istio-io}
// +kubebuilder:printcolumn:name="Type",type=string,JSONPath=`.status.type`
// +kubebuilder:printcolumn:name="Priority",type=integer,JSONPath=`.spec.priority`
// +kubebuilder:printcolumn:name="Attached",type=integer,JSONPath=`.status.attached`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Plugin struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec says what the plugin is and how it is configured.
	// +required
	Spec PluginSpec `json:"spec"`
	// Status says whether the plugin can be used, and where it is used.
	// +optional
	Status PluginStatus `json:"status,omitempty"`
}

// PluginList is a list of Plugins.
//
// +kubebuilder:object:root=true
type PluginList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Plugin `json:"items"`
}

// ClusterPlugin is a Plugin that every namespace may name. Where a Plugin of the same name exists in
// the namespace of the object that names it, the Plugin is used.
//
// Names in it (ConfigMaps, Secrets) are looked up in the root namespace of the Istio installation.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=clusterplugins,scope=Cluster,shortName=cplg,categories={istio-plugins,istio-io}
// +kubebuilder:printcolumn:name="Type",type=string,JSONPath=`.status.type`
// +kubebuilder:printcolumn:name="Priority",type=integer,JSONPath=`.spec.priority`
// +kubebuilder:printcolumn:name="Attached",type=integer,JSONPath=`.status.attached`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ClusterPlugin struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec says what the plugin is and how it is configured.
	// +required
	Spec PluginSpec `json:"spec"`
	// Status says whether the plugin can be used, and where it is used.
	// +optional
	Status PluginStatus `json:"status,omitempty"`
}

// ClusterPluginList is a list of ClusterPlugins.
//
// +kubebuilder:object:root=true
type ClusterPluginList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []ClusterPlugin `json:"items"`
}

// PluginSpec is exactly one kind of plugin (`builtin`, `lua`, `wasm`, `envoy`, `extAuth` or `extProc`), and what holds for all kinds.
//
// +kubebuilder:validation:XValidation:rule="[has(self.builtin), has(self.lua), has(self.wasm), has(self.envoy), has(self.extAuth), has(self.extProc)].exists_one(x, x)",message="exactly one of builtin, lua, wasm, envoy, extAuth and extProc must be set"
// +kubebuilder:validation:XValidation:rule="!(has(self.configFrom) && (has(self.config) || has(self.configPatches)))",message="configFrom cannot be used together with config or configPatches"
type PluginSpec struct {
	// Builtin is the name of a built-in plugin, for example `key-auth`. `istio-plugins catalog` lists them.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Builtin string `json:"builtin,omitempty"`
	// Lua is a plugin written in Lua. All Lua plugins of a gateway share one runtime, in which each has globals of its own.
	// +optional
	Lua *LuaPlugin `json:"lua,omitempty"`
	// Wasm is a proxy-wasm module. The field names are those of Istio's WasmPlugin.
	// +optional
	Wasm *WasmPlugin `json:"wasm,omitempty"`
	// Envoy is the configuration of one of Envoy's own HTTP filters.
	// +optional
	Envoy *EnvoyPlugin `json:"envoy,omitempty"`
	// ExtAuth asks a service whether a request may pass.
	// +optional
	ExtAuth *ExtAuthPlugin `json:"extAuth,omitempty"`
	// ExtProc lets a service see and change requests and responses.
	// +optional
	ExtProc *ExtProcPlugin `json:"extProc,omitempty"`

	// Config is the plugin's configuration, a map. What it may hold depends on the kind:
	// a built-in documents and checks its fields; a Lua plugin gets it as a table (null is absent);
	// a Wasm plugin gets it as JSON (Istio's pluginConfig); for an Envoy filter it is merged into `envoy.typedConfig`;
	// for extAuth and extProc it has the fields of the built-ins ext-auth and ext-proc, except for those that are set there.
	// The `config` of an annotation's entry is merged over it: maps deeply, lists and scalars replace, null deletes.
	//
	// A text in it may come from a Secret: `{secretKeyRef: {name: …, key: …}}` stands for what the Secret has under that key,
	// as it is. Entries of annotations cannot name Secrets. What becomes of such values: see configFrom.
	// +optional
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Type=object
	Config *apiextensionsv1.JSON `json:"config,omitempty"`
	// ConfigFrom is a key of a Secret that holds the whole config, a map in YAML or JSON, in the place of `config`.
	//
	// Secrets are those of the Plugin's namespace, and for a ClusterPlugin of the root namespace of the Istio installation.
	// They need no label. While a Secret or its key is not there, or what it holds cannot be used, routes that name the plugin
	// answer 503, or skip it if its failurePolicy is FailOpen. A change of the Secret takes effect like one of the Plugin.
	//
	// Values from Secrets are in no status, Event, log, metric or finding, and in nothing that `lint`, `explain` and `diff`
	// print. They are, because Envoy needs them, in the generated objects (EnvoyFilters and WasmPlugins of the root
	// namespace, and what `compile` and `diff --objects` print) and in the gateways' memory and config_dump. So
	// let nobody read these objects, or reach the gateways' admin port and istiod's debug endpoints, who may not read the
	// Secrets. And who may create Plugins in a namespace can make a gateway send any Secret of it elsewhere, as who may create
	// Pods can: give the right to those only who may read its Secrets. For ClusterPlugins this is the root namespace.
	// +optional
	ConfigFrom *ConfigSource `json:"configFrom,omitempty"`
	// ConfigPatches are single values from Secrets that are put into `config`, one after another. Secrets and values are
	// treated as with configFrom.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	ConfigPatches []ConfigPatch `json:"configPatches,omitempty"`
	// Priority orders the plugins of a route, high first. Plugins of equal priority run in the order in
	// which they are listed, parents (Gateway) before children (VirtualService). Responses run in reverse.
	// +optional
	// +kubebuilder:default=0
	Priority int32 `json:"priority,omitempty"`
	// FailurePolicy says what a route does with this plugin when it is invalid or fails at run time.
	// FailClosed answers 503 (invalid) or 500 (failed). FailOpen skips it.
	// A plugin that does not exist, or may not be used, is always FailClosed.
	// +optional
	// +kubebuilder:default=FailClosed
	FailurePolicy FailurePolicy `json:"failurePolicy,omitempty"`
	// Description is free text for people who choose a plugin.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Description string `json:"description,omitempty"`
}

// ConfigSource is where a value of a config comes from. The names are those of Kong's ingress controller.
type ConfigSource struct {
	// SecretKeyRef is a key of a Secret.
	// +required
	SecretKeyRef KeyRef `json:"secretKeyRef"`
}

// ConfigPatch puts one value into a config. The names are those of Kong's ingress controller.
type ConfigPatch struct {
	// Path of the value in `config`, a JSON pointer (RFC 6901) such as `/redis/password`. What is there is replaced, and what
	// is not there on the way is made. In a list, a number puts the value before that item, and `-` behind the last.
	// +required
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^(/([^~/]|~[01])*)+$`
	Path string `json:"path"`
	// ValueFrom is where the value comes from. It is JSON, as in Kong's ingress controller, such as `5`, `true`, `["a"]` or
	// `"text"`; anything else is a text as it is. A text that looks like a number needs the quotes, or `secretKeyRef` in `config`.
	// +required
	ValueFrom ConfigSource `json:"valueFrom"`
}

// FailurePolicy says what happens to a request when a plugin cannot do its work.
//
// +kubebuilder:validation:Enum=FailClosed;FailOpen
type FailurePolicy string

const (
	// FailClosed refuses the request. It is the default.
	FailClosed FailurePolicy = "FailClosed"
	// FailOpen skips the plugin.
	FailOpen FailurePolicy = "FailOpen"
)

// LuaPlugin is the source of a Lua plugin: a chunk that gets its config as `...` and returns a table
// with the functions `request` and `response` (either may be absent):
//
//	local config = ...
//	return {
//	  request = function(handle) handle:headers():add("x-hello", config.who) end,
//	}
//
// It may ask services, which it declares:
//
//	inline: |
//	  return {
//	    request = function(handle)
//	      local answer = pdk.call(handle, "stock", {path = "/of/" .. pdk.header(handle, "x-article")})
//	      if answer.status == 404 then pdk.fail(handle, 404, "no such article") end
//	    end,
//	  }
//	services:
//	- {name: stock, host: stock.shop, port: 8080}
//
// +kubebuilder:validation:XValidation:rule="has(self.inline) != has(self.configMapRef)",message="exactly one of inline and configMapRef must be set"
type LuaPlugin struct {
	// Inline is the source itself, at most 128 KiB.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=131072
	Inline string `json:"inline,omitempty"`
	// ConfigMapRef is a key of a ConfigMap in the Plugin's namespace that holds the source.
	// +optional
	ConfigMapRef *KeyRef `json:"configMapRef,omitempty"`
	// Services that the plugin may call, with pdk.call and pdk.send, and no others. Entries of annotations cannot change
	// them. One that does not exist makes the plugin invalid.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=name
	Services []LuaService `json:"services,omitempty"`
}

// LuaService is a service that a Lua plugin may call.
type LuaService struct {
	// Name by which the plugin calls it.
	// +required
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9]([-_A-Za-z0-9]*[A-Za-z0-9])?$`
	Name        string `json:"name"`
	ServicePort `json:",inline"`
}

// KeyRef names a key of a ConfigMap or Secret.
type KeyRef struct {
	// Name of the object.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// Key in the object's data.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key"`
}

// WasmPlugin is a proxy-wasm module. Its fields have the names and meanings of Istio's WasmPlugin.
//
// Istio's agent in the gateway's pod fetches the module. While it cannot (there is no such image, its checksum is another,
// the secret is wrong) the routes answer 403, or run without the plugin where failStrategy is FAIL_OPEN. Nobody but the
// agent's log tells. It tries again whenever istiod sends extension configurations, to which the controller brings it at
// least every 5 minutes. What it has fetched it gives to all Plugins that name the same url, whatever their pull secret.
//
// Each Plugin has a virtual machine of its own: others of the same module do not share what it stores, and do not stop when
// it traps.
//
// +kubebuilder:validation:XValidation:rule="!has(self.imagePullSecret) || self.url.startsWith('oci://') || !self.url.contains('://')",message="imagePullSecret needs an oci:// url"
type WasmPlugin struct {
	// URL of the module: `oci://registry/repository:tag`, `oci://registry/repository@sha256:…`, `https://…`, `http://…`, or
	// `file:///path` for a file on the gateway itself. Without a scheme it is an OCI image. An image holds the module as
	// plugin.wasm in its last layer, or is an artifact of the media type application/vnd.module.wasm.content.layer.v1+wasm.
	// A registry or server whose certificate the gateway does not trust must be in WASM_INSECURE_REGISTRIES of the
	// gateway's istio-proxy container.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	URL string `json:"url"`
	// SHA256 of the module, for `oci://` of the manifest. A module with another sum counts as one that cannot be fetched.
	// +optional
	// +kubebuilder:validation:Pattern=`^[a-f0-9]{64}$`
	SHA256 string `json:"sha256,omitempty"`
	// ImagePullPolicy says when an OCI image is fetched anew: IfNotPresent (the default, but Always for the tag `latest`) or
	// Always, which is with each edit of the Plugin and of its users' configs.
	// +optional
	// +kubebuilder:validation:Enum=UNSPECIFIED_POLICY;IfNotPresent;Always
	ImagePullPolicy string `json:"imagePullPolicy,omitempty"`
	// ImagePullSecret is the name of a kubernetes.io/dockerconfigjson Secret in the root namespace of the
	// Istio installation, where the generated objects live: whoever may write Plugins may use those there. A change of the
	// Secret takes effect by itself. It needs gateways that speak TLS to istiod.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	ImagePullSecret string `json:"imagePullSecret,omitempty"`
	// PluginName is the proxy-wasm root id.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	PluginName string `json:"pluginName,omitempty"`
	// VMConfig configures the module's virtual machine.
	// +optional
	VMConfig *WasmVMConfig `json:"vmConfig,omitempty"`
	// FailStrategy says what happens when the module cannot be fetched, and when it traps. FAIL_RELOAD refuses requests, and
	// starts a trapped module anew within about a second. FAIL_CLOSE refuses requests, after a trap until the next edit.
	// FAIL_OPEN lets requests pass without the module, after a trap until the next edit, except the one that made it trap.
	// The default is FAIL_RELOAD, or FAIL_OPEN where the Plugin's failurePolicy is FailOpen. A module that Envoy cannot start
	// is refused with each of them: gateways keep what they had, and routes that are new are refused.
	// +optional
	// +kubebuilder:validation:Enum=FAIL_CLOSE;FAIL_OPEN;FAIL_RELOAD
	FailStrategy string `json:"failStrategy,omitempty"`
}

// WasmVMConfig is the configuration of a Wasm virtual machine.
type WasmVMConfig struct {
	// Env are the environment variables that the module sees.
	// +optional
	// +kubebuilder:validation:MaxItems=256
	// +listType=map
	// +listMapKey=name
	Env []WasmEnvVar `json:"env,omitempty"`
}

// WasmEnvVar is one environment variable of a Wasm module.
//
// +kubebuilder:validation:XValidation:rule="!has(self.value) || !has(self.valueFrom) || self.valueFrom == 'INLINE'",message="value may only be set when valueFrom is INLINE"
type WasmEnvVar struct {
	// Name of the variable.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Name string `json:"name"`
	// ValueFrom is INLINE (the default: `value`) or HOST (the gateway's own environment).
	// +optional
	// +kubebuilder:validation:Enum=INLINE;HOST
	ValueFrom string `json:"valueFrom,omitempty"`
	// Value of the variable.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	Value string `json:"value,omitempty"`
}

// EnvoyPlugin is one of Envoy's own HTTP filters.
type EnvoyPlugin struct {
	// TypedConfig is the filter's configuration, with its type in `@type`. It may be any HTTP filter that
	// Istio's proxy has and that does not end the chain itself.
	// +required
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Type=object
	TypedConfig *apiextensionsv1.JSON `json:"typedConfig"`
}

// ExtAuthPlugin is a service that says whether a request may pass. Unlike the config of the built-in ext-auth, what it
// says cannot be changed by the entries of annotations. How the service is asked (timeout, headers, body, what happens when
// it fails) is `config`, with the fields of the built-in: `istio-plugins catalog show ext-auth`.
//
// A request is refused while the service cannot be asked, unless failurePolicy is FailOpen or the config says otherwise.
type ExtAuthPlugin struct {
	// Service that is asked.
	// +required
	Service ServicePort `json:"service"`
	// Protocol is http (the default), or grpc for a service that has Envoy's envoy.service.auth.v3.Authorization.
	// +optional
	// +kubebuilder:validation:Enum=http;grpc
	Protocol string `json:"protocol,omitempty"`
}

// ExtProcPlugin is a service that has Envoy's envoy.service.ext_proc.v3.ExternalProcessor. Unlike the config of the built-in
// ext-proc, what it says cannot be changed by the entries of annotations. What the service gets, and what happens when it
// fails, is `config`, with the fields of the built-in: `istio-plugins catalog show ext-proc`.
//
// A request is refused while the service cannot be asked, unless failurePolicy is FailOpen or the config says otherwise.
type ExtProcPlugin struct {
	// Service that processes.
	// +required
	Service ServicePort `json:"service"`
}

// ServicePort is a port of a service that gateways know: a Kubernetes Service or an Istio ServiceEntry, of whichever
// namespace, that is exported to the gateway's namespace. It is what a VirtualService may name as its destination, and
// like there, no ReferenceGrant is needed. A DestinationRule for the host says whether TLS is used.
type ServicePort struct {
	// Host of the service: the name of a Service in the Plugin's namespace (for a ClusterPlugin, in the root namespace of
	// the Istio installation), `name.namespace`, `name.namespace.svc.cluster.local`, or a host of a ServiceEntry.
	// +required
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?$`
	Host string `json:"host"`
	// Port of the Service or ServiceEntry, not of a pod. For gRPC it must be declared as such, by appProtocol grpc or a name
	// such as `grpc-check`.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`
}

// Conditions of a Plugin and a ClusterPlugin.
const (
	// ConditionAccepted says whether the plugin can be used: its kind, config and references are right.
	//
	// Reasons when True: Accepted.
	// Reasons when False: the reason of the finding that makes it unusable (see package finding), for example InvalidConfig.
	// Traffic when False: routes that name it answer 503, or skip it if its failurePolicy is FailOpen.
	ConditionAccepted = "Accepted"
	// ConditionProgrammed says whether the gateways run the current generation, by what istiod says of them.
	//
	// Reasons when True: Programmed (every connected gateway that should run it has accepted it; whether it could fetch a
	// Wasm module is not known).
	// Reasons when False: NotAccepted (see Accepted), Pending (some gateway has not answered yet; what was known of this
	// generation before holds until it does), Rejected (a gateway refused it; the message is the gateway's own),
	// WriteFailed (the generated objects could not be written).
	// Reasons when Unknown: NotAttached (no route runs it), NoGateway (none is connected), MaybeRejected (a gateway refused
	// something that came at the same time), NoEvidence (istiod could not be asked, or does not tell).
	ConditionProgrammed = "Programmed"
)

// PluginStatus says whether a plugin can be used and where it is used.
type PluginStatus struct {
	// ObservedGeneration is the generation of the spec that this status speaks of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Type of the plugin: the name of the built-in, or Lua, Wasm, Envoy, ExtAuth or ExtProc.
	// +optional
	Type string `json:"type,omitempty"`
	// Attached is the number of routes that run this plugin.
	// +optional
	Attached int32 `json:"attached"`
	// AttachedRoutes are the first few of these routes, as `<kind>/<namespace>/<name>[:<route>]`.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	AttachedRoutes []string `json:"attachedRoutes,omitempty"`
	// Conditions: Accepted and Programmed.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
