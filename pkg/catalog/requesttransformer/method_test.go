package requesttransformer

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/compression"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/responsetransformer"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

func length(text string) string { return strconv.Itoa(len(text)) }

func TestMethod(t *testing.T) {
	const form = "content-type: application/x-www-form-urlencoded"
	post := func(path, body string, header ...string) envoytest.Request {
		return envoytest.Request{Method: "POST", Path: path, Header: header, Body: body}
	}
	run(t, map[string]change{
		"upper case":                    {`{http_method: put}`, post("/", "x"), []string{"PUT /", "content-length: 1", "", "x"}},
		"a form goes to the query":      {`{http_method: GET}`, post("/p?a=1", "a=é+2&b&c=", form), []string{"GET /p?a=1&a=%C3%A9%202&b&c=", "content-length: 0"}},
		"where there was none":          {`{http_method: GET}`, post("/p", "a=1", form), []string{"GET /p?a=1", "content-length: 0"}},
		"HEAD":                          {`{http_method: head}`, post("/p", "a=1", form), []string{"HEAD /p?a=1", "content-length: 0"}},
		"a form of unknown length":      {`{http_method: GET}`, envoytest.Request{Method: "POST", Header: []string{form}, Body: "a=1", UnknownLength: true}, []string{"GET /?a=1", "content-length: 0"}},
		"a compressed form stays":       {`{http_method: GET}`, post("/p", "a=1", form, "content-encoding: gzip"), []string{"GET /p", "content-encoding: gzip", "content-length: 3", form, "", "a=1"}},
		"TRACE":                         {`{http_method: TRACE}`, post("/p", "a=1", form), []string{"TRACE /p?a=1", "content-length: 0"}},
		"another body stays":            {`{http_method: GET}`, post("/p", "a=1", "content-type: text/plain"), []string{"GET /p", "content-length: 3", "content-type: text/plain", "", "a=1"}},
		"an empty form":                 {`{http_method: GET}`, envoytest.Request{Method: "POST", Header: []string{form}}, []string{"GET /", "content-length: 0", form}},
		"a method with a body keeps it": {`{http_method: PUT}`, post("/p", "a=1", form), []string{"PUT /p", "content-length: 3", form, "", "a=1"}},
		"the query rules come later":    {`{http_method: GET, remove: {querystring: [a]}, add: {headers: ["content-type:x"]}}`, post("/p", "a=1&b=2", form), []string{"GET /p?b=2", "content-length: 0", "content-type: x"}},
		"body rules have no body then":  {`{http_method: GET, add: {body: ["c:1"]}}`, post("/p", "a=1", form), []string{"GET /p?a=1", "content-length: 0"}},
	})
}

// Envoy frames an answer by the method that the upstream saw. What a client gets must fit the method that it sent, or
// the connection goes out of step: the answers of one connection are read here as the client reads them.
func TestAnswersFitTheClientsMethod(t *testing.T) {
	chains := map[string][]part.Part{}
	for _, method := range []string{"HEAD", "GET", "POST"} {
		chains[method], _ = use(t, `{http_method: `+method+`}`)
	}
	long := "x-long: " + strings.Repeat("x", 5000) // its echo has no content-length
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			envoy := envoytest.Start(t, version, envoytest.Config{Chains: chains})
			for method := range chains {
				for _, extra := range []string{"x-short: x", long, envoytest.EchoStatus + ": 204"} {
					connection, err := net.Dial("tcp", envoy.Gateway(method).Address)
					if err != nil {
						t.Fatal(err)
					}
					defer connection.Close()
					if err := connection.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
						t.Fatal(err)
					}
					reader := bufio.NewReader(connection)
					for i, sent := range []string{"HEAD", "GET", "HEAD", "POST", "GET"} {
						fmt.Fprintf(connection, "%s / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n%s\r\nx-n: %d\r\n\r\n", sent, extra, i)
						a, err := http.ReadResponse(reader, &http.Request{Method: sent})
						if err != nil {
							t.Fatalf("%s sent as %s, %.20s: answer %d: %v", sent, method, extra, i, err)
						}
						body, err := io.ReadAll(a.Body)
						if err != nil {
							t.Fatalf("%s sent as %s, %.20s: answer %d: %v", sent, method, extra, i, err)
						}
						has := sent != "HEAD" && method != "HEAD" && !strings.HasSuffix(extra, "204")
						if (len(body) > 0) != has || has && !strings.Contains(string(body), `"`+method+`"`) {
							t.Errorf("%s sent as %s, %.20s: answer %d: body %.100q", sent, method, extra, i, body)
						}
					}
					if n := reader.Buffered(); n > 0 {
						t.Errorf("sent as %s, %.20s: %d bytes behind the last answer", method, extra, n)
					}
				}
				for _, sent := range []string{"HEAD", "GET", "POST"} {
					for _, header := range []string{"x-short: x", long} {
						a := envoy.Gateway(method).Do(t, envoytest.Request{Method: sent, HTTP2: true, Header: []string{header}})
						if has := sent != "HEAD" && method != "HEAD"; a.Status != 200 || a.Upstream.Method != method || (a.Body != "") != has {
							t.Errorf("HTTP/2, %s sent as %s: status %d, upstream %s, body %.100q", sent, method, a.Status, a.Upstream.Method, a.Body)
						}
					}
				}
			}
		})
	}
}

