// Command conformance proves that the tests of the built-in plugins cover every documented field, and counts them.
//
// A case is a test, or the innermost subtest, that passes on a running Envoy. A field is covered when some case depends on
// its value: the tests whose configs have the field are run again with another value in its place (catalogtest.Change), and
// one that is a case must then fail. So no case counts for a field that is only there, or whose effect nobody looks at.
//
// It runs the tests of the package of each plugin of the catalog, so that a new plugin needs nothing here.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/istio-plugins/istio-plugins/pkg/catalog"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
)

func main() {
	only := flag.String("plugin", "", "the one plugin to look at; all without it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *only); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only string) error {
	if _, known := catalog.Find(only); only != "" && !known {
		return fmt.Errorf("there is no built-in plugin %q", only)
	}
	dir, err := os.MkdirTemp("", "conformance")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	plugins, fields, cases, uncovered := 0, 0, map[string]int{}, 0
	for _, b := range catalog.All() {
		if only != "" && b.Name != only {
			continue
		}
		r, err := look(ctx, b, dir)
		if err != nil {
			return fmt.Errorf("%s: %w", b.Name, err)
		}
		fmt.Printf("%-22s %2d fields, %s\n", b.Name, r.fields, counts(r.cases))
		for _, field := range r.uncovered {
			fmt.Printf("  no case depends on %s\n", field)
		}
		plugins, fields, uncovered = plugins+1, fields+r.fields, uncovered+len(r.uncovered)
		for version, n := range r.cases {
			cases[version] += n
		}
	}
	fmt.Printf("conformance: %d plugins, %d fields, %s\n", plugins, fields, counts(cases))
	if uncovered > 0 {
		return fmt.Errorf("%d fields without a case", uncovered)
	}
	return nil
}

func counts(cases map[string]int) string {
	var words []string
	for _, version := range envoytest.Versions {
		words = append(words, fmt.Sprintf("%d cases on Envoy %s", cases[version], version))
	}
	return strings.Join(words, ", ")
}

// report is what is known of a plugin.
type report struct {
	fields    int
	uncovered []string
	// cases by version of Envoy.
	cases map[string]int
}

// attempts is how often the tests of a field may pass with a wrong value before it counts as one without a case.
const attempts = 3

// look runs the tests of a plugin, once as they are and once for each field.
func look(ctx context.Context, b *builtin.Builtin, dir string) (report, error) {
	folder := filepath.Join("pkg", "catalog", strings.ReplaceAll(b.Name, "-", ""))
	p := tests{program: filepath.Join(dir, b.Name), dir: folder}
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", p.program, "./"+folder)
	if text, err := build.CombinedOutput(); err != nil {
		return report{}, fmt.Errorf("%w: %s", err, text)
	}
	plain, err := p.run(ctx, catalogtest.Change{})
	if err != nil {
		return report{}, err
	}
	r := report{cases: plain.cases}
	fields := documented(b)
	r.fields = len(fields)
	covered := make([]bool, len(fields))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, field := range fields {
		group.Go(func() error {
			allowed := values(field)
			change := catalogtest.Change{Plugin: b.Name, Field: field.Path}
			var used []any
			var names []string
			for _, use := range plain.uses {
				if values := use.values(change); len(values) > 0 {
					used = append(used, values...)
					names = append(names, use.test)
				}
			}
			change.Values = append(slices.Clone(allowed), distinct(used)...)
			slices.Sort(names)
			names = slices.Compact(names)
			if len(names) == 0 {
				return nil
			}
			// A race that a wrong value may win is lost the next time.
			for n := 0; n < attempts && !covered[i]; n++ {
				changed, err := p.run(ctx, change, names...)
				if err != nil {
					return err
				}
				// Where all values but one of a list are refused there is nothing that a case could depend on.
				covered[i] = len(changed.failed) > 0 || len(allowed) > 0 && !changed.changed
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return report{}, err
	}
	for i, field := range fields {
		if !covered[i] {
			r.uncovered = append(r.uncovered, field.Path)
		}
	}
	return r, nil
}

// distinct are values in an order of their own, since tests run side by side.
func distinct(values []any) []any {
	byText := map[string]any{}
	for _, v := range values {
		text, err := json.Marshal(v)
		if err != nil {
			panic(err) // it was JSON
		}
		byText[string(text)] = v
	}
	var out []any
	for _, text := range slices.Sorted(maps.Keys(byText)) {
		out = append(out, byText[text])
	}
	return out
}

// documented are the fields of a plugin that have a value of their own: a map is what its fields are.
func documented(b *builtin.Builtin) []builtin.Field {
	byPath := map[string]builtin.Field{}
	for _, f := range b.Schema.Fields() {
		byPath[f.Path] = f
	}
	var fields []builtin.Field
	for _, path := range slices.Sorted(maps.Keys(byPath)) {
		inner := func(f builtin.Field) bool {
			return strings.HasPrefix(f.Path, path+".") || strings.HasPrefix(f.Path, path+"[].")
		}
		if !slices.ContainsFunc(b.Schema.Fields(), inner) {
			fields = append(fields, byPath[path])
		}
	}
	return fields
}

// values are those that a field may have, where it documents each of them.
func values(f builtin.Field) []any {
	var all []any
	for i, word := range strings.Split(f.Type, "`") {
		if i%2 == 1 {
			all = append(all, word)
		}
	}
	return all
}

// tests are the compiled tests of a package.
type tests struct{ program, dir string }

// results of a run.
type results struct {
	// cases that passed, by version of Envoy.
	cases map[string]int
	// failed are cases that failed.
	failed []string
	uses   []use
	// changed says that some config was a changed one.
	changed bool
}

// use is a config that a test used.
type use struct {
	// test is the name of the outermost test.
	test string
	catalogtest.Config
}

// values are those of the field in the config.
func (u use) values(c catalogtest.Change) []any {
	if u.Plugin != c.Plugin {
		return nil
	}
	return c.ValuesIn(u.Config.Config)
}

// run runs tests, all without names.
func (p tests) run(ctx context.Context, change catalogtest.Change, names ...string) (results, error) {
	asked, err := json.Marshal(change)
	if err != nil {
		return results{}, err
	}
	arguments := []string{"tool", "test2json", p.program, "-test.v=test2json", "-test.timeout=5m"}
	if len(names) > 0 {
		// One Envoy is enough to see a case fail.
		others := envoytest.Versions[:len(envoytest.Versions)-1]
		arguments = append(arguments, "-test.run", "^("+strings.Join(names, "|")+")$", "-test.skip", "/^("+strings.Join(others, "|")+")$")
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	command := exec.CommandContext(ctx, "go", arguments...)
	command.Dir = p.dir
	command.Env = append(os.Environ(), catalogtest.Conformance+"="+string(asked), "TMPDIR="+filepath.Dir(p.program))
	// The tests are a process of test2json, which is one of go.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	events, err := command.StdoutPipe()
	if err != nil {
		return results{}, err
	}
	if err := command.Start(); err != nil {
		return results{}, err
	}
	changed := change.Plugin != ""
	r, err := read(events, changed)
	if changed {
		// Tests that wait for what does not come would take long.
		stop()
	}
	if ended := command.Wait(); ended != nil && !changed {
		err = fmt.Errorf("go test ./%s: %w", p.dir, ended)
	}
	return r, err
}

// event is one of test2json.
type event struct{ Action, Test, Output string }

// read reads events to their end, or to the first case that fails.
func read(text io.Reader, firstFailure bool) (results, error) {
	r := results{cases: map[string]int{}}
	ended, output, hasSubtests := map[string]string{}, map[string]string{}, map[string]bool{}
	onEnvoy := func(test string) bool {
		for ; strings.Contains(test, "/"); test = parent(test) {
			if strings.Contains(output[test], envoytest.VersionLine) {
				return true
			}
		}
		return strings.Contains(output[test], envoytest.VersionLine)
	}
	events := json.NewDecoder(text)
	for failed := false; !failed && events.More(); {
		var e event
		if err := events.Decode(&e); err != nil {
			return r, err
		}
		switch e.Action {
		case "run":
			for at := e.Test; strings.Contains(at, "/"); {
				at = parent(at)
				hasSubtests[at] = true
			}
		case "pass", "fail":
			ended[e.Test] = e.Action
			failed = firstFailure && e.Action == "fail" && onEnvoy(e.Test)
		case "output":
			output[e.Test] += e.Output // a long line comes in pieces
		}
	}
	envoys := map[string][]string{}
	for _, test := range slices.Sorted(maps.Keys(output)) {
		for line := range strings.Lines(output[test]) {
			if _, version, ok := strings.Cut(line, envoytest.VersionLine); ok {
				envoys[test] = append(envoys[test], strings.TrimSpace(version))
			}
			r.changed = r.changed || strings.Contains(line, catalogtest.ChangedLine)
			if _, config, ok := strings.Cut(line, catalogtest.ConfigLine); ok {
				u := use{}
				u.test, _, _ = strings.Cut(test, "/")
				d := json.NewDecoder(strings.NewReader(config))
				d.UseNumber()
				if err := d.Decode(&u.Config); err != nil {
					return r, fmt.Errorf("%w: %s", err, line)
				}
				r.uses = append(r.uses, u)
			}
		}
	}
	// What starts no Envoy is of no interest.
	outermost := map[string]bool{}
	for test := range envoys {
		name, _, _ := strings.Cut(test, "/")
		outermost[name] = true
	}
	r.uses = slices.DeleteFunc(r.uses, func(u use) bool { return !outermost[u.test] })
	failedWithin := map[string]bool{}
	for test, action := range ended {
		for at := test; action == "fail" && strings.Contains(at, "/"); {
			at = parent(at)
			failedWithin[at] = true
		}
	}
	for _, test := range slices.Sorted(maps.Keys(ended)) {
		versions := envoys[test]
		for at := test; len(versions) == 0 && strings.Contains(at, "/"); {
			at = parent(at)
			versions = envoys[at]
		}
		if ended[test] == "fail" {
			if len(versions) > 0 && !failedWithin[test] {
				r.failed = append(r.failed, test)
			}
			continue
		}
		slices.Sort(versions)
		for _, version := range slices.Compact(slices.Clone(versions)) {
			if !hasSubtests[test] {
				r.cases[version]++
			}
		}
	}
	return r, nil
}

func parent(test string) string { return test[:strings.LastIndex(test, "/")] }
