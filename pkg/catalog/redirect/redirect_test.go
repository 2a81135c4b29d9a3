package redirect

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

var use = builtin.Use{Plugin: "moved", Instance: "i"}

func onEach(t *testing.T, texts map[string]string, test func(t *testing.T, envoy *envoytest.Envoy)) {
	chains := map[string][]part.Part{}
	for name, text := range texts {
		chains[name] = catalogtest.Parts(t, Builtin, use, text)
	}
	catalogtest.OnEach(t, chains, test)
}

func TestConfig(t *testing.T) {
	const whole = "location: is not a whole URL such as https://example.com/path"
	for _, c := range []struct {
		config string
		want   []string
	}{
		{`{location: "https://example.com"}`, nil},
		{`{location: "HTTP://example.com:8080/a%20b?c=d&e[]=f#g", status_code: 308, keep_incoming_path: true}`, nil},
		{`{location: "http://[2001:db8::7]:8080/"}`, nil},
		{`{}`, []string{"location: is required"}},
		{`{location: ""}`, []string{"location: must not be shorter than 1 characters"}},
		{`{location: 5}`, []string{"location: must be a string, not a number"}},
		{`{location: /path}`, []string{whole}},
		{`{location: //example.com/path}`, []string{whole}},
		{`{location: example.com}`, []string{whole}},
		{`{location: "https:///path"}`, []string{whole}},
		{`{location: "https://:443/path"}`, []string{whole}},
		{`{location: "ftp://example.com/"}`, []string{whole}},
		{`{location: "https:example.com"}`, []string{"location: is no URL"}},
		{`{location: "javascript:alert(1)"}`, []string{"location: is no URL"}},
		{`{location: "https://example.com:65535/"}`, nil},
		{`{location: "https://example.com:65536/"}`, []string{"location: has port 65536, ports are 1 to 65535"}},
		{`{location: "https://example.com:0/"}`, []string{"location: has port 0, ports are 1 to 65535"}},
		{`{location: "https://[2001:db8::7/"}`, []string{"location: is no URL"}},
		{`{location: "https://example.com/` + strings.Repeat("a", 4096) + `"}`, []string{"location: must not be longer than 4096 characters"}},
		{`{location: "https://u:secret@example.com:x/"}`, []string{"location: is no URL"}},
		{`{location: "https://example.com/%zz"}`, []string{"location: is no URL"}},
		{`{location: "https://exämple.com/"}`, []string{`location: holds 'ä', which a URL has percent-encoded, and in its host as punycode`}},
		{`{location: "https://example.com/a b"}`, []string{`location: holds ' ', which a URL has percent-encoded, and in its host as punycode`}},
		{`{location: "https://example.com/\r\nx: y"}`, []string{`location: holds '\r', which a URL has percent-encoded, and in its host as punycode`}},
		{`{location: "https://example.com\\@example.org"}`, []string{`location: holds '\\', which a URL has percent-encoded, and in its host as punycode`}},
		{`{location: "https://u:secret@example.com/"}`, []string{"warning location: holds a user name or password, which every client gets to see"}},
		{`{location: "https://example.com", status_code: 200}`, []string{"warning status_code: 200 is no redirect, clients will not follow it"}},
		{`{location: "https://example.com", status_code: 304}`, []string{"warning status_code: 304 is no redirect, clients will not follow it"}},
		{`{location: "https://example.com", status_code: 199}`, []string{"status_code: 199 is too small, at least 200"}},
		{`{location: "https://example.com", status_code: 600}`, []string{"status_code: 600 is too large, at most 599"}},
		{`{location: "https://example.com", keep_path: true}`, []string{"keep_path: unknown field, known ones are keep_incoming_path, location, status_code"}},
		{`{location: "https://example.com", keep_incoming_path: "yes"}`, []string{"keep_incoming_path: must be a boolean, not a string"}},
	} {
		_, got := catalogtest.Build(t, Builtin, use, c.config)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.config, diff)
		}
	}
}

