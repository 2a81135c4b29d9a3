package requesttermination_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/cors"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/requesttermination"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

func build(t *testing.T, b *builtin.Builtin, json string) ([]part.Part, []string) {
	t.Helper()
	return catalogtest.Build(t, b, builtin.Use{Plugin: b.Name, Instance: "i"}, json)
}

func parts(t *testing.T, json string) []part.Part {
	t.Helper()
	parts, problems := build(t, requesttermination.Builtin, json)
	if len(problems) > 0 {
		t.Fatalf("%s: %v", json, problems)
	}
	return parts
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		config string
		want   []string
	}{
		{`{}`, nil},
		{`{"status_code":503.0}`, nil},
		{`{"status_code":103}`, []string{"status_code: 103 is too small, at least 200"}},
		{`{"status_code":600}`, []string{"status_code: 600 is too large, at most 599"}},
		{`{"status_code":"503"}`, []string{"status_code: must be an integer, not a string"}},
		{`{"message":"a","body":"b"}`, []string{"message: cannot be used with body or content_type"}},
		{`{"message":"a","content_type":"text/plain"}`, []string{"message: cannot be used with body or content_type", "content_type: needs body"}},
		{`{"message":"","body":"b"}`, nil},
		{`{"content_type":"text/plain"}`, []string{"content_type: needs body"}},
		{`{"content_type":"text/plain\r\nx: y","body":"b"}`, []string{`content_type: "text/plain\r\nx: y" does not match ^[\x20-\x7e]*$`}},
		{`{"echo":true,"body":"b"}`, []string{"echo: cannot be used with body"}},
		{`{"message":"","content_type":"text/plain","body":""}`, []string{"content_type: needs body"}},
		{`{"trigger":""}`, []string{`trigger: "" is no valid http header name`}},
		{`{"trigger":":path"}`, []string{`trigger: ":path" is no valid http header name`}},
		{`{"status_code":200.5}`, []string{"status_code: must be an integer, not a number"}},
		{`{"echo":"yes"}`, []string{"echo: must be a boolean, not a string"}},
		{`{"redact":[""]}`, []string{"redact[0]: must not be shorter than 1 characters"}},
		{`{"redact":"apikey"}`, []string{"redact: must be a list, not a string"}},
		{`{"trigger":"a b"}`, []string{`trigger: "a b" is no valid http header name`}},
		{`{"statuscode":1}`, []string{`statuscode: unknown field, did you mean "status_code"?`}},
	} {
		_, got := build(t, requesttermination.Builtin, c.config)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.config, diff)
		}
	}
}

const (
	jsonType = "application/json; charset=utf-8"
	passed   = 0
)

