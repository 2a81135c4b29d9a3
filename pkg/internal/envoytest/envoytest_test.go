package envoytest

import (
	"strings"
	"testing"

	mutationrulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"

	"github.com/istio-plugins/istio-plugins/pkg/part"
)

func chunk(source string) part.Lua { return part.Lua{Plugin: "test", Source: source} }

const appendOne = `return {request = function(handle) handle:headers():add("x-order", "lua") end}`

func native(value string) part.Native {
	return part.Native{Config: &headermutationv3.HeaderMutation{Mutations: &headermutationv3.Mutations{
		RequestMutations: []*mutationrulesv3.HeaderMutation{{Action: &mutationrulesv3.HeaderMutation_Append{
			Append: &corev3.HeaderValueOption{
				Header:       &corev3.HeaderValue{Key: "x-order", Value: value},
				AppendAction: corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD,
			},
		}}},
	}}}
}

func TestPartsRunInOrder(t *testing.T) {
	for _, version := range Versions {
		t.Run(version, func(t *testing.T) {
			envoy := Start(t, version, Config{Chains: map[string][]part.Part{
				"mixed": {chunk(appendOne), native("one"), chunk(appendOne), chunk(appendOne), native("two")},
				"none":  nil,
			}})
			got := envoy.Gateway("mixed").Get(t, "/").Upstream.Values("x-order")
			if want := "lua one lua lua two"; strings.Join(got, " ") != want {
				t.Errorf("x-order is %q, want %q", got, want)
			}
			if got := envoy.Gateway("none").Get(t, "/").Upstream.Values("x-order"); got != nil {
				t.Errorf("the chain without parts sends x-order %q", got)
			}
		})
	}
}

func TestUpstreamAnswersAsTold(t *testing.T) {
	gateway := Run(t, nil)
	for _, http2 := range []bool{false, true} {
		answer := gateway.Do(t, Request{
			Method: "POST", Path: "/a%2Fb?c=d&&e", Host: "shop.example.com", Body: "hello", HTTP2: http2,
			Header: []string{
				"X-Twice: 1", "X-Twice: 2", "user-agent: me", EchoStatus + ": 418", EchoBody + ": teapot",
				EchoHeader + ": x-a: 1", EchoHeader + ": x-a: 2", EchoTrailer + ": x-end: yes", "te: trailers",
			},
		})
		if answer.Status != 418 || answer.Body != "teapot" || strings.Join(answer.Header.Values("x-a"), " ") != "1 2" {
			t.Errorf("HTTP/2 %t: the answer is %+v", http2, answer)
		}
		if got := answer.Trailer.Get("x-end"); got != "yes" {
			t.Errorf("HTTP/2 %t: the trailer is %q", http2, got)
		}
		saw := answer.Upstream
		if saw.Method != "POST" || saw.Path != "/a%2Fb?c=d&&e" || saw.Host != "shop.example.com" || saw.Body != "hello" {
			t.Errorf("HTTP/2 %t: the upstream saw %+v", http2, saw)
		}
		if got := saw.Values("x-twice"); len(got) != 2 || got[0] != "1" || got[1] != "2" {
			t.Errorf("HTTP/2 %t: the upstream saw x-twice %q", http2, got)
		}
		if strings.Contains(saw.Proto, "HTTP/2") != http2 {
			t.Errorf("HTTP/2 %t: the upstream was spoken to in %s", http2, saw.Proto)
		}
	}
}

func TestRefusedRequestDoesNotReachTheUpstream(t *testing.T) {
	gateway := Run(t, []part.Part{chunk(`return {request = function(handle)
		handle:logInfo("refusing")
		pdk.fail(handle, 403, "no")
	end}`)})
	answer := gateway.Get(t, "/")
	if answer.Status != 403 || answer.Message() != "no" || answer.Upstream != nil {
		t.Errorf("the answer is %+v", answer)
	}
	gateway.WaitLog(t, "refusing")
}

func TestLuaReachesTheUpstreamCluster(t *testing.T) {
	caller := chunk(`return {request = function(handle)
		local answer = pdk.call(handle, "upstream", {headers = {["echo-status"] = "204"}})
		pdk.exit(handle, 200, {}, tostring(answer.status))
	end}`)
	caller.Services = map[string]part.Service{"upstream": Upstream}
	gateway := Run(t, []part.Part{caller})
	if answer := gateway.Get(t, "/"); answer.Body != "204" {
		t.Errorf("the answer is %+v", answer)
	}
}

func TestUpgrade(t *testing.T) {
	for _, version := range Versions {
		t.Run(version, func(t *testing.T) {
			refuse := chunk(`return {request = function(handle) pdk.fail(handle, 403, "no") end}`)
			envoy := Start(t, version, Config{Chains: map[string][]part.Part{"open": {chunk(appendOne)}, "closed": {refuse}}})
			answer, back := envoy.Gateway("open").Upgrade(t, "/a", "hello", EchoHeader+": x-a: 1")
			if answer.Status != 101 || back != "hello" || answer.Header.Get("x-a") != "1" || answer.Upstream.Value("x-order") != "lua" {
				t.Errorf("the answer is %+v, and %q came back", answer, back)
			}
			answer, _ = envoy.Gateway("closed").Upgrade(t, "/a", "hello")
			if answer.Status != 403 || answer.Message() != "no" || answer.Upstream != nil {
				t.Errorf("the answer is %+v", answer)
			}
		})
	}
}
