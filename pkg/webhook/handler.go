package webhook

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
	admissionmetrics "sigs.k8s.io/controller-runtime/pkg/webhook/admission/metrics"

	"github.com/istio-plugins/istio-plugins/pkg/finding"
)

// lookUp is how long references may be looked up. It ends before the API server stops waiting (Configuration).
const lookUp = 2 * time.Second

// judge says what is wrong with one version of an object.
type judge func(ctx context.Context, request *admission.Request, object []byte) (verdict, error)

// verdict is what is wrong with an object, told apart by what follows from it.
type verdict struct {
	// refused lie in the object itself: nothing that comes later makes them right. No route can have met them yet, so
	// they say nothing of traffic.
	refused []finding.Finding
	// warned lie elsewhere, or are no errors.
	warned []finding.Finding
}

// handler answers the API server. It refuses only what the judge has found; what it cannot judge, it admits, because the
// controller judges it again.
type handler struct {
	judge judge
	// namespaces in which it judges; all if there are none.
	namespaces []string
}

var _ admission.Handler = handler{}

// Handle implements admission.Handler.
func (h handler) Handle(ctx context.Context, request admission.Request) (response admission.Response) {
	defer func() {
		if r := recover(); r != nil {
			admissionmetrics.WebhookPanics.WithLabelValues().Inc()
			response = unjudged(ctx, fmt.Errorf("panic: %v\n%s", r, debug.Stack()))
		}
	}()
	if request.Operation != admissionv1.Create && request.Operation != admissionv1.Update {
		return admission.Allowed("")
	}
	if len(h.namespaces) > 0 && request.Namespace != "" && !slices.Contains(h.namespaces, request.Namespace) {
		return admission.Allowed("")
	}
	ctx, cancel := context.WithTimeout(ctx, lookUp)
	defer cancel()
	now, err := h.judge(ctx, &request, request.Object.Raw)
	if err != nil {
		return unjudged(ctx, err)
	}
	if len(now.refused) > 0 && request.Operation == admissionv1.Update {
		before, err := h.judge(ctx, &request, request.OldObject.Raw)
		if err != nil {
			return unjudged(ctx, err)
		}
		now = now.since(before)
	}
	if len(now.refused) == 0 {
		return admission.Allowed("").WithWarnings(lines(now.warned)...)
	}
	return refuse(&request, now.refused).WithWarnings(lines(now.warned)...)
}

// unjudged admits an object that could not be judged, which is our mistake and not its author's.
func unjudged(ctx context.Context, err error) admission.Response {
	log.FromContext(ctx).Error(err, "Admitted an object without judging it")
	return admission.Allowed("").WithWarnings("istio-plugins could not judge this object now; what is wrong with it, the controller will say")
}

// since turns what was wrong before into warnings: a change is refused for what it brings, so that an object that was
// stored with a mistake can still be changed in other places, and mended in steps.
func (v verdict) since(before verdict) verdict {
	out := verdict{warned: slices.Clone(v.warned)}
	for _, f := range v.refused {
		if slices.ContainsFunc(before.refused, func(old finding.Finding) bool {
			return old.Reason == f.Reason && old.Place == f.Place && old.Problem == f.Problem
		}) {
			out.warned = append(out.warned, f)
		} else {
			out.refused = append(out.refused, f)
		}
	}
	return out
}

// refuse answers as the API server does for objects that break their schema, so that kubectl shows a line for each field.
func refuse(request *admission.Request, findings []finding.Finding) admission.Response {
	causes := make([]metav1.StatusCause, len(findings))
	for i, f := range findings {
		causes[i] = metav1.StatusCause{Type: metav1.CauseType(f.Reason), Field: f.Place, Message: f.Message()}
	}
	return admission.Response{AdmissionResponse: admissionv1.AdmissionResponse{
		Result: &metav1.Status{
			Status:  metav1.StatusFailure,
			Code:    http.StatusUnprocessableEntity,
			Reason:  metav1.StatusReasonInvalid,
			Message: strings.Join(lines(findings), "\n"),
			Details: &metav1.StatusDetails{Group: request.Kind.Group, Kind: request.Kind.Kind, Name: findings[0].Object.Name, Causes: causes},
		},
	}}
}

// lines are the findings as text without their severity, which depends on where it is read: an error may be a warning here.
func lines(findings []finding.Finding) []string {
	out := make([]string, len(findings))
	for i, f := range findings {
		out[i] = strings.TrimPrefix(f.String(), string(f.Severity())+" ")
	}
	return out
}
