package compression

import (
	"compress/gzip"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// text is a body that gets smaller.
var text = strings.Repeat("hello,", 500)

func parts(t testing.TB, config string) []part.Part {
	t.Helper()
	return catalogtest.Parts(t, Builtin, builtin.Use{Plugin: "compression", Instance: "i"}, config)
}

func onEach(t *testing.T, texts map[string]string, test func(t *testing.T, envoy *envoytest.Envoy)) {
	chains := map[string][]part.Part{}
	for name, config := range texts {
		chains[name] = parts(t, config)
	}
	catalogtest.OnEach(t, chains, test)
}

func TestConfig(t *testing.T) {
	const pattern = ` does not match ^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*$`
	for _, c := range []struct {
		config string
		want   []string
	}{
		{`{}`, nil},
		{`{algorithms: [zstd, br, gzip], min_length: 1, content_types: [text/x-a+b], disable_on_etag: true, remove_accept_encoding: true}`, nil},
		{`{algorithms: []}`, []string{"algorithms: has 0 items, at least 1"}},
		{`{algorithms: [gzip, gzip]}`, []string{"algorithms: items 0 and 1 are equal"}},
		{`{algorithms: [deflate]}`, []string{`algorithms[0]: "deflate" is not allowed, allowed are "br", "gzip", "zstd"`}},
		{`{algorithms: gzip}`, []string{"algorithms: must be a list, not a string"}},
		{`{min_length: 0}`, []string{"min_length: 0 is too small, at least 1"}},
		{`{min_length: 4294967296}`, []string{"min_length: 4294967296 is too large, at most 4294967295"}},
		{`{min_length: 1.5}`, []string{"min_length: must be an integer, not a number"}},
		{`{content_types: []}`, []string{"content_types: has 0 items, at least 1"}},
		{`{content_types: [text/*]}`, []string{`content_types[0]: "text/*"` + pattern}},
		{`{content_types: ["text/html; charset=utf-8"]}`, []string{`content_types[0]: "text/html; charset=utf-8"` + pattern}},
		{`{content_types: [text/html, Application/gRPC+proto]}`, []string{"content_types[1]: gRPC has a compression of its own, and clients know no other"}},
		{`{disable_on_etag: 1}`, []string{"disable_on_etag: must be a boolean, not a number"}},
		{`{remove_accept_encoding: "no"}`, []string{"remove_accept_encoding: must be a boolean, not a string"}},
		{`{level: 9}`, []string{"level: unknown field, known ones are algorithms, content_types, disable_on_etag, min_length, remove_accept_encoding"}},
	} {
		_, got := catalogtest.Build(t, Builtin, builtin.Use{}, c.config)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.config, diff)
		}
	}
}

func TestNegotiation(t *testing.T) {
	texts := map[string]string{
		"default": `{}`, "gzip first": `{algorithms: [gzip, br]}`, "gzip": `{algorithms: [gzip]}`,
		"all": `{algorithms: [zstd, br, gzip]}`, "reverse": `{algorithms: [gzip, br, zstd]}`,
	}
	onEach(t, texts, func(t *testing.T, envoy *envoytest.Envoy) {
		// What clients accept, and what they get of each chain; nothing stands for a plain body.
		order := []string{"default", "gzip first", "gzip", "all", "reverse"}
		for accept, want := range map[string][]string{
			"gzip, deflate, br, zstd": {"br", "gzip", "gzip", "zstd", "gzip"}, // Chrome, Firefox
			"gzip, deflate, br":       {"br", "gzip", "gzip", "br", "gzip"},   // Safari
			"gzip, deflate":           {"gzip", "gzip", "gzip", "gzip", "gzip"},
			"br,gzip":                 {"br", "gzip", "gzip", "br", "gzip"},
			"zstd, br":                {"br", "br", "", "zstd", "br"},
			"gzip;q=0.5, br;q=0.5":    {"br", "gzip", "gzip", "br", "gzip"},
			"br;q=0.1, gzip;q=0.9":    {"gzip", "gzip", "gzip", "gzip", "gzip"},
			"br;q=0.9, zstd;q=0.1":    {"br", "br", "", "br", "br"},
			"gzip;q=0":                {"", "", "", "", ""},
			"gzip;q=0, br;q=0":        {"", "", "", "", ""},
			"gzip;q=0, *":             {"br", "br", "", "zstd", "br"},
			"*":                       {"br", "gzip", "gzip", "zstd", "gzip"},
			"*;q=0, gzip":             {"gzip", "gzip", "gzip", "gzip", "gzip"},
			"identity":                {"", "", "", "", ""},
			"deflate":                 {"", "", "", "", ""},
			"GZIP":                    {"", "", "", "", ""},
			"gzip;q=0.0, br;q=0.001":  {"br", "br", "", "br", "br"},
			"gzip;q=x":                {"", "", "", "", ""},
			"xgzip, gzipx, br2":       {"", "", "", "", ""},
			",;,=, ;q=1,\xff":         {"", "", "", "", ""},
			"":                        {"", "", "", "", ""},
		} {
			t.Run(accept, func(t *testing.T) {
				for i, chain := range order {
					a := envoy.Gateway(chain).Get(t, "/", "echo-body: "+text, "accept-encoding: "+accept)
					if got := a.Header.Get("content-encoding"); got != want[i] {
						t.Errorf("%s, accept-encoding %s: content-encoding %q, want %q", chain, accept, got, want[i])
					}
					if want[i] == "" && a.Body != text {
						t.Errorf("%s, accept-encoding %s: body %q", chain, accept, a.Body)
					}
					if want[i] != "" && (len(a.Body) > len(text)/10 || a.Header.Get("content-length") != "") {
						t.Errorf("%s, accept-encoding %s: %d bytes, content-length %q", chain, accept, len(a.Body), a.Header.Get("content-length"))
					}
					if want[i] != "" && !slices.Equal(a.Header.Values("vary"), []string{"Accept-Encoding"}) {
						t.Errorf("%s, accept-encoding %s: vary %q", chain, accept, a.Header.Values("vary"))
					}
				}
			})
		}
		a := envoy.Gateway("default").Get(t, "/", "echo-body: "+text)
		if a.Body != text || a.Header.Get("content-encoding") != "" {
			t.Errorf("without accept-encoding: header %v", a.Header)
		}
	})
}

