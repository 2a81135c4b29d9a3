package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// Stdin is the path that stands for the standard input.
const Stdin = "-"

// Load reads files, folders and, for the path "-", stdin. Objects without a namespace are in namespace, or in
// "default" if that is empty. The errors name file and line, all of them at once.
func Load(opts snapshot.Options, namespace string, paths []string, stdin io.Reader) (*snapshot.Snapshot, error) {
	if namespace == "" {
		namespace = "default"
	}
	l := loader{
		namespace: namespace,
		snapshot:  &snapshot.Snapshot{Options: opts.Defaults(), Sources: map[finding.Object]snapshot.Source{}},
	}
	files, err := list(paths)
	errs := []error{err}
	for _, file := range files {
		name, text, err := read(file, stdin)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, l.load(name, text)...)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	l.judgeOthers()
	return l.snapshot, nil
}

// loader collects the objects of one Load.
type loader struct {
	namespace string
	snapshot  *snapshot.Snapshot
	// others are malformed Secrets that are no credentials. They matter only if a Plugin names them.
	others []snapshot.Malformed
}

func (l *loader) judgeOthers() {
	if len(l.others) == 0 {
		return
	}
	named := resolve.SecretNames(l.snapshot)
	for _, m := range l.others {
		if slices.Contains(named, types.NamespacedName{Namespace: m.Object.Namespace, Name: m.Object.Name}) {
			l.snapshot.Malformed = append(l.snapshot.Malformed, m)
		} else {
			l.snapshot.Unlabelled = append(l.snapshot.Unlabelled, m.Object)
		}
	}
}

// load adds all objects of one file.
func (l *loader) load(name string, text []byte) []error {
	var errs []error
	for _, c := range split(text) {
		objects, err := c.objects()
		for _, o := range objects {
			if err := l.add(name, o); err != nil {
				errs = append(errs, err)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%w", name, err))
		}
	}
	return errs
}

// list expands folders to their files, in order, and names each file once.
func list(paths []string) ([]string, error) {
	var files []string
	var errs []error
	for _, path := range paths {
		if path == Stdin {
			files = append(files, path)
			continue
		}
		info, err := os.Stat(path)
		switch {
		case err != nil:
			errs = append(errs, err)
		case info.IsDir():
			inside, err := walk(path)
			files, errs = append(files, inside...), append(errs, err)
		default:
			files = append(files, filepath.Clean(path))
		}
	}
	var once []string
	for _, file := range files {
		if !slices.Contains(once, file) {
			once = append(once, file)
		}
	}
	return once, errors.Join(errs...)
}

// walk lists the YAML and JSON files below a folder. A folder without any is an error, since it is probably the wrong
// one and the result would be silence.
func walk(folder string) ([]string, error) {
	var files []string
	root := folder + string(filepath.Separator) // with it a link to a folder is followed
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && strings.HasPrefix(entry.Name(), "."):
			return filepath.SkipDir
		case entry.IsDir():
			return nil
		}
		switch filepath.Ext(path) {
		case ".yaml", ".yml", ".json":
			files = append(files, path)
		}
		return nil
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s: there is no *.yaml, *.yml or *.json file in this folder", folder)
	}
	return files, err
}

// read returns a file's content and its name for messages.
func read(path string, stdin io.Reader) (string, []byte, error) {
	if path == Stdin {
		text, err := io.ReadAll(stdin)
		if err != nil {
			return "", nil, fmt.Errorf("stdin: %w", err)
		}
		return "stdin", text, nil
	}
	text, err := os.ReadFile(path)
	return path, text, err
}
