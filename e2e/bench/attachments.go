package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"strings"

	"istio.io/istio/pkg/test"

	"github.com/istio-plugins/istio-plugins/e2e/loopback"
)

// measureAttachments prints what a gateway's memory grows by with the number of routes that a built-in is attached to.
func measureAttachments(ctx context.Context, s setup) error {
	sizes := []int{1, 100, 10_000}
	if s.short {
		sizes = []int{1, 100, 1000}
	}
	cases, err := builtinCases()
	if err != nil {
		return err
	}
	for _, n := range sizes {
		if err := attachmentTable(ctx, s, n, cases); err != nil {
			return fmt.Errorf("%d attachments: %w", n, err)
		}
	}
	return nil
}

func attachmentTable(ctx context.Context, s setup, n int, cases []builtinCase) error {
	out := &table{
		title: fmt.Sprintf("Envoy, memory with %d attachments of one built-in (%s)", n, filepath.Base(s.envoy)),
		method: "one worker, a new process for each row; allocated: by Envoy itself, which does not see Lua's VMs; " +
			"resident: by the kernel, after a request to every route",
		columns: []string{"", "allocated", "to the first", "each", "resident", "to the first", "each"},
	}
	var first usage
	add := func(name string, c builtinCase, annotation func(route int) string) error {
		u, err := weighAttached(ctx, s, n, c, annotation)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if len(out.rows) == 0 {
			first = u
		}
		allocated, resident := u.allocated-first.allocated, u.resident-first.resident
		out.add(name, megabytes(u.allocated), more(allocated), each(allocated, n), megabytes(u.resident), more(resident), each(resident, n))
		return nil
	}
	if err := add("no plugins", builtinCase{name: "none"}, nil); err != nil {
		return err
	}
	for _, c := range cases {
		if c.Own == nil {
			continue
		}
		shared := c.annotation(c.config())
		if err := add(c.name, c, func(int) string { return shared }); err != nil {
			return err
		}
		if err := add(c.name+", configs per route", c, c.ownAnnotation); err != nil {
			return err
		}
	}
	out.print()
	return nil
}

func each(bytes float64, n int) string { return fmt.Sprintf("%.2f kB", bytes/1e3/float64(n)) }

// ownAnnotation attaches the plugin with a config that no other route has.
func (c builtinCase) ownAnnotation(route int) string {
	config := c.config()
	maps.Copy(config, c.Own)
	return strings.ReplaceAll(c.annotation(config), "%d", fmt.Sprint(route))
}

// weighAttached is the memory of a gateway after each of its n routes has been used: allocated by its configuration, and in all.
func weighAttached(ctx context.Context, s setup, n int, c builtinCase, annotation func(route int) string) (u usage, err error) {
	failed := test.Wrap(func(t test.Failer) { u, err = weighServed(ctx, t, s, n, c, annotation) }) // istiod ends with it
	if failed != nil {
		err = failed
	}
	return u, err
}

func weighServed(ctx context.Context, t test.Failer, s setup, n int, c builtinCase, annotation func(route int) string) (usage, error) {
	port := loopback.Port()
	w, err := newBuiltinWorld(1, port) // No case with an own config calls a service.
	if err != nil {
		return usage{}, err
	}
	c.Route = nil
	host := func(route int) string { return fmt.Sprintf("route-%d.test", route) }
	for route := range n {
		text := ""
		if annotation != nil {
			text = annotation(route)
		}
		if err := w.add(c, host(route), text, nil); err != nil {
			return usage{}, err
		}
	}
	configs, err := w.configs(annotation != nil)
	if err != nil {
		return usage{}, err
	}
	e, err := startServed(ctx, t, s, configs)
	if err != nil {
		return usage{}, err
	}
	fresh, err := e.memory(ctx)
	if err != nil {
		return usage{}, err
	}
	for route := range n {
		if err := c.Request.use(ctx, port, host(route)); err != nil {
			return usage{}, err
		}
	}
	used, err := e.memory(ctx)
	return usage{allocated: fresh.allocated, resident: used.resident}, err
}

// use sends the request, which has to succeed.
func (r request) use(ctx context.Context, port int, host string) error {
	sent, err := r.to(ctx, port, host)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(sent)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s answers %s", host, response.Status)
	}
	return nil
}
