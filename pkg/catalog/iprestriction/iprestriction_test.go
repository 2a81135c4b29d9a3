package iprestriction

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// use builds the parts of one use of the plugin.
func use(t testing.TB, instance, text string) ([]part.Part, []string) {
	t.Helper()
	return catalogtest.Build(t, Builtin, builtin.Use{Plugin: "ips", Instance: instance}, text)
}

func parts(t testing.TB, instance, text string) []part.Part {
	t.Helper()
	out, problems := use(t, instance, text)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return out
}

func TestAddresses(t *testing.T) {
	cases := map[string]struct {
		config  string
		allowed []string
		refused []string
	}{
		"allowed addresses": {
			config:  `{allow: [10.0.0.1, "2001:db8::1"]}`,
			allowed: []string{"10.0.0.1", "2001:db8::1", "2001:DB8:0:0::1"},
			refused: []string{"10.0.0.2", "2001:db8::2", "::1"},
		},
		"allowed ranges": {
			config:  `{allow: [10.0.0.0/8, "2001:db8::/32"]}`,
			allowed: []string{"10.0.0.0", "10.255.255.255", "2001:db8:ffff::1"},
			refused: []string{"11.0.0.0", "2001:db9::1"},
		},
		"denied": {
			config:  `{deny: [10.0.0.0/8, "2001:db8::/32", 192.0.2.7]}`,
			allowed: []string{"11.0.0.0", "2001:db9::1", "192.0.2.8"},
			refused: []string{"10.1.2.3", "2001:db8::1", "192.0.2.7"},
		},
		"deny wins where lists overlap": {
			config:  `{allow: [10.0.0.0/8], deny: [10.1.0.0/16]}`,
			allowed: []string{"10.2.0.1"},
			refused: []string{"10.1.0.1", "11.0.0.1"},
		},
		"deny wins over an equal entry": {
			config:  `{allow: [10.0.0.1], deny: [10.0.0.1]}`,
			refused: []string{"10.0.0.1", "10.0.0.2"},
		},
		"IPv4-mapped addresses are IPv4": {
			config:  `{deny: [10.0.0.0/8, 192.0.2.7]}`,
			allowed: []string{"::ffff:11.0.0.1", "::ffff:192.0.2.8", "2001:db8::1"},
			refused: []string{"10.1.2.3", "::ffff:10.1.2.3", "::ffff:0a01:0203", "::ffff:192.0.2.7"},
		},
		"an IPv4-mapped entry is IPv4": {
			config:  `{allow: ["::ffff:10.0.0.0/104", "::ffff:192.0.2.7"]}`,
			allowed: []string{"10.1.2.3", "::ffff:10.1.2.3", "192.0.2.7"},
			refused: []string{"11.0.0.1", "::ffff:11.0.0.1", "2001:db8::1"},
		},
		"bits behind the prefix are ignored": {
			config:  `{allow: [10.0.0.5/8, "2001:db8::5/32"]}`,
			allowed: []string{"10.9.9.9", "2001:db8::9"},
			refused: []string{"11.0.0.5"},
		},
		"all of IPv4": {
			config:  `{allow: [0.0.0.0/0]}`,
			allowed: []string{"10.1.2.3", "::ffff:10.1.2.3"},
			refused: []string{"2001:db8::1"},
		},
		"all of IPv4, mapped": {
			config:  `{deny: ["::ffff:0:0/96"]}`,
			allowed: []string{"2001:db8::1", "::fffe:10.0.0.1"},
			refused: []string{"10.1.2.3", "::ffff:10.1.2.3"},
		},
		"all of IPv6": {
			config:  `{deny: ["::/0"]}`,
			allowed: []string{"10.1.2.3"},
			refused: []string{"2001:db8::1", "::1"},
		},
		"duplicates": {
			config:  `{allow: [10.0.0.1, 10.0.0.1/32, 10.0.0.1, "2001:DB8::1", "2001:db8:0::1/128"]}`,
			allowed: []string{"10.0.0.1", "2001:db8::1"},
			refused: []string{"10.0.0.2"},
		},
		"an empty list is none": {
			config:  `{allow: [], deny: [10.0.0.1]}`,
			allowed: []string{"10.0.0.2"},
			refused: []string{"10.0.0.1"},
		},
	}
	chains := map[string][]part.Part{}
	for name, c := range cases {
		chains[name] = parts(t, "a", c.config)
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for name, c := range cases {
			t.Run(name, func(t *testing.T) {
				for _, ip := range c.allowed {
					a := envoy.Gateway(name).Get(t, "/", "x-forwarded-for: "+ip)
					if a.Status != 200 || a.Upstream == nil {
						t.Errorf("%s: status %d, want 200; body %s", ip, a.Status, a.Body)
					}
				}
				for _, ip := range c.refused {
					a := envoy.Gateway(name).Get(t, "/", "x-forwarded-for: "+ip)
					if a.Status != 403 || a.Upstream != nil {
						t.Errorf("%s: status %d, want 403; upstream %v", ip, a.Status, a.Upstream)
					}
				}
			})
		}
	})
}

