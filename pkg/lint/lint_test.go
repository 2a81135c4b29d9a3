package lint

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/files"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

const gateway = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ["*"]
`

// service is a VirtualService; http is a flow list of its routes.
func service(name, annotation, http string) string {
	return fmt.Sprintf(`
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: %s
  annotations: {istio.io/plugins: %q}
spec:
  hosts: [shop.example.com]
  gateways: [istio-system/public]
  http: %s
`, name, annotation, http)
}

// aged is a service that was created in a year.
func aged(year int, name, annotation, http string) string {
	return strings.Replace(service(name, annotation, http), "metadata:\n", fmt.Sprintf("metadata:\n  creationTimestamp: \"%d-01-01T00:00:00Z\"\n", year), 1)
}

// login is a service with a Plugin login, in the middle of whose config are fields, and the provider.
func login(annotation, fields, http string) string {
	return service("shop", annotation, http) + fmt.Sprintf(`---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: login}
spec:
  builtin: oidc
  config: {issuer: https://login.test, authorization_endpoint: https://login.test/a%s token_endpoint: https://login.test/b, client_id: a, client_secret: 0123456789abcdef0123456789abcdef}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: login}
spec: {hosts: [login.test], ports: [{number: 443, name: http, protocol: HTTP}]}
`, fields)
}

// delegate is the VirtualService d, to which others delegate, with one prefix.
func delegate(prefix string) string {
	return fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: d}
spec: {http: [{match: [{uri: {prefix: %s}}], route: [{destination: {host: a}}]}]}
`, prefix)
}

