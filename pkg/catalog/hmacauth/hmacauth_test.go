package hmacauth_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/hmacauth"
	"github.com/istio-plugins/istio-plugins/pkg/consumer"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/internal/envoytest"
	"github.com/istio-plugins/istio-plugins/pkg/part"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

const unicodeSecret = "schlüssel-\xff\x00"

// consumers: alice has a custom id, bob a username and a secret that are no ASCII, guest nothing. carol is of another
// namespace.
func consumers() *consumer.Index {
	person := func(name, customID string, credentials ...string) *pluginsv1alpha1.Consumer {
		return &pluginsv1alpha1.Consumer{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-" + name)},
			Spec:       pluginsv1alpha1.ConsumerSpec{Username: name + "-user", CustomID: customID, Credentials: credentials},
		}
	}
	carol := person("carol", "", "carol-1")
	carol.Namespace = "partner"
	signer := func(name, username, secret string) *corev1.Secret {
		return &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{pluginsv1alpha1.CredentialLabel: "hmac-auth"}},
			Data:       map[string][]byte{"username": []byte(username), "secret": []byte(secret)},
		}
	}
	carols := signer("carol-1", "carol", "carols")
	carols.Namespace = "partner"
	index, findings := consumer.New(&snapshot.Snapshot{
		Consumers: []*pluginsv1alpha1.Consumer{person("alice", "crm-4711", "alice-1"), person("bob", "", "bob-1"), person("guest", ""), carol},
		Secrets:   []*corev1.Secret{signer("alice-1", "alice", "secret"), signer("bob-1", "böb, the \\ builder=", unicodeSecret), carols},
		ReferenceGrants: []*gatewayv1.ReferenceGrant{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "partner", Name: "shop"},
			Spec: gatewayv1.ReferenceGrantSpec{
				From: []gatewayv1.ReferenceGrantFrom{{Group: "plugins.istio.io", Kind: "Plugin", Namespace: "shop"}},
				To:   []gatewayv1.ReferenceGrantTo{{Group: "plugins.istio.io", Kind: "Consumer"}},
			},
		}},
	})
	if len(findings) > 0 {
		panic(fmt.Sprint(findings))
	}
	return index
}

// build checks a config and makes its parts.
func build(t *testing.T, text string) ([]part.Part, []string) {
	t.Helper()
	return catalogtest.Build(t, hmacauth.Builtin, builtin.Use{Plugin: "hmac-auth", Instance: "i", Namespace: "shop", Consumers: consumers()}, text)
}

func parts(t *testing.T, text string) []part.Part {
	t.Helper()
	parts, problems := build(t, text)
	if parts == nil {
		t.Fatalf("%s: %v", text, problems)
	}
	return parts
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		config string
		want   []string
	}{
		{`{}`, nil},
		{`{"clock_skew":0}`, []string{"clock_skew: 0 is too small, more than 0"}},
		{`{"clock_skew":0.5}`, nil},
		{`{"algorithms":[]}`, []string{"algorithms: has 0 items, at least 1"}},
		{`{"algorithms":["hmac-md5"]}`, []string{`algorithms[0]: "hmac-md5" is not allowed, allowed are "hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512"`}},
		{`{"enforce_headers":["a b"]}`, []string{`enforce_headers[0]: "a b" does not match ^\S+$`}},
		{`{"enforce_headers":["host","Date"]}`, []string{"warning enforce_headers[1]: is not in lower case; clients must write it in the same way"}},
		{`{"validate_request_body":true}`, []string{"warning validate_request_body: enforce_headers does not have digest, so that who changes a body can also change its digest"}},
		{`{"validate_request_body":true,"enforce_headers":["digest"]}`, nil},
		{`{"enforce_header":[]}`, []string{`enforce_header: unknown field, did you mean "enforce_headers"?`}},
		{`{"anonymous":"nobody"}`, []string{"anonymous: anonymous consumer nobody is configured but doesn't exist"}},
		{`{"run_on_preflight":false}`, []string{"run_on_preflight: unknown field, known ones are algorithms, anonymous, clock_skew, consumers_from, enforce_headers, hide_credentials, realm, validate_request_body"}},
	} {
		_, got := build(t, c.config)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.config, diff)
		}
	}
}

var chains = map[string]string{
	"default":   `{}`,
	"enforced":  `{"enforce_headers":["date","@request-target","host"]}`,
	"strong":    `{"algorithms":["hmac-sha256","hmac-sha512"]}`,
	"skew":      `{"clock_skew":100}`,
	"body":      `{"validate_request_body":true}`,
	"hide":      `{"hide_credentials":true}`,
	"anonymous": `{"anonymous":"guest","hide_credentials":true}`,
	"realm":     `{"realm":"shop"}`,
	"partner":   `{"consumers_from":["partner"]}`,
}

