package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/istio-plugins/istio-plugins/e2e/loopback"
	"github.com/istio-plugins/istio-plugins/e2e/process"
)

const (
	// startTimeout bounds the start of an Envoy; what takes long is istiod's generation of 10,000 patched virtual hosts.
	startTimeout = 5 * time.Minute
	stopGrace    = 10 * time.Second
	// settleTimeout bounds the wait until the memory stays as it is.
	settleTimeout = 20 * time.Second
	// settleEvery is the time between two looks, and settled how many equal ones are enough.
	settleEvery = 200 * time.Millisecond
	settled     = 3
)

//go:embed bootstrap.json
var bootstrapText string

var bootstrap = template.Must(template.New("bootstrap.json").Parse(bootstrapText))

// envoy is a gateway with one worker, so that what a request costs is the work of one thread, and what a filter holds
// for each worker is there once.
type envoy struct {
	admin   string
	process *process.Process
}

// startEnvoy returns when the gateway has its listeners with all they wait for: routes, tables and certificates.
func startEnvoy(ctx context.Context, s setup, xds string) (*envoy, error) {
	host, port, err := net.SplitHostPort(xds)
	if err != nil {
		return nil, err
	}
	admin := loopback.Port()
	var text bytes.Buffer
	if err := bootstrap.Execute(&text, map[string]any{"AdminPort": admin, "XDSHost": host, "XDSPort": port}); err != nil {
		return nil, err
	}
	name := filepath.Join(s.dir, fmt.Sprintf("envoy-%d", admin))
	if err := os.WriteFile(name+".json", text.Bytes(), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(s.envoy, "-c", name+".json", "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning")
	p, err := process.Start("envoy", name+".log", cmd, false)
	if err != nil {
		return nil, err
	}
	e := &envoy{admin: "http://" + loopback.Address(admin), process: p}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := p.Await(ctx, func(ctx context.Context) error { _, err := e.get(ctx, "/ready"); return err }); err != nil {
		p.Kill()
		return nil, err
	}
	return e, nil
}

func (e *envoy) stop() { e.process.Stop(stopGrace) }

func (e *envoy) get(ctx context.Context, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.admin+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, text)
	}
	return text, err
}

// rejected is why Envoy did not take an update; nil if it took all.
func (e *envoy) rejected(ctx context.Context) error {
	text, err := e.get(ctx, `/stats?usedonly&filter=(update_rejected|config_fail|init_fetch_timeout)$`)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if !strings.HasSuffix(strings.TrimSpace(line), ": 0") {
			log, _ := os.ReadFile(e.process.LogFile)
			return fmt.Errorf("envoy has not taken all of istiod's configuration, %s:\n%s", strings.TrimSpace(line), log[max(0, len(log)-2000):])
		}
	}
	return nil
}

// clockTick is the unit of CPU time in /proc; it is the same on all of Linux's usual platforms (USER_HZ).
const clockTick = 10 * time.Millisecond

// cpu is the time that the process has used so far, in user space and in the kernel.
func (e *envoy) cpu() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", e.process.PID()))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name, which may hold blanks and ends with the last bracket.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(fields[12])
	return time.Duration(user+system) * clockTick, err
}

// usage is an Envoy's memory: what it has allocated, and what the kernel has given to it, which includes what an update
// needed for a moment.
type usage struct{ allocated, resident float64 }

// memory waits until the allocated memory stays the same: workers take a new configuration a little after the main thread.
func (e *envoy) memory(ctx context.Context) (usage, error) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	last, same := 0.0, 0
	for {
		now, err := e.allocated(ctx)
		if err != nil {
			return usage{}, err
		}
		if now > last*0.999 && now < last*1.001 {
			same++
		} else {
			same = 0
		}
		if same == settled {
			resident, err := e.resident()
			return usage{allocated: now, resident: resident}, err
		}
		last = now
		select {
		case <-ctx.Done():
			return usage{}, fmt.Errorf("envoy's memory does not settle: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

func (e *envoy) allocated(ctx context.Context) (float64, error) {
	text, err := e.get(ctx, "/memory")
	if err != nil {
		return 0, err
	}
	var answer struct {
		Allocated float64 `json:"allocated,string"`
	}
	return answer.Allocated, json.Unmarshal(text, &answer)
}

func (e *envoy) resident() (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", e.process.PID()))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	return float64(pages * os.Getpagesize()), err
}
