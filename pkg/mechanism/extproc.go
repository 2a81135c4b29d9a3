package mechanism

import (
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// extProcMechanism is the built-in ext-proc with a fixed service.
type extProcMechanism struct{}

func (extProcMechanism) build(w *World, u Use) ([]part.Part, []Problem) {
	return buildFixed(w, u, "ext-proc", "spec.extProc", config.Value{"service": serviceOf(u.Spec.ExtProc.Service)})
}
