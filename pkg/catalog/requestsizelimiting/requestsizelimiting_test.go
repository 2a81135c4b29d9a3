package requestsizelimiting

import (
	"bufio"
	"fmt"
	"io"
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

// use builds the parts of one use of the plugin.
func use(t testing.TB, instance, text string) ([]part.Part, []string) {
	t.Helper()
	return catalogtest.Build(t, Builtin, builtin.Use{Plugin: "size", Instance: instance}, text)
}

func parts(t testing.TB, instance, text string) []part.Part {
	t.Helper()
	return catalogtest.Parts(t, Builtin, builtin.Use{Plugin: "size", Instance: instance}, text)
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		config string
		want   []string
	}{
		{`{}`, nil},
		{`{allowed_payload_size: 0}`, nil},
		{`{allowed_payload_size: 4096.0}`, nil}, // 4 GiB
		{`{allowed_payload_size: 2147483647}`, nil},
		{`{unknown_length_max: 4294967295}`, nil},
		{`{allowed_payload_size: 1.5}`, []string{"allowed_payload_size: must be an integer, not a number"}},
		{`{allowed_payload_size: "128"}`, []string{"allowed_payload_size: must be an integer, not a string"}},
		{`{allowed_payload_size: -1}`, []string{"allowed_payload_size: -1 is too small, at least 0"}},
		{`{allowed_payload_size: 2147483648}`, []string{"allowed_payload_size: 2147483648 is too large, at most 2147483647"}},
		{`{size_unit: MB}`, []string{`size_unit: "MB" is not allowed, allowed are "megabytes", "kilobytes", "bytes"`}},
		{`{require_content_length: 1}`, []string{"require_content_length: must be a boolean, not a number"}},
		{`{unknown_length: deny}`, []string{`unknown_length: "deny" is not allowed, allowed are "buffer", "allow"`}},
		{`{unknown_length_max: 0}`, []string{"unknown_length_max: 0 is too small, at least 1"}},
		{`{unknown_length_max: 4294967296}`, []string{"unknown_length_max: 4294967296 is too large, at most 4294967295"}},
		{`{payload_size: 1}`, []string{`payload_size: unknown field, known ones are allowed_payload_size, require_content_length, size_unit, unknown_length, unknown_length_max`}},
	} {
		_, got := use(t, "i", c.config)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.config, diff)
		}
	}
}

// Where nothing is held there is no filter that could hold something.
func TestParts(t *testing.T) {
	for text, want := range map[string]int{
		`{}`: 3, `{unknown_length: allow}`: 1, `{require_content_length: true}`: 1, `{require_content_length: true, unknown_length: allow}`: 1,
	} {
		if got := len(parts(t, "i", text)); got != want {
			t.Errorf("%s has %d parts, want %d", text, got, want)
		}
	}
}

const mebibyte = 1 << 20

// chains are the configs that the requests below meet.
var chains = map[string]string{
	"default":   `{}`,
	"megabyte":  `{allowed_payload_size: 1}`,
	"kilobytes": `{allowed_payload_size: 2, size_unit: kilobytes}`,
	"bytes":     `{allowed_payload_size: 10, size_unit: bytes}`,
	"nothing":   `{allowed_payload_size: 0}`,
	"required":  `{allowed_payload_size: 10, size_unit: bytes, require_content_length: true}`,
	"allow":     `{allowed_payload_size: 10, size_unit: bytes, unknown_length: allow}`,
	"less held": `{allowed_payload_size: 3, unknown_length_max: 100}`,
	"more held": `{allowed_payload_size: 3, unknown_length_max: 4294967295}`,
	"4 GiB":     `{allowed_payload_size: 4096, unknown_length_max: 4294967295}`,
}

