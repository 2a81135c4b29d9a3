package jwt

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	jwtauthnv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/callout"
)

// retry is how long a gateway waits after a fetch that failed. Meanwhile it verifies with the keys that it has; without
// any, requests with a token fetch themselves.
const retry = 10 * time.Second

// keys fills in where a provider has its keys from.
func (s issuer) keys(use builtin.Use, p *jwtauthnv3.JwtProvider, path string) []builtin.Problem {
	switch {
	case s.JWKS != nil && s.JWKSURI != "":
		return []builtin.Problem{{Path: path, Message: "has both jwks and jwks_uri: only one of them can hold the keys"}}
	case s.JWKS != nil:
		text, err := readJWKS(s.JWKS)
		if err != nil {
			return []builtin.Problem{{Path: path + ".jwks", Message: err.Error()}}
		}
		p.JwksSourceSpecifier = &jwtauthnv3.JwtProvider_LocalJwks{LocalJwks: &corev3.DataSource{
			Specifier: &corev3.DataSource_InlineString{InlineString: text},
		}}
		return nil
	case s.JWKSURI != "":
		remote, problems := s.remote(use, path)
		p.JwksSourceSpecifier = &jwtauthnv3.JwtProvider_RemoteJwks{RemoteJwks: remote}
		return problems
	}
	return []builtin.Problem{{Path: path, Message: "needs jwks or jwks_uri: the issuer's keys, or where they are"}}
}

// remote are keys that gateways fetch. They do so in the background too, because Envoy by itself forgets them when they are
// cache_duration old, and would let requests wait for the next ones, or refuse them where there are none.
func (s issuer) remote(use builtin.Use, path string) (*jwtauthnv3.RemoteJwks, []builtin.Problem) {
	keep, problems := callout.Duration(path+".cache_duration", s.CacheDuration, "1s", "24h")
	timeout, wrong := callout.Timeout(path+".timeout", s.Timeout)
	problems = append(problems, wrong...)
	uri, service, err := callout.URI(s.JWKSURI)
	if err != nil {
		return nil, append(problems, builtin.Problem{Path: path + ".jwks_uri", Message: err.Error()})
	}
	cluster, wrong := callout.Cluster(use, service, false)
	for _, p := range wrong {
		p.Path = path + ".jwks_uri"
		problems = append(problems, p)
	}
	return &jwtauthnv3.RemoteJwks{
		HttpUri: &corev3.HttpUri{
			Uri:              uri,
			HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: cluster},
			Timeout:          durationpb.New(timeout),
		},
		CacheDuration: durationpb.New(keep),
		// A listener that waited for a first answer would make every route wait for it.
		AsyncFetch: &jwtauthnv3.JwksAsyncFetch{FastListener: true, FailedRefetchDuration: durationpb.New(retry)},
	}, problems
}
