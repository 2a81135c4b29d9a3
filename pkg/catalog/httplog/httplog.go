// Package httplog is the built-in http-log: it sends a record of each request to an HTTP endpoint. schema.yaml documents it.
package httplog

import (
	_ "embed"
	"encoding/base64"
	"errors"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/callout"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

//go:embed schema.yaml
var schema []byte

//go:embed handler.lua
var handler string

// Builtin is http-log.
var Builtin = &builtin.Builtin{
	Name:    "http-log",
	Schema:  builtin.MustSchema(schema),
	Failing: "skipped if it fails",
	Build:   build,
}

type settings struct {
	Endpoint    string            `json:"http_endpoint"`
	ContentType string            `json:"content_type"`
	Headers     map[string]string `json:"headers"`
	Redact      []string          `json:"redact"`
}

// build makes a part that fails open whatever the Plugin says: a log must not cost a request.
func build(use builtin.Use, v config.Value) ([]part.Part, []builtin.Problem) {
	var s settings
	builtin.DecodeInto(v, &s)
	headers, problems := s.headers()
	endpoint, service, err := readEndpoint(s.Endpoint)
	if err != nil {
		return nil, append(problems, builtin.Problem{Path: "http_endpoint", Message: err.Error()})
	}
	found, wrong := callout.Find(use, service, false)
	for _, p := range wrong {
		p.Path = "http_endpoint"
		problems = append(problems, p)
	}
	if user := endpoint.User; user != nil {
		if _, both := headers["authorization"]; both {
			problems = append(problems, builtin.Problem{Path: builtin.Path("headers"), Message: "has Authorization, and http_endpoint has a username: give one of them"})
		}
		password, _ := user.Password()
		headers["authorization"] = "Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password))
	}
	if slices.ContainsFunc(problems, func(p builtin.Problem) bool { return !p.Warning }) {
		return nil, problems
	}
	redact := map[string]any{}
	for _, name := range s.Redact {
		redact[strings.ToLower(name)] = true
	}
	headers["host"], headers["content-type"] = endpoint.Host, s.ContentType
	log := use.Lua(handler, config.Value{
		"host": strings.ToLower(endpoint.Host), "path": endpoint.RequestURI(), "method": v["method"], "headers": headers,
		"timeout": v["timeout"], "in_flight": v["max_in_flight"], "redact": redact,
	})
	log.FailOpen = true
	log.Services = map[string]part.Service{"endpoint": found}
	return []part.Part{log}, problems
}

// readEndpoint reads a URL. What is wrong does not repeat it, since it may hold a password.
func readEndpoint(text string) (*url.URL, callout.Service, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || notPlain.MatchString(u.RequestURI()) {
		return nil, callout.Service{}, errors.New("is no URL such as http://logs.logging:8080/in")
	}
	anonymous := *u
	anonymous.User = nil
	_, service, err := callout.URI(anonymous.String())
	return u, service, err
}

var (
	notPlain   = regexp.MustCompile(`[^!-~]`)
	headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9a-z-]+$")
	lineBreak  = regexp.MustCompile(`[\x00\r\n]`)
)

// reserved headers are set by the plugin, or by Envoy.
var reserved = []string{
	"connection", "content-length", "content-type", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}

// headers are the further ones, by lower-case names.
func (s settings) headers() (map[string]any, []builtin.Problem) {
	out := map[string]any{}
	var problems []builtin.Problem
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		lower, value := strings.ToLower(name), s.Headers[name]
		problem := ""
		switch _, twice := out[lower]; {
		case !headerName.MatchString(lower):
			problem = "is no name of a header"
		case slices.Contains(reserved, lower):
			problem = "cannot be set"
		case twice:
			problem = "is there twice"
		case lineBreak.MatchString(value):
			problem = "has a line break or NUL"
		}
		if problem != "" {
			problems = append(problems, builtin.Problem{Path: builtin.Path("headers", name), Message: problem})
		}
		out[lower] = value
	}
	return out, problems
}
