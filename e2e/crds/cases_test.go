package crds

import (
	"fmt"
	"strings"
)

type verdict struct {
	name, kind, spec string
	// want is what the API server says, field by field; nothing for accepted objects.
	want []string
}

// long is a string of so many letters.
func long(n int) string { return strings.Repeat("a", n) }

// many is a list of so many different names, each within a frame.
func many(n int, before, after string) string {
	items := make([]string, n)
	for i := range items {
		items[i] = fmt.Sprintf("%sa%d%s", before, i, after)
	}
	return "[" + strings.Join(items, ", ") + "]"
}

var accepted = []verdict{
	{name: "a built-in", kind: "Plugin", spec: "{builtin: rate-limiting, config: {minute: 100}}"},
	{name: "everything that holds for all kinds", kind: "ClusterPlugin", spec: "{builtin: cors, priority: -2147483648, failurePolicy: FailOpen, description: x, config: {a: [{b: null}]}}"},
	{name: "Lua in the object", kind: "Plugin", spec: "{lua: {inline: 'return {}'}}"},
	{name: "Lua of the greatest length", kind: "Plugin", spec: "{lua: {inline: " + long(131072) + "}}"},
	{name: "Lua in a ConfigMap", kind: "Plugin", spec: "{lua: {configMapRef: {name: a, key: a.lua}}}"},
	{name: "Lua that calls services", kind: "Plugin", spec: "{lua: {inline: x, services: [{name: a, host: a, port: 1}, {name: A_1-b, host: a.test, port: 65535}]}}"},
	{name: "Wasm with all fields", kind: "Plugin", spec: "{wasm: {url: 'oci://r/a:1', sha256: " + strings.Repeat("0a", 32) + ", imagePullPolicy: Always, imagePullSecret: s, pluginName: p, " +
		"failStrategy: FAIL_RELOAD, vmConfig: {env: [{name: A, value: b}, {name: B, valueFrom: HOST}, {name: C, valueFrom: INLINE, value: c}]}}}"},
	{name: "a pull secret with an image without scheme", kind: "Plugin", spec: "{wasm: {url: 'registry/a:1', imagePullSecret: s}}"},
	{name: "an Envoy filter", kind: "Plugin", spec: `{envoy: {typedConfig: {"@type": type.googleapis.com/x, a: {b: 1.5}}}}`},
	{name: "an authorization service", kind: "Plugin", spec: "{extAuth: {service: {host: authz.auth, port: 9000}, protocol: grpc}, config: {timeout: 1s}}"},
	{name: "an authorization service by HTTP", kind: "ClusterPlugin", spec: "{extAuth: {service: {host: Authz, port: 65535}}}"},
	{name: "a processing service", kind: "Plugin", spec: "{extProc: {service: {host: a.b.svc.cluster.local, port: 1}}, failurePolicy: FailOpen}"},
	{name: "a config from a Secret", kind: "ClusterPlugin", spec: "{builtin: cors, configFrom: {secretKeyRef: {name: s, key: k}}}"},
	{name: "values from Secrets", kind: "Plugin", spec: "{builtin: cors, config: {a: {secretKeyRef: {name: s, key: k}}}, configPatches: [{path: /a~1b/0/-/~0, valueFrom: {secretKeyRef: {name: s, key: k}}}]}"},
	{name: "values from Secrets alone", kind: "Plugin", spec: "{builtin: cors, configPatches: " + many(64, "{path: /a/", ", valueFrom: {secretKeyRef: {name: s, key: k}}}") + "}"},
	{name: "a consumer by username", kind: "Consumer", spec: "{username: alice, credentials: [a, b], groups: [x]}"},
	{name: "a consumer by custom_id", kind: "Consumer", spec: "{custom_id: '4711'}"},
	{name: "a null is as good as absent", kind: "Plugin", spec: "{builtin: cors, lua: null, config: null, priority: null}"},
}

const (
	oneKind   = "spec: Invalid value: exactly one of builtin, lua, wasm, envoy, extAuth and extProc must be set"
	oneSource = "spec.lua: Invalid value: exactly one of inline and configMapRef must be set"
)

