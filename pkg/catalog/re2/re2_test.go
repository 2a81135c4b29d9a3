package re2_test

import (
	"math/rand"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	csrfv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/csrf/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/re2"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
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

// pieces of expressions, right and wrong ones.
var pieces = strings.Fields(`a b . * + ? ?? *? ( ) | || (?: (?i) (?s-i: (?P<n> (?<m> (?U) {2} {2,} {0} {0,3} {3,2} {,5} {1000} [ ] [^ - [:alpha:]
	[[:^digit:]] \d \D \W \b \B \A \z \Z \Q \E ^ $ \x41 \x{41} \07 \101 \0 \a \v \f \n \- \_ \/ & \h \R \K \C \G (?#x) (?=a) (?>a) a{ { }
	a{1,2}{3} \cA \e \N (?i (?- (?i-) (?i-: \ x # \t [a-\d] [\w-a] []a] [^]a] [a-] [-a] [--/] () (|) (?:) (?:)* \x{00041} (?P=n) \g1 \k<n> \u0041`)

// What Check accepts Envoy accepts: one that it refuses would take the whole config with it.
func TestCheckAgreesWithEnvoy(t *testing.T) {
	whole := func(text string) string { return ".*(?:" + text + ").*" }
	random := rand.New(rand.NewSource(1)) // the same in each run
	filter := &csrfv3.CsrfPolicy{FilterEnabled: &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{}}}
	refused := 0
	add := func(text string) {
		if re2.Check(text, whole) != nil {
			refused++
			return
		}
		filter.AdditionalOrigins = append(filter.AdditionalOrigins, &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: whole(text)}},
		})
	}
	for depth := 900; depth < 1100; depth++ { // both have a limit
		add(strings.Repeat("(", depth) + "a" + strings.Repeat(")", depth))
	}
	for len(filter.AdditionalOrigins) < 2000 {
		var b strings.Builder
		for range 1 + random.Intn(8) {
			b.WriteString(pieces[random.Intn(len(pieces))])
		}
		add(b.String())
	}
	if refused < 1000 {
		t.Errorf("only %d expressions are refused: there is not much to agree on", refused)
	}
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			envoytest.Start(t, version, envoytest.Config{Chains: map[string][]part.Part{"all": {part.Native{Config: filter}}}})
		})
	}
}