func TestAnswers(t *testing.T) {
	chains := map[string]string{
		"default":      `{}`,
		"401":          `{"status_code":401}`,
		"404":          `{"status_code":404}`,
		"405":          `{"status_code":405}`,
		"500":          `{"status_code":500}`,
		"502":          `{"status_code":502}`,
		"418":          `{"status_code":418}`,
		"message":      `{"status_code":418,"message":"Schluß: \"now\"\n"}`,
		"body":         `{"status_code":200,"body":"<p>ü</p>","content_type":"text/html"}`,
		"body as JSON": `{"status_code":200,"body":"[1]"}`,
		"200":          `{"status_code":200}`,
		"599":          `{"status_code":599}`,
		"no body":      `{"body":""}`,
		"no message":   `{"message":""}`,
		"either empty": `{"message":"m","body":""}`,
		"204":          `{"status_code":204,"body":"x"}`,
		"304":          `{"status_code":304,"message":"x"}`,
		"trigger":      `{"trigger":"X-Stop"}`,
		"lower":        `{"trigger":"stop"}`,
	}
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			c := envoytest.Config{Chains: map[string][]part.Part{}}
			for name, json := range chains {
				c.Chains[name] = parts(t, json)
			}
			c.Chains["twice"] = slices.Concat(parts(t, `{"trigger":"a","status_code":404}`), parts(t, `{"trigger":"b"}`))
			withCORS, _ := build(t, cors.Builtin, `{}`)
			c.Chains["cors"] = append(withCORS, c.Chains["default"]...)
			envoy := envoytest.Start(t, version, c)
			for _, c := range []struct {
				name, chain string
				request     envoytest.Request
				status      int
				body        string
				contentType string
			}{
				{"the default", "default", envoytest.Request{}, 503, `{"message":"Service unavailable"}`, jsonType},
				{"401", "401", envoytest.Request{}, 401, `{"message":"Unauthorized"}`, jsonType},
				{"404", "404", envoytest.Request{}, 404, `{"message":"Not found"}`, jsonType},
				{"405", "405", envoytest.Request{}, 405, `{"message":"Method not allowed"}`, jsonType},
				{"500", "500", envoytest.Request{}, 500, `{"message":"An unexpected error occurred"}`, jsonType},
				{"502", "502", envoytest.Request{}, 502, `{"message":"Bad Gateway"}`, jsonType},
				{"a status without message", "418", envoytest.Request{}, 418, "", ""},
				{"the least status", "200", envoytest.Request{}, 200, "", ""},
				{"the largest status", "599", envoytest.Request{}, 599, "", ""},
				{"an empty body", "no body", envoytest.Request{}, 503, "", ""},
				{"an empty message", "no message", envoytest.Request{}, 503, `{"message":""}`, jsonType},
				{"a message and an empty body", "either empty", envoytest.Request{}, 503, `{"message":"m"}`, jsonType},
				{"a message", "message", envoytest.Request{}, 418, `{"message":"Schluß: \"now\"\n"}`, jsonType},
				{"a body", "body", envoytest.Request{}, 200, "<p>ü</p>", "text/html"},
				{"a body is JSON by default", "body as JSON", envoytest.Request{}, 200, "[1]", jsonType},
				{"204 has no body", "204", envoytest.Request{}, 204, "", "-"},
				{"304 has no body", "304", envoytest.Request{}, 304, "", "-"},
				{"HEAD has no body", "default", envoytest.Request{Method: "HEAD"}, 503, "", jsonType},
				{"a request with a body", "default", envoytest.Request{Method: "POST", Body: strings.Repeat("x", 2<<20)}, 503, `{"message":"Service unavailable"}`, jsonType},
				{"no trigger", "trigger", envoytest.Request{Path: "/?x=X-Stop"}, passed, "", ""},
				{"trigger by header", "trigger", envoytest.Request{Header: []string{"x-stop: 1"}}, 503, `{"message":"Service unavailable"}`, jsonType},
				{"trigger by empty header", "trigger", envoytest.Request{Header: []string{"x-stop:"}}, 503, `{"message":"Service unavailable"}`, jsonType},
				{"trigger by argument", "trigger", envoytest.Request{Path: "/?a=b&X-Stop=1"}, 503, `{"message":"Service unavailable"}`, jsonType},
				{"trigger by argument without value", "lower", envoytest.Request{Path: "/?stop"}, 503, `{"message":"Service unavailable"}`, jsonType},
				{"trigger by encoded argument", "lower", envoytest.Request{Path: "/?st%6Fp="}, 503, `{"message":"Service unavailable"}`, jsonType},
				{"an argument in another case is no trigger", "trigger", envoytest.Request{Path: "/?x-stop=1"}, passed, "", ""},
				{"trigger by the last of many arguments", "lower", envoytest.Request{Path: "/?" + strings.Repeat("a&", 200) + "stop"}, 503, `{"message":"Service unavailable"}`, jsonType},
				{"a trigger in the body is none", "lower", envoytest.Request{Method: "POST", Body: "stop=1", Header: []string{"content-type: application/x-www-form-urlencoded"}}, passed, "", ""},
				{"the first of two", "twice", envoytest.Request{Path: "/?a&b"}, 404, `{"message":"Not found"}`, jsonType},
				{"the second of two", "twice", envoytest.Request{Path: "/?b"}, 503, `{"message":"Service unavailable"}`, jsonType},
				{"neither of two", "twice", envoytest.Request{Path: "/?c"}, passed, "", ""},
				{"CORS headers are added", "cors", envoytest.Request{Header: []string{"origin: https://a.test"}}, 503, `{"message":"Service unavailable"}`, jsonType},
			} {
				t.Run(c.name, func(t *testing.T) {
					for _, c.request.HTTP2 = range []bool{false, true} {
						answer := envoy.Gateway(c.chain).Do(t, c.request)
						if c.status == passed {
							if answer.Upstream == nil {
								t.Fatalf("did not pass: %d %s", answer.Status, answer.Body)
							}
							continue
						}
						if answer.Status != c.status || answer.Body != c.body || answer.Upstream != nil {
							t.Errorf("got %d %q, want %d %q; upstream %v\n%s", answer.Status, answer.Body, c.status, c.body, answer.Upstream, envoy.Log())
						}
						if got := answer.Header.Get("Content-Type"); c.contentType != "-" && got != c.contentType {
							t.Errorf("content-type %q, want %q", got, c.contentType)
						}
						if length := answer.Header.Get("Content-Length"); c.contentType == "-" && length != "" {
							t.Errorf("content-length %s", length)
						}
						if c.chain == "cors" && answer.Header.Get("Access-Control-Allow-Origin") != "*" {
							t.Errorf("no CORS headers: %v", answer.Header)
						}
					}
				})
			}
			for chain, want := range map[string][2]string{
				"default": {"14", "Service unavailable"}, "401": {"16", "Unauthorized"}, "418": {"2", ""}, "body": {"2", "<p>%C3%BC</p>"},
			} {
				a := envoy.Gateway(chain).Do(t, envoytest.Request{Method: "POST", HTTP2: true, Header: []string{"content-type: application/grpc"}})
				if got := [2]string{a.Header.Get("grpc-status"), a.Header.Get("grpc-message")}; a.Status != 200 || got != want || a.Body != "" || a.Header.Get("content-type") != "application/grpc" {
					t.Errorf("gRPC, %s: %d %v %q", chain, a.Status, a.Header, a.Body)
				}
			}
		})
	}
}

