package compile

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/dispatch"
	"github.com/istio-plugins/istio-plugins/pkg/files"
	"github.com/istio-plugins/istio-plugins/pkg/part"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// shop is a VirtualService with the routes a, b and team, which a delegate serves with its route t, behind a Gateway. Each
// may have an annotation. So has another VirtualService, which has the routes a and b.
func shop(plugin, gateway, shop, team, other string) string {
	return fmt.Sprintf(`
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: limit, namespace: shop}
spec:
  builtin: rate-limiting-global
  config: {service: {host: limits.test, port: 81}, %s}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: limits, namespace: shop}
spec: {hosts: [limits.test], ports: [{number: 81, name: grpc, protocol: GRPC}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public, namespace: shop, annotations: {istio.io/plugins: %q}}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: shop, annotations: {istio.io/plugins: %q}}
spec:
  hosts: [shop.test]
  gateways: [shop/public]
  http:
  - {name: a, match: [{uri: {prefix: /a}}], route: [{destination: {host: shop}}]}
  - {name: team, match: [{uri: {prefix: /team}}], delegate: {name: team, namespace: shop}}
  - {name: b, route: [{destination: {host: shop}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: team, namespace: shop, annotations: {istio.io/plugins: %q}}
spec:
  http:
  - {name: t, match: [{uri: {prefix: /team/t}}], route: [{destination: {host: shop}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: other, namespace: shop, annotations: {istio.io/plugins: %q}}
spec:
  hosts: [other.test]
  gateways: [shop/public]
  http:
  - {name: a, match: [{uri: {prefix: /a}}], route: [{destination: {host: shop}}]}
  - {name: b, route: [{destination: {host: shop}}]}
`, plugin, gateway, shop, team, other)
}

