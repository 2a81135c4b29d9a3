package istiod

import (
	"context"
	"fmt"
	"net/http"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// refusals is a count of istiod's metrics.
type refusals struct {
	// process is when istiod started: another one counts from 0.
	process float64
	count   float64
}

// since says whether there were refusals after an earlier count. Where there is none, nothing is known of the past.
func (r refusals) since(earlier *refusals) bool {
	switch {
	case earlier == nil:
		return false
	case earlier.process != r.process:
		return r.count > 0
	}
	return r.count > earlier.count
}

// countRefusals reads how many responses of extension configurations gateways have refused.
func countRefusals(ctx context.Context, url string) (refusals, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return refusals{}, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return refusals{}, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return refusals{}, fmt.Errorf("%s answers %s", url, answer.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(answer.Body)
	if err != nil {
		return refusals{}, fmt.Errorf("%s: %w", url, err)
	}
	start := families["process_start_time_seconds"].GetMetric()
	if len(start) != 1 {
		return refusals{}, fmt.Errorf("%s does not hold process_start_time_seconds", url)
	}
	r := refusals{process: start[0].GetGauge().GetValue()}
	// The family is not there before the first refusal.
	for _, m := range families["pilot_total_xds_rejects"].GetMetric() {
		for _, label := range m.GetLabel() {
			if label.GetName() == "type" && label.GetValue() == "ecds" {
				r.count += m.GetCounter().GetValue()
			}
		}
	}
	return r, nil
}
