package controller

import (
	"errors"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/istiod"
)

var (
	limit = finding.Object{Kind: "Plugin", Namespace: "shop", Name: "limit"}
	other = finding.Object{Kind: "Plugin", Namespace: "shop", Name: "other"}
)

// said is a condition on one line.
func said(s pluginsv1alpha1.PluginStatus, condition string) string {
	c := meta.FindStatusCondition(s.Conditions, condition)
	return string(c.Status) + " " + c.Reason + ": " + c.Message
}

func known(s istiod.State, message string) gatewayState {
	return gatewayState{Verdict: istiod.Verdict{State: s, Rest: s, Message: message, Gateways: []istiod.Gateway{{Name: "istio-system/gateway-1"}}}}
}

// TestProgrammed goes through what may be known of the gateways that should run a Plugin.
func TestProgrammed(t *testing.T) {
	wrong := finding.Finding{Reason: finding.InvalidConfig, Object: limit, Place: "spec.config.minute", Problem: "must be an integer", Traffic: "2 routes answer 503: a, b"}
	blamed := known(istiod.Rejected, "gateway-1 answered to ECDS: no such file")
	blamed.Rest, blamed.Blamed = istiod.Accepted, []string{partOf(limit) + "wasm.0 "}
	doubted := known(istiod.Unknown, "a gateway refused something")
	doubted.Rest, doubted.Blamed = istiod.Accepted, blamed.Blamed
	for name, c := range map[string]struct {
		routes   []string
		findings []finding.Finding
		policy   pluginsv1alpha1.FailurePolicy
		gateways []gatewayState
		about    finding.Object
		want     string
	}{
		"accepted":               {routes: []string{"a"}, gateways: []gatewayState{known(istiod.Accepted, "")}, want: "True Programmed: 1 route runs it; 1 connected gateway has accepted it"},
		"accepted on both":       {routes: []string{"a", "b"}, gateways: []gatewayState{known(istiod.Accepted, ""), known(istiod.Accepted, "")}, want: "True Programmed: 2 routes run it; 2 connected gateways have accepted it"},
		"the worst counts":       {routes: []string{"a"}, gateways: []gatewayState{known(istiod.Accepted, ""), known(istiod.Unknown, "istiod is away"), known(istiod.NoGateway, "")}, want: "Unknown NoEvidence: whether gateways run it is not known: istiod is away"},
		"on its way":             {routes: []string{"a"}, gateways: []gatewayState{known(istiod.Pending, "1 of 1 has not answered"), known(istiod.Unknown, "")}, want: "False Pending: 1 of 1 has not answered"},
		"refused":                {routes: []string{"a"}, gateways: []gatewayState{blamed, known(istiod.Pending, "")}, want: "False Rejected: gateway-1 answered to ECDS: no such file; gateways keep what they had, and refuse the requests of routes that are new; correct the Plugin"},
		"perhaps refused":        {routes: []string{"a"}, gateways: []gatewayState{doubted}, want: "Unknown MaybeRejected: whether gateways run it is not known: a gateway refused something"},
		"another one is refused": {routes: []string{"a"}, gateways: []gatewayState{blamed}, about: other, want: "True Programmed: 1 route runs it; 1 connected gateway has accepted it"},
		"nobody is connected":    {routes: []string{"a"}, gateways: []gatewayState{{Verdict: istiod.Verdict{State: istiod.NoGateway, Message: "no gateway is connected"}}}, want: "Unknown NoGateway: no gateway is connected"},
		"not written":            {routes: []string{"a"}, gateways: []gatewayState{{Verdict: known(istiod.Accepted, "").Verdict, failed: errors.New("etcd is full")}}, want: "False WriteFailed: gateways run an older state: etcd is full"},
		"nowhere":                {want: "Unknown NotAttached: no route runs it"},
		"wrong":                  {findings: []finding.Finding{wrong}, want: "False NotAccepted: it runs nowhere; routes that name it answer 503"},
		"wrong, but FailOpen":    {findings: []finding.Finding{wrong}, policy: pluginsv1alpha1.FailOpen, want: "False NotAccepted: it runs nowhere; routes that name it run without it"},
	} {
		t.Run(name, func(t *testing.T) {
			u := compile.PluginUse{Object: limit, Routes: c.routes, Findings: c.findings}
			if c.about != (finding.Object{}) {
				u.Object = c.about
			}
			for i := range c.gateways {
				u.Workloads = append(u.Workloads, string(rune('a'+i)))
			}
			state := func(id string) gatewayState { return c.gateways[id[0]-'a'] }
			spec := &pluginsv1alpha1.PluginSpec{Builtin: "rate-limiting", FailurePolicy: c.policy}
			got := pluginStatus(spec, 3, pluginsv1alpha1.PluginStatus{}, u, state)
			if said(got, "Programmed") != c.want {
				t.Errorf("got  %s\nwant %s", said(got, "Programmed"), c.want)
			}
			if got.ObservedGeneration != 3 || meta.FindStatusCondition(got.Conditions, "Programmed").ObservedGeneration != 3 {
				t.Errorf("the generation is not noted: %+v", got)
			}
		})
	}
}