// counters are the texts by which the steps of each route count, as VirtualService:route.
func counters(t *testing.T, text string) map[string][]string {
	t.Helper()
	s, err := files.Load(snapshot.Options{}, "", []string{files.Stdin}, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	r := Compile(s)
	var emitted strings.Builder
	for _, o := range r.Objects {
		if err := json.NewEncoder(&emitted).Encode(o.EnvoyFilter); err != nil {
			t.Fatal(err)
		}
	}
	out := map[string][]string{}
	for _, service := range r.Services {
		for _, name := range service.made.names {
			route := service.VirtualService.Name + ":" + name
			run, named := service.made.binding.Routes.Named[name]
			if !named {
				run = service.made.binding.Routes.Default
			}
			if run.Refused {
				t.Errorf("%s is refused", route)
			}
			for _, p := range run.Parts {
				counter := counterOf(service.VirtualService.Name, p)
				if counter == "" {
					continue
				}
				out[route] = append(out[route], counter)
				if name := counter[strings.LastIndex(counter, " ")+1:]; !strings.Contains(emitted.String(), name) {
					t.Errorf("no object has the counter %s of %s", counter, route)
				}
			}
		}
	}
	return out
}

// counterOf is empty for a part that does not count. The name of an entry's counter says which one it is within a
// VirtualService, as that is a part of the identity that is counted.
func counterOf(service string, p dispatch.Placed) string {
	switch q := p.Part.(type) {
	case part.Native:
		return p.Name
	case part.Lua:
		name, _ := q.Config["counter"].(string)
		if q.State == part.PerAttachment {
			return service + " " + name
		}
		return name
	}
	return ""
}

// groups says which steps have a counter in common: it gives each counter a letter, in the order of the routes.
func groups(t *testing.T, text string) string {
	t.Helper()
	all := counters(t, text)
	letters := map[string]string{}
	var out []string
	for _, route := range slices.Sorted(maps.Keys(all)) {
		line := route
		for _, counter := range all[route] {
			if letters[counter] == "" {
				letters[counter] = string(rune('A' + len(letters)))
			}
			line += " " + letters[counter]
		}
		out = append(out, line)
	}
	return strings.Join(out, ", ")
}

// Each entry counts for itself on each VirtualService that it reaches, unless all that use the Plugin have one counter.
func TestEntriesCountForThemselves(t *testing.T) {
	const (
		two  = "[{name: limit, override: true}, limit]" // behind a Gateway's entry, the second is a further one
		each = "[{name: limit, routes: [a]}, {name: limit, routes: [b]}]"
		same = "[{name: limit, routes: [a], config: {hour: 6}}, {name: limit, routes: [b], config: {hour: 6}}]"
		own  = "[{name: limit, routes: [b], config: {hour: 6}}]"
		over = "[{name: limit, routes: [a, b]}, {name: limit, routes: [a]}]"
	)
	for _, c := range []struct{ name, text, want string }{
		{"an entry for all routes", shop("hour: 5", "", "limit", "", "limit"), "other:a A, other:b A, shop:a B, shop:b B, shop:team-t B"},
		{"an entry for some", shop("hour: 5", "", "[{name: limit, routes: [a, b]}]", "", ""), "shop:a A, shop:b A"},
		{"entries without configs", shop("hour: 5", "", each, "", ""), "shop:a A, shop:b B"},
		{"entries with equal configs", shop("hour: 5", "", same, "", ""), "shop:a A, shop:b B"},
		{"entries that say the same for a route", shop("hour: 5", "", over, "", ""), "shop:a A, shop:b A"},
		{"a Gateway's entry", shop("hour: 5", "limit", "", "", ""), "other:a A, other:b A, shop:a B, shop:b B, shop:team-t B"},
		{"a Gateway's entry that others join", shop("hour: 5", "limit", "limit", "limit", ""), "other:a A, other:b A, shop:a B, shop:b B, shop:team-t B"},
		{"a Gateway's entry that others change", shop("hour: 5", "limit", same, "[{name: limit, config: {hour: 6}}]", ""),
			"other:a A, other:b A, shop:a B, shop:b C, shop:team-t D"},
		{"a Gateway's entry and a further one", shop("hour: 5", "limit", two, "", ""), "other:a A, other:b A, shop:a B C, shop:b B C, shop:team-t B C"},
		{"twice in a chain", shop("hour: 5", "", two, "", ""), "shop:a A B, shop:b A B, shop:team-t A B"},
		{"a delegate's entry", shop("hour: 5", "", "[{name: limit, routes: [a]}]", "limit", ""), "shop:a A, shop:team-t B"},
		{"a root's entry and a delegate's", shop("hour: 5", "", "[{name: limit, routes: [team]}]", two, ""), "shop:team-t A B"},
		{"the routes count for themselves in identities", shop("hour: 5, scope: route", "", "limit", "", ""), "shop:a A, shop:b A, shop:team-t A"},
		{"all together", shop("hour: 5, scope: plugin", "", each, "limit", "limit"),
			"other:a A, other:b A, shop:a A, shop:b A, shop:team-t A"},
		{"all together but for one that changes the config", shop("hour: 5, scope: plugin", "limit", own, "", ""),
			"other:a A, other:b A, shop:a A, shop:b B, shop:team-t A"},
	} {
		for plugin, text := range map[string]string{
			"global": c.text,
			"local":  strings.NewReplacer("rate-limiting-global", "rate-limiting", "service: {host: limits.test, port: 81}, ", "").Replace(c.text),
		} {
			if got := groups(t, text); got != c.want {
				t.Errorf("%s, %s:\n%s, want\n%s", c.name, plugin, got, c.want)
			}
		}
	}
}

// A counter keeps its name when limits are edited, and when other entries come, go and move.
func TestCountersKeepTheirNames(t *testing.T) {
	const before = "[{name: limit, routes: [a, b]}]"
	for _, c := range []struct{ name, text string }{
		{"another limit in the Plugin", shop("hour: 6, day: 10", "", before, "", "")},
		{"another limit in the entry", shop("hour: 5", "", "[{name: limit, routes: [a, b], config: {hour: 6}}]", "", "")},
		{"another order of the routes", shop("hour: 5", "", "[{name: limit, routes: [b, a]}]", "", "")},
		{"an entry before it", shop("hour: 5", "", "[{name: limit, routes: [team]}, {name: limit, routes: [a, b]}]", "", "")},
		{"an opt-out before it", shop("hour: 5", "", "[-limit, {name: limit, routes: [a, b]}]", "", "")},
		{"the full name", shop("hour: 5", "", "[{name: shop/limit, routes: [a, b]}]", "", "")},
		{"an entry elsewhere", shop("hour: 5", "", before, "limit", "limit")},
	} {
		want, got := counters(t, shop("hour: 5", "", before, "", "")), counters(t, c.text)
		for _, route := range []string{"shop:a", "shop:b"} {
			if d := cmp.Diff(want[route], got[route]); d != "" {
				t.Errorf("%s: %s (-want +got):\n%s", c.name, route, d)
			}
		}
	}
	const ofAll = "[{name: limit, routes: [a], config: {hour: 6}}]"
	want := counters(t, shop("hour: 5, scope: plugin", "", ofAll, "", ""))["shop:a"]
	for _, annotation := range []string{
		"[{name: limit, routes: [a], config: {day: 7}}]",
		"[{name: limit, routes: [b], config: {hour: 6}}, {name: limit, routes: [a], config: {hour: 6}}]",
	} {
		if got := counters(t, shop("hour: 5, scope: plugin", "", annotation, "", ""))["shop:a"]; !slices.Equal(want, got) {
			t.Errorf("%s: the counter of the entry was %q and is %q", annotation, want, got)
		}
	}
	// They are a part of what the rate limit service remembers, so another version must give the same.
	for scope, want := range map[string]string{"attachment": "shop 832e6dcf812eac16", "plugin": "6a4d6886f33b3f81"} {
		if got := counters(t, shop("hour: 5, scope: "+scope, "", before, "", ""))["shop:a"]; len(got) != 1 || got[0] != want {
			t.Errorf("with scope %s the name is %q", scope, got)
		}
	}
}
