package wasm

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/registry"
)

// Whoever knows these may fetch from repositories below private/.
const user, password = "puller", "correct-horse-battery-staple"

// images is a registry of OCI images. It also serves what was pushed to <path> as a plain file, at /files/<path>.
type images struct {
	*httptest.Server

	mu      sync.Mutex
	files   map[string][]byte
	fetches map[string]int
}

// startRegistry starts a registry that ends with the test; start is that of an httptest.Server, with or without TLS.
func startRegistry(t *testing.T, start func(*httptest.Server)) *images {
	r := &images{files: map[string][]byte{}, fetches: map[string]int{}}
	quiet := log.New(io.Discard, "", 0)
	next := registry.New(registry.Logger(quiet))
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if path, ok := strings.CutPrefix(q.URL.Path, "/files/"); ok {
			r.serveFile(w, path)
			return
		}
		if name, pass, _ := q.BasicAuth(); strings.HasPrefix(q.URL.Path, "/v2/private/") && (name != user || pass != password) {
			// The agent wants the realm to be a URL that leads to no private address.
			w.Header().Set("WWW-Authenticate", `Basic realm="https://registry.test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if q.Method == http.MethodGet {
			r.count(q.URL.Path)
		}
		next.ServeHTTP(w, q)
	}))
	r.Config.ErrorLog = quiet // of clients that do not trust the certificate
	start(r.Server)
	t.Cleanup(r.Close)
	return r
}

func (r *images) count(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fetches[path]++
}

// asked is how often a path was asked for by those who may.
func (r *images) asked(path string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fetches[path]
}

func (r *images) serveFile(w http.ResponseWriter, path string) {
	r.count("/files/" + path)
	r.mu.Lock()
	module, ok := r.files[path]
	r.mu.Unlock()
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_, _ = w.Write(module)
}

// host of the registry, with its port.
func (r *images) host() string { return r.Listener.Addr().String() }

// push stores a module under repository:tag, and returns the digest of its manifest without `sha256:`.
func (r *images) push(t *testing.T, name string, module []byte) (digest string) {
	t.Helper()
	r.mu.Lock()
	r.files[name] = module
	r.mu.Unlock()
	image, err := crane.Image(map[string][]byte{"plugin.wasm": module})
	if err != nil {
		t.Fatal(err)
	}
	sum, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := crane.Push(image, r.host()+"/"+name, crane.WithAuth(&authn.Basic{Username: user, Password: password}), crane.WithTransport(r.Client().Transport)); err != nil {
		t.Fatal(err)
	}
	return sum.Hex
}