func TestRefusal(t *testing.T) {
	chains := map[string][]part.Part{
		"default": parts(t, "a", `{deny: [10.0.0.1, "2001:db8::1"]}`),
		"own":     parts(t, "b", `{deny: [10.0.0.1], status: 451, message: 'Not "here"'}`),
		"lowest":  parts(t, "c", `{deny: [10.0.0.1], status: 200.0}`),
		"empty":   parts(t, "d", `{deny: [10.0.0.1], status: 204}`),
		"same":    parts(t, "e", `{deny: [10.0.0.1], status: 304}`),
		"odd":     parts(t, "f", `{deny: [10.0.0.1], status: 599, message: "a\nü\u0000\"\\"}`),
		"silent":  parts(t, "g", `{deny: [10.0.0.1], message: ""}`),
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct {
			chain, ip string
			status    int
			message   string
		}{
			{"default", "10.0.0.1", 403, "IP address not allowed: 10.0.0.1"},
			{"default", "2001:db8::1", 403, "IP address not allowed: 2001:db8::1"},
			{"default", "1.2.3.4, 10.0.0.1", 403, "IP address not allowed: 10.0.0.1"},
			{"own", "10.0.0.1", 451, `Not "here"`},
			{"lowest", "10.0.0.1", 200, "IP address not allowed: 10.0.0.1"},
			{"empty", "10.0.0.1", 204, ""},
			{"same", "10.0.0.1", 304, ""},
			{"odd", "10.0.0.1", 599, "a\nü\x00\"\\"},
			{"silent", "10.0.0.1", 403, ""},
		} {
			a := envoy.Gateway(c.chain).Get(t, "/", "x-forwarded-for: "+c.ip)
			if a.Status != c.status || a.Message() != c.message || a.Upstream != nil {
				t.Errorf("%s from %s: status %d, body %s, upstream %v", c.chain, c.ip, a.Status, a.Body, a.Upstream)
			}
			if c.status == 204 || c.status == 304 {
				if a.Body != "" || a.Header.Get("content-length") != "" {
					t.Errorf("%s: body %q, headers %v", c.chain, a.Body, a.Header)
				}
				continue
			}
			var body map[string]string
			if err := json.Unmarshal([]byte(a.Body), &body); err != nil || body["request_id"] == "" || len(body) != 2 {
				t.Errorf("%s from %s: body %s: %v", c.chain, c.ip, a.Body, err)
			}
			if got := a.Header.Get("content-type"); got != "application/json; charset=utf-8" {
				t.Errorf("%s from %s: content-type %q", c.chain, c.ip, got)
			}
		}
		for _, method := range []string{"HEAD", "OPTIONS", "POST"} {
			a := envoy.Gateway("default").Do(t, envoytest.Request{Method: method, Header: []string{"x-forwarded-for: 10.0.0.1", "origin: http://a", "access-control-request-method: GET"}})
			if a.Status != 403 || a.Upstream != nil {
				t.Errorf("%s: status %d", method, a.Status)
			}
		}
		for ip, status := range map[string]int{"10.0.0.1": 403, "10.0.0.2": 101} {
			if a, _ := envoy.Gateway("default").Upgrade(t, "/", "hello", "x-forwarded-for: "+ip); a.Status != status {
				t.Errorf("a WebSocket from %s: status %d", ip, a.Status)
			}
		}
		for chain, status := range map[string]string{"lowest": "2", "empty": "2", "odd": "2", "own": "2"} {
			a := envoy.Gateway(chain).Do(t, envoytest.Request{Method: "POST", HTTP2: true, Header: []string{"x-forwarded-for: 10.0.0.1", "content-type: application/grpc"}})
			if a.Status != 200 || a.Header.Get("grpc-status") != status || a.Upstream != nil {
				t.Errorf("%s, gRPC: status %d, headers %v", chain, a.Status, a.Header)
			}
		}
		grpc := envoy.Gateway("default").Do(t, envoytest.Request{Method: "POST", HTTP2: true, Header: []string{"x-forwarded-for: 10.0.0.1", "content-type: application/grpc"}})
		if got := grpc.Header.Get("grpc-message"); grpc.Status != 200 || got != "IP address not allowed: 10.0.0.1" || grpc.Header.Get("grpc-status") != "7" {
			t.Errorf("gRPC: status %d, headers %v", grpc.Status, grpc.Header)
		}
	})
}