// A list may come in several lines.
func TestSeveralLines(t *testing.T) {
	texts := map[string]string{"default": `{}`, "all": `{algorithms: [zstd, br, gzip]}`}
	onEach(t, texts, func(t *testing.T, envoy *envoytest.Envoy) {
		for chain, want := range map[string]string{"default": "br", "all": "zstd"} {
			for _, http2 := range []bool{false, true} {
				a := envoy.Gateway(chain).Do(t, envoytest.Request{HTTP2: http2, Header: []string{
					"accept-encoding: gzip", "accept-encoding: br, zstd", "echo-body: " + text,
				}})
				if got := a.Header.Get("content-encoding"); got != want {
					t.Errorf("%s: content-encoding %q, want %q", chain, got, want)
				}
			}
		}
	})
}

// Nothing waits for the end of a body, of which Envoy would hold 1 MiB at most.
func TestLargeBodies(t *testing.T) {
	onEach(t, map[string]string{"gzip": `{algorithms: [gzip]}`}, func(t *testing.T, envoy *envoytest.Envoy) {
		large := strings.Repeat("hello,", 500_000)
		a := envoy.Gateway("gzip").Do(t, envoytest.Request{Method: "POST", Body: large, Header: []string{"accept-encoding: gzip"}})
		if a.Status != 200 || a.Header.Get("content-encoding") != "gzip" || !strings.Contains(unzip(t, a.Body), large) {
			t.Errorf("status %d, header %v, %d bytes", a.Status, a.Header, len(a.Body))
		}
	})
}

// What the client says of codings is in another order, and otherwise the same.
func TestUpstreamSeesWhatTheClientAccepts(t *testing.T) {
	texts := map[string]string{
		"two": `{}`, "all": `{algorithms: [zstd, br, gzip]}`,
		"removed": `{remove_accept_encoding: true}`, "all removed": `{algorithms: [zstd, br, gzip], remove_accept_encoding: true}`,
	}
	onEach(t, texts, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct {
			chain, accept string
			want          []string
		}{
			{"two", "gzip, deflate, br, zstd", []string{"gzip, deflate, br, zstd"}},
			{"all", "gzip, deflate, br, zstd", []string{"zstd, br, gzip, deflate"}},
			{"all", "gzip; q=0.5 ,identity;q=0,br;q=1", []string{"br;q=1, gzip; q=0.5, identity;q=0"}},
			{"all", "gzip, br, gzip;q=0", []string{"br, gzip, gzip;q=0"}},
			{"all", "gzip, deflate", []string{"gzip, deflate"}},
			{"all", "", []string{""}},
			{"removed", "gzip, br", nil},
			{"all removed", "gzip, br", nil},
		} {
			a := envoy.Gateway(c.chain).Get(t, "/", "accept-encoding: "+c.accept, "echo-body: "+text)
			if diff := cmp.Diff(c.want, a.Upstream.Values("accept-encoding")); diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", c.chain, c.accept, diff)
			}
			if c.want == nil && a.Header.Get("content-encoding") != "br" {
				t.Errorf("%s: content-encoding %q", c.chain, a.Header.Get("content-encoding"))
			}
		}
	})
}

