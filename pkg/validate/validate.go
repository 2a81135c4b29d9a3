// Package validate asks a real Envoy whether it takes what a compilation emits. Envoy's own checks go beyond what its
// protos say (format strings, intervals, combinations of fields), and a gateway that refuses one entry of a table keeps
// the whole table as it was, so what Envoy refuses is worth knowing before it is applied. Wasm modules are not looked
// at: the gateway's agent fetches them. The one entry point is Check.
package validate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// timeout of one run. Envoy needs some 30 ms for a small configuration, and a few seconds for the largest.
const timeout = time.Minute

// Check has the Envoy at path validate the filters of all objects, and reports what it refuses on what caused it. An
// error means that Envoy could not be asked.
func Check(ctx context.Context, path string, s *snapshot.Snapshot, r *compile.Result) ([]finding.Finding, error) {
	e, err := newEnvoy(ctx, path)
	if err != nil {
		return nil, err
	}
	all, err := items(r)
	if err != nil {
		return nil, err
	}
	refused, err := e.refused(ctx, all)
	if err != nil {
		return nil, err
	}
	var out []finding.Finding
	for _, x := range refused {
		if secret(x.item, r) {
			x.message = "its words are not shown, since they may quote values from Secrets"
		}
		out = append(out, report(e.version, x, s))
	}
	return finding.Sort(out), nil
}

// secret says whether there may be values from Secrets in an item.
func secret(x item, r *compile.Result) bool {
	return slices.ContainsFunc(r.Plugins, func(u compile.PluginUse) bool {
		return u.Secrets && (x.whole || slices.ContainsFunc(x.causes, func(c compile.Cause) bool { return c.Object == u.Object }))
	})
}

// refusal is an item that Envoy does not take, and its words.
type refusal struct {
	item
	message string
}

func report(version string, x refusal, s *snapshot.Snapshot) finding.Finding {
	f := finding.Finding{
		Reason:  finding.InvalidEnvoyConfig,
		Problem: fmt.Sprintf("Envoy %s refuses it: %s", version, x.message),
		Traffic: "a gateway that gets it keeps the whole table in which it is as it was, also for other routes",
		Remedy:  "correct it before it is applied",
	}
	for i, c := range x.causes {
		if i == 0 {
			f.Object, f.Place = c.Object, c.Place
			continue
		}
		f.Related = append(f.Related, c.Object)
	}
	f.Source = s.Where(f.Object, f.Place)
	return f
}

// envoy is a program that validates.
type envoy struct{ path, version string }

var versionOf = regexp.MustCompile(`/(\d+\.\d+\.\d+[^/]*)/`)

func newEnvoy(ctx context.Context, path string) (*envoy, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	path, err := exec.LookPath(path)
	if err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("%s does not run: %w", path, err)
	}
	found := versionOf.FindSubmatch(out)
	if found == nil {
		return nil, fmt.Errorf("%s is no Envoy: its --version says %q", path, bytes.TrimSpace(out))
	}
	return &envoy{path, string(found[1])}, nil
}

// refused finds the items that Envoy does not take, by halving: a run for each item would take minutes for a large
// gateway, and nearly always nothing is wrong.
func (e *envoy) refused(ctx context.Context, items []item) ([]refusal, error) {
	if len(items) == 0 {
		return nil, nil
	}
	message, err := e.run(ctx, items)
	switch {
	case err != nil || message == "":
		return nil, err
	case len(items) == 1:
		return []refusal{{items[0], message}}, nil
	}
	left, err := e.refused(ctx, items[:len(items)/2])
	if err != nil {
		return nil, err
	}
	right, err := e.refused(ctx, items[len(items)/2:])
	if err != nil {
		return nil, err
	}
	if len(left)+len(right) == 0 {
		return nil, fmt.Errorf("envoy %s refuses %d filters together and each half alone not", e.version, len(items))
	}
	return append(left, right...), nil
}

// run validates items and returns Envoy's complaint, or nothing.
func (e *envoy) run(ctx context.Context, items []item) (string, error) {
	dir, err := os.MkdirTemp("", "istio-plugins-validate-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	text, err := protojson.Marshal(static(items))
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "envoy.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	command := exec.CommandContext(ctx, e.path, "--mode", "validate", "-c", file, "-l", "critical", "--log-format", "%v")
	var stderr bytes.Buffer
	command.Stderr = &stderr
	err = command.Run()
	var exited *exec.ExitError
	switch {
	case err == nil:
		return "", nil
	case ctx.Err() != nil:
		return "", fmt.Errorf("envoy %s did not answer: %w", e.version, ctx.Err())
	case !errors.As(err, &exited) || !exited.Exited():
		return "", fmt.Errorf("envoy %s failed: %w: %s", e.version, err, complaint(stderr.String()))
	}
	return complaint(stderr.String()), nil
}

var initializing = regexp.MustCompile(`^error initializing configuration '[^']*': `)

// complaint is Envoy's message on one line, without the name of a file that is gone.
func complaint(stderr string) string {
	text := strings.Join(strings.Fields(initializing.ReplaceAllString(strings.TrimSpace(stderr), "")), " ")
	if text == "" {
		return "it says nothing about why"
	}
	return text
}
