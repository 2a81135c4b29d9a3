package envoy

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/istio-plugins/istio-plugins/pkg/finding"
)

// The commands of Envoy's format strings, by what may follow their name. The sets are those of Envoy 1.37, the oldest
// version that is supported; each was tried on it and on 1.40, which knows some more. CEL is not among them: istio-proxy
// is built without it. COMMON_DURATION's and COALESCE's parameters cannot be judged without an Envoy, so they are not
// either.
var (
	// alone take no parameters.
	alone = fields(`
		ACCESS_LOG_TYPE BYTES_RECEIVED BYTES_RETRANSMITTED BYTES_SENT CONNECTION_ID CONNECTION_TERMINATION_DETAILS
		CUSTOM_FLAGS DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT
		DOWNSTREAM_DIRECT_LOCAL_ADDRESS DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID
		DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_DIRECT_LOCAL_PORT DOWNSTREAM_DIRECT_REMOTE_ADDRESS
		DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_DIRECT_REMOTE_PORT DOWNSTREAM_HANDSHAKE_DURATION
		DOWNSTREAM_HEADER_BYTES_RECEIVED DOWNSTREAM_HEADER_BYTES_SENT DOWNSTREAM_LOCAL_ADDRESS
		DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_LOCAL_DNS_SAN
		DOWNSTREAM_LOCAL_EMAIL_SAN DOWNSTREAM_LOCAL_IP_SAN DOWNSTREAM_LOCAL_OTHERNAME_SAN DOWNSTREAM_LOCAL_PORT
		DOWNSTREAM_LOCAL_SUBJECT DOWNSTREAM_LOCAL_URI_SAN DOWNSTREAM_PEER_CERT DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1
		DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256 DOWNSTREAM_PEER_CHAIN_SERIALS DOWNSTREAM_PEER_DNS_SAN DOWNSTREAM_PEER_EMAIL_SAN
		DOWNSTREAM_PEER_FINGERPRINT_1 DOWNSTREAM_PEER_FINGERPRINT_256 DOWNSTREAM_PEER_IP_SAN DOWNSTREAM_PEER_ISSUER
		DOWNSTREAM_PEER_OTHERNAME_SAN DOWNSTREAM_PEER_SERIAL DOWNSTREAM_PEER_SUBJECT DOWNSTREAM_PEER_URI_SAN
		DOWNSTREAM_REMOTE_ADDRESS DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_REMOTE_PORT DOWNSTREAM_TLS_CIPHER
		DOWNSTREAM_TLS_SESSION_ID DOWNSTREAM_TLS_VERSION DOWNSTREAM_TRANSPORT_FAILURE_REASON DOWNSTREAM_WIRE_BYTES_RECEIVED
		DOWNSTREAM_WIRE_BYTES_SENT DURATION FILTER_CHAIN_NAME GRPC_STATUS_NUMBER HOSTNAME LOCAL_REPLY_BODY
		PROTOCOL REQUESTED_SERVER_NAME REQUEST_DURATION REQUEST_HEADERS_BYTES REQUEST_TX_DURATION RESPONSE_CODE
		RESPONSE_DURATION RESPONSE_FLAGS RESPONSE_FLAGS_LONG RESPONSE_HEADERS_BYTES RESPONSE_TRAILERS_BYTES
		RESPONSE_TX_DURATION ROUTE_NAME STREAM_ID TLS_JA3_FINGERPRINT TLS_JA4_FINGERPRINT TRACE_ID UNIQUE_ID UPSTREAM_CLUSTER
		UPSTREAM_CLUSTER_RAW UPSTREAM_CONNECTION_ID UPSTREAM_CONNECTION_POOL_READY_DURATION
		UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT UPSTREAM_HEADER_BYTES_RECEIVED
		UPSTREAM_HEADER_BYTES_SENT UPSTREAM_HOST UPSTREAM_HOST_NAME UPSTREAM_HOST_NAME_WITHOUT_PORT UPSTREAM_LOCAL_ADDRESS
		UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT UPSTREAM_LOCAL_DNS_SAN UPSTREAM_LOCAL_IP_SAN UPSTREAM_LOCAL_PORT
		UPSTREAM_LOCAL_URI_SAN UPSTREAM_PEER_CERT UPSTREAM_PEER_DNS_SAN UPSTREAM_PEER_IP_SAN UPSTREAM_PEER_ISSUER
		UPSTREAM_PEER_SUBJECT UPSTREAM_PEER_URI_SAN UPSTREAM_PROTOCOL UPSTREAM_REMOTE_ADDRESS
		UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT UPSTREAM_REMOTE_PORT
		UPSTREAM_REQUEST_ATTEMPT_COUNT UPSTREAM_TLS_CIPHER UPSTREAM_TLS_SESSION_ID UPSTREAM_TLS_VERSION
		UPSTREAM_TRANSPORT_FAILURE_REASON UPSTREAM_WIRE_BYTES_RECEIVED UPSTREAM_WIRE_BYTES_SENT VIRTUAL_CLUSTER_NAME`)
	// optional may have parameters.
	optional = fields(`
		DOWNSTREAM_PEER_CERT_V_END DOWNSTREAM_PEER_CERT_V_START EMIT_TIME EMIT_TIME_LOCAL GRPC_STATUS PATH
		RESPONSE_CODE_DETAILS START_TIME START_TIME_LOCAL UPSTREAM_PEER_CERT_V_END UPSTREAM_PEER_CERT_V_START`)
	// parameters must have them.
	parameters = fields("CLUSTER_METADATA UPSTREAM_METADATA PER_REQUEST_STATE")
	// shortened must have them, and may say how many bytes to keep.
	shortened = fields(`
		DYNAMIC_METADATA ENVIRONMENT FILTER_STATE METADATA QUERY_PARAM REQ REQUEST_HEADER RESP RESPONSE_HEADER
		RESPONSE_TRAILER STREAM_INFO_REQ TRAILER UPSTREAM_FILTER_STATE`)
	// choices of parameters where they are not free.
	choices = map[string]*regexp.Regexp{
		"FILTER_STATE":          regexp.MustCompile(`^[^:]+(:(PLAIN|TYPED|FIELD:[^:]+))?$`),
		"GRPC_STATUS":           regexp.MustCompile(`^(NUMBER|CAMEL_STRING|SNAKE_STRING)$`),
		"METADATA":              regexp.MustCompile(`^(DYNAMIC|CLUSTER|ROUTE|UPSTREAM_HOST|LISTENER|LISTENER_FILTER_CHAIN|VIRTUAL_HOST)(:|$)`),
		"PATH":                  regexp.MustCompile(`^(WQ|NQ)(:(ORIG|PATH|ORIG_OR_PATH))?$`),
		"REQ":                   headerName,
		"RESP":                  headerName,
		"TRAILER":               headerName,
		"REQUEST_HEADER":        headerName,
		"RESPONSE_HEADER":       headerName,
		"RESPONSE_TRAILER":      headerName,
		"STREAM_INFO_REQ":       headerName,
		"UPSTREAM_FILTER_STATE": regexp.MustCompile(`^[^:]+(:(PLAIN|TYPED|FIELD:[^:]+))?$`),
	}
	// headerName is a header, or two of which the second stands in for the first.
	headerName = regexp.MustCompile(`^[^?\s()]+(\?[^?\s()]+)?$`)
	// command starts at a percent sign: a name, parameters, a length.
	command = regexp.MustCompile(`^%([A-Z0-9_]+)(?:\((.*?)\))?(?::([0-9]+))?%`)
)

