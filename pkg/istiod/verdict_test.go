package istiod

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// nonceAt is a nonce as istiod makes it.
func nonceAt(t *testing.T, v int, tail byte) nonce {
	n, err := parseNonce(fmt.Sprintf("2026-08-27T12:45:20Z/%d00000000-0000-4000-8000-00000000000%c", v, tail))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestParseNonce(t *testing.T) {
	const uuid = "44f1ff74-0ad4-4f2e-a44c-cb0dfa1e2ac2"
	for text, want := range map[string]version{
		"":                              0,
		uuid:                            0,
		"2026-08-27T12:45:20Z/7" + uuid: 7,
		"2026-08-27T12:45:20+02:00/18446744073709551615" + uuid: 1<<64 - 1,
	} {
		if n, err := parseNonce(text); err != nil || n.version != want || n.text != text {
			t.Errorf("%q: got %+v, %v, want version %d", text, n, err, want)
		}
	}
	for _, text := range []string{"7", "2026-08-27T12:45:20Z" + uuid, "2026-08-27T12:45:20Z/" + uuid, "2026-08-27T12:45:20Z/-1" + uuid, "2026-08-27T12:45:20Z/x" + uuid} {
		if n, err := parseNonce(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, n)
		}
	}
}

func TestConnectionOfAProxy(t *testing.T) {
	for id, want := range map[string]bool{
		"gateway-1.istio-system-7":   true,
		"gateway-1.istio-system-70":  true,
		"gateway-1.istio-system-7-2": false,
		"gateway-1.istio-system":     false,
		"gateway-1.istio-system-":    false,
		"a-gateway-1.istio-system-7": false,
		"gateway-1.istio-system-x-7": false,
	} {
		if got := (adsClient{ConnectionID: id}).of("gateway-1.istio-system"); got != want {
			t.Errorf("%s: got %v, want %v", id, got, want)
		}
	}
}

