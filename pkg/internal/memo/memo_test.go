package memo_test

import (
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/internal/memo"
)

func TestWhatIsNotAskedForIsForgotten(t *testing.T) {
	var m memo.Map[string, int]
	if v := m.Now("asked"); v != 0 {
		t.Errorf("the empty Map has %d", v)
	}
	*m.At("asked"), *m.At("forgotten") = 1, 2
	for range 3 {
		m.Next()
		if v := m.Now("asked"); v != 0 {
			t.Errorf("this pass has %d before it has asked", v)
		}
		if v := *m.At("asked"); v != 1 {
			t.Errorf("%d is kept", v)
		}
		if v := m.Now("asked"); v != 1 {
			t.Errorf("this pass has %d", v)
		}
	}
	if v := *m.At("forgotten"); v != 0 {
		t.Errorf("what no pass asks for is still there: %d", v)
	}
}