// What the client's address is: the last of X-Forwarded-For, as the one trusted proxy wrote it, or the peer's where that is no
// address. A deny list that says nothing of the peer cannot be passed by with another way of writing.
func TestForwardedFor(t *testing.T) {
	chains := map[string][]part.Part{
		"all": parts(t, "a", `{deny: [0.0.0.0/0, "::/0"]}`),
		"one": parts(t, "b", `{allow: ["2001:db8::1", 10.0.0.1]}`),
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct {
			lines  []string
			client string
			one    int
		}{
			{nil, "127.0.0.1", 403},
			{[]string{""}, "127.0.0.1", 403},
			{[]string{"not an address"}, "127.0.0.1", 403},
			{[]string{"10.0.0.1:80"}, "127.0.0.1", 403},
			{[]string{"[2001:db8::1]"}, "127.0.0.1", 403},
			{[]string{"[2001:db8::1]:80"}, "127.0.0.1", 403},
			{[]string{`"10.0.0.1"`}, "127.0.0.1", 403},
			{[]string{"10.0.0.1,"}, "127.0.0.1", 403},
			{[]string{"010.0.0.1"}, "127.0.0.1", 403},
			{[]string{"167772161"}, "127.0.0.1", 403},
			{[]string{"10.0.0.1\xff"}, "127.0.0.1", 403},
			{[]string{"2001:db8::1%1"}, "2001:db8::1%1", 200}, // the zone does not count
			{[]string{"2001:0DB8:0::1"}, "2001:db8::1", 200},
			{[]string{"10.0.0.2,10.0.0.1"}, "10.0.0.1", 200},
			{[]string{"10.0.0.1,10.0.0.2"}, "10.0.0.2", 403},
			{[]string{"10.0.0.2", "10.0.0.1"}, "10.0.0.1", 200},
			{[]string{"10.0.0.1", "10.0.0.2"}, "10.0.0.2", 403},
			{[]string{"::ffff:10.0.0.1"}, "::ffff:10.0.0.1", 200},
			{[]string{strings.Repeat("10.0.0.2,", 5000) + "10.0.0.1"}, "10.0.0.1", 200},
		} {
			var header []string
			for _, line := range c.lines {
				header = append(header, "x-forwarded-for: "+line)
			}
			if a := envoy.Gateway("all").Get(t, "/", header...); a.Status != 403 || a.Message() != "IP address not allowed: "+c.client {
				t.Errorf("%.99q: status %d, body %s", c.lines, a.Status, a.Body)
			}
			if a := envoy.Gateway("one").Get(t, "/", header...); a.Status != c.one {
				t.Errorf("%.99q: status %d, want %d", c.lines, a.Status, c.one)
			}
		}
	})
}