func TestAnswer(t *testing.T) {
	const location = "https://example.com/a?b=c#d"
	texts := map[string]string{"default": `{location: "` + location + `"}`}
	statuses := []int{200, 204, 300, 302, 303, 304, 307, 308, 404, 599}
	for _, status := range statuses {
		texts[fmt.Sprint(status)] = fmt.Sprintf(`{location: "%s", status_code: %d}`, location, status)
	}
	onEach(t, texts, func(t *testing.T, envoy *envoytest.Envoy) {
		check := func(name, chain string, r envoytest.Request, status int, body string) {
			t.Run(name, func(t *testing.T) {
				a := envoy.Gateway(chain).Do(t, r)
				if a.Status != status || a.Body != body || a.Upstream != nil {
					t.Errorf("status %d, body %q, upstream %v", a.Status, a.Body, a.Upstream)
				}
				if got := a.Header.Values("location"); len(got) != 1 || got[0] != location {
					t.Errorf("location %q", got)
				}
				if body != "" && a.Header.Get("content-type") != "text/plain; charset=utf-8" {
					t.Errorf("content-type %q", a.Header.Get("content-type"))
				}
			})
		}
		check("the default", "default", envoytest.Request{Path: "/x?y=z"}, 301, "redirecting")
		check("HTTP/2", "default", envoytest.Request{HTTP2: true}, 301, "redirecting")
		check("HEAD", "default", envoytest.Request{Method: "HEAD"}, 301, "")
		check("POST", "308", envoytest.Request{Method: "POST", Body: "hello"}, 308, "redirecting")
		check("a preflight", "default", envoytest.Request{Method: "OPTIONS", Header: []string{"origin: http://a", "access-control-request-method: GET"}}, 301, "redirecting")
		for _, status := range statuses {
			body := "redirecting"
			if status == 204 || status == 304 {
				body = ""
			}
			check(fmt.Sprint(status), fmt.Sprint(status), envoytest.Request{}, status, body)
		}
		a := envoy.Gateway("default").Do(t, envoytest.Request{Method: "POST", HTTP2: true, Header: []string{"content-type: application/grpc"}})
		if a.Status != 200 || a.Header.Get("grpc-status") != "2" || a.Header.Get("grpc-message") != "redirecting" || a.Upstream != nil {
			t.Errorf("gRPC: status %d, header %v", a.Status, a.Header)
		}
	})
}