var requests = []struct {
	name, chain string
	request     envoytest.Request
	size        int
	// status is 200 where the request goes upstream with its whole body.
	status int
}{
	{"no body", "bytes", envoytest.Request{}, 0, 200},
	{"no body, nothing allowed", "nothing", envoytest.Request{}, 0, 200},
	{"HEAD", "bytes", envoytest.Request{Method: "HEAD"}, 0, 200},
	{"DELETE without a body over HTTP/2", "bytes", envoytest.Request{Method: "DELETE", HTTP2: true}, 0, 200},

	{"below the limit", "bytes", envoytest.Request{}, 9, 200},
	{"the limit", "bytes", envoytest.Request{}, 10, 200},
	{"above the limit", "bytes", envoytest.Request{}, 11, 413},
	{"above the limit, by GET", "bytes", envoytest.Request{Method: "GET"}, 11, 413},
	{"above the limit, by OPTIONS", "bytes", envoytest.Request{Method: "OPTIONS"}, 11, 413},
	{"above the limit, over HTTP/2", "bytes", envoytest.Request{HTTP2: true, Header: []string{"content-length: 11"}}, 11, 413},
	{"the limit, over HTTP/2", "bytes", envoytest.Request{HTTP2: true, Header: []string{"content-length: 10"}}, 10, 200},
	{"a client that asks whether to continue", "bytes", envoytest.Request{Header: []string{"expect: 100-continue"}}, 11, 413},
	{"kilobytes", "kilobytes", envoytest.Request{}, 2048, 200},
	{"more than kilobytes", "kilobytes", envoytest.Request{}, 2049, 413},
	{"a megabyte", "megabyte", envoytest.Request{}, mebibyte, 200},
	{"more than a megabyte", "megabyte", envoytest.Request{}, mebibyte + 1, 413},
	{"an empty body, nothing allowed", "nothing", envoytest.Request{Method: "POST"}, 0, 200},
	{"any body, nothing allowed", "nothing", envoytest.Request{}, 1, 413},
	{"a known length is not held", "less held", envoytest.Request{}, 3 * mebibyte, 200},
	{"a known length is not held by default", "default", envoytest.Request{}, 17 * mebibyte, 200},

	{"unknown, below the limit", "bytes", envoytest.Request{UnknownLength: true}, 9, 200},
	{"unknown, the limit", "bytes", envoytest.Request{UnknownLength: true}, 10, 200},
	{"unknown, above the limit", "bytes", envoytest.Request{UnknownLength: true}, 11, 413},
	{"unknown, above the limit, over HTTP/2", "bytes", envoytest.Request{UnknownLength: true, HTTP2: true}, 11, 413},
	{"unknown, the limit, over HTTP/2", "bytes", envoytest.Request{UnknownLength: true, HTTP2: true}, 10, 200},
	{"unknown, in one read of Envoy", "bytes", envoytest.Request{UnknownLength: true}, 10_000, 413},
	{"unknown, more than Envoy buffers", "bytes", envoytest.Request{UnknownLength: true}, 2 * mebibyte, 413},
	{"unknown, nothing allowed", "nothing", envoytest.Request{UnknownLength: true}, 1, 413},
	{"unknown, a megabyte", "megabyte", envoytest.Request{UnknownLength: true}, mebibyte, 200},
	{"unknown, more than a megabyte", "megabyte", envoytest.Request{UnknownLength: true}, mebibyte + 1, 413},
	{"unknown, as much as is held", "less held", envoytest.Request{UnknownLength: true}, 100, 200},
	{"unknown, more than is held", "less held", envoytest.Request{UnknownLength: true}, 101, 413},
	{"unknown, more held than Envoy buffers", "more held", envoytest.Request{UnknownLength: true}, 3 * mebibyte, 200},
	{"unknown, and the limit is less than what is held", "more held", envoytest.Request{UnknownLength: true}, 3*mebibyte + 1, 413},
	{"unknown, as much as is held by default", "default", envoytest.Request{UnknownLength: true}, 16 * mebibyte, 200},
	{"unknown, more than is held by default", "default", envoytest.Request{UnknownLength: true}, 16*mebibyte + 1, 413},
	{"unknown, allowed to be 4 GiB", "4 GiB", envoytest.Request{UnknownLength: true}, 2 * mebibyte, 200},

	{"allowed", "allow", envoytest.Request{UnknownLength: true}, 2 * mebibyte, 200},
	{"a known length is never allowed", "allow", envoytest.Request{}, 11, 413},

	{"required, and there", "required", envoytest.Request{}, 10, 200},
	{"required, and too large", "required", envoytest.Request{}, 11, 413},
	{"required, and not there", "required", envoytest.Request{UnknownLength: true}, 5, 411},
	{"required, also without a body", "required", envoytest.Request{}, 0, 411},
	{"required, and 0", "required", envoytest.Request{Method: "POST"}, 0, 200},
}

var messages = map[int]string{413: "Request size limit exceeded", 411: "A valid Content-Length header is required"}

