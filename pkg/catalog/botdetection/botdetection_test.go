package botdetection

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/re2"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// use builds the parts of one use of the plugin.
func use(t testing.TB, instance, text string) ([]part.Part, []string) {
	t.Helper()
	return catalogtest.Build(t, Builtin, builtin.Use{Plugin: "bots", Instance: instance}, text)
}

func parts(t testing.TB, instance, text string) []part.Part {
	t.Helper()
	return catalogtest.Parts(t, Builtin, builtin.Use{Plugin: "bots", Instance: instance}, text)
}

// agentsOf reads a list of agents.
func agentsOf(t testing.TB, file string) []string {
	t.Helper()
	text, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(comments(string(text))), "\n")
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		config string
		want   []string
	}{
		{`{}`, nil},
		{`{allow: ['(?i)googlebot', '^good\b'], deny: ['ba.*d', '[A-Z]{3}$', '[^\x00-\x7f]']}`, nil},
		{`{deny: bad}`, []string{"deny: must be a list, not a string"}},
		{`{deny: [7]}`, []string{"deny[0]: must be a string, not a number"}},
		{`{deny: ['']}`, []string{"deny[0]: must not be shorter than 1 characters"}},
		{`{denied: [a]}`, []string{`denied: unknown field, did you mean "deny"?`}},
		{`{blacklist: [a]}`, []string{"blacklist: unknown field, known ones are allow, deny"}},
		{`{allow: ['(a'], deny: [ok, 'a(?!b)', '*bot', '(a)\1']}`, []string{
			"allow[0]: is no regular expression of RE2: missing closing ): `(a`",
			"deny[1]: is no regular expression of RE2: invalid or unsupported Perl syntax: `(?!`",
			"deny[2]: is no regular expression of RE2: missing argument to repetition operator: `*`; any text is .* in a regular expression, and a dot \\.",
			"deny[3]: is no regular expression of RE2: invalid escape sequence: `\\1`",
		}},
		{`{deny: ['\p{Greek}', 'ä+']}`, []string{
			"deny[0]: is not plain ASCII, which versions of Envoy read differently",
			"deny[1]: is not plain ASCII, which versions of Envoy read differently",
		}},
		{`{deny: ['(\W{30}){30}(\W{30}){10}']}`, []string{"deny[0]: is too large a regular expression for Envoy, repeat less or smaller classes"}},
	} {
		_, got := use(t, "i", c.config)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.config, diff)
		}
	}
}

// What the built-in list holds is what Envoy takes, and each entry is of use.
func TestBuiltinList(t *testing.T) {
	if len(known) < 100 {
		t.Errorf("only %d expressions", len(known))
	}
	if err := re2.Check("(?:"+strings.Join(known, "|")+")", anywhere); err != nil {
		t.Error(err)
	}
	for i, e := range known {
		if err := re2.Check(e, anywhere); err != nil {
			t.Errorf("%s: %v", e, err)
		}
		if slices.Contains(known[:i], e) {
			t.Errorf("%s is there twice", e)
		}
		if regexp.MustCompile(e).MatchString("") {
			t.Errorf("%s matches everything", e)
		}
	}
}

func TestAgents(t *testing.T) {
	chains := map[string][]part.Part{"default": parts(t, "i", `{}`)}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for file, status := range map[string]int{"bots.txt": 403, "scripts.txt": 403, "browsers.txt": 200} {
			for _, agent := range agentsOf(t, file) {
				answer := envoy.Gateway("default").Get(t, "/", "user-agent: "+agent)
				if answer.Status != status || (status == 200) != (answer.Upstream != nil) {
					t.Errorf("%s: status %d, want %d", agent, answer.Status, status)
				}
			}
		}
	})
}

const browser = "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0"

