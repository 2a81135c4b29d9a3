package snapshot_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

func TestOverlayReplacesAndCreates(t *testing.T) {
	day := func(n int) metav1.Time { return metav1.NewTime(time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC)) }
	secret := func(name string, uid types.UID, created metav1.Time, data string) *corev1.Secret {
		return &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: name, UID: uid, CreationTimestamp: created},
			Data:       map[string][]byte{"key": []byte(data)},
		}
	}
	named := func(name string) finding.Object {
		return finding.Object{Kind: "Secret", Namespace: "demo", Name: name}
	}
	base := &snapshot.Snapshot{Secrets: []*corev1.Secret{
		secret("stays", "1", day(1), "a"), secret("edited", "2", day(3), "a"), secret("unlabelled", "3", day(2), "a"),
	}}
	base.Secrets[1].ResourceVersion = "7"
	over := &snapshot.Snapshot{
		Secrets:    []*corev1.Secret{secret("edited", "of another cluster", day(9), "b"), secret("new", "of another cluster", day(9), "b")},
		Unlabelled: []finding.Object{named("unlabelled"), named("unknown")},
		Sources:    map[finding.Object]snapshot.Source{named("edited"): {File: "a.yaml"}, named("new"): {File: "a.yaml"}},
	}
	over.Secrets[0].ResourceVersion = "7"
	got := snapshot.Overlay(base, over)
	want := []*corev1.Secret{
		secret("stays", "1", day(1), "a"), secret("edited", "2", day(3), "b"),
		secret("new", "", metav1.NewTime(day(3).Add(time.Second)), "b"),
	}
	if diff := cmp.Diff(want, got.Secrets); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(base.Secrets) != 3 || string(base.Secrets[1].Data["key"]) != "a" || over.Secrets[0].UID != "of another cluster" {
		t.Error("an input was changed")
	}
	if got.Where(named("new"), "") == "" || got.Where(named("stays"), "") != "" {
		t.Errorf("sources are %v", got.Sources)
	}
}
