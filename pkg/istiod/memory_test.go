package istiod

import (
	"cmp"
	"slices"
	"strings"
	"testing"
)

// TestMemory tells stories of one workload with one gateway.
func TestMemory(t *testing.T) {
	type parts = map[string]string
	// step is what happens and what is to be known afterwards. Everything that was refused is refused once, as Envoy does.
	type step struct {
		expect parts
		// recalled are the parts on which an earlier client blamed a refusal, "bad".
		recalled []string
		// refusal of the gateway, as istiod tells it; counted is one that it no longer tells.
		refusal string
		counted bool
		// pod is that of the gateway; as before where it is empty.
		pod    string
		state  State
		blamed []string
		says   string
	}
	for name, steps := range map[string][]step{
		"a refusal is forgotten by istiod but not by the client": {
			{expect: parts{"a": "1", "b": "1"}, state: Accepted},
			{expect: parts{"a": "2", "b": "1"}, refusal: "bad", state: Rejected, blamed: []string{"a"}},
			{state: Rejected, blamed: []string{"a"}, says: "istio-system/gateway-1 answered to ECDS: bad"},
			{expect: parts{"a": "2", "b": "2"}, state: Rejected, blamed: []string{"a"}, says: "bad"},
			{expect: parts{"a": "3", "b": "2"}, state: Accepted},
			{state: Accepted},
		},
		"what is accepted meanwhile is not blamed later": {
			{expect: parts{"a": "1"}, refusal: "bad", state: Rejected, blamed: []string{"a"}},
			{expect: parts{"a": "1", "b": "1"}, state: Rejected, blamed: []string{"a"}},
			{counted: true, state: Rejected, blamed: []string{"a"}, says: "bad"},
			{expect: parts{"a": "2", "b": "1"}, state: Accepted},
		},
		"what comes at the same time as another refusal is blamed, too": {
			{expect: parts{"a": "1"}, refusal: "bad", state: Rejected, blamed: []string{"a"}},
			{expect: parts{"a": "1", "b": "1"}, counted: true, state: Rejected, blamed: []string{"a", "b"}},
			{expect: parts{"a": "2", "b": "1"}, state: Unknown, blamed: []string{"b"}},
		},
		"gateways that replace all others know": {
			{expect: parts{"a": "1", "b": "1"}, refusal: "bad", state: Rejected, blamed: []string{"a", "b"}},
			{pod: "gateway-2", counted: true, state: Rejected, blamed: []string{"a", "b"}},
			{expect: parts{"a": "2", "b": "1"}, state: Unknown, blamed: []string{"b"}},
			{pod: "gateway-3", state: Accepted},
			{pod: "gateway-1", state: Accepted},
		},
		"so is one that istiod only counts": {
			{expect: parts{"a": "1"}, counted: true, state: Unknown, blamed: []string{"a"}, says: "it is in Envoy's log"},
			{state: Unknown, blamed: []string{"a"}},
			{expect: parts{"a": "2"}, state: Accepted},
		},
		"what was mended may not be what was refused": {
			{expect: parts{"a": "1", "b": "1"}, refusal: "bad", state: Rejected, blamed: []string{"a", "b"}},
			{expect: parts{"a": "2", "b": "1"}, state: Unknown, blamed: []string{"b"}, says: "bad"},
			{expect: parts{"a": "2", "b": "2"}, state: Accepted},
		},
		"to remove it mends it": {
			{expect: parts{"a": "1"}, state: Accepted},
			{expect: parts{"a": "1", "b": "1"}, refusal: "bad", state: Rejected, blamed: []string{"b"}},
			{expect: parts{"a": "1"}, state: Accepted},
		},
		"to take it back mends it": {
			{expect: parts{"a": "1"}, state: Accepted},
			{expect: parts{"a": "2"}, refusal: "bad", state: Rejected, blamed: []string{"a"}},
			{expect: parts{"a": "1"}, state: Accepted},
		},
		"what others wrote is not blamed on the parts": {
			{expect: parts{"a": "1"}, state: Accepted},
			{refusal: "another's", state: Rejected},
			{state: Accepted},
			{counted: true, state: Accepted},
			{expect: parts{"a": "2"}, state: Accepted},
		},
		"an earlier client's is known until the part changes": {
			{expect: parts{"a": "1", "b": "1"}, recalled: []string{"a"}, state: Rejected, blamed: []string{"a"}, says: "bad"},
			{expect: parts{"a": "1", "b": "2"}, state: Rejected, blamed: []string{"a"}, says: "bad"},
			{expect: parts{"a": "2", "b": "2"}, state: Accepted},
		},
		"or until other gateways have come": {
			{expect: parts{"a": "1"}, recalled: []string{"a"}, state: Rejected, blamed: []string{"a"}},
			{pod: "gateway-2", state: Accepted},
		},
		"without parts there is nothing to remember": {
			{refusal: "bad", state: Rejected},
			{state: Accepted},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			w := Workload{Selector: map[string]string{"istio": "ingressgateway"}}
			pod := "gateway-1"
			for n, s := range steps {
				pod = cmp.Or(s.pod, pod)
				if s.expect != nil {
					w.Parts = s.expect
					m.expect([]Workload{w})
				}
				if s.recalled != nil {
					m.recall(w, Rejected, "bad", s.recalled)
				}
				sent, acked := nonceAt(t, 7, 'a'), nonceAt(t, 7, 'a')
				if s.refusal != "" {
					acked = nonceAt(t, 6, 'a')
				}
				instances := []instance{{
					address: "10.0.0.1:15012", sight: &sight{version: 7}, refused: s.refusal != "" || s.counted,
					proxies: []proxy{{
						id: pod + ".istio-system", labels: w.Selector,
						responses: map[string]response{
							listenerType:  {sent: sent, acked: sent},
							extensionType: {sent: sent, acked: acked, refusal: s.refusal},
						},
					}},
				}}
				m.note(instances)
				v := m.revise(w, judge(w, instances), m.written()[w.key()].Parts)
				if v.State != s.state || !slices.Equal(v.Blamed, s.blamed) || !strings.Contains(v.Message, s.says) {
					t.Fatalf("step %d: got %s, blamed %v: %s\nwant %s, blamed %v: %s", n+1, v.State, v.Blamed, v.Message, s.state, s.blamed, s.says)
				}
			}
		})
	}
}

