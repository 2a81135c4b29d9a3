package re2_test

import (
	"strings"
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/re2"
)

func TestCheck(t *testing.T) {
	for text, want := range map[string]string{
		`(?i)^curl/[0-9.]+\b`:     "",
		`\\p{2}`:                  "", // a backslash, then p twice
		`a(?P<n>b)`:               "",
		`*.example.com`:           "is no regular expression of RE2: missing argument to repetition operator: `*`; any text is .* in a regular expression",
		`a(?=b)`:                  "is no regular expression of RE2: invalid or unsupported Perl syntax",
		`(?<!a)b`:                 "is no regular expression of RE2: invalid",
		`(a)\1`:                   "is no regular expression of RE2: invalid escape sequence",
		`(a`:                      "is no regular expression of RE2: missing closing )",
		`a)|(b`:                   "is no regular expression of RE2: unexpected )", // although it would close what is put around it
		`\pL`:                     "is not plain ASCII",
		`[\P{Greek}]`:             "is not plain ASCII",
		`\\\pL`:                   "is not plain ASCII",
		`ä`:                       "is not plain ASCII",
		`\xe4`:                    "is not plain ASCII",
		`[\x00-\xFF]`:             "is not plain ASCII",
		`\x{80}`:                  "is not plain ASCII",
		`\x{000100}`:              "is not plain ASCII",
		`\200`:                    "is not plain ASCII",
		`[^\x00-\x7f]\x{7F}`:      "",
		`\x{0000061}\101\\xe4`:    "",
		`.{1001}`:                 "is no regular expression of RE2: invalid repeat count",
		`(\W{30}){30}(\W{30}){9}`: "is too large a regular expression for Envoy",
	} {
		got := ""
		if err := re2.Check(text, func(s string) string { return ".*(?:" + s + ").*" }); err != nil {
			got = err.Error()
		}
		if (want == "") != (got == "") || !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