// The work that blanks make grows with their number, not with its square.
func TestManyBlanks(t *testing.T) {
	blanks := strings.Repeat(" ", 50_000)
	onEach(t, map[string]string{"all": `{algorithms: [zstd, br, gzip]}`}, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, accept := range []string{"gzip, x" + blanks + "x, br", "gzip," + blanks + ",br", "gzip" + blanks + ";q=1,br"} {
			header := []string{"accept-encoding: " + accept, "echo-body: " + text}
			for _, a := range envoy.Gateway("all").DoAtOnce(t, envoytest.Request{Header: header}) {
				if a.Header.Get("content-encoding") != "br" {
					t.Fatalf("%.20q: status %d, header %v", accept, a.Status, a.Header)
				}
			}
		}
	})
}

func TestWhatIsCompressed(t *testing.T) {
	texts := map[string]string{
		"default": `{algorithms: [gzip]}`, "both": `{}`, "small": `{min_length: 1}`, "etag": `{disable_on_etag: true}`,
		"types": `{content_types: [Text/Event-Stream, application/x-own]}`,
	}
	onEach(t, texts, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct {
			name, chain string
			header      []string
			length      int // of the body; 3000 if it is 0
			compressed  bool
		}{
			{"a text", "default", nil, 0, true},
			{"an error", "default", []string{"echo-status: 500"}, 0, true},
			{"JSON", "default", []string{"echo-header: content-type: application/json"}, 0, true},
			{"any case", "default", []string{"echo-header: content-type: Text/HTML;charset=utf-8"}, 0, true},
			{"a picture", "default", []string{"echo-header: content-type: image/png"}, 0, false},
			{"events", "default", []string{"echo-header: content-type: text/event-stream"}, 0, false},
			{"other types", "types", []string{"echo-header: content-type: text/event-stream"}, 0, true},
			{"instead of the usual ones", "types", nil, 0, false},
			{"compressed before", "both", []string{"echo-header: content-encoding: br"}, 0, false},
			{"compressed before, in another way", "both", []string{"echo-header: content-encoding: deflate"}, 0, false},
			{"no-transform", "both", []string{"echo-header: cache-control: max-age=1, no-transform"}, 0, false},
			{"a part", "both", []string{"echo-status: 206", "echo-header: content-range: bytes 0-2999/9000"}, 0, false},
			{"almost long enough", "default", []string{"echo-header: content-length: 1023"}, 1023, false},
			{"long enough", "default", []string{"echo-header: content-length: 1024"}, 1024, true},
			{"one byte", "small", []string{"echo-header: content-length: 1"}, 1, true},
			{"a short one of unknown length", "default", []string{"echo-trailer: a: b"}, 1, true},
			{"an etag", "etag", []string{`echo-header: etag: "strong"`}, 0, false},
			{"a weak etag", "etag", []string{`echo-header: etag: W/"weak"`}, 0, false},
			{"without etag", "etag", nil, 0, true},
		} {
			t.Run(c.name, func(t *testing.T) {
				body := text
				if c.length > 0 {
					body = strings.Repeat("x", c.length)
				}
				for _, http2 := range []bool{false, true} {
					header := append([]string{"accept-encoding: gzip", "echo-body: " + body}, c.header...)
					a := envoy.Gateway(c.chain).Do(t, envoytest.Request{Header: header, HTTP2: http2})
					if got := a.Header.Get("content-encoding") == "gzip"; got != c.compressed {
						t.Errorf("header %v, HTTP/2 %v", a.Header, http2)
					} else if got {
						if plain := unzip(t, a.Body); plain != body {
							t.Errorf("%d bytes became %d", len(body), len(plain))
						}
					} else if a.Body != body {
						t.Errorf("%d bytes became %d", len(body), len(a.Body))
					}
				}
			})
		}
	})
}