var refused = []verdict{
	{"no kind of plugin", "Plugin", "{config: {}}", []string{oneKind}},
	{"two kinds of plugin", "Plugin", "{builtin: cors, lua: {inline: x}}", []string{oneKind}},
	{"four kinds of plugin", "ClusterPlugin", "{builtin: cors, lua: {inline: x}, wasm: {url: a}, envoy: {typedConfig: {}}}", []string{oneKind}},
	{"six kinds of plugin", "Plugin", "{builtin: cors, lua: {inline: x}, wasm: {url: a}, envoy: {typedConfig: {}}, extAuth: {service: {host: a, port: 1}}, extProc: {service: {host: a, port: 1}}}", []string{oneKind}},
	{"an unknown field", "Plugin", "{builtin: cors, prority: 1}", []string{"spec.prority: unknown field"}},
	{"an unknown field in a list", "Plugin", "{wasm: {url: a, vmConfig: {env: [{name: a, valu: b}]}}}", []string{"spec.wasm.vmConfig.env[0].valu: unknown field"}},
	{"an empty built-in", "Plugin", "{builtin: ''}", []string{`spec.builtin: Invalid value: "": spec.builtin in body should be at least 1 chars long`}},
	{"a long built-in", "Plugin", "{builtin: " + long(64) + "}", []string{"spec.builtin: Too long: may not be more than 63 bytes"}},
	{"a config that is no map", "Plugin", "{builtin: cors, config: [a]}", []string{`spec.config: Invalid value: "array": spec.config in body must be of type object: "array"`}},
	{"a priority that is no integer", "Plugin", "{builtin: cors, priority: 1.5}", []string{": Invalid value: \"\": Checked value must be of type integer with format int32 in spec.priority", `spec.priority: Invalid value: "float64": spec.priority in body must be of type int32: "float64"`}},
	{"a priority that is too high", "Plugin", "{builtin: cors, priority: 2147483648}", []string{": Invalid value: \"\": Checked value must be of type integer with format int32 in spec.priority"}},
	{"an unknown failure policy", "Plugin", "{builtin: cors, failurePolicy: Fail}", []string{`spec.failurePolicy: Unsupported value: "Fail": supported values: "FailClosed", "FailOpen"`}},
	{"a long description", "Plugin", "{builtin: cors, description: " + long(1025) + "}", []string{"spec.description: Too long: may not be more than 1024 bytes"}},

	{"Lua without a source", "Plugin", "{lua: {}}", []string{oneSource}},
	{"Lua with two sources", "Plugin", "{lua: {inline: x, configMapRef: {name: a, key: b}}}", []string{oneSource}},
	{"an empty source", "Plugin", "{lua: {inline: ''}}", []string{`spec.lua.inline: Invalid value: "": spec.lua.inline in body should be at least 1 chars long`}},
	{"a long source", "Plugin", "{lua: {inline: " + long(131073) + "}}", []string{"spec.lua.inline: Too long: may not be more than 131072 bytes"}},
	{"a ConfigMap without a key", "Plugin", "{lua: {configMapRef: {name: a}}}", []string{"spec.lua.configMapRef.key: Required value"}},
	{"a ConfigMap without a name", "Plugin", "{lua: {configMapRef: {key: a}}}", []string{"spec.lua.configMapRef.name: Required value"}},

	{"a service without a port", "Plugin", "{lua: {inline: x, services: [{name: a, host: a}]}}", []string{"spec.lua.services[0].port: Required value"}},
	{"a service without a name", "Plugin", "{lua: {inline: x, services: [{host: a, port: 1}]}}", []string{"spec.lua.services[0].name: Required value"}},
	{"two services of one name", "Plugin", "{lua: {inline: x, services: [{name: a, host: a, port: 1}, {name: a, host: b, port: 1}]}}", []string{`spec.lua.services[1]: Duplicate value: {"name":"a"}`}},
	{"many services", "Plugin", "{lua: {inline: x, services: " + many(17, "{host: a, port: 1, name: ", "}") + "}}", []string{"spec.lua.services: Too many: 17: must have at most 16 items"}},
	{"a service with a blank", "Plugin", "{lua: {inline: x, services: [{name: a b, host: a, port: 1}]}}", []string{`spec.lua.services[0].name: Invalid value: "a b": spec.lua.services[0].name in body should match '^[A-Za-z0-9]([-_A-Za-z0-9]*[A-Za-z0-9])?$'`}},
	{"a config and one from a Secret", "Plugin", "{builtin: cors, config: {}, configFrom: {secretKeyRef: {name: s, key: k}}}", []string{"spec: Invalid value: configFrom cannot be used together with config or configPatches"}},
	{"a config from a Secret and patches", "ClusterPlugin", "{builtin: cors, configPatches: [], configFrom: {secretKeyRef: {name: s, key: k}}}", []string{"spec: Invalid value: configFrom cannot be used together with config or configPatches"}},
	{"a Secret without a key", "Plugin", "{builtin: cors, configFrom: {secretKeyRef: {name: s}}}", []string{"spec.configFrom.secretKeyRef.key: Required value"}},
	{"a config from nothing", "Plugin", "{builtin: cors, configFrom: {}}", []string{"spec.configFrom.secretKeyRef: Required value"}},
	{"a patch that is no pointer", "Plugin", "{builtin: cors, configPatches: [{path: a, valueFrom: {secretKeyRef: {name: s, key: k}}}]}", []string{`spec.configPatches[0].path: Invalid value: "a": spec.configPatches[0].path in body should match '^(/([^~/]|~[01])*)+$'`}},
	{"a patch of the whole", "Plugin", "{builtin: cors, configPatches: [{path: '', valueFrom: {secretKeyRef: {name: s, key: k}}}]}", []string{`spec.configPatches[0].path: Invalid value: "": spec.configPatches[0].path in body should match '^(/([^~/]|~[01])*)+$'`}},
	{"a patch without a value", "Plugin", "{builtin: cors, configPatches: [{path: /a}]}", []string{"spec.configPatches[0].valueFrom: Required value"}},
	{"many patches", "Plugin", "{builtin: cors, configPatches: " + many(65, "{path: /a/", ", valueFrom: {secretKeyRef: {name: s, key: k}}}") + "}", []string{"spec.configPatches: Too many: 65: must have at most 64 items"}},

	{"Wasm without a url", "Plugin", "{wasm: {}}", []string{"spec.wasm.url: Required value"}},
	{"a pull secret with https", "Plugin", "{wasm: {url: 'https://a', imagePullSecret: s}}", []string{"spec.wasm: Invalid value: imagePullSecret needs an oci:// url"}},
	{"a sum that is none", "Plugin", "{wasm: {url: a, sha256: zz}}", []string{`spec.wasm.sha256: Invalid value: "zz": spec.wasm.sha256 in body should match '^[a-f0-9]{64}$'`}},
	{"an unknown pull policy", "Plugin", "{wasm: {url: a, imagePullPolicy: Never}}", []string{`spec.wasm.imagePullPolicy: Unsupported value: "Never": supported values: "UNSPECIFIED_POLICY", "IfNotPresent", "Always"`}},
	{"an unknown fail strategy", "Plugin", "{wasm: {url: a, failStrategy: FailOpen}}", []string{`spec.wasm.failStrategy: Unsupported value: "FailOpen": supported values: "FAIL_CLOSE", "FAIL_OPEN", "FAIL_RELOAD"`}},
	{"a value from the host", "Plugin", "{wasm: {url: a, vmConfig: {env: [{name: A, valueFrom: HOST, value: b}]}}}", []string{"spec.wasm.vmConfig.env[0]: Invalid value: value may only be set when valueFrom is INLINE"}},
	{"a variable from elsewhere", "Plugin", "{wasm: {url: a, vmConfig: {env: [{name: A, valueFrom: SECRET}]}}}", []string{`spec.wasm.vmConfig.env[0].valueFrom: Unsupported value: "SECRET": supported values: "INLINE", "HOST"`}},
	{"a variable given twice", "Plugin", "{wasm: {url: a, vmConfig: {env: [{name: A}, {name: A}]}}}", []string{`spec.wasm.vmConfig.env[1]: Duplicate value: {"name":"A"}`}},
	{"many variables", "Plugin", "{wasm: {url: a, vmConfig: {env: " + many(257, "{name: ", "}") + "}}}", []string{"spec.wasm.vmConfig.env: Too many: 257: must have at most 256 items"}},

	{"an Envoy filter without a config", "Plugin", "{envoy: {}}", []string{"spec.envoy.typedConfig: Required value"}},
	{"an Envoy config that is text", "Plugin", "{envoy: {typedConfig: x}}", []string{`spec.envoy.typedConfig: Invalid value: "string": spec.envoy.typedConfig in body must be of type object: "string"`}},

	{"an authorization service without a service", "Plugin", "{extAuth: {}}", []string{"spec.extAuth.service: Required value"}},
	{"an authorization service without a port", "Plugin", "{extAuth: {service: {host: a}}}", []string{"spec.extAuth.service.port: Required value"}},
	{"a processing service without a host", "Plugin", "{extProc: {service: {port: 1}}}", []string{"spec.extProc.service.host: Required value"}},
	{"a host that is none", "Plugin", "{extProc: {service: {host: 'a|b', port: 1}}}", []string{`spec.extProc.service.host: Invalid value: "a|b": spec.extProc.service.host in body should match '^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?$'`}},
	{"a port that is none", "Plugin", "{extAuth: {service: {host: a, port: 0}}}", []string{"spec.extAuth.service.port: Invalid value: 0: spec.extAuth.service.port in body should be greater than or equal to 1"}},
	{"a port that is too high", "Plugin", "{extAuth: {service: {host: a, port: 65536}}}", []string{"spec.extAuth.service.port: Invalid value: 65536: spec.extAuth.service.port in body should be less than or equal to 65535"}},
	{"an unknown protocol", "Plugin", "{extAuth: {service: {host: a, port: 1}, protocol: tcp}}", []string{`spec.extAuth.protocol: Unsupported value: "tcp": supported values: "http", "grpc"`}},

	{"a consumer without a name", "Consumer", "{groups: [a]}", []string{"spec: Invalid value: username or custom_id must be set"}},
	{"a group given twice", "Consumer", "{username: a, groups: [b, b]}", []string{`spec.groups[1]: Duplicate value: "b"`}},
	{"many credentials", "Consumer", "{username: a, credentials: " + many(65, "", "") + "}", []string{"spec.credentials: Too many: 65: must have at most 64 items"}},
}