// What a HEAD request gets has no body whatever the answer's size is, what earlier plugins do to the answer, and which plugin
// answers. On one connection a byte too many would become part of the next answer.
func TestHeadAsAnotherMethod(t *testing.T) {
	get, _ := use(t, `{http_method: GET}`)
	post, _ := use(t, `{http_method: POST}`)
	compress := catalogtest.Parts(t, compression.Builtin, builtin.Use{Plugin: "compression", Instance: "b"}, `{min_length: 1}`)
	json := catalogtest.Parts(t, responsetransformer.Builtin, builtin.Use{Plugin: "response"}, `{add: {json: ["a:1"], headers: ["b:1"]}}`)
	writes := part.Lua{Plugin: "writes", Source: `return {response = function(handle)
		local body = handle:body()
		if body then
			body:setBytes("another body")
		end
	end}`}
	fails := part.Lua{Plugin: "fails", Source: `return {response = function(handle) error("failed") end}`}
	refuses := part.Lua{Plugin: "refuses", Source: `return {request = function(handle) pdk.fail(handle, 403, "no") end}`}
	chains := map[string][]part.Part{
		"alone":               get,
		"twice":               slices.Concat(get, post),
		"behind compression":  slices.Concat(compress, get),
		"behind a change":     slices.Concat(json, get),
		"behind another body": append([]part.Part{writes}, get...),
		"behind a failure":    append([]part.Part{fails}, get...),
		"far behind one":      slices.Concat([]part.Part{fails}, compress, get, compress, []part.Part{writes}),
		"before a failure":    append(slices.Clone(get), fails),
		"before a refusal":    append(slices.Clone(get), refuses),
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for chain := range chains {
			sizes := []int{1, 5000}
			if chain == "before a refusal" {
				sizes = []int{0} // a refusal ends the connection where a body was not read
			}
			if slices.Contains([]string{"alone", "twice", "behind compression"}, chain) { // the others hold the body
				sizes = append(sizes, 2<<20)
			}
			for _, size := range sizes {
				t.Run(fmt.Sprintf("%s, %d bytes", chain, size), func(t *testing.T) {
					body := strings.Repeat("x", size)
					connection, err := net.Dial("tcp", envoy.Gateway(chain).Address)
					if err != nil {
						t.Fatal(err)
					}
					defer connection.Close()
					if err := connection.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
						t.Fatal(err)
					}
					status := http.StatusOK
					if strings.HasSuffix(chain, "refusal") {
						status = http.StatusForbidden
					} else if strings.Contains(chain, "failure") || chain == "far behind one" {
						status = http.StatusInternalServerError
					}
					reader := bufio.NewReader(connection)
					for i := range 3 {
						fmt.Fprintf(connection, "HEAD / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\naccept-encoding: gzip\r\n\r\n%s", size, body)
						a, err := http.ReadResponse(reader, &http.Request{Method: "HEAD"})
						if err != nil {
							t.Fatalf("answer %d: %v", i, err)
						}
						if a.StatusCode != status || a.Header.Get("content-type") == "" {
							t.Errorf("answer %d: status %d, header %v", i, a.StatusCode, a.Header)
						}
					}
					if n := reader.Buffered(); n > 0 {
						t.Errorf("%d bytes behind the last answer", n)
					}
					a := envoy.Gateway(chain).Do(t, envoytest.Request{Method: "HEAD", HTTP2: true, Header: []string{"accept-encoding: gzip"}, Body: body})
					if a.Status != status || a.Body != "" {
						t.Errorf("HTTP/2: status %d, body %.100q", a.Status, a.Body)
					}
				})
			}
		}
	})
}
