package envoy_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/envoy"
)

// Format strings that Envoy takes and that it does not, as it says itself.
var (
	sound = []string{
		"", "plain", "100%%", "%%REQ", "%REQ(:path)%", "%REQ(a?b)%", "%REQ(x):5%", "%REQ(:path)%%REQ(y)%", "%RESP(x)% and %TRAILER(x)%",
		"%START_TIME%", "%START_TIME(%Y-%m-%d)%", "%START_TIME(%Y%)%", "%METADATA(ROUTE:a:b)%", "%METADATA(LISTENER:a):5%",
		"%DYNAMIC_METADATA(a:b)%", "%FILTER_STATE(a)%", "%FILTER_STATE(a:PLAIN):9%", "%FILTER_STATE(a:FIELD:b)%", "%PATH%", "%PATH(NQ)%",
		"%PATH(WQ:ORIG)%", "%PATH:5%", "%GRPC_STATUS(NUMBER)%", "%UPSTREAM_METADATA(a)%", "%PER_REQUEST_STATE(x)%", "%ENVIRONMENT(X):3%",
		"%DOWNSTREAM_PEER_CERT_V_END(%s)%", "%ROUTE_NAME%", "%PROTOCOL%", "%UNIQUE_ID%",
	}
	unsound = []string{
		"100%", "%(x)%", "a%b%c", "%REQ(a?b?c)%", "%REQ()%", "%REQ%", "%REQ(a b)%", "%req(x)%", "%REQ(x):a%", "%REQ(x)", "%REQ(x%", "%REQ(a)%)%",
		"%NOSUCH%", "%_A%", "%METADATA(X:a:b)%", "%METADATA%", "%FILTER_STATE(a:X)%", "%FILTER_STATE(a:FIELD)%", "%PATH(X)%", "%PATH(NQ:X)%",
		"%CLUSTER_METADATA()%", "%PROTOCOL(x)%", "%PROTOCOL:5%", "%DYNAMIC_METADATA%", "%START_TIME:5%", "%%%",
	}
)

// mutation is a filter with these format strings.
func mutation(formats ...string) config.Value {
	var mutations []any
	for i, f := range formats {
		header := map[string]any{"key": fmt.Sprintf("x-%d", i), "value": f}
		mutations = append(mutations, map[string]any{"append": map[string]any{"header": header}})
	}
	return config.Value{
		"@type":     "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
		"mutations": map[string]any{"request_mutations": mutations},
	}
}

func TestFormatStrings(t *testing.T) {
	for _, text := range sound {
		if _, err := envoy.Decode(mutation(text)); err != nil {
			t.Errorf("%q is refused: %v", text, err)
		}
	}
	for _, text := range unsound {
		if _, err := envoy.Decode(mutation(text)); err == nil {
			t.Errorf("%q is not refused", text)
		}
	}
}

func TestFormatStringsAsEnvoyTakesThem(t *testing.T) {
	for _, version := range []string{"1.37.0", "1.40.0"} {
		program, err := filepath.Abs("../../.bin/envoy-" + version)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(program); err != nil {
			t.Fatalf("%v: `make .bin/envoy-%s` provides it", err, version)
		}
		if text, err := validate(program, mutation(sound...)); err != nil {
			t.Errorf("Envoy %s refuses what is sound here: %s", version, text)
		}
		for _, format := range unsound {
			if _, err := validate(program, mutation(format)); err == nil {
				t.Errorf("Envoy %s takes %q, which is refused here", version, format)
			}
		}
	}
}

// validate asks an Envoy about a filter.
func validate(program string, filter config.Value) ([]byte, error) {
	router := map[string]any{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}
	manager := map[string]any{
		"@type":        "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"stat_prefix":  "test",
		"route_config": map[string]any{},
		"http_filters": []any{
			map[string]any{"name": "filter", "typed_config": filter}, map[string]any{"name": "router", "typed_config": router},
		},
	}
	text, err := json.Marshal(map[string]any{"static_resources": map[string]any{"listeners": []any{map[string]any{
		"name":          "test",
		"address":       map[string]any{"socket_address": map[string]any{"address": "127.0.0.1", "port_value": 0}},
		"filter_chains": []any{map[string]any{"filters": []any{map[string]any{"name": "http", "typed_config": manager}}}},
	}}}})
	if err != nil {
		return nil, err
	}
	return exec.Command(program, "--mode", "validate", "--disable-hot-restart", "-l", "critical", "--config-yaml", string(text)).CombinedOutput()
}
