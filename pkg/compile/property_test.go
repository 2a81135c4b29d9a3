package compile_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/istio-plugins/istio-plugins/pkg/annotation"
	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/files"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/manifest"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// inputs are the golden cases of the command line and the samples: snapshots that users could have written.
func inputs(t testing.TB) map[string]*snapshot.Snapshot {
	t.Helper()
	out := map[string]*snapshot.Snapshot{}
	for _, pattern := range []string{"../cli/testdata/golden/*/input.yaml", "../../samples/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, path := range paths {
			out[path] = load(t, path)
		}
	}
	return out
}

func load(t testing.TB, paths ...string) *snapshot.Snapshot {
	t.Helper()
	s, err := files.Load(snapshot.Options{}, "", paths, strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// printed is all that leaves the program: the objects' bytes and the findings.
func printed(t testing.TB, r *compile.Result) string {
	t.Helper()
	var out bytes.Buffer
	if err := manifest.YAML(&out, r.Objects); err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Findings {
		fmt.Fprintln(&out, f.Source, f)
	}
	return out.String()
}

// shuffled is a snapshot with the same objects in another order.
func shuffled(s *snapshot.Snapshot, random *rand.Rand) *snapshot.Snapshot {
	out := *s
	shuffle(random, &out.VirtualServices)
	shuffle(random, &out.Gateways)
	shuffle(random, &out.Plugins)
	shuffle(random, &out.ClusterPlugins)
	shuffle(random, &out.Consumers)
	shuffle(random, &out.Secrets)
	shuffle(random, &out.ConfigMaps)
	shuffle(random, &out.Services)
	shuffle(random, &out.ReferenceGrants)
	shuffle(random, &out.HTTPRoutes)
	shuffle(random, &out.EnvoyFilters)
	shuffle(random, &out.WasmPlugins)
	shuffle(random, &out.Malformed)
	return &out
}

func shuffle[T any](random *rand.Rand, list *[]T) {
	*list = slices.Clone(*list)
	random.Shuffle(len(*list), func(i, j int) { (*list)[i], (*list)[j] = (*list)[j], (*list)[i] })
}

func TestTheOrderOfObjectsHasNoMeaning(t *testing.T) {
	for name, s := range inputs(t) {
		t.Run(name, func(t *testing.T) {
			want := printed(t, compile.Compile(s))
			for seed := range uint64(2) {
				got := printed(t, compile.Compile(shuffled(s, rand.New(rand.NewPCG(seed, 0)))))
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("seed %d compiles to something else:\n%s", seed, diff)
				}
			}
		})
	}
}

func TestCompileChangesNoInput(t *testing.T) {
	for name, s := range inputs(t) {
		t.Run(name, func(t *testing.T) {
			before := written(t, s)
			compile.Compile(s)
			if diff := cmp.Diff(before, written(t, s)); diff != "" {
				t.Errorf("the input has changed:\n%s", diff)
			}
		})
	}
}

// written is a snapshot's content as text. Where objects were read is no part of it, since functions are not comparable.
func written(t *testing.T, s *snapshot.Snapshot) string {
	t.Helper()
	var out strings.Builder
	for _, list := range []any{
		s.Options, s.VirtualServices, s.Gateways, s.Plugins, s.ClusterPlugins, s.Consumers, s.Secrets, s.ConfigMaps, s.Services,
		s.ReferenceGrants, s.HTTPRoutes, s.EnvoyFilters, s.WasmPlugins, s.Malformed,
	} {
		raw, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		var compacted bytes.Buffer // protobuf's JSON has random blanks
		if err := json.Compact(&compacted, raw); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&out, compacted.String())
	}
	return out.String()
}

// chains are what the routes of a namespace's VirtualServices run, in words.
func chains(r *compile.Result, namespace string) map[string]string {
	out := map[string]string{}
	for _, s := range r.Services {
		if s.VirtualService.Namespace != namespace {
			continue
		}
		for _, g := range s.Groups {
			for _, route := range s.VirtualService.Routes {
				chain := g.Route(route.Name)
				var text strings.Builder
				for _, step := range chain.Chain.Steps {
					fmt.Fprintf(&text, "%s %s\n", step.Plugin.ID, step.Config().JSON())
				}
				if chain.Refused != nil {
					fmt.Fprintf(&text, "refused: %s\n", chain.Refused.Finding)
				}
				out[fmt.Sprintf("%s %s %v %q", s.VirtualService.Name, s.Workload.ID, g.Ports, route.Name)] = text.String()
			}
		}
	}
	return out
}

