package memo_test

import (
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/internal/memo"
)

func TestWhatIsNotAskedForIsForgotten(t *testing.T) {
	var m memo.Map[string, int]
	if _, ok := m.Get("a"); ok {
		t.Error("the empty Map has something")
	}
	m.Put("asked", 1)
	m.Put("forgotten", 2)
	for range 3 {
		m.Next()
		if v, ok := m.Get("asked"); !ok || v != 1 {
			t.Errorf("asked: %d, %v", v, ok)
		}
	}
	if _, ok := m.Get("forgotten"); ok {
		t.Error("what no pass asks for is still there")
	}
	m.Next()
	m.Put("asked", 3)
	if v, _ := m.Get("asked"); v != 3 {
		t.Errorf("an older result hides a newer one: %d", v)
	}
}
