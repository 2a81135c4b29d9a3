package explain

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/config"
)

func TestSecretsAreHiddenByTheirNames(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"a secret by its name":            {`{"client_secret":"x","ClientSecret":"x","user":"anna"}`, `{"ClientSecret":"(hidden)","client_secret":"(hidden)","user":"anna"}`},
		"all below such a name":           {`{"credentials":{"a":["x",{"b":"y"}]}}`, `{"credentials":{"a":["(hidden)",{"b":"(hidden)"}]}}`},
		"numbers and booleans are none":   {`{"hide_credentials":true,"token_ttl":3}`, `{"hide_credentials":true,"token_ttl":3}`},
		"keys":                            {`{"signing_key":"x","api-key":"x","key_names":["apikey"],"key":"x"}`, `{"api-key":"(hidden)","key":"(hidden)","key_names":["apikey"],"signing_key":"(hidden)"}`},
		"a header's value":                {`{"add":["Authorization: Bearer x","x-api-key:y","x-color: red"]}`, `{"add":["Authorization:(hidden)","x-api-key:(hidden)","x-color: red"]}`},
		"who asks, in a URL":              {`{"url":"redis://anna:x@host:6379/0","other":"https://host/@me"}`, `{"other":"https://host/@me","url":"redis://(hidden)@host:6379/0"}`},
		"a bucket of tokens is no secret": {`{"token_bucket":{"fill_interval":"1s"}}`, `{"token_bucket":{"fill_interval":"1s"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			in, err := config.Decode([]byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			got := string(config.Value(hide(&pluginsv1alpha1.PluginSpec{}, in)).JSON())
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A built-in's schema knows better than names.
func TestASchemaSaysWhatIsSecret(t *testing.T) {
	for builtin, c := range map[string]struct{ in, want string }{
		"oidc": {`{"authorization_endpoint":"https://a.test","cookie_domain":"a.test","client_secret":["x"],"session_secret":"y"}`,
			`{"authorization_endpoint":"https://a.test","client_secret":"(hidden)","cookie_domain":"a.test","session_secret":"(hidden)"}`},
		"http-log":            {`{"headers":{"Authorization":"x","X-Api-Key":"y","X-Color":"red"}}`, `{"headers":{"Authorization":"(hidden)","X-Api-Key":"(hidden)","X-Color":"red"}}`},
		"request-transformer": {`{"add":{"headers":["authorization:x","x-a:b"]},"unknown_token":"x"}`, `{"add":{"headers":["authorization:(hidden)","x-a:b"]},"unknown_token":"(hidden)"}`},
	} {
		in, err := config.Decode([]byte(c.in))
		if err != nil {
			t.Fatal(err)
		}
		got := string(config.Value(hide(&pluginsv1alpha1.PluginSpec{Builtin: builtin}, in)).JSON())
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", builtin, diff)
		}
	}
}
