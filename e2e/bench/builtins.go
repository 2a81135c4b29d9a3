package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/schema/gvk"
	"istio.io/istio/pkg/test"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/istio-plugins/istio-plugins/e2e/echo"
	"github.com/istio-plugins/istio-plugins/e2e/loopback"
	"github.com/istio-plugins/istio-plugins/pkg/catalog"
	"github.com/istio-plugins/istio-plugins/pkg/files"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

//go:embed builtins.yaml
var builtinsText []byte

//go:embed builtins_objects.yaml
var builtinsObjects string

// builtinCase is what a built-in is measured with; builtins.yaml tells what the fields mean.
type builtinCase struct {
	name    string
	Config  map[string]any `json:"config"`
	Own     map[string]any `json:"own"`
	Behind  string         `json:"behind"`
	Request request        `json:"request"`
	Route   map[string]any `json:"route"`
	Text    int            `json:"text"`
	Native  *native        `json:"native"`
}

// native is how Envoy does it by itself.
type native struct {
	Filter map[string]any `json:"filter"`
	Route  map[string]any `json:"route"`
}

// builtinCases are the cases by name. There is one for each built-in at least.
func builtinCases() ([]builtinCase, error) {
	var byName map[string]builtinCase
	if err := yaml.UnmarshalStrict(builtinsText, &byName); err != nil {
		return nil, fmt.Errorf("builtins.yaml: %w", err)
	}
	var cases []builtinCase
	missing := catalog.Names()
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		c := byName[name]
		c.name = name
		if _, known := catalog.Find(c.builtin()); !known {
			return nil, fmt.Errorf("builtins.yaml: no built-in is called %q", c.builtin())
		}
		missing = slices.DeleteFunc(missing, func(name string) bool { return name == c.builtin() })
		cases = append(cases, c)
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("builtins.yaml has no case for %s", strings.Join(missing, ", "))
	}
	return cases, nil
}

func (c builtinCase) builtin() string {
	name, _, _ := strings.Cut(c.name, " ")
	return name
}

// The hosts of a case: with the plugin, without it, and with Envoy's own way, which is another gateway's.
func (c builtinCase) host() string {
	return strings.ToLower(strings.ReplaceAll(c.name, " ", "-")) + ".test"
}
func (c builtinCase) plainHost() string  { return "plain." + c.host() }
func (c builtinCase) nativeHost() string { return "native." + c.host() }

// annotation attaches the plugin with config, or without a config nothing but what runs before it.
func (c builtinCase) annotation(config map[string]any) string {
	entries := []any{}
	if c.Behind != "" {
		entries = append(entries, c.Behind)
	}
	if config != nil {
		entries = append(entries, map[string]any{"name": c.builtin(), "config": config})
	}
	return string(raw(entries).Raw)
}

// config is the plugin's, which may be empty, but is there.
func (c builtinCase) config() map[string]any {
	config := map[string]any{}
	maps.Copy(config, c.Config)
	return config
}

// service is the case's VirtualService for a host; fields replace those of its route.
func (c builtinCase) service(host string, fields map[string]any) (*networkingv1.VirtualService, error) {
	text := "ok"
	if c.Text > 0 {
		text = strings.Repeat("All work and no play makes Jack a dull boy.\n", c.Text/44+1)[:c.Text]
	}
	route := map[string]any{"name": "main", "directResponse": map[string]any{"status": 200, "body": map[string]any{"string": text}}}
	maps.Copy(route, c.Route)
	maps.Copy(route, fields)
	v := &networkingv1.VirtualService{ObjectMeta: metav1.ObjectMeta{Name: host, Namespace: benchNamespace}}
	v.Spec.Hosts, v.Spec.Gateways = []string{host}, []string{gatewayNamespace + "/public"}
	v.Spec.Http = []*networking.HTTPRoute{{}}
	return v, json.Unmarshal(raw(route).Raw, v.Spec.Http[0])
}

const benchNamespace = "bench"

// builtinWorld is a gateway for cases, with the Consumers and the service that they may need.
type builtinWorld struct {
	snapshot *snapshot.Snapshot
}

