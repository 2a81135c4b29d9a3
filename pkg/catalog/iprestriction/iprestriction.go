// Package iprestriction is the built-in ip-restriction: allow and deny lists of client addresses.
//
// Envoy's rbac filter compares the address and only notes the result (shadow rules); Lua behind it answers, because
// rbac's own answer is a fixed text. Both lists are one rule of one filter.
package iprestriction

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

//go:embed schema.yaml
var schema []byte

//go:embed handler.lua
var handler string

// Builtin is ip-restriction.
var Builtin = &builtin.Builtin{
	Name:   "ip-restriction",
	Schema: builtin.MustSchema(schema),
	Build:  build,
	Guards: true,
}

// meant is how many entries a list should have at most: each costs a comparison per request.
const meant = 1000

type settings struct {
	Allow   []string    `json:"allow"`
	Deny    []string    `json:"deny"`
	Status  json.Number `json:"status"`
	Message *string     `json:"message"`
}

func build(use builtin.Use, v config.Value) ([]part.Part, []builtin.Problem) {
	var s settings
	builtin.DecodeInto(v, &s)
	allow, problems := prefixes("allow", s.Allow)
	deny, denyProblems := prefixes("deny", s.Deny)
	problems = append(problems, denyProblems...)
	if len(s.Allow) == 0 && len(s.Deny) == 0 {
		problems = append(problems, builtin.Problem{Message: "needs an entry in allow or deny"})
	}
	for _, p := range problems {
		if !p.Warning {
			return nil, problems
		}
	}
	prefix := "ip_restriction_" + use.Key() + "_" // all instances write to one metadata namespace
	lua := config.Value{"status": s.Status, "result": prefix + "shadow_engine_result"}
	if s.Message != nil {
		lua["message"] = *s.Message
	}
	return []part.Part{
		part.Native{Config: judge(prefix, allow, deny)},
		use.Lua(handler, lua),
	}, problems
}

// prefixes reads a list. An IPv4 range is followed by its IPv4-mapped IPv6 one, which Envoy would not match otherwise.
// Ranges that occur twice are kept once.
func prefixes(list string, texts []string) ([]netip.Prefix, []builtin.Problem) {
	var problems []builtin.Problem
	if len(texts) > meant {
		problems = append(problems, builtin.Problem{Path: list, Warning: true,
			Message: fmt.Sprintf("has %d entries, which are compared one by one for each request; up to %d are meant", len(texts), meant)})
	}
	var out []netip.Prefix
	seen := make(map[netip.Prefix]bool, len(texts))
	for i, text := range texts {
		p, err := parse(text)
		if err != nil {
			problems = append(problems, builtin.Problem{Path: fmt.Sprintf("%s[%d]", list, i), Message: fmt.Sprintf("%q %v", text, err)})
			continue
		}
		if seen[p] {
			continue
		}
		seen[p] = true
		out = append(out, p)
		if p.Addr().Is4() {
			out = append(out, mapped(p))
		}
	}
	return out, problems
}

// parse reads an address or a range, without the bits behind the prefix. A range of IPv4-mapped addresses is the IPv4
// range that it means; zone ids name an interface of some machine and are refused.
func parse(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, errors.New("is no IP address or CIDR range")
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if p.Addr().Is4In6() {
		if p.Bits() < mappedBits {
			return netip.Prefix{}, fmt.Errorf("is wider than ::ffff:0:0/%d, which is all of IPv4; an IPv4 range is written as 10.0.0.0/8", mappedBits)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mappedBits)
	}
	return p.Masked(), nil
}

// mappedBits is the length of ::ffff:0:0/96, which holds the IPv4-mapped addresses (RFC 4291 §2.5.5.2).
const mappedBits = 96

func mapped(p netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16(p.Addr().As16()), mappedBits+p.Bits())
}

// judge allows what is not in deny and, unless allow is empty, in allow. Without rules it lets every request pass, and
// notes `<prefix>shadow_engine_result`.
func judge(prefix string, allow, deny []netip.Prefix) *rbacv3.RBAC {
	var all []*rbacconfigv3.Principal
	if len(deny) > 0 {
		all = append(all, &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_NotId{NotId: anyOf(deny)}})
	}
	if len(allow) > 0 {
		all = append(all, anyOf(allow))
	}
	return &rbacv3.RBAC{
		ShadowRulesStatPrefix: prefix,
		ShadowRules: &rbacconfigv3.RBAC{
			Action: rbacconfigv3.RBAC_ALLOW,
			Policies: map[string]*rbacconfigv3.Policy{"allowed": {
				Permissions: []*rbacconfigv3.Permission{{Rule: &rbacconfigv3.Permission_Any{Any: true}}},
				Principals: []*rbacconfigv3.Principal{{
					Identifier: &rbacconfigv3.Principal_AndIds{AndIds: &rbacconfigv3.Principal_Set{Ids: all}},
				}},
			}},
		},
	}
}

func anyOf(prefixes []netip.Prefix) *rbacconfigv3.Principal {
	ids := make([]*rbacconfigv3.Principal, len(prefixes))
	for i, p := range prefixes {
		ids[i] = &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_RemoteIp{RemoteIp: &corev3.CidrRange{
			AddressPrefix: p.Addr().String(),
			PrefixLen:     wrapperspb.UInt32(uint32(p.Bits())),
		}}}
	}
	return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_OrIds{OrIds: &rbacconfigv3.Principal_Set{Ids: ids}}}
}
