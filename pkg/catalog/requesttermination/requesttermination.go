// Package requesttermination is the built-in plugin request-termination: it answers at the gateway. schema.yaml
// documents it.
package requesttermination

import (
	_ "embed"
	"net/http"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

//go:embed schema.yaml
var schema []byte

//go:embed handler.lua
var handler string

// Builtin is the plugin.
var Builtin = &builtin.Builtin{
	Name:    "request-termination",
	Schema:  builtin.MustSchema(schema),
	Answers: true,
	Build:   build,
}

type settings struct {
	StatusCode  int     `json:"status_code"`
	Message     *string `json:"message"`
	Body        *string `json:"body"`
	ContentType string  `json:"content_type"`
	Echo        bool    `json:"echo"`
}

// messages of the statuses that have one of their own, in Kong's words.
var messages = map[int]string{
	http.StatusUnauthorized:        "Unauthorized",
	http.StatusNotFound:            "Not found",
	http.StatusMethodNotAllowed:    "Method not allowed",
	http.StatusInternalServerError: "An unexpected error occurred",
	http.StatusBadGateway:          "Bad Gateway",
	http.StatusServiceUnavailable:  "Service unavailable",
}

func build(use builtin.Use, c config.Value) ([]part.Part, []builtin.Problem) {
	var s settings
	builtin.DecodeInto(c, &s)
	if problems := check(s); len(problems) > 0 {
		return nil, problems
	}
	chunk := config.Value{"status": c["status_code"], "echo": s.Echo}
	for _, field := range []string{"trigger", "redact"} {
		if v, set := c[field]; set {
			chunk[field] = v
		}
	}
	switch message, has := messages[s.StatusCode]; {
	case present(s.Body):
		chunk["body"], chunk["content_type"] = *s.Body, "application/json; charset=utf-8"
		if s.ContentType != "" {
			chunk["content_type"] = s.ContentType
		}
	case s.Message != nil:
		chunk["message"] = *s.Message
	case s.Body != nil && !s.Echo:
		// No message either: the answer is empty.
	case has:
		chunk["message"] = message
	}
	return []part.Part{part.Lua{Plugin: use.Plugin, Source: handler, Config: chunk, FailOpen: use.FailOpen}}, nil
}

func present(text *string) bool { return text != nil && *text != "" }

// check has the rules across fields. An empty text counts as absent, as in Kong.
func check(s settings) []builtin.Problem {
	var problems []builtin.Problem
	add := func(path, message string) { problems = append(problems, builtin.Problem{Path: path, Message: message}) }
	if present(s.Message) && (present(s.Body) || s.ContentType != "") {
		add("message", "cannot be used with body or content_type")
	}
	if s.ContentType != "" && !present(s.Body) {
		add("content_type", "needs body")
	}
	if s.Echo && present(s.Body) {
		add("echo", "cannot be used with body")
	}
	return problems
}