var hashes = map[string]func() hash.Hash{"hmac-sha1": sha1.New, "hmac-sha256": sha256.New, "hmac-sha384": sha512.New384, "hmac-sha512": sha512.New}

func sign(algorithm, secret, text string) string {
	mac := hmac.New(hashes[algorithm], []byte(secret))
	mac.Write([]byte(text))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// signature is the value of a header by which alice signs lines of these names.
func signature(names string, lines ...string) string {
	return by("alice", "hmac-sha256", names, sign("hmac-sha256", "secret", strings.Join(lines, "\n")))
}

func by(username, algorithm, names, signature string) string {
	return fmt.Sprintf(`hmac username="%s", algorithm="%s", headers="%s", signature="%s"`, username, algorithm, names, signature)
}

// around is an HTTP date some seconds from now.
func around(seconds int) string {
	return time.Now().Add(time.Duration(seconds) * time.Second).UTC().Format(http.TimeFormat)
}

func digest(body string) string {
	sum := sha256.Sum256([]byte(body))
	return "SHA-256=" + base64.StdEncoding.EncodeToString(sum[:])
}

const (
	noDate   = "HMAC signature cannot be verified, a valid date or x-date header is required for HMAC Authentication"
	unknown  = "HMAC signature cannot be verified"
	mismatch = "HMAC signature does not match"
)

var (
	alice = []string{"x-consumer-custom-id: crm-4711", "x-consumer-id: uid-alice", "x-consumer-username: alice-user", "x-credential-identifier: alice"}
	bob   = []string{"x-consumer-id: uid-bob", "x-consumer-username: bob-user", "x-credential-identifier: böb, the \\ builder="}
	guest = []string{"x-anonymous-consumer: true", "x-consumer-id: uid-guest", "x-consumer-username: guest-user"}
)

type requestCase struct {
	name    string
	chain   string
	request envoytest.Request
	// refused is the message of the 401; empty where the request goes upstream.
	refused string
	// upstream is what it sees of identity headers.
	upstream []string
}

// requests are made anew for each Envoy, because of their dates.
func requests() []requestCase {
	now := around(0)
	date := "date: " + now
	get := func(header ...string) envoytest.Request { return envoytest.Request{Header: header} }
	// dated signs the date alone.
	dated := signature("date", date)
	with := func(authorization string) envoytest.Request {
		return get(date, "authorization: "+authorization)
	}
	at := func(seconds int) envoytest.Request {
		date := "date: " + around(seconds)
		return get(date, "authorization: "+signature("date", date))
	}
	target := func(method, target, name, line string) envoytest.Request {
		return envoytest.Request{Method: method, Path: target, Header: []string{date, "authorization: " + signature("date "+name, date, line)}}
	}
	body := func(body, digest string) envoytest.Request {
		header := "digest: " + digest
		return envoytest.Request{Method: "POST", Body: body, Header: []string{date, header, "authorization: " + signature("date digest", date, header)}}
	}
	unsigned := func(body string, header ...string) envoytest.Request {
		return envoytest.Request{Method: "POST", Body: body, Header: append(header, date, "authorization: "+dated)}
	}
	const mib = 1 << 20
	value := func(parameters string) envoytest.Request { return with("hmac " + parameters) }
	valid := sign("hmac-sha256", "secret", date)
	// other is a signature that base64url writes in another way, of a header with unlike as its value.
	var unlike, other string
	for n := 0; !strings.ContainsAny(other, "+/"); n++ {
		unlike = strconv.Itoa(n)
		other = sign("hmac-sha256", "secret", date+"\nx-n: "+unlike)
	}
	cases := []requestCase{
		// Where signatures are.
		{"no header", "default", envoytest.Request{}, "Unauthorized", nil},
		{"a date without a signature", "default", get(date), "Unauthorized", nil},
		{"Authorization", "default", with(dated), "", alice},
		{"Proxy-Authorization", "default", get(date, "proxy-authorization: "+dated), "", alice},
		{"Proxy-Authorization goes before Authorization", "default", get(date, "proxy-authorization: "+by("alice", "hmac-sha256", "date", "AAAA"), "authorization: "+dated), mismatch, nil},
		{"Proxy-Authorization of another scheme does not count", "default", get(date, "proxy-authorization: Basic x", "authorization: "+dated), "", alice},
		{"nor a malformed one", "default", get(date, "proxy-authorization: hmac x", "authorization: "+dated), "", alice},
		{"another scheme", "default", with("Basic YTpi"), unknown, nil},
		{"another scheme without a date", "default", get("authorization: Basic YTpi"), noDate, nil},
		{"an empty header", "default", with(""), unknown, nil},
		{"the scheme alone", "default", with("hmac"), unknown, nil},
		{"the scheme in another case", "default", with("HMAC" + dated[4:]), "", alice},
		{"a scheme that begins so", "default", with("hmac-x" + dated[4:]), unknown, nil},
		{"Basic and a signature in one", "default", get(date, "authorization: Basic YTpi", "authorization: "+dated), unknown, nil},
		{"a signature and Basic in one", "default", get(date, "authorization: "+dated, "authorization: Basic YTpi"), unknown, nil},
		{"a signature and another user's", "default", get(date, "authorization: "+dated, `authorization: username="böb, the \\ builder="`), unknown, nil},
		{"half of it in each of two lines, which are one list", "default", get(date, `authorization: hmac username="alice", algorithm="hmac-sha256"`,
			`authorization: headers="date", signature="`+valid+`"`), "", alice},
		{"repeated Proxy-Authorization, the second one good", "default", get(date, "proxy-authorization: "+by("alice", "hmac-sha256", "date", "AAAA"), "proxy-authorization: "+dated), mismatch, nil},
		{"in the query", "default", envoytest.Request{Path: "/?authorization=" + url.QueryEscape(dated), Header: []string{date}}, "Unauthorized", nil},
		{"repeated Authorization", "default", get(date, "authorization: "+dated, "authorization: "+dated), unknown, nil},

		// Parameters.
		{"another order, more blanks", "default", value(`  signature="` + valid + `" ,headers="date",username="alice",algorithm="hmac-sha256" `), "", alice},
		{"further parameters", "default", with(dated + `, realm="x"`), "", alice},
		{"no username", "default", value(`algorithm="hmac-sha256", headers="date", signature="` + valid + `"`), unknown, nil},
		{"an empty username", "default", with(by("", "hmac-sha256", "date", valid)), unknown, nil},
		{"no algorithm", "default", value(`username="alice", headers="date", signature="` + valid + `"`), unknown, nil},
		{"no headers", "default", value(`username="alice", algorithm="hmac-sha256", signature="` + valid + `"`), unknown, nil},
		{"empty headers", "default", with(by("alice", "hmac-sha256", "", sign("hmac-sha256", "secret", ""))), unknown, nil},
		{"blank headers", "default", with(by("alice", "hmac-sha256", "  ", sign("hmac-sha256", "secret", "x"))), mismatch, nil},
		{"no signature", "default", value(`username="alice", algorithm="hmac-sha256", headers="date"`), unknown, nil},
		{"an empty signature", "default", with(by("alice", "hmac-sha256", "date", "")), unknown, nil},
		{"a repeated parameter", "default", with(dated + `, username="bob"`), unknown, nil},
		{"a comma behind the last", "default", with(dated + ","), unknown, nil},
		{"something behind the last", "default", with(dated + " x"), unknown, nil},
		{"without quotes", "default", value("username=alice, algorithm=hmac-sha256, headers=date, signature=" + valid), unknown, nil},
		{"single quotes", "default", with(strings.ReplaceAll(dated, `"`, "'")), unknown, nil},
		{"an open quote", "default", with(strings.TrimSuffix(dated, `"`)), unknown, nil},
		{"a header that is listed twice", "default", with(signature("date date", date, date)), unknown, nil},
		{"a header that is listed twice, in another case", "default", with(signature("date Date", date, "D"+date[1:])), unknown, nil},
		{"a name that goes on behind a quote", "default", with(by(`al\"ice`, "hmac-sha256", "date", valid)), unknown, nil},
		{"a name with an escape", "default", with(by(`\alice`, "hmac-sha256", "date", valid)), unknown, nil},
		{"a name in percent-encoding", "default", with(by("%61lice", "hmac-sha256", "date", valid)), unknown, nil},
		{"a name with a blank", "default", with(by("alice ", "hmac-sha256", "date", valid)), unknown, nil},
		{"a name that is cut", "default", with(by("alic", "hmac-sha256", "date", valid)), unknown, nil},
		{"a very long name", "default", with(by(strings.Repeat("alice", 10_000), "hmac-sha256", "date", valid)), unknown, nil},
		{"a very long signature", "default", with(by("alice", "hmac-sha256", "date", strings.Repeat("AAAA", 10_000))), mismatch, nil},
		{"a parameter in another case", "default", with("hmac Username=" + dated[len("hmac username="):]), unknown, nil},
		{"an unknown user", "default", with(by("nobody", "hmac-sha256", "date", valid)), unknown, nil},
		{"a username in another case", "default", with(by("Alice", "hmac-sha256", "date", valid)), unknown, nil},
		{"the name of a Lua method", "default", with(by("__index", "hmac-sha256", "date", valid)), unknown, nil},
		{"a name and a secret that are no ASCII", "default", with(by("böb, the \\ builder=", "hmac-sha256", "date", sign("hmac-sha256", unicodeSecret, date))), "", bob},
		{"somebody else's username", "default", with(by("böb, the \\ builder=", "hmac-sha256", "date", valid)), mismatch, nil},

		// Algorithms.
		{"an algorithm that is not accepted", "strong", with(by("alice", "hmac-sha1", "date", sign("hmac-sha1", "secret", date))), unknown, nil},
		{"another one that is not", "strong", with(by("alice", "hmac-sha384", "date", sign("hmac-sha384", "secret", date))), unknown, nil},
		{"one that is", "strong", with(by("alice", "hmac-sha512", "date", sign("hmac-sha512", "secret", date))), "", alice},
		{"an unknown one", "default", with(by("alice", "hmac-md5", "date", valid)), unknown, nil},
		{"none", "default", with(by("alice", "none", "date", valid)), unknown, nil},
		{"in upper case", "default", with(by("alice", "HMAC-SHA256", "date", valid)), unknown, nil},
		{"one with the signature of another", "default", with(by("alice", "hmac-sha1", "date", valid)), mismatch, nil},

		// Signatures.
		{"another secret", "default", with(by("alice", "hmac-sha256", "date", sign("hmac-sha256", "Secret", date))), mismatch, nil},
		{"no base64", "default", with(by("alice", "hmac-sha256", "date", "%%%")), mismatch, nil},
		{"base64 without padding", "default", with(by("alice", "hmac-sha256", "date", strings.TrimRight(valid, "="))), "", alice},
		{"base64url", "default", get(date, "x-n: "+unlike, "authorization: "+by("alice", "hmac-sha256", "date x-n", strings.NewReplacer("+", "-", "/", "_").Replace(other))), mismatch, nil},
		{"the same in base64", "default", get(date, "x-n: "+unlike, "authorization: "+by("alice", "hmac-sha256", "date x-n", other)), "", alice},
		{"too much padding", "default", with(by("alice", "hmac-sha256", "date", valid+"====")), mismatch, nil},
		{"unused bits in the last digit", "default", with(by("alice", "hmac-sha256", "date", spareBits(valid))), mismatch, nil},
		{"a blank in base64", "default", with(by("alice", "hmac-sha256", "date", valid[:10]+" "+valid[10:])), mismatch, nil},
		{"hex", "default", with(by("alice", "hmac-sha256", "date", hexOf(valid))), mismatch, nil},
		{"a truncated signature", "default", with(by("alice", "hmac-sha256", "date", valid[:40])), mismatch, nil},
		{"a longer signature", "default", with(by("alice", "hmac-sha256", "date", base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", 64))))), mismatch, nil},

		// Dates.
		{"no date", "default", get("authorization: " + dated), noDate, nil},
		{"a date that is none", "default", get("date: now", "authorization: "+signature("date", "date: now")), noDate, nil},
		{"an empty date", "default", get("date:", "authorization: "+signature("date", "date: ")), noDate, nil},
		{"a number", "default", get(fmt.Sprintf("date: %d", time.Now().Unix()), "authorization: "+dated), noDate, nil},
		{"a date of another zone", "default", get("date: "+strings.Replace(now, "GMT", "+0000", 1), "authorization: "+dated), noDate, nil},
		{"repeated dates, the first one good", "default", get("date: "+now, "date: "+around(-1000), "authorization: "+signature("date", "date: "+around(-1000))), mismatch, nil},
		{"repeated dates, the first one old", "default", get("date: "+around(-1000), "date: "+now, "authorization: "+dated), noDate, nil},
		{"repeated x-dates, the first one good", "default", get("x-date: "+now, "x-date: "+around(-1000), "authorization: "+signature("x-date", "x-date: "+around(-1000))), mismatch, nil},
		{"repeated x-dates, the first one old", "default", get("x-date: "+around(-1000), "x-date: "+now, "authorization: "+signature("x-date", "x-date: "+now)), noDate, nil},
		{"a date in the past, within the skew", "skew", at(-90), "", alice},
		{"a date in the future, within the skew", "skew", at(90), "", alice},
		{"a date in the past", "skew", at(-101), noDate, nil},
		{"a date in the future", "skew", at(110), noDate, nil},
		{"the default skew", "default", at(-290), "", alice},
		{"beyond the default skew", "default", at(-301), noDate, nil},
		{"RFC 850", "default", rfc850(), "", alice},
		{"x-date", "default", get("x-date: "+now, "authorization: "+signature("x-date", "x-date: "+now)), "", alice},
		{"x-date goes before an old date", "default", get("date: "+around(-1000), "x-date: "+now, "authorization: "+signature("x-date", "x-date: "+now)), "", alice},
		{"a bad x-date beside a good date", "default", get(date, "x-date: x", "authorization: "+dated), noDate, nil},
		{"an old x-date beside a good date", "default", get(date, "x-date: "+around(-1000), "authorization: "+dated), noDate, nil},
		{"an empty x-date beside a good date", "default", get(date, "x-date:", "authorization: "+dated), noDate, nil},
		{"replayed with a new x-date", "default", get("date: "+around(-1000), "x-date: "+now, "authorization: "+signature("date", "date: "+around(-1000))), noDate, nil},
		{"replayed with a new x-date, in another case", "default", get("date: "+around(-1000), "x-date: "+now, "authorization: "+signature("Date", "Date: "+around(-1000))), noDate, nil},
		{"replayed with a new date", "default", get("date: "+now, "authorization: "+signature("date", "date: "+around(-1000))), mismatch, nil},
		{"replayed with a new date, which was not signed", "default", get(date, "authorization: "+signature("x-a", "x-a:")), "", alice},

		// What is signed.
		{"@request-target", "default", target("GET", "/a?b=c%20d", "@request-target", "@request-target: get /a?b=c%20d"), "", alice},
		{"@request-target of a POST", "default", target("POST", "/", "@request-target", "@request-target: post /"), "", alice},
		{"request-line", "default", target("GET", "/a?b=c", "request-line", "GET /a?b=c HTTP/1.1"), "", alice},
		{"request-line is bare", "default", target("GET", "/a", "request-line", "request-line: GET /a HTTP/1.1"), mismatch, nil},
		{"@request-target is named", "default", target("GET", "/a", "@request-target", "get /a"), mismatch, nil},
		{"another method", "default", target("PUT", "/a", "@request-target", "@request-target: get /a"), mismatch, nil},
		{"another path", "default", target("GET", "/b", "@request-target", "@request-target: get /a"), mismatch, nil},
		{"another query", "default", target("GET", "/a?b=d", "@request-target", "@request-target: get /a?b=c"), mismatch, nil},
		{"a signature without the query", "default", target("GET", "/a?b=d", "request-line", "GET /a HTTP/1.1"), mismatch, nil},
		{"another version", "default", target("GET", "/a", "request-line", "GET /a HTTP/2.0"), mismatch, nil},
		{"a path is normalised before", "default", target("GET", "/a/../b%2E/./c", "@request-target", "@request-target: get /b./c"), "", alice},
		{"host", "default", envoytest.Request{Host: "shop.test", Header: []string{date, "authorization: " + signature("date host", date, "host: shop.test")}}, "", alice},
		{"another host", "default", envoytest.Request{Host: "evil.test", Header: []string{date, "authorization: " + signature("date host", date, "host: shop.test")}}, mismatch, nil},
		{"a header", "default", get(date, "X-A: b c", "authorization: "+signature("date x-a", date, "x-a: b c")), "", alice},
		{"another value", "default", get(date, "X-A: b d", "authorization: "+signature("date x-a", date, "x-a: b c")), mismatch, nil},
		{"names as the client writes them", "default", get("date: "+now, "authorization: "+signature("Date", "Date: "+now)), "", alice},
		{"an empty header is there", "default", get(date, "x-a:", "authorization: "+signature("date x-a", date, "x-a: ")), "", alice},
		{"a header that is not there", "default", get(date, "authorization: "+signature("date x-a", date, "x-a:")), "", alice},
		{"a header that was not there", "default", get(date, "x-a: b", "authorization: "+signature("date x-a", date, "x-a:")), mismatch, nil},
		{"names that no header has", "default", get(date, "authorization: "+signature("date é x:y %s [", date, "é:", "x:y:", "%s:", "[:")), "", alice},
		{"the path as a header", "default", target("GET", "/a?b", ":path", ":path: /a?b"), "", alice},
		{"a header named like the request line", "default", get(date, "request-line: x", "authorization: "+signature("date request-line", date, "request-line: x")), mismatch, nil},
		{"a repeated header", "default", get(date, "x-a: b", "x-a: c", "authorization: "+signature("date x-a", date, "x-a: b,c")), "", alice},
		{"a repeated header, one added", "default", get(date, "x-a: b", "x-a: c", "authorization: "+signature("date x-a", date, "x-a: b")), mismatch, nil},
		{"another order of lines", "default", get(date, "x-a: b", "authorization: "+signature("x-a date", date, "x-a: b")), mismatch, nil},
		{"enforced and signed", "enforced", envoytest.Request{Host: "h.test", Path: "/a", Header: []string{date, "authorization: " + signature("date host @request-target", date, "host: h.test", "@request-target: get /a")}}, "", alice},
		{"enforced and not signed", "enforced", with(dated), unknown, nil},
		{"enforced, in another case", "enforced", envoytest.Request{Host: "h.test", Path: "/a", Header: []string{date, "authorization: " + signature("Date host @request-target", "D"+date[1:], "host: h.test", "@request-target: get /a")}}, unknown, nil},

		// Bodies.
		{"a body", "body", body("hello", digest("hello")), "", alice},
		{"another body", "body", body("hello!", digest("hello")), mismatch, nil},
		{"a body without digest", "body", unsigned("hello"), mismatch, nil},
		{"no body, no digest", "body", with(dated), "", alice},
		{"no body, with its digest", "body", body("", digest("")), "", alice},
		{"no body, with the digest of another", "body", body("", digest("x")), mismatch, nil},
		{"another digest", "body", body("hello", "SHA-512="+base64.StdEncoding.EncodeToString([]byte("x"))), mismatch, nil},
		{"the name in lower case", "body", body("hello", "sha"+digest("hello")[3:]), mismatch, nil},
		{"an empty digest", "body", body("hello", ""), mismatch, nil},
		{"two digests", "body", unsigned("hello", "digest: "+digest("hello"), "digest: "+digest("x")), mismatch, nil},
		{"two digests in one", "body", body("hello", digest("hello")+","+digest("x")), mismatch, nil},
		{"a digest that is cut", "body", body("hello", strings.TrimSuffix(digest("hello"), "=")), mismatch, nil},
		{"a body with GET", "body", envoytest.Request{Body: "hello!", Header: []string{date, "digest: " + digest("hello"), "authorization: " + signature("date digest", date, "digest: "+digest("hello"))}}, mismatch, nil},
		{"a consumer of another namespace", "default", with(by("carol", "hmac-sha256", "date", sign("hmac-sha256", "carols", date))), unknown, nil},
		{"a consumer of another namespace, which granted it", "partner", with(by("carol", "hmac-sha256", "date", sign("hmac-sha256", "carols", date))), "",
			[]string{"x-consumer-id: uid-carol", "x-consumer-username: carol-user", "x-credential-identifier: carol"}},
		{"a digest that is not signed", "body", unsigned("hello", "digest: "+digest("hello")), "", alice},
		{"a body that is not validated", "default", body("hello", digest("x")), "", alice},
		{"a body of 1 MiB", "body", body(strings.Repeat("x", mib), digest(strings.Repeat("x", mib))), "", alice},
		{"a body that would be hashed for nobody", "body", envoytest.Request{Method: "POST", Body: strings.Repeat("x", mib+1), Header: []string{date, "authorization: " + by("alice", "hmac-sha256", "date", "AAAA")}}, mismatch, nil},

		// The rest.
		{"HEAD", "default", envoytest.Request{Method: "HEAD"}, "-", nil},
		{"HEAD, signed", "default", target("HEAD", "/", "@request-target", "@request-target: head /"), "", alice},
		{"OPTIONS needs a signature", "default", envoytest.Request{Method: "OPTIONS"}, "Unauthorized", nil},
		{"a preflight needs a signature", "default", envoytest.Request{Method: "OPTIONS", Header: []string{"origin: https://a.test", "access-control-request-method: GET"}}, "Unauthorized", nil},
		{"OPTIONS, signed", "default", target("OPTIONS", "/", "@request-target", "@request-target: options /"), "", alice},
		{"forged identity", "default", get(date, "authorization: "+dated, "X-Consumer-ID: x", "X-Consumer-Username: x", "x-credential-identifier: x", "x-anonymous-consumer: true", "x-consumer-groups: admins"), "", alice},
		{"hidden", "hide", with(dated), "", alice},
		{"hidden in Proxy-Authorization", "hide", get(date, "proxy-authorization: "+dated), "", alice},
		{"nobody is the anonymous one", "anonymous", envoytest.Request{}, "", guest},
		{"so is who signs wrongly", "anonymous", with(by("alice", "hmac-sha256", "date", "AAAA")), "", guest},
		{"so is who has no date, and it is hidden", "anonymous", get("authorization: " + dated), "", guest},
		{"what cannot be read is hidden, too", "anonymous", with(dated + ","), "", guest},
		{"in both headers", "anonymous", get(date, "proxy-authorization: HMAC x", "authorization: "+dated+" x"), "", guest},
		{"what stands behind another scheme is hidden, too", "anonymous", get(date, "authorization: Bearer x", "authorization: "+dated), "", guest},
		{"another scheme stays", "anonymous", with("Basic YTpi"), "", guest},
		{"another scheme beside a signature stays", "hide", get(date, "proxy-authorization: Basic YTpi", "authorization: "+dated), "", alice},
		{"a signature is who it is", "anonymous", with(dated), "", alice},
		{"a realm", "realm", envoytest.Request{}, "Unauthorized", nil},
	}
	for algorithm := range hashes {
		cases = append(cases, requestCase{algorithm, "default", with(by("alice", algorithm, "date", sign(algorithm, "secret", date))), "", alice})
	}
	return cases
}

// spareBits is the same signature to a decoder that does not mind what the last digit of 32 bytes should leave zero.
func spareBits(signature string) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	at := len(signature) - len("x=")
	last := strings.IndexByte(digits, signature[at])
	return signature[:at] + digits[last+1:last+2] + "="
}

func hexOf(signature string) string {
	raw, err := base64.StdEncoding.DecodeString(signature)
	if err != nil {
		panic(err)
	}
	return hex.EncodeToString(raw)
}

func rfc850() envoytest.Request {
	date := "date: " + time.Now().UTC().Format("Monday, 02-Jan-06 15:04:05 GMT")
	return envoytest.Request{Header: []string{date, "authorization: " + signature("date", date)}}
}

// identity is what the upstream sees of headers about who calls.
func identity(r *envoytest.Received) []string {
	var out []string
	for _, line := range r.Header {
		if strings.HasPrefix(line, "x-anonymous-consumer:") || strings.HasPrefix(line, "x-consumer-") || strings.HasPrefix(line, "x-credential-") {
			out = append(out, line)
		}
	}
	return out
}

func start(t *testing.T, version string) *envoytest.Envoy {
	c := envoytest.Config{Chains: map[string][]part.Part{}}
	for name, text := range chains {
		c.Chains[name] = parts(t, text)
	}
	return envoytest.Start(t, version, c)
}

func TestRequests(t *testing.T) {
	for _, version := range envoytest.Versions {
		t.Run(version, func(t *testing.T) {
			envoy := start(t, version)
			for _, c := range requests() {
				t.Run(c.name, func(t *testing.T) {
					answer := envoy.Gateway(c.chain).Do(t, c.request)
					if c.refused == "" {
						if answer.Upstream == nil {
							t.Fatalf("status %d %s, did not get upstream\n%s", answer.Status, answer.Body, envoy.Log())
						}
						if diff := cmp.Diff(c.upstream, identity(answer.Upstream)); diff != "" {
							t.Errorf("upstream (-want +got):\n%s", diff)
						}
						for _, line := range c.request.Header {
							name, value, _ := strings.Cut(line, ": ")
							if !strings.HasSuffix(name, "authorization") || value == "" {
								continue
							}
							hidden := (c.chain == "hide" || c.chain == "anonymous") && !strings.HasPrefix(value, "Basic")
							if got := answer.Upstream.Value(name); hidden != (got == "") {
								t.Errorf("the upstream gets %s: %q", name, got)
							}
						}
						if answer.Upstream.Body != c.request.Body {
							t.Errorf("the upstream gets a body of %d bytes, not %d", len(answer.Upstream.Body), len(c.request.Body))
						}
						return
					}
					if answer.Status != 401 || answer.Upstream != nil {
						t.Fatalf("status %d %s, upstream %v", answer.Status, answer.Body, answer.Upstream)
					}
					challenge := "hmac"
					if c.chain == "realm" {
						challenge = `hmac realm="shop"`
					}
					if got := answer.Header.Get("WWW-Authenticate"); got != challenge {
						t.Errorf("WWW-Authenticate: %s, want %s", got, challenge)
					}
					if c.refused == "-" {
						return
					}
					if answer.Message() != c.refused || !strings.Contains(answer.Body, `"request_id":"`) {
						t.Errorf("body %s, want message %q", answer.Body, c.refused)
					}
				})
			}
			if log := envoy.Log(); strings.Contains(log, "failed:") || strings.Contains(log, "script log") {
				t.Errorf("something failed:\n%s", log)
			}
		})
	}
}

func TestHTTP2(t *testing.T) {
	for _, version := range envoytest.Versions {
		gateway := start(t, version).Gateway("default")
		date := "date: " + around(0)
		for _, c := range []struct {
			names, line string
			refused     string
		}{
			{"request-line", "GET /a HTTP/2.0", ""},
			{"request-line", "GET /a HTTP/2", mismatch},
			{"request-line", "GET /a HTTP/1.1", mismatch},
			{"@request-target", "@request-target: get /a", ""},
			{"host", "host: h.test", ""},
			{":authority", ":authority: h.test", ""},
			{"Host", "host: h.test", mismatch},
		} {
			answer := gateway.Do(t, envoytest.Request{Path: "/a", Host: "h.test", HTTP2: true, Header: []string{date, "authorization: " + signature("date "+c.names, date, c.line)}})
			if (answer.Status == 200) != (c.refused == "") || answer.Message() != c.refused {
				t.Errorf("%s: status %d %s", c.line, answer.Status, answer.Body)
			}
		}
		repeated := signature("date", date)
		if answer := gateway.Do(t, envoytest.Request{HTTP2: true, Header: []string{date, "authorization: " + repeated, "authorization: " + repeated}}); answer.Message() != unknown {
			t.Errorf("repeated: status %d %s", answer.Status, answer.Body)
		}
	}
}

func TestGRPC(t *testing.T) {
	gateway := envoytest.Run(t, parts(t, `{}`))
	date := "date: " + around(0)
	for message, header := range map[string][]string{
		"Unauthorized": {date},
		noDate:         {"authorization: " + signature("date", date)},
		mismatch:       {date, "authorization: " + by("alice", "hmac-sha256", "date", "AAAA")},
		"":             {date, "authorization: " + signature("date", date)},
	} {
		answer := gateway.Do(t, envoytest.Request{Method: "POST", HTTP2: true, Header: append(header, "content-type: application/grpc")})
		status := "16"
		if message == "" {
			status = ""
		}
		if answer.Status != 200 || answer.Header.Get("grpc-status") != status || answer.Header.Get("grpc-message") != message || (answer.Upstream != nil) != (message == "") {
			t.Errorf("status %d, headers %v, want %q", answer.Status, answer.Header, message)
		}
	}
}

// A date that is exactly as far away as it may be is near enough, one second more is too far.
func TestSkew(t *testing.T) {
	for _, version := range envoytest.Versions {
		gateway := start(t, version).Gateway("skew")
		for seconds, status := range map[int]int{-100: 200, 100: 200, -101: 401, 101: 401} {
			catalogtest.InOneSecond(t, func(now time.Time) error {
				date := "date: " + now.Add(time.Duration(seconds)*time.Second).UTC().Format(http.TimeFormat)
				if answer := gateway.Get(t, "/", date, "authorization: "+signature("date", date)); answer.Status != status {
					return fmt.Errorf("%d seconds: status %d %s", seconds, answer.Status, answer.Body)
				}
				return nil
			})
		}
	}
}

// Bodies that are too large to hash, and those that cannot be held.
func TestBodiesThatAreNotValidated(t *testing.T) {
	const mib = 1 << 20
	for _, version := range envoytest.Versions {
		gateway := start(t, version).Gateway("body")
		date := "date: " + around(0)
		large := strings.Repeat("x", mib+1)
		signed := []string{date, "digest: " + digest(large), "authorization: " + signature("date digest", date, "digest: "+digest(large))}
		answer := gateway.Do(t, envoytest.Request{Method: "POST", Body: large, Header: signed})
		if answer.Status != 413 || answer.Message() != "Request size limit exceeded" || answer.Upstream != nil {
			t.Errorf("a large body: status %d %s", answer.Status, answer.Body)
		}
		if status := chunked(t, gateway.URL, large, signed); status != 413 {
			t.Errorf("a large body of unknown length: status %d", status)
		}
		hello := []string{date, "digest: " + digest("hello"), "authorization: " + signature("date digest", date, "digest: "+digest("hello"))}
		if status := chunked(t, gateway.URL, "hello", hello); status != 200 {
			t.Errorf("a body of unknown length: status %d", status)
		}
		if status := chunked(t, gateway.URL, "hello!", hello); status != 401 {
			t.Errorf("another body of unknown length: status %d", status)
		}
		answer = gateway.Do(t, envoytest.Request{Method: "POST", Body: "x", HTTP2: true, Header: []string{
			date, "content-type: application/grpc", "digest: " + digest("x"), "authorization: " + signature("date digest", date, "digest: "+digest("x")),
		}})
		if answer.Header.Get("grpc-status") != "16" || answer.Header.Get("grpc-message") != mismatch || answer.Upstream != nil {
			t.Errorf("gRPC: status %d %v", answer.Status, answer.Header)
		}
	}
}

// chunked sends a body without saying how long it is.
func chunked(t *testing.T, url, body string, header []string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, io.MultiReader(strings.NewReader(body)))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		request.Header.Set(name, value)
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close() // the status is all that counts
	return response.StatusCode
}

// Nobody can make the gateway work much for a short request: the lines of one request are not longer than itself.
func TestLongLists(t *testing.T) {
	envoy := start(t, envoytest.Versions[1])
	date := "date: " + around(0)
	var names []string
	for i := range 5000 {
		names = append(names, fmt.Sprintf("h%d", i))
	}
	lines := []string{date}
	for _, n := range names {
		lines = append(lines, n+":")
	}
	header := "authorization: " + signature("date "+strings.Join(names, " "), lines...)
	if answer := envoy.Gateway("default").Get(t, "/", date, header); answer.Status != 200 {
		t.Errorf("status %d %s", answer.Status, answer.Body)
	}
	// One value of 30 KB, listed as often as its name can be written in another way, would be a text of 30 MB.
	names = names[:0]
	for i := range 1024 {
		name := []byte("x-aaaaaaaaaa")
		for bit := range 10 {
			if i>>bit&1 == 1 {
				name[2+bit] = 'A'
			}
		}
		names = append(names, string(name))
	}
	header = "authorization: " + by("alice", "hmac-sha256", "date "+strings.Join(names, " "), "AAAA")
	if answer := envoy.Gateway("default").Get(t, "/", date, header, "x-aaaaaaaaaa: "+strings.Repeat("x", 30_000)); answer.Message() != unknown {
		t.Errorf("status %d %s", answer.Status, answer.Body)
	}
}