func TestHeaders(t *testing.T) {
	onEach(t, map[string]string{"default": `{}`}, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct {
			name   string
			header []string
			want   map[string]string
		}{
			{"a strong etag goes", []string{`echo-header: etag: "strong"`}, map[string]string{"etag": "", "content-encoding": "gzip"}},
			{"a weak one stays", []string{`echo-header: etag: W/"weak"`}, map[string]string{"etag": `W/"weak"`, "content-encoding": "gzip"}},
			{"vary is added to", []string{"echo-header: vary: Origin"}, map[string]string{"vary": "Origin, Accept-Encoding"}},
			{"vary is not doubled", []string{"echo-header: vary: Origin, Accept-Encoding"}, map[string]string{"vary": "Origin, Accept-Encoding"}},
			{"a part keeps its etag", []string{`echo-header: etag: "strong"`, "echo-status: 206"}, map[string]string{"etag": `"strong"`, "content-encoding": ""}},
		} {
			a := envoy.Gateway("default").Get(t, "/", append([]string{"accept-encoding: gzip", "echo-body: " + text}, c.header...)...)
			for _, name := range slices.Sorted(maps.Keys(c.want)) {
				if got := a.Header.Get(name); got != c.want[name] {
					t.Errorf("%s: %s is %q, want %q", c.name, name, got, c.want[name])
				}
			}
		}
		a := envoy.Gateway("default").Get(t, "/", "accept-encoding: identity", "echo-body: "+text)
		if got := a.Header.Get("vary"); got != "Accept-Encoding" {
			t.Errorf("a client that wants none: vary %q", got)
		}
		a = envoy.Gateway("default").Do(t, envoytest.Request{Method: "HEAD", Header: []string{"accept-encoding: gzip", "echo-body: " + text, "echo-header: content-length: 3000"}})
		if a.Header.Get("content-length") != "3000" || a.Header.Get("content-encoding") != "" {
			t.Errorf("HEAD: header %v", a.Header)
		}
		for _, status := range []string{"204", "304"} {
			a := envoy.Gateway("default").Get(t, "/", "accept-encoding: gzip", "echo-body: "+text, "echo-status: "+status)
			if a.Body != "" || a.Header.Get("content-encoding") != "" {
				t.Errorf("%s: header %v, body %q", status, a.Header, a.Body)
			}
		}
		a = envoy.Gateway("default").Get(t, "/", "accept-encoding: gzip", "echo-body: "+text, "echo-trailer: a: b")
		if unzip(t, a.Body) != text || a.Trailer.Get("a") != "b" {
			t.Errorf("trailers: %v", a.Trailer)
		}
	})
}

// What goes over a WebSocket is none of our business, also where its answer has a type that is compressed, or none.
func TestWebSockets(t *testing.T) {
	onEach(t, map[string]string{"small": `{min_length: 1}`}, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, header := range []string{"x-a: b", "echo-header: content-type: text/plain"} {
			a, back := envoy.Gateway("small").Upgrade(t, "/", text, "accept-encoding: gzip, br", header)
			if a.Status != 101 || a.Header.Get("content-encoding") != "" || back != text {
				t.Errorf("status %d, header %v, %.40q came back", a.Status, a.Header, back)
			}
		}
	})
}

// A plugin after this one sees the response first, and so the plain body.
func TestOrder(t *testing.T) {
	changes := part.Lua{Plugin: "changes", Source: `return {response = function(handle)
		local body = handle:body()
		local was = body:getBytes(0, body:length())
		body:setBytes((was:gsub("hello", "howdy")))
	end}`}
	refuses := part.Lua{Plugin: "refuses", Source: `return {request = function(handle)
		if pdk.header(handle, "refuse") then pdk.exit(handle, 403, {["content-type"] = "text/plain"}, ("no "):rep(1000)) end
	end}`}
	untyped := part.Lua{Plugin: "untyped", Source: `return {response = function(handle) pdk.remove_header(handle, "content-type") end}`}
	chains := map[string][]part.Part{
		"chain":   append(parts(t, `{}`), refuses, changes),
		"untyped": append(parts(t, `{}`), untyped),
		"twice":   append(parts(t, `{algorithms: [gzip]}`), parts(t, `{algorithms: [br, gzip]}`)...),
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		a := envoy.Gateway("chain").Get(t, "/", "accept-encoding: gzip", "echo-body: "+text)
		if want := strings.ReplaceAll(text, "hello", "howdy"); unzip(t, a.Body) != want {
			t.Errorf("header %v", a.Header)
		}
		a = envoy.Gateway("chain").Get(t, "/", "accept-encoding: gzip", "refuse: yes")
		if want := strings.ReplaceAll(strings.Repeat("no ", 1000), "hello", "howdy"); a.Status != 403 || unzip(t, a.Body) != want {
			t.Errorf("another plugin's answer: %d, header %v", a.Status, a.Header)
		}
		a = envoy.Gateway("untyped").Get(t, "/", "accept-encoding: gzip", "echo-body: "+text)
		if unzip(t, a.Body) != text {
			t.Errorf("without a type: header %v", a.Header)
		}
		a = envoy.Gateway("twice").Get(t, "/", "accept-encoding: gzip", "echo-body: "+text)
		if unzip(t, a.Body) != text || len(a.Header.Values("content-encoding")) != 1 {
			t.Errorf("twice: header %v", a.Header)
		}
	})
}

func unzip(t *testing.T, body string) string {
	t.Helper()
	r, err := gzip.NewReader(strings.NewReader(body))
	if err != nil {
		t.Errorf("%v: %.40q", err, body)
		return ""
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	return string(plain)
}