func newBuiltinWorld(servicePort int, ports ...int) (builtinWorld, error) {
	s, err := files.Load(snapshot.Options{}, "", []string{"-"}, strings.NewReader(builtinsObjects))
	if err != nil {
		return builtinWorld{}, err
	}
	for _, e := range s.ServiceEntries {
		e.Spec.Endpoints = []*networking.WorkloadEntry{{Address: "127.0.0.1", Ports: map[string]uint32{"http": uint32(servicePort), "grpc": uint32(servicePort)}}}
	}
	g := world{}.gateway()
	g.Spec.Servers = nil
	for _, port := range ports {
		server := world{port: port}.plainServer()
		server.Port.Name = fmt.Sprintf("http-%d", port)
		g.Spec.Servers = append(g.Spec.Servers, server)
	}
	s.Gateways = append(s.Gateways, g)
	return builtinWorld{snapshot: s}, nil
}

// add serves a case on a host; what is annotated runs.
func (w builtinWorld) add(c builtinCase, host, annotation string, fields map[string]any) error {
	v, err := c.service(host, fields)
	if err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	v.Annotations = map[string]string{"istio.io/plugins": annotation}
	w.snapshot.VirtualServices = append(w.snapshot.VirtualServices, v)
	return nil
}

// configs are the world's objects as istiod holds them; without plugins the annotations mean nothing.
func (w builtinWorld) configs(plugins bool) ([]config.Config, error) {
	var out []config.Config
	for _, g := range w.snapshot.Gateways {
		out = append(out, config.Config{Meta: meta(gvk.Gateway, g.ObjectMeta), Spec: &g.Spec})
	}
	for _, v := range w.snapshot.VirtualServices {
		out = append(out, config.Config{Meta: meta(gvk.VirtualService, v.ObjectMeta), Spec: &v.Spec})
	}
	for _, e := range w.snapshot.ServiceEntries {
		out = append(out, config.Config{Meta: meta(gvk.ServiceEntry, e.ObjectMeta), Spec: &e.Spec})
	}
	if !plugins {
		return out, nil
	}
	generated, err := generate(w.snapshot)
	return append(out, generated...), err
}

// measured is a case on gateways, and what its requests have cost there in each round.
type measured struct {
	builtinCase
	plain, plugin, native             loaded
	plainCost, pluginCost, nativeCost []float64
}

func measureBuiltins(ctx context.Context, s setup) error {
	rounds, seconds := 5, 1
	if s.short {
		rounds = 3
	}
	cases, err := builtinCases()
	if err != nil {
		return err
	}
	return test.Wrap(func(t test.Failer) {
		measuredCases, err := startBuiltins(ctx, t, s, cases)
		if err != nil {
			t.Fatal(err)
		}
		for range rounds {
			for _, m := range measuredCases {
				if err := m.round(ctx, seconds); err != nil {
					t.Fatalf("%s: %v", m.name, err)
				}
			}
		}
		builtinTable(s, measuredCases, rounds, seconds).print()
	})
}

// startBuiltins starts two gateways, one with plugins and one without, where each case has a port of its own.
func startBuiltins(ctx context.Context, t test.Failer, s setup, cases []builtinCase) ([]*measured, error) {
	script, err := writeScript(s)
	if err != nil {
		return nil, err
	}
	service, err := echo.Start()
	if err != nil {
		return nil, err
	}
	t.Cleanup(service.Stop)
	port, nativePorts := loopback.Port(), make([]int, len(cases))
	for i := range cases {
		nativePorts[i] = loopback.Port()
	}
	plugins, err := newBuiltinWorld(service.Port(), port)
	if err != nil {
		return nil, err
	}
	natives, err := newBuiltinWorld(service.Port(), nativePorts...)
	if err != nil {
		return nil, err
	}
	var filters []config.Config
	for i, c := range cases {
		err := errors.Join(plugins.add(c, c.host(), c.annotation(c.config()), nil), plugins.add(c, c.plainHost(), c.annotation(nil), nil))
		if err == nil && c.Native != nil {
			err = natives.add(c, c.nativeHost(), "", c.Native.Route)
			if c.Native.Filter != nil {
				filters = append(filters, nativeFilter(c, nativePorts[i]))
			}
		}
		if err != nil {
			return nil, err
		}
	}
	configs, err := plugins.configs(true)
	if err != nil {
		return nil, err
	}
	withPlugins, err := startServed(ctx, t, s, configs)
	if err != nil {
		return nil, err
	}
	if configs, err = natives.configs(false); err != nil {
		return nil, err
	}
	without, err := startServed(ctx, t, s, append(configs, filters...))
	if err != nil {
		return nil, err
	}
	var out []*measured
	for i, c := range cases {
		m := &measured{
			builtinCase: c,
			plain:       loaded{envoy: withPlugins, port: port, script: script},
			plugin:      loaded{envoy: withPlugins, port: port, script: script},
			native:      loaded{envoy: without, port: nativePorts[i], script: script},
		}
		if err := m.prepare(ctx, s); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		out = append(out, m)
	}
	return out, nil
}

