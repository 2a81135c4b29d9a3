// Package wasm runs Wasm plugins as a mesh does: the gateway's Envoy is started by Istio's agent, which has a certificate of
// istiod's, and fetches modules from registries. Whatever is wrong with a module, it is so for the routes that run it, and
// all the time others are served as before.
package wasm

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"

	"github.com/istio-plugins/istio-plugins/e2e/controller"
	"github.com/istio-plugins/istio-plugins/e2e/gateway"
)

// again is a part of what tag.wat's changed module tells.
const again = "again "

// Parts of trap.wat.
const (
	begins     = `(func (export "proxy_on_vm_start") (param $context i32) (param $size i32) (result i32)`
	configures = `(func (export "proxy_on_configure") (param $context i32) (param $size i32) (result i32)`
	fine       = "\n    (i32.const 1))"
)

func TestWasm(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the whole stack: not with -short")
	}
	if err := gateway.AgentError(); err != nil {
		t.Skipf("Istio's agent cannot be started here: %v", err)
	}
	w := startWorld(t)
	tag := module(t, "../testdata/tag.wat")
	w.open.push(t, "neighbour/tag:1", tag)
	w.apply(t, lua("1"), pullSecret("right", w.open.host(), password), plugin("neighbour", "oci://"+w.open.host()+"/neighbour/tag:1"),
		controller.Route("plain", ""), controller.Route("lua", "lua"), controller.Route("neighbour", "neighbour"))
	w.await(t, "lua", http.StatusOK, "lua 1")
	w.await(t, "neighbour", http.StatusOK, is("neighbour"))
	w.awaitProgrammed(t, "neighbour", "True", "Programmed", "one that cannot fetch the module does not tell, and answers 403")
	w.watchNeighbours(t)
	// What one leaves behind is what the next one meets.
	for _, part := range []struct {
		name string
		run  func(*testing.T, *world, []byte)
	}{
		{"fetched", fetched},
		{"with pull secrets", pullSecrets},
		{"an image comes late", lateImage},
		{"a tag changes", changedTag},
		{"a module traps", traps},
		{"a module cannot start", startless},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, w, tag) })
	}
}

// fetched goes through what may be the matter with what a url leads to.
func fetched(t *testing.T, w *world, tag []byte) {
	host, sum := w.open.host(), sha256.Sum256(tag)
	// Each has a repository of its own, since the agent remembers what it has fetched.
	push := func(r *images, name string) (url, digest string) {
		return "oci://" + r.host() + "/" + name + ":1", r.push(t, name+":1", tag)
	}
	good, _ := push(w.open, "fetched/good")
	_, byDigest := push(w.open, "fetched/digest")
	checked, digest := push(w.open, "fetched/checked")
	other, _ := push(w.open, "fetched/other")
	otherOpen, _ := push(w.open, "fetched/other-open")
	private, _ := push(w.open, "private/locked")
	trusted, _ := push(w.trusted, "fetched/trusted")
	unknown, _ := push(w.unknown, "fetched/unknown")
	w.open.push(t, "fetched/text:1", []byte("this is no module"))
	none := strings.Repeat("0", 64)
	cases := []struct {
		name, url string
		fields    []string
		open      bool
		status    int // 200 with the plugin is not told
	}{
		{name: "image", url: good},
		{name: "no-scheme", url: host + "/fetched/good:1"},
		{name: "digest", url: "oci://" + host + "/fetched/digest@sha256:" + byDigest},
		{name: "checked", url: checked, fields: []string{"sha256: '" + digest + "'"}},
		{name: "other", url: other, fields: []string{"sha256: '" + none + "'"}, status: http.StatusForbidden},
		{name: "other-open", url: otherOpen, fields: []string{"sha256: '" + none + "'"}, open: true, status: http.StatusOK},
		{name: "missing", url: "oci://" + host + "/fetched/missing:1", status: http.StatusForbidden},
		{name: "missing-open", url: "oci://" + host + "/fetched/missing-open:1", open: true, status: http.StatusOK},
		{name: "locked", url: private, status: http.StatusForbidden},
		{name: "text", url: "oci://" + host + "/fetched/text:1", status: http.StatusForbidden},
		{name: "http", url: "http://" + host + "/files/fetched/good:1"},
		{name: "http-checked", url: "http://" + host + "/files/fetched/checked:1", fields: []string{"sha256: '" + hex.EncodeToString(sum[:]) + "'"}},
		{name: "http-other", url: "http://" + host + "/files/fetched/other:1", fields: []string{"sha256: '" + none + "'"}, status: http.StatusForbidden},
		{name: "http-missing", url: "http://" + host + "/files/fetched/none", status: http.StatusForbidden},
		{name: "trusted", url: trusted},
		{name: "unknown", url: unknown, status: http.StatusForbidden},
	}
	var objects []string
	for _, c := range cases {
		p := plugin(c.name, c.url, c.fields...)
		if c.open {
			p = failOpen(p)
		}
		objects = append(objects, p, controller.Route(c.name, c.name))
	}
	w.apply(t, objects...)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			message := "does not tell, and answers 403"
			if c.open {
				message = "does not tell, and lets requests pass without it"
			}
			w.awaitProgrammed(t, c.name, "True", "Programmed", message)
			if c.status == 0 {
				w.await(t, c.name, http.StatusOK, is(c.name))
			} else {
				w.await(t, c.name, c.status)
			}
		})
	}
	// Until it is fetched, a place of the pool denies as the agent does. So whether it has tried is to be seen elsewhere.
	for _, path := range []string{"/v2/fetched/other/manifests/1", "/v2/fetched/missing/manifests/1", "/v2/fetched/text/manifests/1", "/files/fetched/other:1", "/files/fetched/none"} {
		if w.open.asked(path) == 0 {
			t.Errorf("nobody asked for %s", path)
		}
	}
}

