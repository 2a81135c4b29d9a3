package explain

import (
	"bytes"
	"reflect"
	"strings"

	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// HiddenChange stands for a value that must not be shown and is another one than before.
const HiddenChange = "(hidden, changed)"

// Refusals are the reasons for which a route answers 503; none if it does not.
func Refusals(s *snapshot.Snapshot, c compile.RouteChain) []Reason {
	return explainer{s}.routes(compile.RouteChain{Chain: resolve.Chain{Refusals: c.Chain.Refusals}, Refused: c.Refused}, nil, true).Refused
}

// Config is the merged config of a step, in which secrets read (hidden).
func Config(step resolve.Step) map[string]any {
	return hide(step.Plugin.Spec, configOf(step, step.Public()))
}

// SameConfig says whether two steps have the same config, secrets included.
func SameConfig(before, after resolve.Step) bool {
	return bytes.Equal(configOf(before, before.Config()).JSON(), configOf(after, after.Config()).JSON())
}

// ChangedConfig is Config of the later of two steps, in which secrets that are not the same read (hidden, changed).
func ChangedConfig(before, after resolve.Step) map[string]any {
	was, is := map[string]any(configOf(before, before.Config())), map[string]any(configOf(after, after.Config()))
	marked := markChange(Config(before), Config(after), was, is).(map[string]any)
	if whole(before) && whole(after) && !bytes.Equal(before.Plugin.Config.JSON(), after.Plugin.Config.JSON()) {
		marked[Hidden] = HiddenChange
	}
	return marked
}

// whole says whether all of the plugin's own config comes from a Secret, so that nothing of it is shown.
func whole(s resolve.Step) bool { return s.Plugin.Spec.ConfigFrom != nil }

// markChange marks what is hidden in both and not the same. The first two are as shown, the others as they are.
func markChange(shownBefore, shown, before, after any) any {
	switch shown := shown.(type) {
	case map[string]any:
		was, _ := shownBefore.(map[string]any)
		before, _ := before.(map[string]any)
		after, _ := after.(map[string]any)
		for key, v := range shown {
			shown[key] = markChange(was[key], v, before[key], after[key])
		}
	case []any:
		was, _ := shownBefore.([]any)
		before, _ := before.([]any)
		after, _ := after.([]any)
		for i := range min(len(shown), len(was), len(before), len(after)) {
			shown[i] = markChange(was[i], shown[i], before[i], after[i])
		}
	case string:
		if shown == shownBefore && !reflect.DeepEqual(before, after) {
			return strings.ReplaceAll(shown, Hidden, HiddenChange)
		}
	}
	return shown
}
