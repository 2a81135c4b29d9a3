// Package redirect is the built-in plugin redirect: it sends clients to another URL. schema.yaml documents it.
package redirect

import (
	_ "embed"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

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
	Name:    "redirect",
	Schema:  builtin.MustSchema(schema),
	Answers: true,
	Build:   build,
}

type settings struct {
	StatusCode       int    `json:"status_code"`
	Location         string `json:"location"`
	KeepIncomingPath bool   `json:"keep_incoming_path"`
}

func build(use builtin.Use, v config.Value) ([]part.Part, []builtin.Problem) {
	var s settings
	builtin.DecodeInto(v, &s)
	if problem := checkLocation(s.Location); problem != "" {
		return nil, []builtin.Problem{{Path: "location", Message: problem}}
	}
	chunk := config.Value{"status": v["status_code"], "location": s.Location}
	if s.KeepIncomingPath {
		chunk["location"], chunk["fragment"] = split(s.Location)
		chunk["keep_path"] = true
	}
	return []part.Part{use.Lua(handler, chunk)}, warnings(s)
}

// checkLocation says what is wrong with a location, or nothing. It is strict because browsers are not: they take a
// backslash for a slash, and leave line breaks and tabs out.
func checkLocation(location string) string {
	// What RFC 3986 allows in a URL.
	const allowed = "-._~:/?#[]@!$&'()*+,;=%0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	if i := strings.IndexFunc(location, func(r rune) bool { return !strings.ContainsRune(allowed, r) }); i >= 0 {
		return fmt.Sprintf("holds %q, which a URL has percent-encoded, and in its host as punycode", []rune(location[i:])[0])
	}
	u, err := url.Parse(location)
	switch {
	case err != nil || u.Opaque != "":
		return "is no URL" // the error would show a password
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return "is not a whole URL such as https://example.com/path"
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Sprintf("has port %s, ports are 1 to 65535", port)
		}
	}
	return ""
}

func warnings(s settings) []builtin.Problem {
	var problems []builtin.Problem
	warn := func(path, message string) {
		problems = append(problems, builtin.Problem{Path: path, Message: message, Warning: true})
	}
	if s.StatusCode/100 != 3 || s.StatusCode == http.StatusNotModified {
		warn("status_code", fmt.Sprintf("%d is no redirect, clients will not follow it", s.StatusCode))
	}
	if u, err := url.Parse(s.Location); err == nil && u.User != nil {
		warn("location", "holds a user name or password, which every client gets to see")
	}
	return problems
}

// split takes path and query out of a location.
func split(location string) (origin, fragment string) {
	rest, fragment, hasFragment := strings.Cut(location, "#")
	if hasFragment {
		fragment = "#" + fragment
	}
	host := strings.Index(rest, "://") + len("://")
	if end := strings.IndexAny(rest[host:], "/?"); end >= 0 {
		rest = rest[:host+end]
	}
	return rest, fragment
}