// pullSecrets shows that a pull secret is used and needed, and that one which comes or is mended takes effect by itself.
func pullSecrets(t *testing.T, w *world, tag []byte) {
	host := w.open.host()
	var objects []string
	for _, name := range []string{"right", "wrong", "absent"} {
		w.open.push(t, "private/"+name+":1", tag)
		objects = append(objects, plugin(name, "oci://"+host+"/private/"+name+":1", "imagePullSecret: "+name), controller.Route(name, name))
	}
	w.open.push(t, "private/absent-open:1", tag)
	objects = append(objects, failOpen(plugin("absent-open", "oci://"+host+"/private/absent-open:1", "imagePullSecret: absent")), controller.Route("absent-open", "absent-open"))
	w.apply(t, pullSecret("wrong", host, "a guess"))
	w.apply(t, objects...)
	for _, name := range []string{"right", "wrong", "absent", "absent-open"} {
		w.awaitProgrammed(t, name, "True", "Programmed", "")
	}
	w.await(t, "right", http.StatusOK, is("right"))
	w.await(t, "wrong", http.StatusForbidden)
	w.await(t, "absent", http.StatusForbidden)
	w.await(t, "absent-open", http.StatusOK)

	w.apply(t, pullSecret("wrong", host, password), pullSecret("absent", host, password))
	for _, name := range []string{"wrong", "absent", "absent-open"} {
		w.await(t, name, http.StatusOK, is(name))
	}
}

// lateImage shows that the agent tries again when istiod pushes, whatever the reason.
func lateImage(t *testing.T, w *world, tag []byte) {
	w.open.push(t, "fetched/missing:1", tag)
	w.open.push(t, "fetched/missing-open:1", tag)
	w.apply(t, lua("2"))
	w.await(t, "lua", http.StatusOK, "lua 2")
	w.await(t, "missing", http.StatusOK, is("missing"))
	w.await(t, "missing-open", http.StatusOK, is("missing-open"))
}

// changedTag shows that an edit of a plugin fetches the image anew where the pull policy says so.
func changedTag(t *testing.T, w *world, tag []byte) {
	host := w.open.host()
	changed := module(t, "../testdata/tag.wat", "x-chain", "x-again")
	kept, always := plugin("kept", "oci://"+host+"/tags/kept:1"), plugin("always", "oci://"+host+"/tags/always:1", "imagePullPolicy: Always")
	latest := plugin("latest", "oci://"+host+"/tags/latest:latest")
	secret := plugin("always-secret", "oci://"+host+"/private/always:1", "imagePullPolicy: Always", "imagePullSecret: right")
	images := []string{"tags/kept:1", "tags/always:1", "tags/latest:latest", "private/always:1"}
	plugins := []string{"kept", "always", "latest", "always-secret"}
	for _, image := range images {
		w.open.push(t, image, tag)
	}
	for _, name := range plugins {
		w.apply(t, controller.Route(name, name))
	}
	w.apply(t, kept, always, latest, secret)
	for _, name := range plugins {
		w.await(t, name, http.StatusOK, is(name))
	}
	for _, image := range images {
		w.open.push(t, image, changed)
	}
	for _, p := range []string{kept, always, latest, secret} {
		w.apply(t, strings.Replace(p, "config: {is: ", "config: {is: new-", 1))
	}
	w.await(t, "kept", http.StatusOK, is("new-kept"))
	for _, name := range plugins[1:] {
		w.await(t, name, http.StatusOK, again+is("new-"+name))
	}
}

