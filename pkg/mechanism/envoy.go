package mechanism

import (
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/envoy"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// envoyMechanism merges the config into the filter's typedConfig and decodes it.
type envoyMechanism struct{}

func (envoyMechanism) build(_ *World, u Use) ([]part.Part, []Problem) {
	const place = "spec.envoy.typedConfig"
	if u.Spec.Envoy.TypedConfig == nil {
		return nil, []Problem{{Reason: finding.InvalidEnvoyConfig, Spec: place, Message: "is required"}}
	}
	typed, err := config.Decode(u.Spec.Envoy.TypedConfig.Raw)
	if err != nil {
		return nil, []Problem{{Reason: finding.InvalidEnvoyConfig, Spec: place, Message: err.Error()}}
	}
	if _, changed := u.Config["@type"]; changed {
		return nil, []Problem{{Reason: finding.InvalidConfig, InConfig: true, Config: "@type", Message: "the filter's type cannot be changed by config"}}
	}
	m, err := envoy.Decode(config.Merge(typed, u.Config))
	if err != nil {
		return nil, []Problem{{Reason: finding.InvalidEnvoyConfig, Spec: place, Message: err.Error()}}
	}
	state := part.Stateless
	if envoy.Stateful(m) {
		state = part.PerAttachment
	}
	return []part.Part{part.Native{Config: m, State: state}}, nil
}
