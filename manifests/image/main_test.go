package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// build makes a small program without a dynamic linker.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	source, program := filepath.Join(dir, "main.go"), filepath.Join(dir, "program")
	if err := os.WriteFile(source, []byte(`package main; import "os"; func main() { os.Stdout.WriteString("it runs") }`), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", program, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

func TestImage(t *testing.T) {
	program := build(t)
	first, second := filepath.Join(t.TempDir(), "image.tar"), filepath.Join(t.TempDir(), "image.tar")
	for _, file := range []string{first, second} {
		if err := run(program, "istio-plugins:test", file); err != nil {
			t.Fatal(err)
		}
	}
	same, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(second); err != nil || !bytes.Equal(same, again) {
		t.Errorf("the same program gives another image, %v", err)
	}
	image := read(t, first)
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != "65532:65532" || config.OS != "linux" || config.Architecture == "" {
		t.Errorf("the image's config is %+v", config)
	}
	// As a container runs it: alone, and as nobody.
	root := unpack(t, image)
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, config.Config.Entrypoint[0]))
	cmd.Env = []string{}
	if os.Getuid() == 0 { // others may not change the root
		cmd.Path, cmd.Dir = config.Config.Entrypoint[0], "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
	}
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "it runs" {
		t.Errorf("it does not run: %v: %s", err, out)
	}
}

// TestRefuses: what would not run is not packed.
func TestRefuses(t *testing.T) {
	dynamic, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	output := filepath.Join(t.TempDir(), "image.tar")
	for _, c := range []struct{ program, problem string }{
		{dynamic, "it needs a dynamic linker"},
		{"main.go", "bad magic number"},
		{"missing", "no such file"},
	} {
		if err := run(c.program, "istio-plugins:test", output); err == nil || !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s: %v, not: %s", c.program, err, c.problem)
		}
	}
	if _, err := os.Stat(output); err == nil {
		t.Error("an image was written nevertheless")
	}
}

// read reads the only image of a layout in a tar file.
func read(t *testing.T, file string) v1.Image {
	t.Helper()
	archive, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	index, err := layout.ImageIndexFromPath(extract(t, archive))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	only := manifest.Manifests[0]
	if name := only.Annotations["org.opencontainers.image.ref.name"]; len(manifest.Manifests) != 1 || name != "istio-plugins:test" {
		t.Errorf("the layout holds %d images, the first is %q", len(manifest.Manifests), name)
	}
	image, err := index.Image(only.Digest)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// unpack returns a folder with the image's files, which anybody may run.
func unpack(t *testing.T, image v1.Image) string {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	if len(layers) != 1 {
		t.Fatalf("there are %d layers", len(layers))
	}
	files, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	return extract(t, files)
}

func extract(t *testing.T, r io.Reader) string {
	t.Helper()
	dir := t.TempDir()
	archive := tar.NewReader(r)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, header.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, header.FileInfo().Mode()); err != nil {
			t.Fatal(err)
		}
	}
}