// Envoy takes the longest lists, and reads them to the end.
func TestLongLists(t *testing.T) {
	var entries []any
	for i := range 9999 {
		entries = append(entries, fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255))
	}
	// Not by catalogtest, which shows its configs to others: this one is too long for that.
	complete, problems := Builtin.Schema.Check(config.Value{"deny": entries})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	built, problems := Builtin.Build(builtin.Use{Plugin: "ips", Instance: "a"}, complete)
	if len(problems) != 1 || !problems[0].Warning {
		t.Fatal(problems)
	}
	gateway := envoytest.Run(t, built)
	for ip, status := range map[string]int{"10.0.0.0": 403, "10.0.39.14": 403, "::ffff:10.0.39.14": 403, "10.0.39.15": 200} {
		if a := gateway.Get(t, "/", "x-forwarded-for: "+ip); a.Status != status {
			t.Errorf("%s: status %d, want %d", ip, a.Status, status)
		}
	}
}

// All instances of a chain write to one metadata namespace; each must read its own result.
func TestSeveralInstances(t *testing.T) {
	chains := map[string][]part.Part{"chain": append(append(
		parts(t, "first", `{deny: [10.0.0.1], status: 401}`),
		parts(t, "second", `{deny: [10.0.0.2], status: 402}`)...),
		parts(t, "third", `{allow: [10.0.0.0/24], status: 404}`)...)}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for ip, status := range map[string]int{"10.0.0.1": 401, "10.0.0.2": 402, "10.0.0.3": 200, "10.0.1.1": 404} {
			if a := envoy.Gateway("chain").Get(t, "/", "x-forwarded-for: "+ip); a.Status != status {
				t.Errorf("%s: status %d, want %d", ip, a.Status, status)
			}
		}
	})
}

// A request that was not judged never passes.
func TestMissingResult(t *testing.T) {
	chains := map[string][]part.Part{"chain": parts(t, "a", `{deny: [10.0.0.1]}`)[1:]}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		a := envoy.Gateway("chain").Get(t, "/")
		if a.Status != 500 || a.Upstream != nil || a.Message() != "An unexpected error occurred" {
			t.Errorf("status %d, body %s", a.Status, a.Body)
		}
	})
}