// traps shows that a trap hits the Plugin that it happens in and no other one, not even of the same module, and that it
// passes.
func traps(t *testing.T, w *world, _ []byte) {
	host := w.open.host()
	trap := module(t, "testdata/trap.wat")
	w.open.push(t, "trap/trap:1", trap)
	w.open.push(t, "private/trap:1", trap)
	closed := plugin("trap-close", "oci://"+host+"/trap/trap:1", "failStrategy: FAIL_CLOSE")
	open := failOpen(plugin("trap-open", "oci://"+host+"/trap/trap:1"))
	w.apply(t, plugin("trap", "oci://"+host+"/trap/trap:1"), closed, open,
		plugin("trap-secret", "oci://"+host+"/private/trap:1", "imagePullSecret: right"),
		plugin("calm-secret", "oci://"+host+"/private/trap:1", "imagePullSecret: right", "failStrategy: FAIL_CLOSE"))
	all := []string{"trap", "trap-close", "trap-open", "trap-secret", "calm-secret"}
	for _, name := range all {
		w.apply(t, controller.Route(name, name))
	}
	for _, name := range all {
		w.await(t, name, http.StatusOK, "trap")
	}
	hit := func(name string) {
		t.Helper()
		a, err := w.ask(t.Context(), http.DefaultClient, name, "x-trap", "1")
		if err != nil || a.status != http.StatusServiceUnavailable {
			t.Errorf("a request that makes %s trap: %v, %v", name, a, err)
		}
	}
	// With FAIL_CLOSE it is over, with FailOpen it is no longer asked, until the next edit.
	hit("trap-close")
	w.await(t, "trap-close", http.StatusServiceUnavailable)
	hit("trap-open")
	w.await(t, "trap-open", http.StatusOK)
	// By default a module is started anew.
	hit("trap")
	hit("trap-secret")
	for _, name := range []string{"trap", "trap-secret", "calm-secret"} {
		w.await(t, name, http.StatusOK, "trap")
	}
	w.apply(t, strings.Replace(closed, "is: ", "is: new-", 1), strings.Replace(open, "is: ", "is: new-", 1))
	for _, name := range all {
		w.await(t, name, http.StatusOK, "trap")
	}
}

// startless shows what becomes of an edit that brings a module which Envoy refuses: one that traps at its start, one that does
// not like its config, and one that is none. Each comes alone: Envoy takes of a response what it finds before the first thing
// that it refuses. That new routes of such a module are refused is shown by the case bad-wasm.
func startless(t *testing.T, w *world, tag []byte) {
	host := w.open.host()
	trapping := module(t, "testdata/trap.wat", begins+fine, begins+"\n    unreachable)")
	mended := module(t, "../testdata/tag.wat", "x-chain", "x-again")
	cases := []struct {
		name, repository string
		broken           []byte
		fields           []string
		open             bool
	}{
		{name: "start", repository: "start/traps", broken: trapping},
		{name: "start-open", repository: "start/open", broken: trapping, open: true},
		{name: "start-secret", repository: "private/start", broken: trapping, fields: []string{"imagePullSecret: right"}},
		{name: "start-config", repository: "start/config", broken: module(t, "testdata/trap.wat", configures+fine, configures+"\n    (i32.const 0))")},
		{name: "start-garbage", repository: "start/garbage", broken: append([]byte("\x00asm\x01\x00\x00\x00"), 1, 2, 3, 4)},
	}
	var versions []func(string) string
	for _, c := range cases {
		for version, m := range map[string][]byte{"good": tag, "broken": c.broken, "mended": mended} {
			w.open.push(t, c.repository+":"+version, m)
		}
		of := func(version string) string {
			p := plugin(c.name, "oci://"+host+"/"+c.repository+":"+version, c.fields...)
			if c.open {
				p = failOpen(p)
			}
			return p
		}
		w.apply(t, of("good"), controller.Route(c.name, c.name))
		versions = append(versions, of)
	}
	for _, c := range cases {
		w.await(t, c.name, http.StatusOK, is(c.name))
	}
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w.apply(t, versions[i]("broken"))
			w.awaitRejected(t, c.name)
			// The gateway keeps what it had, others get what they are to have.
			w.await(t, c.name, http.StatusOK, is(c.name))
			w.apply(t, lua("and "+c.name))
			w.await(t, "lua", http.StatusOK, "lua and "+c.name)

			w.apply(t, versions[i]("mended"))
			w.await(t, c.name, http.StatusOK, again+is(c.name))
			w.awaitProgrammed(t, c.name, "True", "Programmed", "")
			w.awaitProgrammed(t, "neighbour", "True", "Programmed", "")
		})
	}
	t.Run("the gateway restarts", func(t *testing.T) {
		w.apply(t, versions[0]("broken"))
		w.awaitRejected(t, cases[0].name)
		w.restartGateway(t)
		for name, ran := range map[string]string{"neighbour": is("neighbour"), "right": is("right"), "start-open": again + is("start-open")} {
			w.await(t, name, http.StatusOK, ran)
		}
		w.await(t, "http-missing", http.StatusForbidden)
		w.await(t, cases[0].name, http.StatusInternalServerError)
	})
}
