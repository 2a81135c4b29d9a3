package controller

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
)

// metrics of the controller. Those of its queue, its clients and its process are controller-runtime's.
type metrics struct {
	compile, apply, latency prometheus.Histogram
	writes                  *prometheus.CounterVec
	findings, gateways      *prometheus.GaugeVec
	objects, attached       prometheus.Gauge
}

// durations reach from a few milliseconds to the debounce of a busy istiod.
var durations = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

func newMetrics(r prometheus.Registerer) *metrics {
	histogram := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "istio_plugins", Name: name, Help: help, Buckets: durations})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "istio_plugins", Name: name, Help: help})
	}
	m := &metrics{
		compile: histogram("compile_duration_seconds", "Time to compile everything."),
		apply:   histogram("apply_duration_seconds", "Time to write what differs, with the wait for gateways between its two halves."),
		latency: histogram("event_to_applied_seconds", "Time from the first event of a change until it was written."),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "istio_plugins", Name: "writes_total", Help: "Writes of generated objects, by verb (apply, delete) and result (ok, error).",
		}, []string{"verb", "result"}),
		findings: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "istio_plugins", Name: "findings", Help: "Findings that hold now, by reason and severity.",
		}, []string{"reason", "severity"}),
		gateways: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "istio_plugins", Name: "gateways", Help: "Gateway workloads by what istiod says of them: Accepted, Pending, Rejected, NoGateway, Unknown.",
		}, []string{"state"}),
		objects:  gauge("objects", "Generated objects."),
		attached: gauge("attached_routes", "Routes that run at least one plugin."),
	}
	r.MustRegister(m.compile, m.apply, m.latency, m.writes, m.findings, m.gateways, m.objects, m.attached)
	return m
}

func (m *metrics) compiled(took time.Duration, r *compile.Result) {
	m.compile.Observe(took.Seconds())
	m.objects.Set(float64(len(r.Objects)))
	m.attached.Set(float64(r.AttachedRoutes()))
	m.findings.Reset()
	for _, f := range r.Findings {
		m.findings.WithLabelValues(string(f.Reason), string(f.Severity())).Inc()
	}
	// A series that was never there cannot be alerted on.
	for _, reason := range finding.Reasons() {
		m.findings.WithLabelValues(string(reason), string(finding.Finding{Reason: reason}.Severity())).Add(0)
	}
}

// applied notes a pass that wrote, and when the first event was that led to it.
func (m *metrics) applied(took time.Duration, since time.Time) {
	m.apply.Observe(took.Seconds())
	if !since.IsZero() {
		m.latency.Observe(time.Since(since).Seconds())
	}
}

func (m *metrics) written(verb string, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.writes.WithLabelValues(verb, result).Inc()
}

// accepted notes the gateways' states.
func (m *metrics) accepted(states map[string]int) {
	m.gateways.Reset()
	for state, n := range states {
		m.gateways.WithLabelValues(state).Set(float64(n))
	}
}
