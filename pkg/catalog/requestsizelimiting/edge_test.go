package requestsizelimiting

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// frame is one of HTTP/2.
func frame(kind, flags byte, stream uint32, payload string) string {
	header := binary.BigEndian.AppendUint32(nil, uint32(len(payload)))[1:]
	header = append(header, kind, flags)
	return string(binary.BigEndian.AppendUint32(header, stream)) + payload
}

// literals are header fields as HPACK has them, without tables and Huffman codes.
func literals(fields ...string) string {
	var out strings.Builder
	for i := 0; i < len(fields); i += 2 {
		out.WriteString("\x00" + string([]byte{byte(len(fields[i]))}) + fields[i] + string([]byte{byte(len(fields[i+1]))}) + fields[i+1])
	}
	return out.String()
}

// statusOf reads frames until one begins the answer of stream 1, and returns its first byte, an index of HPACK's table; or
// one ends that stream or the connection, for which it is "reset".
func statusOf(t *testing.T, conn net.Conn) string {
	t.Helper()
	const headers, rstStream, goAway = 1, 3, 7
	for {
		var head [9]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return "reset"
			}
			t.Fatal(err)
		}
		payload := make([]byte, uint32(head[0])<<16|uint32(head[1])<<8|uint32(head[2]))
		if _, err := io.ReadFull(conn, payload); err != nil {
			t.Fatal(err)
		}
		switch stream := binary.BigEndian.Uint32(head[5:]); {
		case head[3] == goAway || head[3] == rstStream && stream == 1:
			return "reset"
		case head[3] == headers && stream == 1:
			for len(payload) > 0 && payload[0]&0xe0 == 0x20 {
				payload = payload[1:] // another size of the table
			}
			return string(payload[:1])
		}
	}
}

// What HTTP/2 says of a length is the length, or there is no request.
func TestHTTP2Lengths(t *testing.T) {
	const end, endHeaders = 1, 4
	chains := map[string][]part.Part{"bytes": parts(t, "i", chains["bytes"])}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct {
			name   string
			fields []string
			data   []string
			passes bool
		}{
			{"as said", []string{"content-length", "5"}, []string{"bbbbb"}, true},
			{"more than said", []string{"content-length", "5"}, []string{"bbbbb", "bbbbbb"}, false},
			{"less than said", []string{"content-length", "10"}, []string{"bbbbb"}, false},
			{"two lengths", []string{"content-length", "5", "content-length", "11"}, []string{"bbbbbbbbbbb"}, false},
			{"two equal lengths", []string{"content-length", "11", "content-length", "11"}, []string{"bbbbbbbbbbb"}, false},
			{"no number", []string{"content-length", "5x"}, []string{"bbbbbbbbbbb"}, false},
			{"a sign", []string{"content-length", "+5"}, []string{"bbbbb"}, false},
			{"an empty length", []string{"content-length", ""}, []string{"bbbbbbbbbbb"}, false},
			{"unknown, in frames", nil, []string{"bbbbb", "", "bbbbb"}, true},
			{"an upgrade that cannot be", []string{"upgrade", "websocket"}, []string{"bbbbbbbbbbb"}, false},
			{"and a connection", []string{"upgrade", "websocket", "connection", "upgrade"}, []string{"bbbbbbbbbbb"}, false},
			{"unknown, too many frames", nil, []string{"bbbbb", "", "bbbbb", "b"}, false},
		} {
			conn, err := net.Dial("tcp", envoy.Gateway("bytes").Address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second)) // a TCP connection has deadlines
			fields := []string{":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/", "echo-status", "204"}
			text := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, "") + frame(1, endHeaders, 1, literals(append(fields, c.fields...)...))
			for i, data := range c.data {
				flags := byte(0)
				if i == len(c.data)-1 {
					flags = end
				}
				text += frame(0, flags, 1, data)
			}
			if _, err := io.WriteString(conn, text); err != nil {
				t.Fatal(err)
			}
			const noContent = "\x89" // :status 204 in HPACK's static table
			if got := statusOf(t, conn); (got == noContent) != c.passes {
				t.Errorf("%s: the answer begins with %q", c.name, got)
			}
		}
	})
}