func TestLists(t *testing.T) {
	long := strings.Repeat("a", 8<<10)
	cases := map[string]struct {
		config          string
		passes, refused []string
	}{
		"default": {
			config: `{}`,
			passes: []string{"", browser, "bottle", "Cubot", long, "Firefox \xff", "Fïrefox"},
			// None gets past the list by where it stands, what is around it, or bytes that are no UTF-8.
			refused: []string{
				"curl/8.5.0", " curl/8.5.0 ", "x curl/8.5.0 x", long + " Googlebot/2.1", "Googlebot/2.1 " + long, "\xffGooglebot/2.1", "Googlebot/2.1\xff\xfe",
				"\xc3 Googlebot/2.1", "\xe2\x82Googlebot/2.1", "Göögle Googlebot/2.1", "\xed\xa0\x80 Googlebot/2.1", "\xf4\x90\x80\x80 Googlebot/2.1", "\xc0\xafGooglebot/2.1",
			},
		},
		"allow goes first": {
			config:  `{allow: ['Googlebot/[0-9]', '(?i)^CURL'], deny: [Googlebot, curl, Firefox]}`,
			passes:  []string{"Googlebot/2.1", "curl/8.5.0", "  Curl/8.5.0", "Firefox Googlebot/2", "\xffGooglebot/2.1"},
			refused: []string{"Googlebot/x", "x curl/8.5.0", browser, "bingbot/2.0"},
		},
		"deny is more": {
			config:  `{deny: ['Fire.*/127\.', '^Good', 'end$', 'bad.agent', 'anger']}`,
			passes:  []string{"", "firefox/127.0", "Firefox/1270", "Is Good", "ended", "bad--agent", "ang\xffer"},
			refused: []string{browser, "Goodie", "   Goodie", "the end", "the end  ", "bad agent", "bad\xffagent", "bad\xc3\xa4agent", "so bad agents", "ä anger", "anger\xff", "\xc3anger", "anger\xe2\x82", "Fire\xff\xfe/127.", "curl/8.5.0"},
		},
		"with regard to case": {
			config:  `{deny: [Bad, '(?i)worse']}`,
			passes:  []string{"bad", "BAD"},
			refused: []string{"Bad", "Worse", "wORSE"},
		},
		"alternatives are taken together": {
			config:  `{allow: ['^good|^better'], deny: ['one$|two$']}`,
			passes:  []string{"good one", "better two", "one more"},
			refused: []string{"bad one", "bad two", "not good one"},
		},
		"what is not ASCII is one character": {
			config:  `{deny: ['^a.b$', '^\W$', '^x[^a-z]{2}x$'], allow: ['[^ -~]!']}`,
			passes:  []string{"ab", "aïïb", "ï!curl/8", "\xff!curl/8"},
			refused: []string{"aïb", "a\xffb", "a€b", "a\xe2\x82b", "a😀b", "ï", "\xa4", "xï\xffx", "x\xa4\xa4x", "ïcurl/8"},
		},
	}
	chains := map[string][]part.Part{}
	for name, c := range cases {
		chains[name] = parts(t, name, c.config)
	}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for name, c := range cases {
			t.Run(name, func(t *testing.T) {
				for _, agent := range c.passes {
					if a := envoy.Gateway(name).Get(t, "/", "user-agent: "+agent); a.Status != 200 || a.Upstream == nil {
						t.Errorf("%q: status %d, want 200", agent, a.Status)
					}
				}
				for _, agent := range c.refused {
					if a := envoy.Gateway(name).Get(t, "/", "user-agent: "+agent); a.Status != 403 || a.Upstream != nil {
						t.Errorf("%q: status %d, want 403", agent, a.Status)
					}
				}
			})
		}
	})
}

// The work that blanks in an agent make grows with their number, not with its square.
func TestManyBlanks(t *testing.T) {
	blanks := strings.Repeat(" ", 50_000)
	catalogtest.OnEach(t, map[string][]part.Part{"chain": parts(t, "i", `{deny: ['^a$']}`)}, func(t *testing.T, envoy *envoytest.Envoy) {
		for agent, status := range map[string]int{
			"a" + blanks + "a": 200, "a" + blanks + "Googlebot/2.1": 403, "a" + blanks: 403, "Googlebot/2.1" + strings.Repeat(" a", 25_000): 403,
		} {
			for _, a := range envoy.Gateway("chain").DoAtOnce(t, envoytest.Request{Header: []string{"user-agent: " + agent}}) {
				if a.Status != status {
					t.Fatalf("%.20q: status %d, want %d", agent, a.Status, status)
				}
			}
		}
	})
}

