package requesttransformer

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

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
