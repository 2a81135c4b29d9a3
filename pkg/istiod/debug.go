package istiod

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// router is the type of a proxy that is a gateway.
const router = "router"

// syncStatus is istiod's answer to syncz, as far as it matters: one for each connection.
type syncStatus struct {
	Proxy     string `json:"proxy"`
	Type      string `json:"proxy_type"`
	Resources map[string]struct {
		Sent      string `json:"sent"`
		Acked     string `json:"acked"`
		LastError string `json:"lastError"`
	} `json:"resources"`
}

// adsClients is istiod's answer to adsz.
type adsClients struct {
	Clients []adsClient `json:"clients"`
}

type adsClient struct {
	ConnectionID string            `json:"connectionId"`
	Labels       map[string]string `json:"labels"`
}

// description of a gateway, which holds while the last response of extension configurations is this one: istiod sends
// everything anew when the labels of its pod change.
type description struct {
	extensions nonce
	labels     map[string]string
}

// errGone says that a proxy is not connected any more.
var errGone = errors.New("it is not connected")

// proxies are the gateways that are connected to the istiod of the session.
func (s *session) proxies(ctx context.Context, ask question) ([]proxy, error) {
	text, err := ask(ctx, "syncz")
	if err != nil {
		return nil, err
	}
	var list []syncStatus
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("its debug interface does not know syncz, probably it is switched off by ENABLE_DEBUG_ON_HTTP=false: %q", beginning(text))
	}
	if !slices.ContainsFunc(list, func(p syncStatus) bool { return p.Proxy == s.node }) {
		// After a restart, or behind a load balancer. Versions of different istiods must not be compared.
		return nil, errors.New("its debug interface does not know this client: it is that of another istiod")
	}
	var proxies []proxy
	for _, p := range list {
		if p.Type != router || p.Proxy == s.node {
			continue
		}
		if i := slices.IndexFunc(proxies, func(q proxy) bool { return q.id == p.Proxy }); i >= 0 {
			proxies[i].twice = true
			continue
		}
		q, err := p.proxy()
		if err != nil {
			return nil, err
		}
		d, err := s.describe(ctx, ask, q)
		if errors.Is(err, errGone) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if selects(probeLabels(), d.labels) {
			// Another client is no gateway.
			continue
		}
		q.labels = d.labels
		proxies = append(proxies, q)
	}
	return proxies, nil
}

func (p syncStatus) proxy() (proxy, error) {
	q := proxy{id: p.Proxy, responses: map[string]response{}}
	for url, r := range p.Resources {
		sent, err := parseNonce(r.Sent)
		if err != nil {
			return proxy{}, err
		}
		acked, err := parseNonce(r.Acked)
		if err != nil {
			return proxy{}, err
		}
		q.responses[url] = response{sent, acked, r.LastError}
	}
	return q, nil
}

// describe asks istiod about one gateway, where it cannot be told from an earlier answer.
func (s *session) describe(ctx context.Context, ask question, p proxy) (description, error) {
	extensions := p.responses[extensionType].sent
	if d, ok := s.described[p.id]; ok && d.extensions == extensions && extensions != (nonce{}) {
		return d, nil
	}
	// istiod answers with the first connection whose id contains what is asked for, and this may be another one.
	const all = "adsz"
	for _, about := range []string{all + "?" + url.Values{"proxyID": {p.id}}.Encode(), all} {
		text, err := ask(ctx, about)
		if err != nil {
			return description{}, err
		}
		var answer adsClients
		// A proxy that is not there is answered in words.
		if err := json.Unmarshal(text, &answer); err != nil && about == all {
			return description{}, fmt.Errorf("its debug interface does not know %s: %q", all, beginning(text))
		}
		for _, c := range answer.Clients {
			if !c.of(p.id) {
				continue
			}
			d := description{extensions, c.Labels}
			s.described[p.id] = d
			return d, nil
		}
	}
	return description{}, errGone
}

// of says whether the connection is that of a proxy: its id is the proxy's and a number.
func (c adsClient) of(id string) bool {
	rest, ok := strings.CutPrefix(c.ConnectionID, id+"-")
	if !ok {
		return false
	}
	_, err := strconv.ParseUint(rest, 10, 64)
	return err == nil
}

// question asks istiod's debug interface.
type question func(ctx context.Context, question string) ([]byte, error)

// overHTTP asks at a URL such as http://127.0.0.1:8080.
func overHTTP(base string) question {
	return func(ctx context.Context, question string) ([]byte, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base, "/")+"/debug/"+question, nil)
		if err != nil {
			return nil, err
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return nil, err
		}
		defer answer.Body.Close()
		switch answer.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			return nil, fmt.Errorf("%s answers %s: istiod's HTTP port answers its own machine or pod only, for example through a port-forward", base, answer.Status)
		}
		return io.ReadAll(answer.Body)
	}
}

// explain adds what to do to the errors that a wrong set-up causes.
func explain(err error) error {
	switch s := status.Convert(err); s.Code() {
	case codes.Unauthenticated:
		return fmt.Errorf("%s; connect by TLS with a token of a service account, or give the URL of its debug interface", s.Message())
	case codes.PermissionDenied:
		return fmt.Errorf("%s; the service account must be in istiod's own namespace", s.Message())
	case codes.Unavailable, codes.Canceled, codes.ResourceExhausted:
		return errors.New(s.Message())
	}
	return err
}

// beginning of a text that was not expected.
func beginning(text []byte) string {
	const most = 100
	return oneLine(string(text[:min(len(text), most)]))
}