func TestRefusal(t *testing.T) {
	chains := map[string][]part.Part{"default": parts(t, "i", `{}`), "all": parts(t, "j", `{deny: ['.*']}`)}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, r := range []envoytest.Request{{}, {Method: "HEAD"}, {Method: "OPTIONS"}, {Method: "POST", Body: "b"}, {HTTP2: true}} {
			if a := envoy.Gateway("all").Do(t, r); a.Status != 200 || a.Upstream == nil {
				t.Errorf("%s without an agent: status %d", r.Method, a.Status)
			}
			r.Header = []string{"user-agent: Googlebot/2.1", "origin: http://a", "access-control-request-method: GET"}
			a := envoy.Gateway("default").Do(t, r)
			if a.Status != 403 || a.Upstream != nil || a.Header.Get("content-type") != "application/json; charset=utf-8" {
				t.Errorf("%s: status %d, headers %v", r.Method, a.Status, a.Header)
			}
			if r.Method != "HEAD" && (a.Message() != "Forbidden" || !strings.Contains(a.Body, `"request_id":"`)) {
				t.Errorf("%s: body %s", r.Method, a.Body)
			}
		}
		if a, _ := envoy.Gateway("default").Upgrade(t, "/", "hello", "user-agent: Googlebot/2.1"); a.Status != 403 || a.Upstream != nil {
			t.Errorf("a WebSocket: status %d", a.Status)
		}
		grpc := envoy.Gateway("default").Do(t, envoytest.Request{Method: "POST", HTTP2: true, Header: []string{"user-agent: curl/8.5.0", "content-type: application/grpc"}})
		if grpc.Status != 200 || grpc.Header.Get("grpc-status") != "7" || grpc.Header.Get("grpc-message") != "Forbidden" {
			t.Errorf("gRPC: status %d, headers %v", grpc.Status, grpc.Header)
		}
	})
}

// What Go's client does not send.
func TestRawAgents(t *testing.T) {
	chains := map[string][]part.Part{"all": parts(t, "i", `{deny: ['.*']}`), "joined": parts(t, "j", `{deny: ['^a,b$']}`)}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for _, c := range []struct {
			chain, header string
			status        int
		}{
			{"all", "", 200},
			{"all", "User-Agent:\r\n", 200},
			{"all", "User-Agent: \t \r\n", 200},
			{"all", "User-Agent: a\r\n", 403},
			{"all", "User-Agent:\r\nUser-Agent: a\r\n", 403},
			{"joined", "User-Agent: a\r\nuser-agent: b\r\n", 403},
			{"joined", "User-Agent: b\r\nuser-agent: a\r\n", 200},
			{"joined", "User-Agent: a\r\nx-other: b\r\n", 200},
		} {
			conn, err := net.Dial("tcp", envoy.Gateway(c.chain).Address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n"+c.header+"\r\n"); err != nil {
				t.Fatal(err)
			}
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if answer.StatusCode != c.status {
				t.Errorf("%s: %q: status %d, want %d", c.chain, c.header, answer.StatusCode, c.status)
			}
		}
	})
}

// All instances of a chain write to one metadata namespace; each must read its own result.
func TestSeveralInstances(t *testing.T) {
	chains := map[string][]part.Part{"chain": slices.Concat(
		parts(t, "first", `{deny: [one]}`), parts(t, "second", `{deny: [two], allow: [one]}`), parts(t, "third", `{allow: ['.*']}`))}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		for agent, status := range map[string]int{"one": 403, "two": 403, "three": 200} {
			if a := envoy.Gateway("chain").Get(t, "/", "user-agent: "+agent); a.Status != status {
				t.Errorf("%s: status %d, want %d", agent, a.Status, status)
			}
		}
	})
}

// A request that was not judged never passes.
func TestMissingResult(t *testing.T) {
	all := parts(t, "i", `{}`)
	chains := map[string][]part.Part{"chain": {all[0], all[2]}}
	catalogtest.OnEach(t, chains, func(t *testing.T, envoy *envoytest.Envoy) {
		a := envoy.Gateway("chain").Get(t, "/", "user-agent: "+browser)
		if a.Status != 500 || a.Upstream != nil || a.Message() != "An unexpected error occurred" {
			t.Errorf("status %d, body %s", a.Status, a.Body)
		}
	})
}

// Many large expressions are what Envoy takes, too.
func TestLargeConfig(t *testing.T) {
	large := `(?:[^a-z]{1,50}|\W{20}){5}`
	chain := parts(t, "i", "{deny: ["+strings.Repeat("'"+large+"', ", 255)+"last]}")
	answer := envoytest.Run(t, chain).Get(t, "/", "user-agent: the last")
	if answer.Status != 403 {
		t.Errorf("status %d", answer.Status)
	}
}
