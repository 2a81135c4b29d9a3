package controller

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/istiod"
	"github.com/istio-plugins/istio-plugins/pkg/mechanism"
)

const (
	// maxAttachedRoutes and maxMessage are the limits of the status' schema.
	maxAttachedRoutes = 16
	maxMessage        = 32768
)

// gatewayState is what is known of one gateway workload: what istiod says, and why something could not be written.
type gatewayState struct {
	istiod.Verdict
	failed error
	// held says that its Wasm plugins are not written yet.
	held bool
}

// about is what is known of a gateway as far as it concerns a Plugin: another one that is refused does not.
func (g gatewayState) about(plugin finding.Object) gatewayState {
	blamed := slices.ContainsFunc(g.Blamed, func(part string) bool { return strings.HasPrefix(part, partOf(plugin)) })
	if len(g.Blamed) > 0 && !blamed {
		g.State, g.Blamed = g.Rest, nil
	}
	return g
}

// What surrounds istiod's messages in conditions.
const (
	rejectedEnd   = "; gateways keep what they had, and refuse the requests of routes that are new; correct the Plugin"
	noEvidenceTop = "whether gateways run it is not known: "
)

// refusal is what a status says of a refusal.
type refusal struct {
	state   istiod.State
	message string
}

// refusalOf is the one that is known of a Plugin of this generation.
func refusalOf(generation int64, status pluginsv1alpha1.PluginStatus) (refusal, bool) {
	c := meta.FindStatusCondition(status.Conditions, pluginsv1alpha1.ConditionProgrammed)
	switch {
	case c == nil || c.ObservedGeneration != generation:
	case c.Reason == "Rejected":
		return refusal{istiod.Rejected, strings.TrimSuffix(c.Message, rejectedEnd)}, true
	case c.Reason == "MaybeRejected":
		return refusal{istiod.Unknown, "a gateway refused something before this controller was started"}, true
	}
	return refusal{}, false
}

// and is one refusal that stands for two.
func (r refusal) and(other refusal) refusal {
	if r.state == "" || r.state == istiod.Rejected && other.state == istiod.Unknown {
		return other
	}
	return r
}

// veiled leaves out what a gateway says that refuses something, if it may quote values from Secrets.
func (g gatewayState) veiled(secrets bool) gatewayState {
	if secrets && g.State == istiod.Rejected {
		g.Message = "a gateway has refused it; its words are in its log and not shown here, since plugins of the gateway have values from Secrets"
	}
	return g
}

// pluginStatus is the status of a Plugin that was seen with this spec and generation. Accepted rests on the compilation,
// Programmed on what gateways have accepted.
func pluginStatus(spec *pluginsv1alpha1.PluginSpec, generation int64, before pluginsv1alpha1.PluginStatus, u compile.PluginUse, gateways func(id string) gatewayState) pluginsv1alpha1.PluginStatus {
	routes := slices.Clone(u.Routes)
	slices.Sort(routes)
	status := pluginsv1alpha1.PluginStatus{
		ObservedGeneration: generation,
		Type:               mechanism.Type(spec),
		Attached:           int32(len(routes)),
		AttachedRoutes:     routes[:min(len(routes), maxAttachedRoutes)],
		Conditions:         slices.Clone(before.Conditions),
	}
	acceptedCondition := acceptedOf(u.Findings, "the plugin can be used"+unavailable(u))
	now := programmed(spec, u, acceptedCondition, gateways)
	// Most of what is on its way to gateways is of other Plugins. What is known of this generation holds until they answer.
	known := meta.FindStatusCondition(before.Conditions, pluginsv1alpha1.ConditionProgrammed)
	if now.Reason == "Pending" && known != nil && known.ObservedGeneration == generation && slices.Contains([]string{"Programmed", "Rejected", "MaybeRejected"}, known.Reason) {
		now = *known
	}
	for _, c := range []metav1.Condition{acceptedCondition, now} {
		c.ObservedGeneration = generation
		c.Message = cut(c.Message, maxMessage)
		meta.SetStatusCondition(&status.Conditions, c)
	}
	return status
}

// cut shortens a text to so many bytes.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	const more = "…"
	return strings.ToValidUTF8(text[:most-len(more)], "") + more
}

// unavailable says of routes that name a good plugin and do not run it for another reason.
func unavailable(u compile.PluginUse) string {
	switch u.Unavailable {
	case 0:
		return ""
	case 1:
		return "; 1 route that names it does not run it, because of another plugin of its chain or of the route's own config"
	}
	return fmt.Sprintf("; %d routes that name it do not run it, because of other plugins of their chains or of the routes' own configs", u.Unavailable)
}

// acceptedOf is the condition Accepted of an object with these findings.
func acceptedOf(findings []finding.Finding, fine string) metav1.Condition {
	var errors []finding.Finding
	for _, f := range findings {
		if f.Severity() == finding.Error {
			errors = append(errors, f)
		}
	}
	if len(errors) == 0 {
		return metav1.Condition{Type: pluginsv1alpha1.ConditionAccepted, Status: metav1.ConditionTrue, Reason: "Accepted", Message: fine}
	}
	texts := make([]string, 0, len(errors))
	for _, f := range errors {
		text := f.Message()
		if f.Place != "" {
			text = f.Place + ": " + text
		}
		texts = append(texts, text)
	}
	const most = 3
	if more := len(texts) - most; more > 0 {
		texts = append(texts[:most], fmt.Sprintf("and %d more", more))
	}
	return metav1.Condition{
		Type: pluginsv1alpha1.ConditionAccepted, Status: metav1.ConditionFalse, Reason: string(errors[0].Reason), Message: strings.Join(texts, ". "),
	}
}

