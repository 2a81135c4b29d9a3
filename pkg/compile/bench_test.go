package compile_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// mesh is a gateway with n routes: n VirtualServices, but at most 10,000, in up to 100 namespaces, each with a host of its
// own and three plugins: two built-ins by name and one Plugin of its namespace, whose config it changes if own is set.
func mesh(routes int, own bool) *snapshot.Snapshot {
	n := min(routes, 10_000)
	s := &snapshot.Snapshot{Gateways: []*networkingv1.Gateway{{
		ObjectMeta: metav1.ObjectMeta{Name: "public", Namespace: "istio-system"},
		Spec: networking.Gateway{
			Selector: map[string]string{"istio": "ingressgateway"},
			Servers:  []*networking.Server{{Port: &networking.Port{Number: 80, Name: "http", Protocol: "HTTP"}, Hosts: []string{"*"}}},
		},
	}}}
	namespaces := min(n, 100)
	for i := range namespaces {
		s.Plugins = append(s.Plugins, &pluginsv1alpha1.Plugin{
			ObjectMeta: metav1.ObjectMeta{Name: "limit", Namespace: fmt.Sprintf("team-%d", i)},
			Spec: pluginsv1alpha1.PluginSpec{
				Builtin: "rate-limiting",
				Config:  &apiextensionsv1.JSON{Raw: []byte(`{"minute": 100, "limit_by": "ip"}`)},
			},
		})
	}
	for i := range n {
		text := "cors, key-auth, limit"
		if own {
			text = fmt.Sprintf("[cors, key-auth, {name: limit, config: {minute: %d}}]", i+1)
		}
		s.VirtualServices = append(s.VirtualServices, &networkingv1.VirtualService{
			ObjectMeta: metav1.ObjectMeta{
				Name: fmt.Sprintf("service-%d", i), Namespace: fmt.Sprintf("team-%d", i%namespaces),
				Annotations: map[string]string{"istio.io/plugins": text},
			},
			Spec: networking.VirtualService{
				Hosts: []string{fmt.Sprintf("service-%d.example.com", i)}, Gateways: []string{"istio-system/public"},
			},
		})
		for r := range routes / n {
			http := &networking.HTTPRoute{Route: []*networking.HTTPRouteDestination{{Destination: &networking.Destination{Host: "service"}}}}
			if r < routes/n-1 {
				http.Name = fmt.Sprintf("route-%d", r)
				http.Match = []*networking.HTTPMatchRequest{{Uri: &networking.StringMatch{MatchType: &networking.StringMatch_Prefix{Prefix: "/" + http.Name}}}}
			}
			spec := &s.VirtualServices[i].Spec
			spec.Http = append(spec.Http, http)
		}
	}
	return s
}

// BenchmarkCompile prints what a full compile costs, and how many bytes an attachment has in the generated objects.
func BenchmarkCompile(b *testing.B) {
	for _, own := range []bool{false, true} {
		for _, n := range []int{100, 1000, 10_000, 100_000} {
			name := fmt.Sprintf("routes=%d", n)
			if own {
				name += ",own-configs"
			}
			b.Run(name, func(b *testing.B) {
				s := mesh(n, own)
				b.ReportAllocs()
				var r *compile.Result
				for b.Loop() {
					r = compile.Compile(s)
				}
				size := 0
				for _, o := range r.Objects {
					size += o.Size
				}
				errors := 0
				for _, f := range r.Findings {
					if f.Severity() == finding.Error {
						errors++
					}
				}
				b.ReportMetric(float64(size)/float64(3*len(s.VirtualServices)), "B/attachment")
				b.ReportMetric(float64(len(r.Objects)), "objects")
				b.ReportMetric(float64(errors), "errors")
				b.ReportMetric(live(), "MiB-live")
				runtime.KeepAlive(r)
			})
		}
	}
}

// live is how many MiB of the heap are in use.
func live() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

// BenchmarkEdit prints what it costs to compile again after an edit in a mesh of 10,000 VirtualServices, and how many times
// as long a full compile of the same mesh takes in the same run. It also prints how much memory the snapshot and the last
// result take, and how much more the Compiler.
func BenchmarkEdit(b *testing.B) {
	const n = 10_000
	edits := []struct {
		name string
		edit func(s *snapshot.Snapshot, i int)
	}{
		{"nothing", func(*snapshot.Snapshot, int) {}},
		{"one-annotation", func(s *snapshot.Snapshot, i int) {
			vs := s.VirtualServices[i*7919%n].DeepCopy()
			vs.Annotations["istio.io/plugins"] = fmt.Sprintf("[cors, key-auth, {name: limit, config: {minute: %d}}]", n+i)
			s.VirtualServices[i*7919%n] = vs
		}},
		{"one-route", func(s *snapshot.Snapshot, i int) { // what does not concern plugins, such as a weight
			s.VirtualServices[i*7919%n] = s.VirtualServices[i*7919%n].DeepCopy()
		}},
		{"plugin-of-100", func(s *snapshot.Snapshot, i int) {
			p := s.Plugins[i%len(s.Plugins)].DeepCopy()
			p.Spec.Config.Raw = fmt.Appendf(nil, `{"minute": %d, "limit_by": "ip"}`, n+i)
			s.Plugins[i%len(s.Plugins)] = p
		}},
		{"cluster-plugin-of-all", func(s *snapshot.Snapshot, i int) {
			s.Plugins = nil
			s.ClusterPlugins = []*pluginsv1alpha1.ClusterPlugin{{
				ObjectMeta: metav1.ObjectMeta{Name: "limit"},
				Spec: pluginsv1alpha1.PluginSpec{
					Builtin: "rate-limiting",
					Config:  &apiextensionsv1.JSON{Raw: fmt.Appendf(nil, `{"minute": %d, "limit_by": "ip"}`, n+i)},
				},
			}}
		}},
	}
	for _, own := range []bool{false, true} {
		for _, e := range edits {
			name := e.name
			if own {
				name += ",own-configs"
			}
			b.Run(name, func(b *testing.B) {
				s := mesh(n, own)
				e.edit(s, 0)
				const runs = 3
				begin := time.Now()
				for range runs {
					compile.Compile(s)
				}
				full := time.Since(begin) / runs
				var c compile.Compiler
				c.Compile(s)
				b.ReportAllocs()
				i := 0
				var r *compile.Result
				for b.Loop() {
					i++
					e.edit(s, i)
					r = c.Compile(s)
				}
				b.ReportMetric(float64(full)/(float64(b.Elapsed())/float64(b.N)), "x-full")
				with := live()
				c = compile.Compiler{}
				without := live()
				b.ReportMetric(without, "MiB-live")
				b.ReportMetric(with-without, "MiB-more")
				runtime.KeepAlive(r)
			})
		}
	}
}