// TestNoNamespaceChangesWhatAnotherRuns adds one case's tenants to another's: everything but Gateways, ClusterPlugins and
// grants, which are for others by their nature, and with the namespaces renamed.
func TestNoNamespaceChangesWhatAnotherRuns(t *testing.T) {
	all := inputs(t)
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		alone := all[name]
		stranger := load(t, names[(i+7)%len(names)])
		together := *alone
		together.VirtualServices = slices.Clone(alone.VirtualServices)
		for _, vs := range stranger.VirtualServices {
			vs.Namespace = "stranger"
			vs.Name = fmt.Sprintf("%s-%d", vs.Name, len(together.VirtualServices))
			together.VirtualServices = append(together.VirtualServices, vs)
		}
		together.Plugins = slices.Clone(alone.Plugins)
		for _, p := range stranger.Plugins {
			p.Namespace = "stranger"
			if !slices.ContainsFunc(together.Plugins, func(o *pluginsv1alpha1.Plugin) bool { return o.Namespace == p.Namespace && o.Name == p.Name }) {
				together.Plugins = append(together.Plugins, p)
			}
		}
		before, after := compile.Compile(alone), compile.Compile(&together)
		for _, vs := range alone.VirtualServices {
			if diff := cmp.Diff(chains(before, vs.Namespace), chains(after, vs.Namespace)); diff != "" {
				t.Errorf("%s: another namespace changes what %s runs:\n%s", name, vs.Namespace, diff)
			}
		}
		for _, f := range before.Findings {
			same := func(o finding.Finding) bool { return o.String() == f.String() }
			if f.Object.Namespace != "" && !slices.ContainsFunc(after.Findings, same) {
				t.Errorf("%s: another namespace changes a finding: %s", name, f)
			}
		}
	}
}

// TestEachRouteKeepsItsOwnOrder attaches random lists to routes and expects them to run as written.
func TestEachRouteKeepsItsOwnOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		s := load(t, "../cli/testdata/golden/routes/input.yaml")
		plugin := s.Plugins[0]
		s.Plugins = nil
		names := []string{"a", "b", "c", "d", "e"}
		for _, n := range names {
			p := plugin.DeepCopy()
			p.Name = n
			s.Plugins = append(s.Plugins, p)
		}
		var entries []string
		want := map[string]string{"api": "", "pages": ""}
		for i := range random.IntN(8) {
			name, routes := names[random.IntN(len(names))], [][]string{{"api"}, {"pages"}, {"api", "pages"}}[random.IntN(3)]
			// Each entry has a config of its own, so that none is a duplicate.
			entries = append(entries, fmt.Sprintf(`{"name":%q,"routes":[%q],"config":{"i":%d}}`, name, strings.Join(routes, `","`), i))
			entries[len(entries)-1] = strings.ReplaceAll(entries[len(entries)-1], `\"`, `"`)
			for _, r := range routes {
				want[r] += fmt.Sprintf("plugin/demo/%s {\"i\":%d}\n", name, i)
			}
		}
		vs := s.VirtualServices[0]
		vs.Annotations[annotation.Key] = "[" + strings.Join(entries, ",") + "]"
		got := map[string]string{}
		for key, text := range chains(compile.Compile(s), "demo") {
			for r := range want {
				if strings.HasSuffix(key, fmt.Sprintf("%q", r)) {
					got[r] = text
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", vs.Annotations[annotation.Key], diff)
		}
	}
}

// FuzzCompile compiles whatever an annotation says, on a VirtualService and on its Gateway. Whatever it is, the routes of
// another VirtualService run the same, and the order of objects still has no meaning.
func FuzzCompile(f *testing.F) {
	for _, s := range inputs(f) {
		for _, vs := range s.VirtualServices {
			f.Add(vs.Annotations[annotation.Key], "")
		}
	}
	f.Add("[{name: a, config: {value: [1, null, {x: \"%\"}]}}]", "a, -a, b")
	f.Add("{name: key-auth, config: null}", "[{name: a, override: true}]")
	base := load(f, "../cli/testdata/golden/routes/input.yaml")
	f.Fuzz(func(t *testing.T, service, gateway string) {
		s := *base
		s.VirtualServices = []*networkingv1.VirtualService{base.VirtualServices[0].DeepCopy()}
		s.Gateways = []*networkingv1.Gateway{base.Gateways[0].DeepCopy()}
		s.VirtualServices[0].Annotations[annotation.Key] = service
		s.Gateways[0].Annotations = map[string]string{annotation.Key: gateway}
		other := s.VirtualServices[0].DeepCopy()
		other.Name, other.Annotations = "other", map[string]string{annotation.Key: "[{name: -a}, b]"}
		s.VirtualServices = append(s.VirtualServices, other)
		r := compile.Compile(&s)
		if len(r.Objects) == 0 {
			t.Fatal("nothing is emitted")
		}
		again := compile.Compile(shuffled(&s, rand.New(rand.NewPCG(1, 1))))
		if diff := cmp.Diff(r.Findings, again.Findings) + cmp.Diff(chains(r, "demo"), chains(again, "demo")); diff != "" {
			t.Fatalf("the order of objects has a meaning:\n%s", diff)
		}
		quiet := s
		quiet.VirtualServices = []*networkingv1.VirtualService{s.VirtualServices[0].DeepCopy(), other}
		delete(quiet.VirtualServices[0].Annotations, annotation.Key)
		if diff := cmp.Diff(of(compile.Compile(&quiet), "other"), of(r, "other")); diff != "" {
			t.Fatalf("an annotation changes what another object runs:\n%s", diff)
		}
	})
}

// of are the chains of one VirtualService.
func of(r *compile.Result, name string) map[string]string {
	out := chains(r, "demo")
	for key := range out {
		if !strings.HasPrefix(key, name+" ") {
			delete(out, key)
		}
	}
	return out
}
