// Package catalog is the set of built-in plugins. Each has a folder of its own with its schema (fields, defaults
// and documentation in one place), its Lua or native builder, and its tests. Adding one is adding a folder, a line
// in All, and a case in e2e/bench/builtins.yaml.
package catalog

import (
	"github.com/istio-plugins/istio-plugins/pkg/catalog/accesslog"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/acl"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/basicauth"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/botdetection"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/compression"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/correlationid"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/cors"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/csrf"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/extauth"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/extproc"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/faultinjection"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/hmacauth"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/httplog"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/iprestriction"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/jwt"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/keyauth"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/oidc"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/ratelimiting"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/ratelimitingglobal"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/redirect"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/requestsizelimiting"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/requesttermination"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/requesttransformer"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/responsetransformer"
)

// All are the built-in plugins, by name.
func All() []*builtin.Builtin {
	return []*builtin.Builtin{
		accesslog.Builtin,
		acl.Builtin,
		basicauth.Builtin,
		botdetection.Builtin,
		compression.Builtin,
		correlationid.Builtin,
		cors.Builtin,
		csrf.Builtin,
		extauth.Builtin,
		extproc.Builtin,
		faultinjection.Builtin,
		hmacauth.Builtin,
		httplog.Builtin,
		iprestriction.Builtin,
		jwt.Builtin,
		keyauth.Builtin,
		oidc.Builtin,
		ratelimiting.Builtin,
		ratelimitingglobal.Builtin,
		redirect.Builtin,
		requestsizelimiting.Builtin,
		requesttermination.Builtin,
		requesttransformer.Builtin,
		responsetransformer.Builtin,
	}
}

// Find returns the built-in of a name.
func Find(name string) (*builtin.Builtin, bool) {
	for _, b := range All() {
		if b.Name == name {
			return b, true
		}
	}
	return nil, false
}

// Names of all built-in plugins, in order.
func Names() []string {
	var names []string
	for _, b := range All() {
		names = append(names, b.Name)
	}
	return names
}
