// Package suite runs the cases: folders with objects, as a user would write them, and a table of requests with what the
// client and the upstream must see. It knows nothing of the world that it runs in, only what World says.
package suite

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// Case is a folder of cases/. Its input.yaml holds the first objects and says in a comment what the case shows; its
// requests.yaml holds the steps.
//
// Ports of Gateways are numbers such as 8080, as users write them. A run gives each a free port of 127.0.0.1 instead, in
// the Gateways, in the `port` that a VirtualService matches, and in the requests.
type Case struct {
	// Name of the folder.
	Name string `json:"-"`
	// Dir is its path.
	Dir string `json:"-"`
	// Input are files and folders of the first objects, from the case's folder; input.yaml if none is given.
	Input []string `json:"input,omitempty"`
	// Flags of `istio-plugins compile`.
	Flags []string `json:"flags,omitempty"`
	// TrustedProxies is how many proxies stand in front of the gateway, as its pod says in gatewayTopology.
	TrustedProxies int `json:"trustedProxies,omitempty"`
	// Refuses says that Envoy refuses a configuration in the course of the case. Elsewhere that is a failure.
	Refuses bool `json:"refuses,omitempty"`
	// Steps run one after another on the same gateway.
	Steps []Step `json:"steps"`
}

// Step is a change of the objects and what holds afterwards. The first step's change is input.yaml itself.
type Step struct {
	// Name says what the step shows.
	Name string `json:"name,omitempty"`
	// Apply names files of the case whose objects are added, or replace those of the same name.
	Apply []string `json:"apply,omitempty"`
	// Unseen are files like those of Apply, whose objects istiod gets before the compiler has seen them. It sees them when
	// a later step applies them.
	Unseen []string `json:"unseen,omitempty"`
	// Delete names objects to remove, as `VirtualService shop/api`.
	Delete []string `json:"delete,omitempty"`
	// Labels are those of the gateway's pod from now on, which is started anew; {istio: ingressgateway} if none are given.
	// That one must be among them.
	Labels map[string]string `json:"labels,omitempty"`
	// Restart is `gateway` to end Envoy and start it anew before the requests, or `istiod` to do so with istiod where it is
	// a process of its own.
	Restart string `json:"restart,omitempty"`
	// Findings are texts that the compiler's findings must contain after the change. Without them it must have none.
	Findings []string `json:"findings,omitempty"`
	// Listeners are texts that the configuration of Envoy's listeners must contain after the change.
	Listeners []string `json:"listeners,omitempty"`
	// Unchanged are counters of Envoy that must be after the step what they were before it.
	Unchanged []string `json:"unchanged,omitempty"`
	// Meanwhile are sent over and over while the change takes effect, and each must be answered as expected. It is for
	// what a change must not disturb.
	Meanwhile []Request `json:"meanwhile,omitempty"`
	// AtStart are sent over and over like those of Meanwhile, while the gateway ends and starts anew. Those that find nobody
	// who answers do not count, all others do.
	AtStart []Request `json:"atStart,omitempty"`
	// Requests must all be answered as expected, twice in a row, once the change has reached the gateway.
	Requests []Request `json:"requests,omitempty"`
}

// Request is one row of the table.
type Request struct {
	// Name is a sentence that says what the row shows.
	Name string `json:"name"`
	// Port of the Gateway; 8080 if it is not given.
	Port int `json:"port,omitempty"`
	// Protocol is http1 (the default), http2 (without TLS), raw (HTTP/1.1 as no client library would write it), grpc or
	// websocket.
	Protocol string `json:"protocol,omitempty"`
	// TLS says that the port speaks TLS; the host is the server's name then (SNI), unless SNI gives another one.
	TLS bool   `json:"tls,omitempty"`
	SNI string `json:"sni,omitempty"`
	// Method is GET if it is not given.
	Method string `json:"method,omitempty"`
	// Host is the authority.
	Host string `json:"host"`
	// Path with the query, sent as it is written; for gRPC the method.
	Path string `json:"path,omitempty"`
	// Headers that the client sends.
	Headers map[string]Values `json:"headers,omitempty"`
	// Body that the client sends; for gRPC and websocket the message.
	Body string `json:"body,omitempty"`
	// BodySize asks for a body of that many bytes instead.
	BodySize int `json:"bodySize,omitempty"`
	// Expect is what must be seen.
	Expect Expect `json:"expect"`
}

