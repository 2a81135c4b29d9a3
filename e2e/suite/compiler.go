package suite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// Compiler is the project's own program.
type Compiler string

// findingsExit is the exit code of `istio-plugins compile` when objects were compiled and some have errors.
const findingsExit = 1

// Compile returns the generated objects and the findings' text.
func (c Compiler) Compile(ctx context.Context, flags []string, objects []*unstructured.Unstructured) ([]*unstructured.Unstructured, string, error) {
	input, err := Print(objects)
	if err != nil {
		return nil, "", err
	}
	cmd := exec.CommandContext(ctx, string(c), append([]string{"compile", "-f", "-"}, flags...)...)
	var output, findings bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &output, &findings
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != findingsExit) {
		return nil, "", fmt.Errorf("istio-plugins compile: %w: %s", err, findings.Bytes())
	}
	generated, err := Parse(output.Bytes())
	return generated, findings.String(), err
}

// Print writes the objects as YAML documents.
func Print(objects []*unstructured.Unstructured) ([]byte, error) {
	var text bytes.Buffer
	for _, object := range objects {
		document, err := yaml.Marshal(object.Object)
		if err != nil {
			return nil, err
		}
		text.WriteString("---\n")
		text.Write(document)
	}
	return text.Bytes(), nil
}
