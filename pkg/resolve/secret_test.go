package resolve_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

func source(key string) pluginsv1alpha1.ConfigSource {
	return pluginsv1alpha1.ConfigSource{SecretKeyRef: pluginsv1alpha1.KeyRef{Name: "s", Key: key}}
}

// patches are written as path and key in turn.
func patches(pathAndKey ...string) []pluginsv1alpha1.ConfigPatch {
	var out []pluginsv1alpha1.ConfigPatch
	for p := range slices.Chunk(pathAndKey, 2) {
		out = append(out, pluginsv1alpha1.ConfigPatch{Path: p[0], ValueFrom: source(p[1])})
	}
	return out
}

func raw(text string) *apiextensionsv1.JSON { return &apiextensionsv1.JSON{Raw: []byte(text)} }

func secretsOf(namespace string, keysAndValues ...string) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "s"}, Data: map[string][]byte{}}
	for p := range slices.Chunk(keysAndValues, 2) {
		s.Data[p[0]] = []byte(p[1])
	}
	return s
}

func TestConfigsComeFromSecrets(t *testing.T) {
	secret := secretsOf("shop", "text", "open", "quoted", `"open"`, "number", "61", "json", `{"b": [1, {"c": null}]}`, "list", `["x"]`,
		"yaml", "a: &x 1\n", "map", "a: on\nb: {c: 1e3}\n", "two", "a: 1\n---\nb: 2\n", "twice", "a: 1\na: 2\n", "empty", "", "comment", "# none\n",
		"bytes", "\xff", "line", "open\n", "lines", "a\nb\n", "ref", `{"secretKeyRef": {"name": "s", "key": "text"}}`)
	from := func(key string) pluginsv1alpha1.PluginSpec {
		c := source(key)
		return pluginsv1alpha1.PluginSpec{ConfigFrom: &c}
	}
	patched := func(config string, pathAndKey ...string) pluginsv1alpha1.PluginSpec {
		s := pluginsv1alpha1.PluginSpec{ConfigPatches: patches(pathAndKey...)}
		if config != "" {
			s.Config = raw(config)
		}
		return s
	}
	for name, c := range map[string]struct {
		spec         pluginsv1alpha1.PluginSpec
		want, public string
		wrong        string // parts of what is wrong, one for each with | between them
	}{
		"the whole in YAML":                 {from("map"), `{"a":true,"b":{"c":1e3}}`, `{}`, ""},
		"the whole in JSON":                 {from("json"), `{"b":[1,{"c":null}]}`, `{}`, ""},
		"the whole is a text":               {from("text"), `{}`, `{}`, "InvalidConfig spec.configFrom.secretKeyRef: holds no config"},
		"the whole has an anchor":           {from("yaml"), `{}`, `{}`, "holds no config"},
		"the whole is two documents":        {from("two"), `{}`, `{}`, "holds no config"},
		"the whole has a field twice":       {from("twice"), `{"a":2}`, `{}`, "holds no config"},
		"the whole is empty":                {from("empty"), `{}`, `{}`, "holds no config"},
		"the whole is a comment":            {from("comment"), `{}`, `{}`, "holds no config"},
		"the whole is no text":              {from("bytes"), `{}`, `{}`, "is no text in UTF-8"},
		"no such key":                       {from("gone"), `{}`, `{}`, `RefNotFound spec.configFrom.secretKeyRef: Secret shop/s has no key "gone"`},
		"a text":                            {patched("", "/a", "text"), `{"a":"open"}`, `{"a":"(hidden)"}`, ""},
		"a text in quotes":                  {patched("", "/a", "quoted"), `{"a":"open"}`, `{"a":"(hidden)"}`, ""},
		"a number":                          {patched(`{"a": 1, "b": 2}`, "/a", "number"), `{"a":61,"b":2}`, `{"a":"(hidden)","b":2}`, ""},
		"maps on the way are made":          {patched(`{"b": {}}`, "/a/x~1y/~0", "number"), `{"a":{"x/y":{"~":61}},"b":{}}`, `{"a":{"x/y":{"~":"(hidden)"}},"b":{}}`, ""},
		"into a list":                       {patched(`{"a": [1, 2]}`, "/a/1", "text", "/a/-", "number", "/a/4", "number"), `{"a":[1,"open",2,61,61]}`, `{"a":[1,"(hidden)",2,"(hidden)","(hidden)"]}`, ""},
		"into a list that is made":          {patched("", "/a/-/b", "text", "/a/-", "number"), `{"a":[{"b":"open"},61]}`, `{"a":[{"b":"(hidden)"},"(hidden)"]}`, ""},
		"into an item":                      {patched(`{"a": [{}]}`, "/a/0/b", "text"), `{"a":[{"b":"open"}]}`, `{"a":[{"b":"(hidden)"}]}`, ""},
		"into another value":                {patched("", "/a", "json", "/a/d", "number"), `{"a":{"b":[1,{"c":null}],"d":61}}`, `{"a":"(hidden)"}`, ""},
		"into another list":                 {patched("", "/a", "list", "/a/-", "number"), `{"a":["x",61]}`, `{"a":"(hidden)"}`, ""},
		"behind the end of a list":          {patched(`{"a": []}`, "/a/1", "text"), `{"a":[]}`, `{"a":[]}`, `InvalidPlugin spec.configPatches[0].path: "/a/1" leads nowhere: a list has no item "1"`},
		"to an item with zeros":             {patched(`{"a": [1, 2]}`, "/a/01", "text"), `{"a":[1,2]}`, `{"a":[1,2]}`, `a list has no item "01"`},
		"to an item below nought":           {patched(`{"a": [1, 2]}`, "/a/-1", "text"), `{"a":[1,2]}`, `{"a":[1,2]}`, `a list has no item "-1"`},
		"below the end of a list":           {patched(`{"a": [1]}`, "/a/-/b", "text"), `{"a":[1]}`, `{"a":[1]}`, `a list has no item "-"`},
		"into a number":                     {patched(`{"a": 1}`, "/a/b", "text"), `{"a":1}`, `{"a":1}`, "neither a map nor a list"},
		"a field without a name":            {patched("", "/", "text"), `{"":"open"}`, `{"":"(hidden)"}`, ""},
		"a reference in a config":           {patched(`{"a": [{"secretKeyRef": {"name": "s", "key": "number"}}]}`), `{"a":["61"]}`, `{"a":["(hidden)"]}`, ""},
		"and a patch":                       {patched(`{"a": {"secretKeyRef": {"name": "s", "key": "text"}}}`, "/b", "text"), `{"a":"open","b":"open"}`, `{"a":"(hidden)","b":"(hidden)"}`, ""},
		"a reference to bytes":              {patched(`{"a": {"secretKeyRef": {"name": "s", "key": "bytes"}}}`), `{"a":""}`, `{"a":"(hidden)"}`, "InvalidConfig spec.config.a.secretKeyRef: is no text in UTF-8"},
		"a reference to nothing":            {patched(`{"a": {"secretKeyRef": {"name": "t", "key": "text"}}}`), `{"a":""}`, `{"a":"(hidden)"}`, "RefNotFound spec.config.a.secretKeyRef: there is no Secret shop/t"},
		"a reference without a key":         {patched(`{"a": {"secretKeyRef": {"name": "s"}}}`), `{"a":null}`, `{"a":null}`, "InvalidConfig spec.config.a: a map with a name and a key"},
		"a reference with something beside": {patched(`{"a": {"b": 1, "secretKeyRef": {"name": "s", "key": "text"}}}`), `{"a":null}`, `{"a":null}`, "nothing stands beside it"},
		"a reference to another namespace":  {patched(`{"a": {"secretKeyRef": {"namespace": "x", "name": "s", "key": "text"}}}`), `{"a":null}`, `{"a":null}`, "a map with a name and a key"},
		"the whole by a reference":          {patched(`{"secretKeyRef": {"name": "s", "key": "map"}}`), `{"secretKeyRef":{"key":"map","name":"s"}}`, `{"secretKeyRef":{"key":"map","name":"s"}}`, "by spec.configFrom"},
		"a reference from a Secret":         {patched("", "/a", "ref"), `{"a":{"secretKeyRef":{"key":"text","name":"s"}}}`, `{"a":"(hidden)"}`, ""},
		"a text with a line break":          {patched(`{"a": {"secretKeyRef": {"name": "s", "key": "line"}}}`, "/b", "line"), `{"a":"open\n","b":"open\n"}`, `{"a":"(hidden)","b":"(hidden)"}`, "ConfigWarning spec.config.a.secretKeyRef: line break|ConfigWarning spec.configPatches[0].valueFrom.secretKeyRef: "},
		"a text of lines":                   {patched("", "/a", "lines"), `{"a":"a\nb\n"}`, `{"a":"(hidden)"}`, ""},
		"two kinds at once":                 {pluginsv1alpha1.PluginSpec{Config: raw(`{}`), ConfigFrom: from("map").ConfigFrom}, `{"a":true,"b":{"c":1e3}}`, `{}`, "InvalidPlugin spec.configFrom: cannot be used together"},
	} {
		t.Run(name, func(t *testing.T) {
			p := pluginOf(t, &snapshot.Snapshot{
				Plugins: []*pluginsv1alpha1.Plugin{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p"}, Spec: c.spec}},
				Secrets: []*corev1.Secret{secret, secretsOf("other", "map", "a: 5")},
			})
			if diff := cmp.Diff([]string{c.want, c.public}, []string{string(p.Config.JSON()), string(p.Public.JSON())}); c.wrong == "" && diff != "" || !cmp.Equal(c.public, string(p.Public.JSON())) {
				t.Errorf("config and what is public of it (-want +got):\n%s", diff)
			}
			var wrong []string
			if c.wrong != "" {
				wrong = strings.Split(c.wrong, "|")
			}
			if len(p.Wrong) != len(wrong) {
				t.Fatalf("%v, not %q", p.Wrong, wrong)
			}
			for i, f := range p.Wrong {
				head, rest, ok := strings.Cut(wrong[i], ": ")
				if !ok {
					head, rest = "", wrong[i]
				}
				if got := string(f.Reason) + " " + f.Place; head != "" && got != head || !strings.Contains(f.Problem, rest) {
					t.Errorf("%s: %s, not %q", got, f.Problem, wrong[i])
				}
			}
		})
	}
}

func pluginOf(t *testing.T, s *snapshot.Snapshot) *resolve.Plugin {
	t.Helper()
	all := resolve.NewLibrary(s, nil).All()
	if len(all) != 1 {
		t.Fatal(all)
	}
	return all[0]
}

func TestSecretsOfAClusterPluginAreInTheRootNamespace(t *testing.T) {
	s := &snapshot.Snapshot{
		Options: snapshot.Options{RootNamespace: "mesh"}.Defaults(),
		ClusterPlugins: []*pluginsv1alpha1.ClusterPlugin{{
			ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: pluginsv1alpha1.PluginSpec{ConfigPatches: patches("/a", "k")},
		}},
		Secrets: []*corev1.Secret{secretsOf("mesh", "k", "1"), secretsOf("shop", "k", "2")},
	}
	if got := string(pluginOf(t, s).Config.JSON()); got != `{"a":1}` {
		t.Error(got)
	}
	if got := resolve.SecretNames(s); len(got) != 1 || got[0].String() != "mesh/s" {
		t.Error(got)
	}
}

// TestAnotherSecretIsAnotherPlugin: what is kept of a Plugin from one snapshot to the next depends on what its Secrets hold,
// and on nothing else of them.
func TestAnotherSecretIsAnotherPlugin(t *testing.T) {
	of := func(secrets ...*corev1.Secret) *snapshot.Snapshot {
		return &snapshot.Snapshot{
			Plugins: []*pluginsv1alpha1.Plugin{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p"}, Spec: pluginsv1alpha1.PluginSpec{ConfigPatches: patches("/a", "k")}}},
			Secrets: secrets,
		}
	}
	library := resolve.NewLibrary(of(secretsOf("shop", "k", "1")), nil)
	if library.Next(of(secretsOf("shop", "k", "1", "other", "x"), secretsOf("other", "k", "2"))) != library {
		t.Error("another key and another Secret make it a new library")
	}
	for name, secrets := range map[string][]*corev1.Secret{
		"another value": {secretsOf("shop", "k", "2")}, "an empty value": {secretsOf("shop", "k", "")}, "no such key": {secretsOf("shop")}, "no such Secret": nil,
	} {
		next := library.Next(of(secrets...))
		if next == library || next.All()[0] == library.All()[0] {
			t.Errorf("%s leaves the Plugin as it was", name)
		}
		if back := next.Next(of(secretsOf("shop", "k", "1"))).All()[0]; string(back.Config.JSON()) != `{"a":1}` || len(back.Wrong) > 0 {
			t.Errorf("after %s it does not heal: %s %v", name, back.Config.JSON(), back.Wrong)
		}
	}
}