// programmed is the condition Programmed. The worst that is known of any gateway counts.
func programmed(spec *pluginsv1alpha1.PluginSpec, u compile.PluginUse, accepted metav1.Condition, gateways func(id string) gatewayState) metav1.Condition {
	condition := func(status metav1.ConditionStatus, reason, message string) metav1.Condition {
		return metav1.Condition{Type: pluginsv1alpha1.ConditionProgrammed, Status: status, Reason: reason, Message: message}
	}
	if accepted.Status != metav1.ConditionTrue && len(u.Routes) == 0 {
		if spec.FailurePolicy == pluginsv1alpha1.FailOpen {
			return condition(metav1.ConditionFalse, "NotAccepted", "it runs nowhere; routes that name it run without it")
		}
		return condition(metav1.ConditionFalse, "NotAccepted", "it runs nowhere; routes that name it answer 503")
	}
	if len(u.Routes) == 0 {
		return condition(metav1.ConditionUnknown, "NotAttached", "no route runs it")
	}
	var worst *gatewayState
	connected := 0
	for _, id := range u.Workloads {
		g := gateways(id).about(u.Object)
		connected += len(g.Gateways)
		if worst == nil || severity(g) > severity(*worst) {
			worst = &g
		}
	}
	runs := "1 route runs it"
	if n := len(u.Routes); n > 1 {
		runs = fmt.Sprintf("%d routes run it", n)
	}
	switch {
	case worst.failed != nil:
		return condition(metav1.ConditionFalse, "WriteFailed", fmt.Sprintf("gateways run an older state: %v", worst.failed))
	case worst.State == istiod.Rejected:
		return condition(metav1.ConditionFalse, "Rejected", worst.Message+rejectedEnd)
	case worst.held && spec.Wasm != nil:
		return condition(metav1.ConditionFalse, "Pending", "it comes when the gateways have the fixed filters that run plugins")
	case worst.State == istiod.Pending:
		return condition(metav1.ConditionFalse, "Pending", worst.Message)
	case worst.State == istiod.Unknown && len(worst.Blamed) > 0:
		return condition(metav1.ConditionUnknown, "MaybeRejected", noEvidenceTop+worst.Message)
	case worst.State == istiod.Unknown:
		return condition(metav1.ConditionUnknown, "NoEvidence", noEvidenceTop+worst.Message)
	case worst.State == istiod.NoGateway && connected == 0:
		return condition(metav1.ConditionUnknown, "NoGateway", worst.Message)
	}
	message := fmt.Sprintf("%s; %d connected %s accepted it", runs, connected, plural(connected, "gateway has", "gateways have"))
	return condition(metav1.ConditionTrue, "Programmed", message+untold(spec))
}

// untold is what an acceptance leaves open: Istio's agent puts a filter of its own in the place of a module that it could
// not fetch, and says so in its log alone.
func untold(spec *pluginsv1alpha1.PluginSpec) string {
	switch {
	case !mechanism.Fetches(spec):
		return ""
	case mechanism.FailStrategy(spec) == "FAIL_OPEN":
		return "; one that cannot fetch the module does not tell, and lets requests pass without it"
	}
	return "; one that cannot fetch the module does not tell, and answers 403"
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func severity(g gatewayState) int {
	if g.failed != nil {
		return 10
	}
	if g.held {
		return 4
	}
	return map[istiod.State]int{istiod.Rejected: 5, istiod.Pending: 4, istiod.Unknown: 3, istiod.NoGateway: 2, istiod.Accepted: 1}[g.State]
}

// consumerStatus is the status of a Consumer: whether it, and each of its credentials, can be used.
func consumerStatus(c *pluginsv1alpha1.Consumer, findings map[finding.Object][]finding.Finding) pluginsv1alpha1.ConsumerStatus {
	about := slices.Clone(findings[finding.Object{Kind: "Consumer", Namespace: c.Namespace, Name: c.Name}])
	for _, name := range c.Spec.Credentials {
		for _, f := range findings[finding.Object{Kind: "Secret", Namespace: c.Namespace, Name: name}] {
			f.Place = strings.TrimSuffix("Secret "+name+" "+f.Place, " ")
			about = append(about, f)
		}
	}
	slices.SortStableFunc(about, func(a, b finding.Finding) int { return cmp.Compare(a.Place, b.Place) })
	status := pluginsv1alpha1.ConsumerStatus{ObservedGeneration: c.Generation, Conditions: slices.Clone(c.Status.Conditions)}
	condition := acceptedOf(about, "all credentials can be used")
	condition.ObservedGeneration = c.Generation
	meta.SetStatusCondition(&status.Conditions, condition)
	return status
}