// Expect is what the client and the upstream must see. What is not given is not looked at, but for Upstream.
type Expect struct {
	// Status of the answer; for gRPC it is the HTTP status, which is 200 for refusals too.
	Status int `json:"status"`
	// GRPCStatus is the number of the gRPC status.
	GRPCStatus *int `json:"grpcStatus,omitempty"`
	// Headers of the answer: all values, in order.
	Headers map[string]Values `json:"headers,omitempty"`
	// Absent are headers that the answer must not have.
	Absent []string `json:"absent,omitempty"`
	// Trailers of the answer.
	Trailers map[string]Values `json:"trailers,omitempty"`
	// Body is the whole body of the answer.
	Body *string `json:"body,omitempty"`
	// BodyContains are parts of it.
	BodyContains []string `json:"bodyContains,omitempty"`
	// Upstream is what must have arrived there. Without it nothing may have arrived.
	Upstream *Upstream `json:"upstream,omitempty"`
}

// Upstream is a request as it arrived.
type Upstream struct {
	Method string `json:"method,omitempty"`
	Host   string `json:"host,omitempty"`
	Path   string `json:"path,omitempty"`
	// Headers: all values, in order.
	Headers map[string]Values `json:"headers,omitempty"`
	// Absent are headers that must not have arrived.
	Absent []string `json:"absent,omitempty"`
	// Same are headers that must have arrived, all with the same values.
	Same []string `json:"same,omitempty"`
	Body *string  `json:"body,omitempty"`
}

// Values of a header, in order. One value may be written without a list.
type Values []string

// UnmarshalJSON reads a string or a list of strings.
func (v *Values) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*v = Values{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(v))
}

// Load reads all cases of a folder.
func Load(dir string) ([]Case, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*", "requests.yaml"))
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	folders := len(entries)
	for _, entry := range entries {
		if !entry.IsDir() {
			folders--
		}
	}
	if len(files) != folders || len(files) == 0 {
		return nil, fmt.Errorf("%s: %d folders, %d of them with a requests.yaml", dir, folders, len(files))
	}
	var cases []Case
	for _, file := range files {
		c, err := Read(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		cases = append(cases, c)
	}
	return cases, nil
}

// Read reads the requests.yaml of a case.
func Read(file string) (Case, error) {
	c := Case{Dir: filepath.Dir(file)}
	c.Name = filepath.Base(c.Dir)
	text, err := os.ReadFile(file)
	if err != nil {
		return c, err
	}
	if err := yaml.UnmarshalStrict(text, &c); err != nil {
		return c, err
	}
	if c.Input == nil {
		c.Input = []string{"input.yaml"}
	}
	return c, c.check()
}

func (c Case) check() error {
	var errs []error
	for i, step := range c.Steps {
		if len(step.Requests) == 0 {
			errs = append(errs, fmt.Errorf("steps[%d] has no requests", i))
		}
		if !slices.Contains([]string{"", "gateway", "istiod"}, step.Restart) {
			errs = append(errs, fmt.Errorf("steps[%d].restart is %q, it can be gateway or istiod", i, step.Restart))
		}
		for _, r := range slices.Concat(step.Meanwhile, step.AtStart, step.Requests) {
			if r.Name == "" || r.Host == "" || r.Expect.Status == 0 {
				errs = append(errs, fmt.Errorf("steps[%d]: request %q needs a name, a host and an expected status", i, r.Name))
			}
		}
	}
	if len(c.Steps) == 0 {
		errs = append(errs, errors.New("there are no steps"))
	}
	return errors.Join(errs...)
}

// Variables are what `${NAME}` stands for in the files of a case: what only the run knows.
type Variables map[string]string

// replace puts the values into text.
func (v Variables) replace(text string) string {
	var pairs []string
	for name, value := range v {
		pairs = append(pairs, "${"+name+"}", value)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// Objects reads a file of YAML documents, or all such files of a folder.
func (v Variables) Objects(path string) ([]*unstructured.Unstructured, error) {
	files := []string{path}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		if files, err = filepath.Glob(filepath.Join(path, "*.yaml")); err != nil {
			return nil, err
		}
	}
	var objects []*unstructured.Unstructured
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		list, err := Parse([]byte(v.replace(string(text))))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		objects = append(objects, list...)
	}
	return objects, nil
}

// Parse reads YAML documents, each an object.
func Parse(text []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	for i, document := range bytes.Split(append([]byte("\n"), text...), []byte("\n---")) {
		fields := map[string]any{}
		if err := yaml.Unmarshal(document, &fields); err != nil {
			return nil, fmt.Errorf("document %d: %w", i+1, err)
		}
		if len(fields) > 0 {
			objects = append(objects, &unstructured.Unstructured{Object: fields})
		}
	}
	return objects, nil
}