func TestRequests(t *testing.T) {
	all := map[string][]part.Part{}
	for name, text := range chains {
		all[name] = parts(t, name, text)
	}
	catalogtest.OnEach(t, all, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range requests {
			t.Run(c.name, func(t *testing.T) {
				r := c.request
				if c.size > 0 {
					r.Body = strings.Repeat("b", c.size)
				}
				if r.Method == "" && c.size > 0 {
					r.Method = "POST"
				}
				answer := envoy.Gateway(c.chain).Do(t, r)
				if answer.Status != c.status {
					t.Fatalf("status %d, want %d", answer.Status, c.status)
				}
				if c.status == 200 {
					if len(answer.Upstream.Body) != c.size {
						t.Errorf("%d bytes got upstream, want %d", len(answer.Upstream.Body), c.size)
					}
					return
				}
				if answer.Upstream != nil {
					t.Error("the request got upstream")
				}
				if answer.Message() != messages[c.status] || !strings.Contains(answer.Body, `"request_id":"`) {
					t.Errorf("body %s", answer.Body)
				}
				if got := answer.Header.Values("content-type"); !slices.Equal(got, []string{"application/json; charset=utf-8"}) {
					t.Errorf("content-type %q", got)
				}
			})
		}
	})
}

// What the plugin holds back is no limit for the answer, and an upstream's 413 is its own.
func TestResponses(t *testing.T) {
	reads := part.Lua{Plugin: "reads", Source: `return {response = function(handle)
		pdk.set_header(handle, "x-read", tostring(handle:body():length()))
	end}`}
	all := map[string][]part.Part{
		"in front": append([]part.Part{reads}, parts(t, "i", chains["bytes"])...),
		"behind":   append(parts(t, "i", chains["bytes"]), reads),
	}
	catalogtest.OnEach(t, all, func(t *testing.T, envoy *envoytest.Envoy) {
		large := strings.Repeat("x", 40_000)
		for chain := range all {
			answer := envoy.Gateway(chain).Do(t, envoytest.Request{Method: "POST", Body: "b", UnknownLength: true, Header: []string{"echo-body: " + large}})
			// The headers that a plugin sets after it has waited for the body have left already.
			if answer.Status != 200 || answer.Body != large {
				t.Errorf("%s: status %d, %d bytes", chain, answer.Status, len(answer.Body))
			}
			for _, unknown := range []bool{false, true} {
				answer = envoy.Gateway(chain).Do(t, envoytest.Request{Method: "POST", Body: "b", UnknownLength: unknown, Header: []string{"echo-status: 413", "echo-body: mine"}})
				if answer.Status != 413 || answer.Body != "mine" {
					t.Errorf("%s: the upstream's answer became %d %s", chain, answer.Status, answer.Body)
				}
			}
		}
	})
}

// Each instance in a chain has its own limit, and a plugin that answers before it its own answer.
func TestSeveral(t *testing.T) {
	refuses := part.Lua{Plugin: "refuses", Source: `return {request = function(handle) pdk.exit(handle, 413, {}, "mine") end}`}
	all := map[string][]part.Part{
		"two":    append(parts(t, "a", `{allowed_payload_size: 2}`), parts(t, "b", `{allowed_payload_size: 10, size_unit: bytes}`)...),
		"behind": append([]part.Part{refuses}, parts(t, "a", `{}`)...),
		"before": append(parts(t, "a", `{}`), refuses),
	}
	catalogtest.OnEach(t, all, func(t *testing.T, envoy *envoytest.Envoy) {
		for size, status := range map[int]int{10: 200, 11: 413, 2*mebibyte + 1: 413} {
			for _, unknown := range []bool{false, true} {
				answer := envoy.Gateway("two").Do(t, envoytest.Request{Method: "POST", Body: strings.Repeat("b", size), UnknownLength: unknown})
				if answer.Status != status || status != 200 && answer.Message() != messages[status] {
					t.Errorf("%d bytes, unknown %v: status %d %s", size, unknown, answer.Status, answer.Body)
				}
			}
		}
		for _, chain := range []string{"behind", "before"} {
			answer := envoy.Gateway(chain).Do(t, envoytest.Request{Method: "POST", Body: "b", UnknownLength: true})
			if answer.Status != 413 || answer.Body != "mine" {
				t.Errorf("%s: another plugin's answer became %d %s", chain, answer.Status, answer.Body)
			}
		}
	})
}

