package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
)

const (
	// rootNamespace is Istio's own.
	rootNamespace = "istio-system"
	// fieldManager is the owner of what Apply writes.
	fieldManager = "istio-plugins-e2e"
	// pollEvery is the time between two looks whether a kind is served.
	pollEvery = 50 * time.Millisecond
)

// Apply writes the objects by server-side apply, each in a namespace that is made if need be.
func (s *Stack) Apply(ctx context.Context, objects []*unstructured.Unstructured) error {
	for _, object := range objects {
		if err := s.ensureNamespace(ctx, object.GetNamespace()); err != nil {
			return err
		}
		if err := s.apply(ctx, object); err != nil {
			return fmt.Errorf("apply %s %s/%s: %w", object.GetKind(), object.GetNamespace(), object.GetName(), err)
		}
	}
	return nil
}

// Delete removes the objects that are there. Namespaces stay: it takes kube-controller-manager to remove one.
func (s *Stack) Delete(ctx context.Context, objects []*unstructured.Unstructured) error {
	for _, object := range objects {
		if object.GetKind() == "Namespace" {
			continue
		}
		resource, err := s.resource(object)
		if err != nil {
			return err
		}
		if err := resource.Delete(ctx, object.GetName(), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete %s %s/%s: %w", object.GetKind(), object.GetNamespace(), object.GetName(), err)
		}
	}
	return nil
}

func (s *Stack) apply(ctx context.Context, object *unstructured.Unstructured) error {
	resource, err := s.resource(object)
	if err != nil {
		return err
	}
	_, err = resource.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	return err
}

// Get reads an object as it is now.
func (s *Stack) Get(ctx context.Context, object *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	resource, err := s.resource(object)
	if err != nil {
		return nil, err
	}
	return resource.Get(ctx, object.GetName(), metav1.GetOptions{})
}

func (s *Stack) resource(object *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	mapping, err := s.mapping(object.GroupVersionKind())
	if err != nil {
		return nil, err
	}
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		return s.client.Resource(mapping.Resource).Namespace(object.GetNamespace()), nil
	}
	return s.client.Resource(mapping.Resource), nil
}

// mapping is what discovery says of the kind.
func (s *Stack) mapping(kind schema.GroupVersionKind) (*meta.RESTMapping, error) {
	mapping, err := s.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if meta.IsNoMatchError(err) {
		// It may be a kind that was installed after the last look.
		s.mapper.Reset()
		mapping, err = s.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	}
	return mapping, err
}

func (s *Stack) ensureNamespace(ctx context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name == "" || s.namespaces[name] {
		return nil
	}
	s.namespaces[name] = true
	return s.apply(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1",
		"kind":       "Namespace",
		"metadata":   map[string]any{"name": name},
	}})
}

// configureMesh writes istiod's settings. With automatic mTLS an Envoy without Istio's agent would wait for
// certificates for ever.
func (s *Stack) configureMesh(ctx context.Context) error {
	return s.Apply(ctx, []*unstructured.Unstructured{{Object: map[string]any{
		"apiVersion": "v1",
		"kind":       "ConfigMap",
		"metadata":   map[string]any{"name": "istio", "namespace": rootNamespace},
		"data":       map[string]any{"mesh": "enableAutoMtls: false", "meshNetworks": "networks: {}"},
	}}})
}

// installCRDs applies the definitions and waits until the API server serves them.
func (s *Stack) installCRDs(ctx context.Context) error {
	s.options.Progress("CustomResourceDefinitions")
	var all []*unstructured.Unstructured
	for _, path := range s.options.CRDs {
		list, err := readAll(path)
		if err != nil {
			return err
		}
		all = append(all, list...)
	}
	if err := s.Apply(ctx, all); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for _, crd := range all {
		if err := s.awaitServed(ctx, crd); err != nil {
			return err
		}
	}
	return nil
}

// awaitServed returns when the API server serves the definition's kind in every version: discovery names it, and its
// objects can be listed. The condition Established comes earlier, and a watch for it may be closed before it does.
func (s *Stack) awaitServed(ctx context.Context, object *unstructured.Unstructured) error {
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, crd); err != nil {
		return err
	}
	for _, version := range crd.Spec.Versions {
		if !version.Served {
			continue
		}
		kind := schema.GroupVersionKind{Group: crd.Spec.Group, Version: version.Name, Kind: crd.Spec.Names.Kind}
		var problem error
		if err := wait.PollUntilContextCancel(ctx, pollEvery, true, func(ctx context.Context) (bool, error) {
			problem = s.served(ctx, kind)
			return problem == nil, nil
		}); err != nil {
			return fmt.Errorf("%s is not served: %w: %w", kind, err, problem)
		}
	}
	return nil
}

func (s *Stack) served(ctx context.Context, kind schema.GroupVersionKind) error {
	mapping, err := s.mapping(kind)
	if err != nil {
		return err
	}
	_, err = s.client.Resource(mapping.Resource).List(ctx, metav1.ListOptions{Limit: 1})
	return err
}

// readAll reads the objects of a file, or of all YAML files below a folder.
func readAll(path string) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	err := filepath.WalkDir(path, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(file, ".yaml") {
			return err
		}
		list, err := read(file)
		objects = append(objects, list...)
		return err
	})
	return objects, err
}

func read(file string) ([]*unstructured.Unstructured, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), len(text))
	var objects []*unstructured.Unstructured
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if len(object.Object) > 0 {
			objects = append(objects, object)
		}
	}
}
