package annotation

import (
	"fmt"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// checkName says what is wrong with a plugin's name, or nothing. The rules are those of Kubernetes for the names of
// objects and namespaces, so a name that passes can exist.
func checkName(name string) string {
	if name == "" {
		return "the name is empty"
	}
	if validName(name) {
		return ""
	}
	return fmt.Sprintf("%s is no plugin name: %s", quote(name), nameHint(name))
}

func validName(name string) bool {
	namespace, object, qualified := strings.Cut(name, "/")
	if !qualified {
		object = name
	} else if len(validation.IsDNS1123Label(namespace)) > 0 {
		return false
	}
	return len(validation.IsDNS1123Subdomain(object)) == 0
}

// nameHint guesses what the author of a wrong name meant, from the mistakes that the annotation's forms invite.
func nameHint(name string) string {
	switch trimmed := strings.Trim(name, blanks); {
	case trimmed != name && validName(trimmed):
		return fmt.Sprintf("write %s without blanks", quote(trimmed))
	case validName(strings.Trim(name, `"'`)):
		return "leave the quotes out"
	case validName(strings.ToLower(name)):
		return fmt.Sprintf("write %q", strings.ToLower(name))
	case strings.ContainsAny(name, "{}[]:"):
		return "a list that holds maps is written [cors, {name: key-auth, routes: [api]}]"
	case strings.ContainsAny(name, blanks+","):
		return "separate plugins with commas, or write each on a line of its own after \"- \""
	case strings.HasPrefix(name, "-"):
		return "one \"-\" opts out"
	case strings.Count(name, "/") > 1:
		return "it has more than one \"/\""
	}
	return "lower case letters, digits, \"-\" and \".\" make a name, \"namespace/name\" one of another namespace"
}

// quote shows text in quotes, cut where it is long.
func quote(text string) string { return strconv.Quote(cut(text)) }

// cut keeps messages short: what a user wrote may be 64 KiB.
func cut(text string) string {
	const most = 60
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
