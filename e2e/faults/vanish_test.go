package faults

import (
	"net/http"
	"testing"
)

// secretVanishes deletes the Secret with a client's key: it no longer opens anything, and nothing else does.
func secretVanishes(t *testing.T, w *world) {
	r := w.start(t)
	w.converged(t)
	clients := w.clients(http.StatusUnauthorized)
	clients[1].may = []int{http.StatusOK, http.StatusUnauthorized}
	load := startLoad(t, w.Port, false, clients...)
	stop := w.keepEditing(t, false)
	for range 3 {
		w.delete(t, secret)
		w.awaitAnswer(t, "protected.test", http.StatusUnauthorized)
		w.awaitAnswer(t, "edited.test", http.StatusUnauthorized)
		w.apply(t, secret)
		w.awaitAnswer(t, "protected.test", http.StatusOK)
	}
	stop()
	w.settled(t, r)
	load.stop(t)
}

// configMapVanishes deletes the source of a plugin: the routes that name it are refused, with and without a key.
func configMapVanishes(t *testing.T, w *world) {
	r := w.start(t)
	w.converged(t)
	load := startLoad(t, w.Port, false, w.clients(http.StatusServiceUnavailable)...)
	stop := w.keepEditing(t, false)
	for range 3 {
		w.delete(t, configMap)
		w.awaitAnswer(t, "edited.test", http.StatusServiceUnavailable)
		w.apply(t, configMap)
		w.awaitAnswer(t, "edited.test", http.StatusOK)
	}
	stop()
	w.settled(t, r)
	load.stop(t)
}