func check(t *testing.T, text string) []string {
	t.Helper()
	s, err := files.Load(snapshot.Options{}, "", []string{files.Stdin}, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, f := range Check(s, compile.Compile(s)) {
		out = append(out, fmt.Sprintf("%s %s %s", f.Reason, f.Object, f.Place))
	}
	return out
}

func TestCheck(t *testing.T) {
	const all = "[{route: [{destination: {host: a}}]}]"
	at := func(match string) string {
		return fmt.Sprintf("[{match: [%s], route: [{destination: {host: a}}]}]", match)
	}
	for name, c := range map[string]struct {
		in   string
		want []string
	}{
		"nothing is said about a plain chain": {service("shop", "key-auth, cors", all), nil},
		"a Plugin that no annotation names": {"\n---\n" + `{apiVersion: plugins.istio.io/v1alpha1, kind: Plugin, metadata: {name: p}, spec: {builtin: cors}}`,
			[]string{"UnusedPlugin plugin/default/p "}},
		"a Plugin that is only opted out of": {service("shop", "-p", all) + "---\n" + `{apiVersion: plugins.istio.io/v1alpha1, kind: Plugin, metadata: {name: p}, spec: {builtin: cors}}`,
			[]string{"UnusedPlugin plugin/default/p "}},
		"a Plugin that is attached where nothing runs it is another finding's matter": {
			service("shop", "[{name: p, routes: [x]}]", all) + "---\n" + `{apiVersion: plugins.istio.io/v1alpha1, kind: Plugin, metadata: {name: p}, spec: {builtin: cors}}`, nil},
		"a malformed Plugin that nobody names": {"\n---\n" + `{apiVersion: plugins.istio.io/v1alpha1, kind: Plugin, metadata: {name: p}, spec: {builtn: cors}}`,
			[]string{"InvalidPlugin plugin/default/p spec.builtn"}},
		"a credential that no Consumer names": {"\n---\n" + `{apiVersion: v1, kind: Secret, metadata: {name: s, labels: {plugins.istio.io/credential: key-auth}}, stringData: {key: x}}`,
			[]string{"UnusedCredential secret/default/s "}},
		"authentication behind a plugin that answers": {service("shop", "request-termination, key-auth", all),
			[]string{"PluginOrder virtualservice/default/shop metadata.annotations[istio.io/plugins]@21"}},
		"authentication first": {service("shop", "key-auth, request-termination", all), nil},
		"a priority that puts authentication first": {service("shop", "request-termination, auth", all) + "---\n" +
			`{apiVersion: plugins.istio.io/v1alpha1, kind: Plugin, metadata: {name: auth}, spec: {builtin: key-auth, priority: 1}}`, nil},
		"a corsPolicy beside the plugin": {service("shop", "cors", "[{corsPolicy: {allowOrigins: [{exact: a}]}, route: [{destination: {host: a}}]}]"),
			[]string{"ConflictingPolicy virtualservice/default/shop spec.http[0].corsPolicy"}},
		"a corsPolicy without the plugin": {service("shop", "key-auth", "[{corsPolicy: {allowOrigins: [{exact: a}]}, route: [{destination: {host: a}}]}]"), nil},

		"a login whose paths are those of a route without it": {login("[{name: login, routes: [pages]}]", ",", "[{match: [{uri: {prefix: /oauth2}}, {uri: {exact: /logout}}], route: [{destination: {host: a}}]}, {name: pages, route: [{destination: {host: a}}]}]"),
			[]string{"UnreachableLanding virtualservice/default/shop metadata.annotations[istio.io/plugins][0]", "UnreachableLanding virtualservice/default/shop metadata.annotations[istio.io/plugins][0]"}},
		"a login whose paths no route takes": {login("login", ", redirect_uri: 'https://shop.example.com/a/back', logout_path: /app/out,", at("{uri: {prefix: /app}}")),
			[]string{"UnreachableLanding virtualservice/default/shop metadata.annotations[istio.io/plugins]@0"}},
		"a login whose paths are a Secret": {login("login", ", redirect_uri: {secretKeyRef: {name: s, key: k}}, logout_path: {secretKeyRef: {name: s, key: l}},", at("{uri: {prefix: /app}}")) +
			"---\n{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {k: /hidden, l: /veiled}}", nil},
		"a login whose paths are its own":             {login("login", ", redirect_uri: /app/back, logout_path: /app/out,", at("{uri: {prefix: /app}}")), nil},
		"a login that comes back to another host":     {login("login", ", redirect_uri: 'https://login.example.com/a/back', logout_path: /app/out,", at("{uri: {prefix: /app}}")), nil},
		"a login whose paths may be others'":          {login("[{name: login, routes: [pages]}]", ",", "[{match: [{uri: {prefix: /}, headers: {x: {exact: y}}}], route: [{destination: {host: a}}]}, {name: pages, route: [{destination: {host: a}}]}]"), nil},
		"a login whose paths an expression takes":     {login("login", ", redirect_uri: /app/1/back, logout_path: /app/2/back,", at("{uri: {regex: '/app/[0-9]/back'}}")), nil},
		"a login beside another VirtualService":       {login("login", ",", at("{uri: {prefix: /app}}")) + service("other", "", at("{uri: {prefix: /x}}")), nil},
		"a login whose delegate nobody knows":         {login("login", ",", "[{match: [{uri: {prefix: /app}}], delegate: {name: gone}}, {match: [{uri: {prefix: /b}}], route: [{destination: {host: a}}]}]"), nil},
		"a login whose delegate takes its paths":      {login("login", ", redirect_uri: /app/back, logout_path: /app/out,", "[{match: [{uri: {prefix: /app}}], delegate: {name: d}}]") + delegate("/app/"), nil},
		"a login whose delegate leaves out its paths": {login("login", ", redirect_uri: /app/back, logout_path: /app/x/out,", "[{match: [{uri: {prefix: /app}}], delegate: {name: d}}]") + delegate("/app/x"), []string{"UnreachableLanding virtualservice/default/shop metadata.annotations[istio.io/plugins]@0"}},

		"a route behind one without matches": {service("shop", "cors", "[{route: [{destination: {host: a}}]}, {name: api, match: [{uri: {prefix: /api}}], route: [{destination: {host: a}}]}]"),
			[]string{"UnreachableRoute virtualservice/default/shop spec.http[1]"}},
		"a route behind a shorter prefix": {service("shop", "cors", "[{match: [{uri: {prefix: /a}}], route: [{destination: {host: a}}]}, {match: [{uri: {prefix: /api}}, {uri: {exact: /ab}}], route: [{destination: {host: a}}]}]"),
			[]string{"UnreachableRoute virtualservice/default/shop spec.http[1]"}},
		"one of two matches is free":        {service("shop", "cors", "[{match: [{uri: {prefix: /a}}], route: [{destination: {host: a}}]}, {match: [{uri: {prefix: /api}}, {uri: {exact: /b}}], route: [{destination: {host: a}}]}]"), nil},
		"the earlier one asks for a header": {service("shop", "cors", "[{match: [{headers: {x: {exact: y}}}], route: [{destination: {host: a}}]}, {route: [{destination: {host: a}}]}]"), nil},
		"the earlier one knows case":        {service("shop", "cors", "[{match: [{uri: {prefix: /a}}], route: [{destination: {host: a}}]}, {match: [{uri: {prefix: /a}, ignoreUriCase: true}], route: [{destination: {host: a}}]}]"), nil},
		"the earlier one ignores case": {service("shop", "cors", "[{match: [{uri: {prefix: /A}, ignoreUriCase: true}], route: [{destination: {host: a}}]}, {match: [{uri: {exact: /aB}}], route: [{destination: {host: a}}]}]"),
			[]string{"UnreachableRoute virtualservice/default/shop spec.http[1]"}},
		"a dead route that runs no plugin of its own": {service("shop", "[{name: cors, routes: [first]}]", "[{name: first, route: [{destination: {host: a}}]}, {name: second, route: [{destination: {host: a}}]}]"), nil},

		"two VirtualServices that take everything on one host": {service("a", "cors", all) + service("b", "", all),
			[]string{"UnreachableRoute virtualservice/default/a spec.http[0]"}},
		"two VirtualServices with different paths":            {service("a", "cors", at("{uri: {prefix: /a}}")) + service("b", "cors", at("{uri: {prefix: /b}}")), nil},
		"what takes everything is moved behind the others":    {aged(2020, "a", "", all) + aged(2021, "b", "cors", at("{uri: {prefix: /b}}")), nil},
		"what asks for a header is not moved":                 {aged(2020, "a", "", all) + aged(2021, "b", "cors", at("{headers: {x: {exact: y}}}")), nil},
		"an older VirtualService takes a shorter prefix":      {aged(2020, "b", "", at("{uri: {prefix: /a}}")) + aged(2021, "a", "cors", at("{uri: {prefix: /api}}")), []string{"UnreachableRoute virtualservice/default/a spec.http[0]"}},
		"a younger VirtualService takes a shorter prefix":     {aged(2021, "b", "", at("{uri: {prefix: /a}}")) + aged(2020, "a", "cors", at("{uri: {prefix: /api}}")), nil},
		"the older of two equal ones is reached":              {aged(2020, "a", "cors", all) + aged(2021, "b", "", all), nil},
		"without ages a shorter prefix may come second":       {service("b", "", at("{uri: {prefix: /a}}")) + service("a", "cors", at("{uri: {prefix: /api}}")), nil},
		"a Gateway's plugins are no reason to mention routes": {strings.Replace(service("a", "", all)+service("b", "", all), "istio.io/plugins", "other", -1), nil},
	} {
		t.Run(name, func(t *testing.T) {
			want := c.want
			if want == nil {
				want = []string{}
			}
			if diff := cmp.Diff(want, check(t, gateway+c.in)); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}