func fields(names string) map[string]bool {
	out := map[string]bool{}
	for _, name := range strings.Fields(names) {
		out[name] = true
	}
	return out
}

// checkFormat says why Envoy would not take text as a format string.
func checkFormat(text string) error {
	for rest := text; ; {
		at := strings.IndexByte(rest, '%')
		if at < 0 {
			return nil
		}
		rest = rest[at:]
		if after, escaped := strings.CutPrefix(rest, "%%"); escaped {
			rest = after
			continue
		}
		found := command.FindStringSubmatch(rest)
		if found == nil {
			return fmt.Errorf("format string %q: a percent sign that starts no command is written %%%%", text)
		}
		if err := checkCommand(found[1], found[2], found[3] != ""); err != nil {
			return fmt.Errorf("format string %q: %w", text, err)
		}
		rest = rest[len(found[0]):]
	}
}

func checkCommand(name, params string, length bool) error {
	switch {
	case !alone[name] && !optional[name] && !parameters[name] && !shortened[name]:
		return fmt.Errorf("there is no command %s%s", name, nearCommand(name))
	case alone[name] && params != "":
		return fmt.Errorf("%s takes no parameters", name)
	case (parameters[name] || shortened[name]) && params == "":
		return fmt.Errorf("%s needs parameters", name)
	case length && !shortened[name] && name != "PATH":
		return fmt.Errorf("%s cannot be shortened", name)
	case params != "" && choices[name] != nil && !choices[name].MatchString(params):
		return fmt.Errorf("%s cannot have the parameters %q", name, params)
	}
	return nil
}

func nearCommand(name string) string {
	var known []string
	for _, set := range []map[string]bool{alone, optional, parameters, shortened} {
		for n := range set {
			known = append(known, n)
		}
	}
	slices.Sort(known)
	if near, ok := finding.Nearest(name, known); ok {
		return ", did you mean " + near + "?"
	}
	return ""
}

// checkFormats checks a message that holds a format string, or several.
func checkFormats(m any) error {
	switch m := m.(type) {
	case *core.HeaderValue:
		return checkFormat(m.GetValue())
	case *core.SubstitutionFormatString:
		if err := checkFormat(m.GetTextFormat()); err != nil {
			return err
		}
		if err := checkFormat(m.GetTextFormatSource().GetInlineString()); err != nil {
			return err
		}
		return checkStruct(structpb.NewStructValue(m.GetJsonFormat()))
	}
	return nil
}

// checkStruct checks the format strings of a JSON format.
func checkStruct(v *structpb.Value) error {
	switch k := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		return checkFormat(k.StringValue)
	case *structpb.Value_ListValue:
		for _, item := range k.ListValue.GetValues() {
			if err := checkStruct(item); err != nil {
				return err
			}
		}
	case *structpb.Value_StructValue:
		for _, name := range slices.Sorted(maps.Keys(k.StructValue.GetFields())) {
			if err := checkStruct(k.StructValue.GetFields()[name]); err != nil {
				return err
			}
		}
	}
	return nil
}
