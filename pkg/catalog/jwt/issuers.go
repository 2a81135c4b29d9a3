package jwt

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	jwtauthnv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/authn"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

//go:embed ask.lua
var ask string

//go:embed judge.lua
var judge string

// issuer is somebody whose tokens are accepted.
type issuer struct {
	Issuer               string          `json:"issuer"`
	JWKS                 json.RawMessage `json:"jwks"`
	JWKSURI              string          `json:"jwks_uri"`
	CacheDuration        string          `json:"cache_duration"`
	Timeout              string          `json:"timeout"`
	Audiences            []string        `json:"audiences"`
	ForwardPayloadHeader string          `json:"forward_payload_header"`
}

// ofIssuers makes the parts that verify tokens of issuers: the filter is asked, notes what it finds, and is answered for.
func ofIssuers(use builtin.Use, s settings, chunk config.Value) ([]part.Part, []builtin.Problem) {
	id := shortHash(use.Instance)
	header, claims := "x-istio-plugins-jwt-"+id, "istio-plugins-"+id
	filter := &jwtauthnv3.JwtAuthentication{Providers: map[string]*jwtauthnv3.JwtProvider{}}
	anyOf := &jwtauthnv3.JwtRequirementOrList{}
	var failures, payloads []string
	var problems []builtin.Problem
	state := part.Stateless
	for i, issuer := range s.Issuers {
		failed := fmt.Sprintf("%s-failed-%d", claims, i)
		failures = append(failures, failed)
		if issuer.ForwardPayloadHeader != "" {
			payloads = append(payloads, strings.ToLower(issuer.ForwardPayloadHeader))
		}
		p := &jwtauthnv3.JwtProvider{
			Issuer:                 issuer.Issuer,
			Audiences:              issuer.Audiences,
			FromHeaders:            []*jwtauthnv3.JwtHeader{{Name: header}},
			ForwardPayloadHeader:   issuer.ForwardPayloadHeader,
			PayloadInMetadata:      claims,
			FailedStatusInMetadata: failed,
			ClockSkewSeconds:       envoySkew(s.ClockSkewSeconds),
		}
		problems = append(problems, issuer.keys(use, p, builtin.Path("issuers", strconv.Itoa(i)))...)
		if p.GetRemoteJwks() != nil {
			state = part.PerPlugin // which keys were fetched: edits of other plugins must not make it forget them
		}
		provider := strconv.Itoa(i)
		filter.Providers[provider] = p
		anyOf.Requirements = append(anyOf.Requirements, &jwtauthnv3.JwtRequirement{
			RequiresType: &jwtauthnv3.JwtRequirement_ProviderName{ProviderName: provider},
		})
	}
	if slices.ContainsFunc(problems, func(p builtin.Problem) bool { return !p.Warning }) {
		return nil, problems
	}
	// The last of them lets every request pass: judge.lua answers.
	anyOf.Requirements = append(anyOf.Requirements, &jwtauthnv3.JwtRequirement{
		RequiresType: &jwtauthnv3.JwtRequirement_AllowMissingOrFailed{AllowMissingOrFailed: &emptypb.Empty{}},
	})
	filter.Rules = []*jwtauthnv3.RequirementRule{{
		Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		RequirementType: &jwtauthnv3.RequirementRule_Requires{Requires: &jwtauthnv3.JwtRequirement{
			RequiresType: &jwtauthnv3.JwtRequirement_RequiresAny{RequiresAny: anyOf},
		}},
	}}
	chunk["header"] = header
	chunk["claims"] = claims
	chunk["failures"] = authn.List(failures)
	chunk["payloads"] = authn.List(payloads)
	if s.Realm != "" {
		chunk["challenge"] = authn.Challenge("Bearer", s.Realm)
	}
	if s.SecretIsBase64 {
		problems = append(problems, builtin.Problem{Path: "secret_is_base64", Message: "has no meaning beside issuers, whose keys are public", Warning: true})
	}
	return []part.Part{chunkOf(use, ask, chunk), part.Native{Config: filter, State: state}, chunkOf(use, judge, chunk)}, problems
}

// envoySkew is what Envoy tolerates, at least a second: 0 stands for its own default there. judge.lua does not tolerate
// more than is configured.
func envoySkew(seconds json.Number) uint32 {
	n, err := strconv.ParseUint(seconds.String(), 10, 32)
	if err != nil {
		panic(fmt.Sprintf("schema and Go type disagree: %v", err))
	}
	return max(1, uint32(n))
}

// shortHash is a text for an instance, fit for a header's name and a metadata key.
func shortHash(instance string) string {
	sum := sha256.Sum256([]byte(instance))
	return hex.EncodeToString(sum[:8])
}