// What is known of a generation holds while something else is on its way to its gateways; a new generation must prove itself.
func TestProgrammedHoldsWhileOthersChange(t *testing.T) {
	u := compile.PluginUse{Object: limit, Routes: []string{"a"}, Workloads: []string{"a"}}
	spec := &pluginsv1alpha1.PluginSpec{Builtin: "cors"}
	status := func(generation int64, before pluginsv1alpha1.PluginStatus, s istiod.State) pluginsv1alpha1.PluginStatus {
		return pluginStatus(spec, generation, before, u, func(string) gatewayState { return known(s, "") })
	}
	first := status(1, pluginsv1alpha1.PluginStatus{}, istiod.Accepted)
	if got := said(status(1, first, istiod.Pending), "Programmed"); !strings.HasPrefix(got, "True Programmed") {
		t.Errorf("the same generation: %s", got)
	}
	if got := said(status(2, first, istiod.Pending), "Programmed"); !strings.HasPrefix(got, "False Pending") {
		t.Errorf("a new generation: %s", got)
	}
	if got := said(status(1, first, istiod.Unknown), "Programmed"); !strings.HasPrefix(got, "Unknown NoEvidence") {
		t.Errorf("istiod is away: %s", got)
	}
	same := status(1, first, istiod.Accepted)
	if a, b := first.Conditions[0].LastTransitionTime, same.Conditions[0].LastTransitionTime; !a.Equal(&b) {
		t.Error("the time of a transition changes without one")
	}
}

// A refusal can be read again from the status, for this generation only.
func TestRefusalOf(t *testing.T) {
	u := compile.PluginUse{Object: limit, Routes: []string{"a"}, Workloads: []string{"a"}}
	for s, want := range map[istiod.State]refusal{
		istiod.Rejected: {istiod.Rejected, "no such file"},
		istiod.Unknown:  {istiod.Unknown, "a gateway refused something before this controller was started"},
		istiod.Accepted: {},
	} {
		state := known(s, "no such file")
		state.Blamed = []string{partOf(limit) + "wasm.0 "}
		status := pluginStatus(&pluginsv1alpha1.PluginSpec{}, 1, pluginsv1alpha1.PluginStatus{}, u, func(string) gatewayState { return state })
		if got, ok := refusalOf(1, status); got != want || ok != (want != refusal{}) {
			t.Errorf("%s: got %v, want %v", s, got, want)
		}
		if got, ok := refusalOf(2, status); ok {
			t.Errorf("%s: another generation: got %v", s, got)
		}
	}
	rejected, unknown := refusal{istiod.Rejected, "r"}, refusal{istiod.Unknown, "u"}
	for _, pair := range [][3]refusal{{{}, rejected, rejected}, {rejected, unknown, unknown}, {unknown, rejected, unknown}} {
		if got := pair[0].and(pair[1]); got != pair[2] {
			t.Errorf("%v and %v: got %v", pair[0], pair[1], got)
		}
	}
}