// echoed is the part of an echo that does not differ from run to run.
type echoed struct {
	Message string
	Gateway struct{ Node string }
	Request struct {
		Scheme, Host, Method, Path string
		Port                       int
		Headers, Query             map[string]any
		Body                       any
		RawBody                    string `json:"raw_body"`
	}
	MatchedRoute string `json:"matched_route"`
}

func TestEcho(t *testing.T) {
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			envoy := envoytest.Start(t, version, envoytest.Config{Chains: map[string][]part.Part{
				"echo":    parts(t, `{"echo":true,"status_code":404}`),
				"message": parts(t, `{"echo":true,"message":"m","status_code":200,"redact":["X-Key","pin"],"trigger":"echo"}`),
			}})
			do := func(t *testing.T, chain string, r envoytest.Request) (*envoytest.Answer, echoed) {
				t.Helper()
				answer := envoy.Gateway(chain).Do(t, r)
				var e echoed
				if err := json.Unmarshal([]byte(answer.Body), &e); err != nil {
					t.Fatalf("%d %q: %v\n%s", answer.Status, answer.Body, err, envoy.Log())
				}
				return answer, e
			}
			t.Run("a form", func(t *testing.T) {
				body := "a=b+c&a=%ff&d&apikey=s"
				answer, e := do(t, "echo", envoytest.Request{
					Method: "PUT", Path: "/p%20q?x=1&x=2&y&apikey=s", Host: "shop.test:8080", Body: body,
					Header: []string{"Content-Type: application/x-www-form-urlencoded; charset=utf-8", "Authorization: s", "Cookie: s", "Apikey: s", "twice: 1", "twice: 2"},
				})
				if answer.Status != 404 || answer.Header.Get("Content-Type") != jsonType || strings.Contains(answer.Body, `"s"`) {
					t.Errorf("%d %v %s", answer.Status, answer.Header, answer.Body)
				}
				if e.Message != "Not found" || e.Request.Scheme != "http" || e.Request.Host != "shop.test" || e.Request.Method != "PUT" || e.Request.Path != "/p%20q" {
					t.Errorf("%+v", e)
				}
				if e.MatchedRoute != "echo" {
					t.Errorf("matched_route %q", e.MatchedRoute)
				}
				if e.Gateway.Node != "127.0.0.1" || !strings.HasSuffix(envoy.Gateway("echo").Address, fmt.Sprint(":", e.Request.Port)) {
					t.Errorf("node %q, port %d", e.Gateway.Node, e.Request.Port)
				}
				wantQuery := map[string]any{"x": []any{"1", "2"}, "y": true, "apikey": "[redacted]"}
				if diff := cmp.Diff(wantQuery, e.Request.Query); diff != "" {
					t.Errorf("query (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(any(map[string]any{"a": []any{"b c", "\ufffd"}, "d": true, "apikey": "[redacted]"}), e.Request.Body); diff != "" {
					t.Errorf("body (-want +got):\n%s", diff)
				}
				if e.Request.RawBody != "[redacted]" {
					t.Errorf("raw_body %q", e.Request.RawBody)
				}
				for name, want := range map[string]any{"authorization": "[redacted]", "cookie": "[redacted]", "apikey": "[redacted]", "twice": []any{"1", "2"}, "host": "shop.test:8080"} {
					if diff := cmp.Diff(want, e.Request.Headers[name]); diff != "" {
						t.Errorf("header %s (-want +got):\n%s", name, diff)
					}
				}
			})
			t.Run("a form without secrets", func(t *testing.T) {
				_, e := do(t, "echo", envoytest.Request{Method: "POST", Host: "[2001:db8::7]:80", Header: []string{"content-type: application/x-www-form-urlencoded"}, Body: "a=b"})
				if e.Request.RawBody != "a=b" || e.Request.Host != "[2001:db8::7]" {
					t.Errorf("%+v", e.Request)
				}
				if _, e = do(t, "echo", envoytest.Request{Host: "shop.test"}); e.Request.Host != "shop.test" {
					t.Errorf("%+v", e.Request)
				}
			})
			t.Run("JSON", func(t *testing.T) {
				body := `{"list":[{"pin":1}],"n":1.50}`
				answer, e := do(t, "message", envoytest.Request{Method: "POST", Path: "/?echo", Header: []string{"content-type: application/json", "x-key: 1", "apikey: shown"}, Body: body})
				if answer.Status != 200 || e.Message != "m" {
					t.Errorf("%d %s", answer.Status, answer.Body)
				}
				if !strings.Contains(answer.Body, `"body":{"list":[{"pin":"[redacted]"}],"n":1.50}`) || e.Request.RawBody != "[redacted]" {
					t.Errorf("%s", answer.Body)
				}
				if e.Request.Headers["x-key"] != "[redacted]" || e.Request.Headers["apikey"] != "shown" {
					t.Errorf("headers %v", e.Request.Headers)
				}
			})
			t.Run("a secret behind many fields", func(t *testing.T) {
				many := strings.Repeat("a=b&", 200) + "APIKEY=s3cr3t"
				answer, e := do(t, "echo", envoytest.Request{Method: "POST", Path: "/?" + many, Header: []string{"content-type: application/x-www-form-urlencoded"}, Body: many})
				if e.Request.RawBody != "[redacted]" || e.Request.Query["APIKEY"] != "[redacted]" || strings.Contains(answer.Body, "s3cr3t") {
					t.Errorf("%s", answer.Body)
				}
			})
			t.Run("a secret that is written in another way", func(t *testing.T) {
				answer, e := do(t, "echo", envoytest.Request{
					Method: "POST", Path: "/?%61pikey=s3cr3t&apikey=s3cr3t", Body: `{"apikey":1,"x":[{"\u0061piKey":["s3cr3t"]}]}`,
					Header: []string{"content-type: Application/JSON;x", "proxy-authorization: s3cr3t", "cookie: a=s3cr3t", "cookie: b=s3cr3t"},
				})
				if e.Request.RawBody != "[redacted]" || strings.Contains(answer.Body, "s3cr3t") {
					t.Errorf("%s", answer.Body)
				}
			})
			t.Run("JSON that fits nowhere", func(t *testing.T) {
				for _, depth := range []int{62, 63, 64, 65} {
					body := strings.Repeat("[", depth) + strings.Repeat("]", depth)
					_, e := do(t, "echo", envoytest.Request{Method: "POST", Header: []string{"content-type: application/json"}, Body: body})
					if e.Request.RawBody != body || (e.Request.Body != nil) != (depth <= 62) {
						t.Errorf("depth %d: %+v", depth, e.Request)
					}
				}
			})
			t.Run("odd bytes", func(t *testing.T) {
				_, e := do(t, "echo", envoytest.Request{Method: "POST", Path: "/%ff?%ff=%00&=x&&", Header: []string{"x: \xff\"ü"}, Body: "\xff\x00\"\n"})
				if diff := cmp.Diff(map[string]any{"\ufffd": "\x00", "": "x"}, e.Request.Query); diff != "" {
					t.Errorf("query (-want +got):\n%s", diff)
				}
				if e.Request.Path != "/%ff" || e.Request.Headers["x"] != "\ufffd\"ü" || e.Request.RawBody != "\ufffd\x00\"\n" {
					t.Errorf("%+v", e.Request)
				}
			})
			t.Run("a stream is not read", func(t *testing.T) {
				a := envoy.Gateway("echo").Do(t, envoytest.Request{Method: "POST", HTTP2: true, Header: []string{"content-type: application/grpc"}, Body: strings.Repeat("x", 2<<20)})
				if a.Status != 200 || a.Header.Get("grpc-status") != "12" || !strings.Contains(a.Header.Get("grpc-message"), `"matched_route":"echo"`) {
					t.Errorf("%d %v", a.Status, a.Header)
				}
			})
			t.Run("HEAD", func(t *testing.T) {
				a := envoy.Gateway("echo").Do(t, envoytest.Request{Method: "HEAD"})
				if a.Status != 404 || a.Body != "" || a.Header.Get("content-type") != jsonType {
					t.Errorf("%d %v", a.Status, a.Header)
				}
			})
			t.Run("text", func(t *testing.T) {
				_, e := do(t, "echo", envoytest.Request{Method: "POST", Header: []string{"content-type: text/plain"}, Body: "abc"})
				if e.Request.Body != nil || e.Request.RawBody != "abc" {
					t.Errorf("%+v", e.Request)
				}
			})
			t.Run("no body, no query", func(t *testing.T) {
				_, e := do(t, "echo", envoytest.Request{})
				if e.Request.Body != nil || e.Request.RawBody != "" || len(e.Request.Query) != 0 {
					t.Errorf("%+v", e.Request)
				}
			})
			t.Run("a body above the buffer limit", func(t *testing.T) {
				for _, http2 := range []bool{false, true} {
					for size, status := range map[int]int{1 << 20: 404, 1<<20 + 1: 413, 2 << 20: 413} {
						answer := envoy.Gateway("echo").Do(t, envoytest.Request{Method: "POST", HTTP2: http2, Body: strings.Repeat("x", size)})
						// By HTTP/1 Envoy itself may answer.
						if answer.Status != status || http2 && status == 413 && !strings.HasPrefix(answer.Body, `{"message":"Request size limit exceeded","request_id":"`) {
							t.Errorf("HTTP/2 %v, %d bytes: status %d, body %.100s", http2, size, answer.Status, answer.Body)
						}
					}
				}
			})
			t.Run("not triggered", func(t *testing.T) {
				if answer := envoy.Gateway("message").Get(t, "/"); answer.Upstream == nil {
					t.Errorf("%d %s", answer.Status, answer.Body)
				}
			})
		})
	}
}