func TestJudge(t *testing.T) {
	const mark, another = 5, 'b'
	at := func(v int) nonce { return nonceAt(t, v, 'a') }
	done := func(v int) response { return response{sent: at(v), acked: at(v)} }
	labels := map[string]string{"istio": "ingressgateway", "app": "public"}
	// with is a gateway that has accepted the mark, changed.
	with := func(change func(*proxy)) proxy {
		p := proxy{
			id: "gateway-1.istio-system", labels: labels,
			responses: map[string]response{listenerType: done(mark), extensionType: done(mark)},
		}
		change(&p)
		return p
	}
	responses := func(listeners, extensions, others response) func(*proxy) {
		return func(p *proxy) {
			p.responses = map[string]response{listenerType: listeners, extensionType: extensions, "another": others}
		}
	}
	as := func(*proxy) {}
	seen, late := &sight{version: mark}, &sight{version: mark, late: true}

	for name, c := range map[string]struct {
		sight   *sight
		proxies []proxy
		// err of a second istiod.
		err   error
		state State
		says  string
		again bool
	}{
		"all gateways have acknowledged the mark's push": {
			sight: seen, proxies: []proxy{with(as), with(func(p *proxy) { p.id = "gateway-2.other" })},
			state: Accepted, says: "accepted by 2 of 2 gateways",
		},
		"or a later one": {
			sight: seen, proxies: []proxy{with(responses(done(9), done(9), response{}))},
			state: Accepted,
		},
		"or a later one of any type, to which nothing else was due": {
			sight: seen, proxies: []proxy{with(responses(done(4), done(3), done(6)))},
			state: Accepted,
		},
		"nothing acknowledged is from the mark's push": {
			sight: seen, proxies: []proxy{with(responses(done(4), done(4), done(4)))},
			state: Pending, says: "istio-system/gateway-1 has not been sent it",
		},
		"nor will it be, if the mark is older than the probe's connection": {
			sight: late, proxies: []proxy{with(responses(done(4), done(4), done(4)))},
			state: Pending, again: true,
		},
		"the push of the mark is only sent": {
			sight: seen, proxies: []proxy{with(responses(response{sent: at(mark), acked: at(4)}, done(4), done(4)))},
			state: Pending, says: "has not answered",
		},
		"listeners are acknowledged, extension configurations not yet": {
			sight: seen, proxies: []proxy{with(responses(done(mark), response{sent: at(mark), acked: at(4)}, response{}))},
			state: Pending, says: "has not answered",
		},
		"listeners are acknowledged, extension configurations not even sent": {
			sight: seen, proxies: []proxy{with(responses(response{sent: at(mark), acked: at(4)}, done(4), response{sent: at(mark), acked: at(4)}))},
			state: Pending, says: "has not answered",
		},
		"two responses of one version are not the same": {
			sight: seen, proxies: []proxy{with(responses(done(mark), response{sent: nonceAt(t, mark, another), acked: at(mark)}, response{}))},
			state: Pending, says: "has not answered",
		},
		"istiod has not pushed the mark": {
			proxies: []proxy{with(responses(done(99), done(99), done(99)))},
			state:   Pending, says: "waits for istiod",
		},
		"extension configurations are refused": {
			sight: seen, proxies: []proxy{with(as), with(func(p *proxy) {
				p.id = "gateway-2.istio-system"
				responses(done(mark), response{sent: at(mark), acked: at(4), refusal: "script load error:\n  bad"}, response{})(p)
			})},
			state: Rejected, says: "1 of 2 gateways has refused it: istio-system/gateway-2 answers to ECDS: script load error: bad",
		},
		"listeners are refused": {
			sight: seen, proxies: []proxy{with(responses(response{sent: at(mark), acked: at(4), refusal: "bad listener"}, done(mark), response{}))},
			state: Rejected, says: "answers to LDS: bad listener",
		},
		"a refusal of an older state says nothing about this one": {
			sight: seen, proxies: []proxy{with(responses(done(4), response{sent: at(4), acked: at(3), refusal: "bad"}, done(4)))},
			state: Pending, says: "has not been sent it",
		},
		"a refusal of an older state that is the current one does": {
			sight: seen, proxies: []proxy{with(responses(done(mark), response{sent: at(4), acked: at(3), refusal: "bad"}, response{}))},
			state: Rejected, says: "bad",
		},
		"refused elsewhere is none of the plugins' business": {
			sight: seen, proxies: []proxy{with(responses(done(mark), done(mark), response{sent: at(mark), refusal: "a route"}))},
			state: Accepted,
		},
		"it is connected twice": {
			sight: seen, proxies: []proxy{with(func(p *proxy) { p.twice = true })},
			state: Pending, says: "connected twice",
		},
		"it has no listener with plugins": {
			sight: seen, proxies: []proxy{with(responses(done(mark), response{}, response{}))},
			state: Pending, says: "has no listener that runs plugins",
		},
		"other gateways do not matter": {
			sight: seen, proxies: []proxy{
				with(as),
				with(func(p *proxy) {
					p.labels = map[string]string{"istio": "eastwestgateway", "app": "public"}
					responses(response{}, response{sent: at(mark), refusal: "bad"}, response{})(p)
				}),
				with(func(p *proxy) { p.labels = nil }),
			},
			state: Accepted, says: "accepted by 1 of 1 gateways",
		},
		"nobody is connected": {
			sight: seen, state: NoGateway,
		},
		"one istiod does not answer": {
			sight: seen, proxies: []proxy{with(as)}, err: errors.New("connection refused"),
			state: Unknown, says: "istiod 10.0.0.2:15012: connection refused",
		},
		"one istiod does not answer, but a refusal is known": {
			sight: seen, proxies: []proxy{with(responses(done(mark), response{sent: at(mark), refusal: "bad"}, response{}))}, err: errors.New("connection refused"),
			state: Rejected,
		},
		"one istiod does not answer, and nobody is connected to the other": {
			sight: seen, err: errors.New("connection refused"),
			state: Unknown,
		},
	} {
		t.Run(name, func(t *testing.T) {
			instances := []instance{{address: "10.0.0.1:15012", sight: c.sight, proxies: c.proxies}}
			if c.err != nil {
				instances = append(instances, instance{address: "10.0.0.2:15012", err: c.err})
			}
			v := judge(Workload{Selector: map[string]string{"istio": "ingressgateway"}}, instances)
			if v.State != c.state || v.MarkAgain != c.again || !strings.Contains(v.Message, c.says) {
				t.Errorf("got %s, mark again %v: %s\nwant %s, mark again %v: %s", v.State, v.MarkAgain, v.Message, c.state, c.again, c.says)
			}
		})
	}

	t.Run("no istiod is known", func(t *testing.T) {
		if v := judge(Workload{}, nil); v.State != Unknown || v.Message == "" {
			t.Errorf("got %+v", v)
		}
	})
	t.Run("many gateways are counted", func(t *testing.T) {
		i := instance{address: "10.0.0.1:15012", sight: seen}
		for n := range 5 {
			i.proxies = append(i.proxies, with(func(p *proxy) { p.id, p.twice = fmt.Sprintf("gateway-%d.istio-system", n), true }))
		}
		if v := judge(Workload{}, []instance{i}); !strings.Contains(v.Message, "5 of 5 gateways have not accepted") || !strings.HasSuffix(v.Message, "and 2 more") {
			t.Errorf("got %s", v.Message)
		}
	})
}
