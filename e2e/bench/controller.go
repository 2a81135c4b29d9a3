package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/istio-plugins/istio-plugins/e2e/controller"
)

const (
	// convergeTimeout bounds the time until the last of 10,000 VirtualServices runs its plugins.
	convergeTimeout = 10 * time.Minute
	// effectTimeout bounds the time until one edit is in effect.
	effectTimeout = 30 * time.Second
	// writers apply objects at the same time.
	writers = 8
	// ticksPerSecond is the unit of times in /proc, on every Linux.
	ticksPerSecond = 100
)

// edit is one change whose time to effect is measured.
type edit struct {
	name string
	// plugins and status of the nth time: what is annotated, and what the route answers with it.
	plugins func(n int) string
	status  func(n int) int
}

var edits = []edit{
	{"attach and detach key-auth, whose Lua other routes run",
		func(n int) string { return []string{"", "key-auth"}[n%2] },
		func(n int) int { return []int{200, 401}[n%2] }},
	{"edit a config",
		func(n int) string {
			return fmt.Sprintf("[{name: request-termination, config: {status_code: %d}}]", 400+n%2)
		},
		func(n int) int { return 400 + n%2 }},
	{"attach and detach an Envoy filter of its own",
		func(n int) string {
			return []string{"", "[{name: ip-restriction, config: {deny: [127.0.0.1]}}]"}[n%2]
		},
		func(n int) int { return []int{200, 403}[n%2] }},
}

// measureController prints, on the whole stack, how long it takes from the write of an annotation until the gateway does
// what it says, and what the controller needs for that.
func measureController(ctx context.Context, s setup) error {
	sizes, samples := []int{10, 1000, 3000, 10_000}, 40
	if s.short {
		sizes, samples = []int{10, 300}, 10
	}
	fmt.Printf("\nFrom an annotation to its effect (kube-apiserver, istiod, Envoy and controller on this machine; %d edits of each kind, in turn)\n", samples)
	fmt.Printf("  %-10s %-58s %10s %10s\n", "routes", "edit", "median", "p99")
	var needs []string
	for _, n := range sizes {
		need, err := controllerAt(ctx, s, n, samples)
		if err != nil {
			return fmt.Errorf("%d VirtualServices: %w", n, err)
		}
		needs = append(needs, need)
	}
	fmt.Printf("\nThe controller\n  %-10s %12s %14s %14s %16s\n%s", "routes", "memory", "CPU to start", "CPU per edit", "writes per edit", strings.Join(needs, ""))
	return nil
}

func controllerAt(ctx context.Context, s setup, n, samples int) (string, error) {
	dir, err := os.MkdirTemp(s.dir, "controller-")
	if err != nil {
		return "", err
	}
	bin, err := filepath.Abs(filepath.Dir(s.envoy))
	if err != nil {
		return "", err
	}
	b, err := controller.NewBed(ctx, controller.BedOptions{Bin: bin, Root: "..", Envoy: filepath.Base(s.envoy), Dir: dir})
	if err != nil {
		return "", err
	}
	defer b.Stop()
	group, groupContext := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	for i := range n {
		group.Go(func() error { return b.Apply(groupContext, controller.Route(fmt.Sprintf("route-%d", i), "key-auth")) })
	}
	if err := group.Wait(); err != nil {
		return "", err
	}
	c, err := b.Start(ctx)
	if err != nil {
		return "", err
	}
	defer c.Stop()
	if err := awaitStatus(ctx, b, convergeTimeout, fmt.Sprintf("route-%d.test", n-1), http.StatusUnauthorized); err != nil {
		return "", err
	}
	started, err := cpu(c.PID())
	if err != nil {
		return "", err
	}
	writes, err := c.Writes(ctx)
	if err != nil {
		return "", err
	}
	const host = "edited.test"
	took := make([][]time.Duration, len(edits))
	for i, e := range edits {
		// From a known state.
		if err := b.Apply(ctx, controller.Route("edited", e.plugins(0))); err != nil {
			return "", err
		}
		if err := awaitStatus(ctx, b, effectTimeout, host, e.status(0)); err != nil {
			return "", err
		}
		for k := 1; k <= samples; k++ {
			begin := time.Now()
			if err := b.Apply(ctx, controller.Route("edited", e.plugins(k))); err != nil {
				return "", err
			}
			if err := awaitStatus(ctx, b, effectTimeout, host, e.status(k)); err != nil {
				return "", err
			}
			took[i] = append(took[i], time.Since(begin))
		}
		slices.Sort(took[i])
		fmt.Printf("  %-10d %-58s %7d ms %7d ms\n", n, e.name, took[i][samples/2].Milliseconds(), took[i][samples*99/100].Milliseconds())
	}
	ended, err := cpu(c.PID())
	if err != nil {
		return "", err
	}
	written, err := c.Writes(ctx)
	if err != nil {
		return "", err
	}
	memory, err := resident(c.PID())
	if err != nil {
		return "", err
	}
	done := len(edits) * (samples + 1)
	return fmt.Sprintf("  %-10d %9d MB %12.1f s %11.1f ms %16.1f\n", n, memory>>20, started.Seconds(),
		1000*(ended-started).Seconds()/float64(done), float64(written-writes)/float64(done)), nil
}

func awaitStatus(ctx context.Context, b *controller.Bed, timeout time.Duration, host string, status int) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return b.Await(ctx, host, status)
}

// cpu is the time that a process has run, resident the memory that it has.
func cpu(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may hold blanks. utime and stime are the 12th and 13th fields behind it.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	sum := 0
	for _, f := range fields[11:13] {
		ticks, err := strconv.Atoi(f)
		if err != nil {
			return 0, err
		}
		sum += ticks
	}
	return time.Duration(sum) * time.Second / ticksPerSecond, nil
}

func resident(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	return pages * os.Getpagesize(), err
}