func TestAMarkIsAboutWhatWasExpectedWhenItWasMade(t *testing.T) {
	m := newMemory()
	w := Workload{Parts: map[string]string{"a": "1"}}
	m.expect([]Workload{w})
	old := m.written()[w.key()].Parts
	w.Parts = map[string]string{"a": "2"}
	m.expect([]Workload{w})
	m.revise(w, Verdict{State: Accepted}, old)
	m.blame(w, instance{proxies: []proxy{{id: "gateway-1.istio-system", responses: map[string]response{extensionType: {refusal: "bad"}}}}})
	if v := m.revise(w, Verdict{State: Accepted, Gateways: []Gateway{{Name: "istio-system/gateway-1"}}}, m.written()[w.key()].Parts); v.State != Rejected {
		t.Errorf("what an old mark is about stands for what is written since: %+v", v)
	}
	gateways := []Gateway{{Name: "istio-system/gateway-1"}}
	if v := m.revise(w, Verdict{State: Accepted, Gateways: gateways}, old); v.State != Accepted {
		t.Errorf("what is written since is blamed on an old mark: %+v", v)
	}
	if v := m.revise(w, Verdict{State: Accepted, Gateways: gateways}, m.written()[w.key()].Parts); v.State != Rejected {
		t.Errorf("an old mark makes the client forget a refusal: %+v", v)
	}
}

func TestRefusalsSince(t *testing.T) {
	for name, c := range map[string]struct {
		earlier *refusals
		now     refusals
		want    bool
	}{
		"the first count tells nothing": {nil, refusals{1, 3}, false},
		"no more than before":           {&refusals{1, 3}, refusals{1, 3}, false},
		"more than before":              {&refusals{1, 3}, refusals{1, 4}, true},
		"a new istiod without any":      {&refusals{1, 3}, refusals{2, 0}, false},
		"a new istiod with as many":     {&refusals{1, 3}, refusals{2, 3}, true},
	} {
		if got := c.now.since(c.earlier); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
