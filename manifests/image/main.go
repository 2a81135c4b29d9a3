// Command image packs the program into an OCI image, without Docker: a tar file with an OCI layout, which podman, ctr,
// skopeo and new versions of Docker read. The same program gives the same bytes.
package main

import (
	"archive/tar"
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	// user is the nobody of distroless images. It is a number, so that Kubernetes can tell that it is not root.
	user = "65532:65532"
	// entrypoint is the only file of the image.
	entrypoint = "/istio-plugins"
)

func main() {
	program := flag.String("program", ".bin/istio-plugins", "the program, linked statically")
	name := flag.String("name", "istio-plugins:dev", "name of the image")
	output := flag.String("output", "", "the tar file to write")
	flag.Parse()
	if err := run(*program, *name, *output); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(program, name, output string) error {
	image, err := pack(program)
	if err != nil {
		return err
	}
	file, err := os.Create(output)
	if err != nil {
		return err
	}
	if err := write(file, image, name); err != nil {
		return errors.Join(err, file.Close(), os.Remove(output))
	}
	return file.Close()
}

// pack makes the image of a program.
func pack(program string) (v1.Image, error) {
	binary, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	if err := static(binary); err != nil {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	layer, err := layerOf(binary)
	if err != nil {
		return nil, err
	}
	// Only commits have a time; without one it is that of Unix, since every clock would give another image.
	created, err := time.Parse(time.RFC3339, setting(info, "vcs.time"))
	if err != nil {
		created = time.Unix(0, 0).UTC()
	}
	image, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), mutate.Addendum{
		Layer:     layer,
		MediaType: types.OCILayer,
		History:   v1.History{Created: v1.Time{Time: created}, CreatedBy: "make image"},
	})
	if err != nil {
		return nil, err
	}
	image = mutate.ConfigMediaType(image, types.OCIConfigJSON)
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", setting(info, "GOARCH")
	config.Created = v1.Time{Time: created}
	config.Config = v1.Config{User: user, Entrypoint: []string{entrypoint}, Labels: map[string]string{
		"org.opencontainers.image.title":       "istio-plugins",
		"org.opencontainers.image.description": "Plugins for Istio's gateways, by annotation",
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.version":     info.Main.Version,
		"org.opencontainers.image.revision":    setting(info, "vcs.revision"),
	}}
	return mutate.ConfigFile(image, config)
}

// static says why the program does not run where there is no other file.
func static(binary []byte) error {
	file, err := elf.NewFile(bytes.NewReader(binary))
	if err != nil {
		return err
	}
	if slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return errors.New("it needs a dynamic linker, which the image does not have; build it with CGO_ENABLED=0")
	}
	return nil
}

func setting(info *debug.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

// layerOf holds the program alone. It needs no certificates of authorities: it talks to the API server and to istiod, whose
// authorities are in the cluster.
func layerOf(binary []byte) (v1.Layer, error) {
	var files bytes.Buffer
	archive := tar.NewWriter(&files)
	if err := add(archive, entrypoint[1:], 0o755, binary); err != nil {
		return nil, err
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(files.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
}

// add writes a file that has neither owner nor time.
func add(archive *tar.Writer, name string, mode int64, content []byte) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content)), Format: tar.FormatUSTAR}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := archive.Write(content)
	return err
}

// write writes the image's layout as a tar file.
func write(w io.Writer, image v1.Image, name string) error {
	dir, err := os.MkdirTemp("", "istio-plugins-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	index, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	if err := index.AppendImage(image, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": name})); err != nil {
		return err
	}
	archive := tar.NewWriter(w)
	// Folders are walked in the order of names.
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		inside, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		return add(archive, filepath.ToSlash(inside), 0o644, content)
	})
	return errors.Join(err, archive.Close())
}
