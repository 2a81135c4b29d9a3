package finding_test

import (
	"strings"
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/finding"
)

func TestString(t *testing.T) {
	f := finding.Finding{
		Reason: finding.PluginNotFound, Object: finding.Object{Kind: "VirtualService", Namespace: "shop", Name: "api"},
		Place: "metadata.annotations[istio.io/plugins]@6", Problem: "there is no plugin x", Traffic: "route a answers 503", Remedy: "create it",
	}
	const want = "error PluginNotFound virtualservice/shop/api:metadata.annotations[istio.io/plugins]@6: there is no plugin x; route a answers 503; create it"
	if got := f.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	cluster := finding.Finding{Reason: finding.UnusedPlugin, Object: finding.Object{Kind: "ClusterPlugin", Name: "x"}, Problem: "no route runs it"}
	if got := cluster.String(); got != "warning UnusedPlugin clusterplugin/x: no route runs it" {
		t.Errorf("got %s", got)
	}
}

func TestSortIsTotalAndDropsRepeated(t *testing.T) {
	a := finding.Finding{Reason: finding.InvalidConfig, Object: finding.Object{Kind: "Plugin", Namespace: "a", Name: "x"}, Problem: "1"}
	b := a
	b.Problem = "2"
	c := a
	c.Object.Namespace = "b"
	for _, in := range [][]finding.Finding{{c, b, a, a}, {a, c, b, a}, {b, a, c, b, b}} {
		out := finding.Sort(in)
		if len(out) != 3 || out[0].Problem != "1" || out[1].Problem != "2" || out[2].Object.Namespace != "b" {
			t.Errorf("got %v", out)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"key-auth", "cors", "rate-limiting", "ip-restriction"}
	for word, want := range map[string]string{
		"keyauth": "key-auth", "CORS": "cors", "rate-limit": "rate-limiting", "corse": "cors", "ip_restriction": "ip-restriction",
		"oauth2": "", "x": "", "": "", "completely-different": "",
	} {
		if got, ok := finding.Nearest(word, known); got != want || ok != (want != "") {
			t.Errorf("%q: got %q, want %q", word, got, want)
		}
	}
}

func TestRoutes(t *testing.T) {
	if got := finding.Routes([]string{"a", "b", "c"}); got != "a, b, c" {
		t.Errorf("got %s", got)
	}
	if got := finding.Routes([]string{"a", "b", "c", "d", "e"}); got != "a, b, c and 2 more" {
		t.Errorf("got %s", got)
	}
}

func TestEveryReasonIsDocumented(t *testing.T) {
	said := map[string]finding.Reason{}
	for _, r := range finding.Reasons() {
		info, ok := finding.Describe(r)
		if !ok || !strings.HasSuffix(info.When, ".") || info.Severity == "" {
			t.Errorf("%s: %+v", r, info)
		}
		if other, twice := said[info.When]; twice {
			t.Errorf("%s and %s say the same", r, other)
		}
		said[info.When] = r
	}
}