func TestKeepIncomingPath(t *testing.T) {
	texts := map[string]string{
		"path":     `{location: "https://example.com/old?own=1#part", keep_incoming_path: true}`,
		"query":    `{location: "http://u:p@example.com:8080?own=1", keep_incoming_path: true}`,
		"nothing":  `{location: "https://[2001:db8::7]", keep_incoming_path: true}`,
		"fragment": `{location: "https://example.com#a/b?c", keep_incoming_path: true}`,
	}
	onEach(t, texts, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct{ chain, path, want string }{
			{"path", "/a/b?c=d&c=e", "https://example.com/a/b?c=d&c=e#part"},
			{"path", "/", "https://example.com/#part"},
			{"path", "/?", "https://example.com/?#part"},
			{"path", "/?a?b=/c", "https://example.com/?a?b=/c#part"},
			{"query", "/a", "http://u:p@example.com:8080/a"},
			{"nothing", "/a%20b%2Fc%c3%a4;d=e,f?g[]=%68", "https://[2001:db8::7]/a%20b%2Fc%c3%a4;d=e,f?g[]=%68"},
			{"fragment", "/a", "https://example.com/a#a/b?c"},
			{"nothing", "//example.org/a", "https://[2001:db8::7]//example.org/a"},
			{"nothing", "/@example.org", "https://[2001:db8::7]/@example.org"},
			{"nothing", "/.example.org", "https://[2001:db8::7]/.example.org"},
			{"nothing", `/a"<>{}|^b`, "https://[2001:db8::7]/a%22%3C%3E%7B%7D%7C%5Eb"},
			{"nothing", "/%0d%0aset-cookie:x", "https://[2001:db8::7]/%0d%0aset-cookie:x"},
			{"nothing", "http://example.org/a?b=c", "https://[2001:db8::7]/a?b=c"},
			{"nothing", "http://example.org", "https://[2001:db8::7]/"},
			{"nothing", "/a/../b/%2e%2e/c", "https://[2001:db8::7]/c"},
			{"path", "/" + strings.Repeat("a", 50000), "https://example.com/" + strings.Repeat("a", 50000) + "#part"},
			{"nothing", "/a?%0d%0aset-cookie:x", "https://[2001:db8::7]/a?%0d%0aset-cookie:x"},
		} {
			t.Run(fmt.Sprintf("%s%.60s", c.chain, c.path), func(t *testing.T) {
				if got := raw(t, envoy.Gateway(c.chain), c.path); got != c.want {
					t.Errorf("location %q, want %q", got, c.want)
				}
			})
		}
		a := envoy.Gateway("path").Do(t, envoytest.Request{HTTP2: true, Path: "/a//b%2F?c"})
		if got := a.Header.Get("location"); got != "https://example.com/a//b%2F?c#part" {
			t.Errorf("HTTP/2: location %q", got)
		}
		// Envoy refuses them, or they come encoded, but never as they are.
		for _, path := range []string{"/ä", "/a\\b", "/a`b", "/a#b", "@example.org/", ".example.org/", "*"} {
			got := raw(t, envoy.Gateway("nothing"), path)
			if got != "" && (!strings.HasPrefix(got, "https://[2001:db8::7]/") || strings.ContainsAny(got, "ä\\`#")) {
				t.Errorf("%s: location %q", path, got)
			}
		}
	})
}

// What an earlier plugin makes of the path is what counts.
func TestBehindAnotherPlugin(t *testing.T) {
	rewrites := part.Lua{Plugin: "rewrites", Source: `return {request = function(handle)
		handle:headers():replace(":path", pdk.header(handle, "to"))
	end}`}
	chains := map[string][]part.Part{"chain": append([]part.Part{rewrites},
		catalogtest.Parts(t, Builtin, use, `{location: "https://example.com", keep_incoming_path: true}`)...)}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for to, want := range map[string]string{
			"/new?x=y":      "https://example.com/new?x=y",
			"@example.org":  "https://example.com/@example.org",
			".example.org":  "https://example.com/.example.org",
			"/ä\tb#c":       "https://example.com/%C3%A4%09b%23c",
			"?a=b":          "https://example.com/?a=b",
			`/\example.org`: "https://example.com/%5Cexample.org",
		} {
			if got := envoy.Gateway("chain").Get(t, "/old", "to: "+to).Header.Get("location"); got != want {
				t.Errorf("%q: location %q, want %q", to, got, want)
			}
		}
	})
}

// The first of two answers, and plugins in front of it see the answer.
func TestChain(t *testing.T) {
	first := catalogtest.Parts(t, Builtin, use, `{location: "https://first.test", status_code: 307}`)
	second := catalogtest.Parts(t, Builtin, use, `{location: "https://second.test"}`)
	adds := part.Lua{Plugin: "adds", Source: `return {response = function(handle)
		pdk.set_header(handle, "x-seen", pdk.header(handle, ":status") .. " " .. pdk.header(handle, "location"))
	end}`}
	chains := map[string][]part.Part{"chain": slices.Concat([]part.Part{adds}, first, second)}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		a := envoy.Gateway("chain").Get(t, "/")
		if a.Status != 307 || a.Header.Get("location") != "https://first.test" || a.Header.Get("x-seen") != "307 https://first.test" || a.Body != "redirecting" {
			t.Errorf("status %d, header %v, body %q", a.Status, a.Header, a.Body)
		}
	})
}

// raw is the location that a request line gets: no HTTP client sends all of them.
func raw(t *testing.T, gateway *envoytest.Gateway, path string) string {
	t.Helper()
	c, err := net.Dial("tcp", gateway.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.Header.Get("location")
}
