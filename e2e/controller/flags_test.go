package controller_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/istio-plugins/istio-plugins/e2e/controller"
)

// TestFlags: what changes which objects the controller sees, and which it writes.
func TestFlags(t *testing.T) {
	b := newBed(t)
	apply(t, b, plugins)
	elsewhere := strings.Replace(controller.Route("elsewhere", "key-auth"), "namespace: shop", "namespace: elsewhere", 1)
	ofAnother := strings.Replace(controller.Route("another", "key-auth"), "namespace: shop", "namespace: shop, labels: {istio.io/rev: another}", 1)
	apply(t, b, controller.Route("shop", "key-auth")+elsewhere+ofAnother)
	await(t, b, "shop.test", http.StatusOK)

	t.Run("with --dry-run everything is judged and nothing stays", func(t *testing.T) {
		c := start(t, b, "--dry-run")
		awaitWrites(t, c)
		if there := generated(t, b); len(there) > 0 {
			t.Errorf("there are %v", there)
		}
		if status := kubectl(t, b, "get", "plugins", "-n", "shop", "-o", "jsonpath={.items[*].status}"); status != "" {
			t.Errorf("a status was written: %s", status)
		}
		await(t, b, "shop.test", http.StatusOK)
		c.Stop()
	})
	t.Run("with --watch-namespaces others are not looked at", func(t *testing.T) {
		c := start(t, b, "--watch-namespaces", "shop")
		await(t, b, "shop.test", http.StatusUnauthorized)
		await(t, b, "elsewhere.test", http.StatusOK)
		c.Stop()
	})
	t.Run("with --istio-revision only that control plane's", func(t *testing.T) {
		c := start(t, b, "--istio-revision", "default")
		await(t, b, "shop.test", http.StatusUnauthorized)
		await(t, b, "elsewhere.test", http.StatusUnauthorized)
		of := "istio.io/rev=default"
		awaitText(t, b, "istio-plugins.", "get", "envoyfilters", "-n", "istio-system", "-l", of)
		// It is not seen by istiod either.
		await(t, b, "another.test", http.StatusNotFound)
		tables := kubectl(t, b, "get", "envoyfilters", "-n", "istio-system", "-l", of, "-o", "yaml")
		if strings.Contains(tables, "virtual-service/another") || !strings.Contains(tables, "virtual-service/elsewhere") {
			t.Error("the tables do not hold what the revision serves")
		}
		// What another controller made for everybody is not this one's to delete.
		if left := kubectl(t, b, "get", "envoyfilters", "-n", "istio-system", "-l", "istio-plugins/generated=true,!istio.io/rev", "-o", "name"); left == "" {
			t.Error("the objects of another revision are gone")
		}
		c.Stop()
	})
}

// awaitWrites returns when the controller has tried to write.
func awaitWrites(t *testing.T, c *controller.Controller) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settleTimeout)
	defer cancel()
	for {
		n, err := c.Writes(ctx)
		if err == nil && n > 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d writes, %v", n, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func generated(t *testing.T, b *controller.Bed) []string {
	t.Helper()
	there, err := controller.List(t.Context(), b.Stack)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range there {
		names = append(names, name)
	}
	return names
}