// nativeFilter puts the case's filter before the router of a port.
func nativeFilter(c builtinCase, port int) config.Config {
	patch := insertFilter("native", c.Native.Filter)
	patch.Match.GetListener().PortNumber = uint32(port)
	return envoyFilter(c.host(), &networking.EnvoyFilter{ConfigPatches: []*networking.EnvoyFilter_EnvoyConfigObjectPatch{patch}})
}

// startServed starts an istiod and a gateway that takes all of its configuration.
func startServed(ctx context.Context, t test.Failer, s setup, configs []config.Config) (*envoy, error) {
	e, err := startEnvoy(ctx, s, serve(t, configs, nil))
	if err != nil {
		return nil, err
	}
	t.Cleanup(e.stop)
	return e, e.rejected(ctx)
}

// prepare writes the requests, and fails unless the plugin and its native rival do something.
func (m *measured) prepare(ctx context.Context, s setup) error {
	plain, err := m.Request.answers(ctx, m.plain.port, m.plainHost())
	if err != nil {
		return err
	}
	hosts := map[string]*loaded{m.plainHost(): &m.plain, m.host(): &m.plugin}
	if m.Native != nil {
		hosts[m.nativeHost()] = &m.native
	}
	for host, l := range hosts {
		answers, err := m.Request.answers(ctx, l.port, host)
		if err != nil {
			return err
		}
		if l != &m.plain && answers == plain {
			return fmt.Errorf("%s answers as %s does, nothing runs there:\n%s", host, m.plainHost(), plain)
		}
		if err := l.prepare(s, host, []string{m.Request.wire(host)}); err != nil {
			return err
		}
	}
	return nil
}

func (m *measured) round(ctx context.Context, seconds int) error {
	measure := func(l loaded, costs *[]float64) error {
		cost, err := l.load(ctx, seconds)
		*costs = append(*costs, cost)
		return err
	}
	err := errors.Join(measure(m.plain, &m.plainCost), measure(m.plugin, &m.pluginCost))
	if m.Native != nil {
		err = errors.Join(err, measure(m.native, &m.nativeCost))
	}
	return err
}

func builtinTable(s setup, cases []*measured, rounds, seconds int) *table {
	out := &table{
		title: fmt.Sprintf("Envoy, CPU time of a request through each built-in (%s)", filepath.Base(s.envoy)),
		method: fmt.Sprintf("direct responses, one worker, %s connections of wrk, %d interleaved rounds of %d s; CPU time of the process, medians; "+
			"ratios round by round, with the lowest and the highest; native: Envoy's own filter or route on a gateway without plugins", connections, rounds, seconds),
		columns: []string{"", "without", "with", "more", "to without", "native", "to native"},
	}
	for _, m := range cases {
		row := []string{m.name, microseconds(m.plainCost), microseconds(m.pluginCost),
			fmt.Sprintf("%+.1f us", median(m.pluginCost)-median(m.plainCost)), spread(m.pluginCost, m.plainCost)}
		if m.Native != nil {
			row = append(row, microseconds(m.nativeCost), spread(m.pluginCost, m.nativeCost))
		}
		out.add(row...)
	}
	return out
}

func microseconds(costs []float64) string { return fmt.Sprintf("%.1f us", median(costs)) }