// A plugin before it may have read the body, and one behind it gets it.
func TestBodiesThatOthersRead(t *testing.T) {
	reads := part.Lua{Plugin: "reads", Source: `return {request = function(handle)
		local body = handle:body()
		pdk.set_header(handle, "x-read", tostring(body and body:length()))
	end}`}
	strips := part.Lua{Plugin: "strips", Source: `return {request = function(handle) pdk.remove_header(handle, "content-length") end}`}
	size := parts(t, "i", chains["bytes"])
	all := map[string][]part.Part{
		"in front": append([]part.Part{reads}, size...),
		"behind":   append(size[:len(size):len(size)], reads),
		"unknown":  append([]part.Part{strips}, size...),
	}
	catalogtest.OnEach(t, all, func(t *testing.T, envoy *envoytest.Envoy) {
		for chain := range all {
			for length, status := range map[int]int{10: 200, 11: 413} {
				for _, unknown := range []bool{false, true} {
					for _, http2 := range []bool{false, true} {
						body := strings.Repeat("b", length)
						a := envoy.Gateway(chain).Do(t, envoytest.Request{Method: "POST", Body: body, UnknownLength: unknown, HTTP2: http2})
						if a.Status != status || status == 200 && a.Upstream.Body != body || status == 413 && a.Message() != messages[413] {
							t.Errorf("%s, %d bytes, unknown %v, HTTP/2 %v: status %d %s", chain, length, unknown, http2, a.Status, a.Body)
						}
						if chain != "unknown" && status == 200 && a.Upstream.Value("x-read") != "10" {
							t.Errorf("%s: the other plugin has read %s", chain, a.Upstream.Value("x-read"))
						}
					}
				}
			}
		}
	})
}

// A gRPC client is told in its own way, too, that a length is missing.
func TestGRPCWithoutLength(t *testing.T) {
	catalogtest.OnEach(t, map[string][]part.Part{"required": parts(t, "i", chains["required"])}, func(t *testing.T, envoy *envoytest.Envoy) {
		a := envoy.Gateway("required").Do(t, envoytest.Request{
			Method: "POST", HTTP2: true, UnknownLength: true, Body: "b", Header: []string{"content-type: application/grpc"},
		})
		if a.Status != 200 || a.Header.Get("grpc-status") != "2" || a.Header.Get("grpc-message") != messages[411] || a.Upstream != nil {
			t.Errorf("status %d, headers %v", a.Status, a.Header)
		}
	})
}

// HEAD gets what GET gets, without the body.
func TestHEAD(t *testing.T) {
	catalogtest.OnEach(t, map[string][]part.Part{"required": parts(t, "i", chains["required"])}, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, http2 := range []bool{false, true} {
			a := envoy.Gateway("required").Do(t, envoytest.Request{Method: "HEAD", HTTP2: http2})
			if a.Status != 411 || a.Body != "" || a.Header.Get("content-type") != "application/json; charset=utf-8" {
				t.Errorf("HTTP/2 %v: status %d, body %s, headers %v", http2, a.Status, a.Body, a.Header)
			}
		}
	})
}

// The id in a refusal is the request's, by which it is found in the log, whoever refuses.
func TestRequestID(t *testing.T) {
	c := envoytest.Config{Chains: map[string][]part.Part{"bytes": parts(t, "i", chains["bytes"])}, AccessLog: "%RESPONSE_CODE% %REQ(X-REQUEST-ID)%."}
	catalogtest.OnEachWith(t, c, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, length := range []int{11, 2 * mebibyte} {
			for _, unknown := range []bool{false, true} {
				a := envoy.Gateway("bytes").Do(t, envoytest.Request{Method: "POST", Body: strings.Repeat("b", length), UnknownLength: unknown})
				var body struct {
					ID string `json:"request_id"`
				}
				if err := json.Unmarshal([]byte(a.Body), &body); err != nil || body.ID == "" {
					t.Fatalf("%d bytes, unknown %v: body %s: %v", length, unknown, a.Body, err)
				}
				envoy.WaitLog(t, "413 "+body.ID+".")
			}
		}
	})
}