// A gateway accepts a module also when it could not fetch it.
func TestProgrammedPromisesNoModule(t *testing.T) {
	const accepted = "True Programmed: 1 route runs it; 1 connected gateway has accepted it"
	for name, c := range map[string]struct {
		policy pluginsv1alpha1.FailurePolicy
		wasm   pluginsv1alpha1.WasmPlugin
		want   string
	}{
		"fetched":              {wasm: pluginsv1alpha1.WasmPlugin{URL: "registry.test/waf"}, want: accepted + "; one that cannot fetch the module does not tell, and answers 403"},
		"fetched, FailOpen":    {wasm: pluginsv1alpha1.WasmPlugin{URL: "oci://registry.test/waf"}, policy: pluginsv1alpha1.FailOpen, want: accepted + "; one that cannot fetch the module does not tell, and lets requests pass without it"},
		"its strategy decides": {wasm: pluginsv1alpha1.WasmPlugin{URL: "oci://registry.test/waf", FailStrategy: "FAIL_CLOSE"}, policy: pluginsv1alpha1.FailOpen, want: accepted + "; one that cannot fetch the module does not tell, and answers 403"},
		"a file":               {wasm: pluginsv1alpha1.WasmPlugin{URL: "file:///waf.wasm"}, want: accepted},
	} {
		t.Run(name, func(t *testing.T) {
			u := compile.PluginUse{Object: limit, Routes: []string{"a"}, Workloads: []string{"a"}}
			spec := &pluginsv1alpha1.PluginSpec{FailurePolicy: c.policy, Wasm: &c.wasm}
			got := pluginStatus(spec, 1, pluginsv1alpha1.PluginStatus{}, u, func(string) gatewayState { return known(istiod.Accepted, "") })
			if said(got, "Programmed") != c.want {
				t.Errorf("got  %s\nwant %s", said(got, "Programmed"), c.want)
			}
		})
	}
}

func TestAccepted(t *testing.T) {
	u := compile.PluginUse{Object: limit, Routes: []string{"b", "a"}, Unavailable: 2, Workloads: []string{"a"}}
	spec := &pluginsv1alpha1.PluginSpec{Wasm: &pluginsv1alpha1.WasmPlugin{}}
	got := pluginStatus(spec, 1, pluginsv1alpha1.PluginStatus{}, u, func(string) gatewayState { return known(istiod.Accepted, "") })
	want := "True Accepted: the plugin can be used; 2 routes that name it do not run it, because of other plugins of their chains or of the routes' own configs"
	if said(got, "Accepted") != want || got.Type != "Wasm" || got.Attached != 2 || strings.Join(got.AttachedRoutes, " ") != "a b" {
		t.Errorf("%s\n%+v", said(got, "Accepted"), got)
	}
	for i := range 20 {
		u.Routes = append(u.Routes, string(rune('c'+i)))
		u.Findings = append(u.Findings, finding.Finding{Reason: finding.InvalidLua, Object: limit, Problem: "wrong " + string(rune('a'+i))})
	}
	u.Findings = append([]finding.Finding{{Reason: finding.ConfigWarning, Object: limit, Problem: "a warning"}}, u.Findings...)
	got = pluginStatus(spec, 1, pluginsv1alpha1.PluginStatus{}, u, func(string) gatewayState { return known(istiod.Accepted, "") })
	if want := "False InvalidLua: wrong a. wrong b. wrong c. and 17 more"; said(got, "Accepted") != want {
		t.Errorf("got %s, want %s", said(got, "Accepted"), want)
	}
	if got.Attached != 22 || len(got.AttachedRoutes) != maxAttachedRoutes {
		t.Errorf("%d attached, %d listed", got.Attached, len(got.AttachedRoutes))
	}
}

func TestConsumerStatus(t *testing.T) {
	c := &pluginsv1alpha1.Consumer{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "alice", Generation: 2}}
	c.Spec.Credentials = []string{"key"}
	secret := finding.Object{Kind: "Secret", Namespace: "shop", Name: "key"}
	for want, findings := range map[string]map[finding.Object][]finding.Finding{
		"True Accepted: all credentials can be used":                                                     {},
		"False InvalidCredential: Secret key data.key: is missing; it authenticates nobody; add the key": {secret: {{Reason: finding.InvalidCredential, Object: secret, Place: "data.key", Problem: "is missing", Traffic: "it authenticates nobody", Remedy: "add the key"}}},
	} {
		s := consumerStatus(c, findings)
		if got := string(s.Conditions[0].Status) + " " + s.Conditions[0].Reason + ": " + s.Conditions[0].Message; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestAGatewaysWordsAboutSecretsAreNotShown(t *testing.T) {
	said := gatewayState{Verdict: istiod.Verdict{State: istiod.Rejected, Message: "c4nary is no regex"}}
	if got := said.veiled(true); strings.Contains(got.Message, "c4nary") || got.State != istiod.Rejected {
		t.Errorf("%+v", got)
	}
	if got := said.veiled(false); got.Message != said.Message {
		t.Errorf("%+v", got)
	}
}