func TestConfig(t *testing.T) {
	list := func(n int) string {
		var entries []string
		for i := range n {
			entries = append(entries, fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255))
		}
		return "{deny: [" + strings.Join(entries, ", ") + "]}"
	}
	for name, c := range map[string]struct {
		config string
		want   []string
	}{
		"a list is needed":             {`{}`, []string{"needs an entry in allow or deny"}},
		"empty lists are none":         {`{allow: [], deny: []}`, []string{"needs an entry in allow or deny"}},
		"not an address":               {`{allow: [10.0.0.1, example.com]}`, []string{`allow[1]: "example.com" is no IP address or CIDR range`}},
		"an octet too large":           {`{deny: [10.0.0.256]}`, []string{`deny[0]: "10.0.0.256" is no IP address or CIDR range`}},
		"a leading zero, octal or not": {`{deny: [010.0.0.1]}`, []string{`deny[0]: "010.0.0.1" is no IP address or CIDR range`}},
		"a prefix too long":            {`{deny: [10.0.0.0/33]}`, []string{`deny[0]: "10.0.0.0/33" is no IP address or CIDR range`}},
		"a negative prefix":            {`{deny: [10.0.0.0/-1]}`, []string{`deny[0]: "10.0.0.0/-1" is no IP address or CIDR range`}},
		"blanks":                       {`{deny: [" 10.0.0.1"]}`, []string{`deny[0]: " 10.0.0.1" is no IP address or CIDR range`}},
		"an empty entry":               {`{deny: [""]}`, []string{`deny[0]: "" is no IP address or CIDR range`}},
		"a zone":                       {`{deny: ["fe80::1%eth0"]}`, []string{`deny[0]: "fe80::1%eth0" is no IP address or CIDR range`}},
		"a zone in a range":            {`{deny: ["fe80::1%eth0/64"]}`, []string{`deny[0]: "fe80::1%eth0/64" is no IP address or CIDR range`}},
		"a port":                       {`{deny: ["10.0.0.1:80"]}`, []string{`deny[0]: "10.0.0.1:80" is no IP address or CIDR range`}},
		"an IPv4-mapped range of IPv4's length": {`{deny: ["::ffff:10.0.0.0/8", "::ffff:10.0.0.1/95", "::ffff:0:0/96"]}`, []string{
			`deny[0]: "::ffff:10.0.0.0/8" is wider than ::ffff:0:0/96, which is all of IPv4; an IPv4 range is written as 10.0.0.0/8`,
			`deny[1]: "::ffff:10.0.0.1/95" is wider than ::ffff:0:0/96, which is all of IPv4; an IPv4 range is written as 10.0.0.0/8`,
		}},
		"a prefix with a leading zero": {`{deny: [10.0.0.0/08]}`, []string{`deny[0]: "10.0.0.0/08" is no IP address or CIDR range`}},
		"a mask":                       {`{deny: [10.0.0.0/255.0.0.0]}`, []string{`deny[0]: "10.0.0.0/255.0.0.0" is no IP address or CIDR range`}},
		"half an address": {`{deny: [10.0.0, "10.0.0.0/", "::ffff:10.0.0"]}`, []string{
			`deny[0]: "10.0.0" is no IP address or CIDR range`, `deny[1]: "10.0.0.0/" is no IP address or CIDR range`, `deny[2]: "::ffff:10.0.0" is no IP address or CIDR range`}},
		"a number":                      {`{deny: [10]}`, []string{"deny[0]: must be a string, not a number"}},
		"a list without a list":         {`{deny: 10.0.0.1}`, []string{"deny: must be a list, not a string"}},
		"a status that is informative":  {`{deny: [10.0.0.1], status: 199}`, []string{"status: 199 is too small, at least 200"}},
		"a status that does not exist":  {`{deny: [10.0.0.1], status: 600}`, []string{"status: 600 is too large, at most 599"}},
		"a misspelt list":               {`{alow: [10.0.0.1]}`, []string{`alow: unknown field, did you mean "allow"?`}},
		"as many as are meant":          {list(1000), nil},
		"more than are meant":           {list(1001), []string{"warning deny: has 1001 entries, which are compared one by one for each request; up to 1000 are meant"}},
		"too many":                      {list(10000), []string{"deny: has 10000 items, at most 9999"}},
		"Kong's fields without meaning": {`{deny: [10.0.0.1], tags: [a]}`, []string{"warning tags: has no meaning here and is ignored"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, got := use(t, "a", c.config)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
		})
	}
}

func TestParts(t *testing.T) {
	for _, text := range []string{`{allow: [10.0.0.1]}`, `{deny: ["::/0"]}`, `{allow: [0.0.0.0/0], deny: [10.0.0.1]}`} {
		built := parts(t, "a", text)
		native := built[0].(part.Native)
		if native.State != part.Stateless {
			t.Errorf("%s: state %v", text, native.State)
		}
		rbac := native.Config.(*rbacv3.RBAC)
		if err := rbac.ValidateAll(); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if rbac.Rules != nil {
			t.Errorf("%s: the filter must not refuse by itself", text)
		}
	}
}