func TestGRPC(t *testing.T) {
	catalogtest.OnEach(t, map[string][]part.Part{"bytes": parts(t, "i", chains["bytes"]), "allow": parts(t, "i", chains["allow"])}, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct {
			chain  string
			size   int
			header string
			passes bool
		}{
			{"bytes", 10, "te: trailers", true},
			{"bytes", 11, "te: trailers", false},
			{"bytes", 11, "content-length: 11", false},
			{"bytes", 2 * mebibyte, "te: trailers", false}, // Envoy's buffer answers
			{"allow", 2 * mebibyte, "te: trailers", true},
		} {
			answer := envoy.Gateway(c.chain).Do(t, envoytest.Request{
				Method: "POST", HTTP2: true, UnknownLength: true, Body: strings.Repeat("b", c.size), Header: []string{"content-type: application/grpc", c.header},
			})
			if c.passes != (answer.Upstream != nil) {
				t.Errorf("%s: %d bytes: status %d, upstream %v", c.chain, c.size, answer.Status, answer.Upstream != nil)
			}
			if c.passes {
				continue
			}
			if answer.Status != 200 || answer.Header.Get("grpc-status") != "8" || answer.Header.Get("grpc-message") != messages[413] || answer.Body != "" {
				t.Errorf("%s: %d bytes: status %d, headers %v, body %s", c.chain, c.size, answer.Status, answer.Header, answer.Body)
			}
		}
	})
}

// What no HTTP library sends.
func TestRawRequests(t *testing.T) {
	chunked := func(headers string, size int) string {
		return fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", headers, size, strings.Repeat("b", size))
	}
	known := func(lengths ...string) string {
		text := "POST / HTTP/1.1\r\nHost: a\r\n"
		for _, l := range lengths {
			text += "Content-Length: " + l + "\r\n"
		}
		return text + "\r\n"
	}
	catalogtest.OnEach(t, map[string][]part.Part{"bytes": parts(t, "i", chains["bytes"]), "required": parts(t, "i", chains["required"])}, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct {
			name, chain, text string
			statuses          []int
		}{
			{"no number", "bytes", known("ten") + "bbbbbbbbbb", []int{400}},
			{"negative", "bytes", known("-1"), []int{400}},
			{"hexadecimal", "bytes", known("0x1") + "b", []int{400}},
			{"with an exponent", "bytes", known("1e0") + "b", []int{400}},
			{"a sign", "bytes", known("+5") + "bbbbb", []int{400}},
			{"blanks around it", "bytes", known(" \t11\t ") + "bbbbbbbbbbb", []int{413}},
			{"empty", "bytes", known(""), []int{400}},
			{"leading zeros", "bytes", known("0000000000000011") + "bbbbbbbbbbb", []int{413}},
			{"more than fits into 64 bits", "bytes", known("99999999999999999999999"), []int{400}},
			{"as much as fits into 64 bits", "bytes", known("9223372036854775807"), []int{413}},
			{"two different lengths", "bytes", known("5", "11") + "bbbbbbbbbbb", []int{400}},
			{"two equal lengths", "bytes", known("5", "5") + "bbbbb", []int{400}},
			{"a list of lengths", "bytes", known("5, 5") + "bbbbb", []int{400}},
			{"a length and chunks", "bytes", chunked("Content-Length: 5\r\n", 11), []int{400}},
			{"more than the length is another request", "bytes", known("5") + "bbbbb" + "bbbbbbbbbbb\r\n\r\n", []int{200, 400}},
			{"chunks", "bytes", chunked("", 10), []int{200}},
			{"too many chunks", "bytes", chunked("", 11), []int{413}},
			{"chunks with a trailer", "bytes", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbbb\r\n8\r\nbbbbbbbb\r\n0\r\nx-end: yes\r\n\r\n", []int{413}},
			{"few chunks with a trailer", "bytes", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbbb\r\n7\r\nbbbbbbb\r\n0\r\nx-end: yes\r\n\r\n", []int{200}},
			{"upgrade that is none", "bytes", chunked("Upgrade: websocket\r\n", 11), []int{413}},
			{"upgrade that is not known", "bytes", chunked("Connection: upgrade\r\nUpgrade: h2c\r\n", 11), []int{413}},
			{"HTTP/1.0 has no chunks", "bytes", "GET / HTTP/1.0\r\nHost: a\r\n\r\n", []int{426}},
			{"chunks where a length is required", "required", chunked("", 5), []int{411}},
		} {
			t.Run(c.name, func(t *testing.T) {
				conn, err := net.Dial("tcp", envoy.Gateway(c.chain).Address)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if _, err := io.WriteString(conn, c.text); err != nil {
					t.Fatal(err)
				}
				answers := bufio.NewReader(conn)
				for _, want := range c.statuses {
					answer, err := http.ReadResponse(answers, nil)
					if err != nil {
						t.Fatal(err)
					}
					_, _ = io.Copy(io.Discard, answer.Body)
					if answer.StatusCode != want {
						t.Errorf("status %d, want %d", answer.StatusCode, want)
					}
				}
			})
		}
	})
}
