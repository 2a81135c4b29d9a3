package faults

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/istio-plugins/istio-plugins/e2e/loopback"
)

const (
	// pace is between two requests of a client: the tests need requests at all times, not all of the machine.
	pace = 2 * time.Millisecond
	// renew is after how many requests a client opens a new connection, which another worker of Envoy may get.
	renew = 20
	// requestTimeout bounds a request. One is answered in about a millisecond.
	requestTimeout = 20 * time.Second
)

// client sends requests and knows how they must be answered at any time, whatever breaks.
type client struct {
	name, host string
	// key is sent if it is not empty.
	key string
	// may are the statuses of good answers.
	may []int
	// problem finds other faults of an answer with status 200; nil for none.
	problem func(http.Header) error
}

// load are clients that send requests until they are stopped.
type load struct {
	cancel context.CancelFunc
	wait   sync.WaitGroup

	mu       sync.Mutex
	answers  map[string]map[string]int
	problems map[string][]string
}

// startLoad starts the clients. unreachable says that the gateway may be gone for a while: no answer is a good answer.
func startLoad(t *testing.T, port int, unreachable bool, clients ...client) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel, answers: map[string]map[string]int{}, problems: map[string][]string{}}
	for _, c := range clients {
		l.answers[c.name] = map[string]int{}
		l.wait.Go(func() { l.run(ctx, c, port, unreachable) })
	}
	t.Cleanup(func() { l.stop(t) })
	return l
}

func (l *load) run(ctx context.Context, c client, port int, unreachable bool) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		status, problem := c.ask(transport, port, n%renew == 0)
		if status == "" && unreachable {
			status, problem = "no answer", nil
		}
		l.mu.Lock()
		l.answers[c.name][status]++
		if problem != nil {
			l.problems[c.name] = append(l.problems[c.name], fmt.Sprintf("%s request %d: %v", time.Now().Format(time.StampMilli), n, problem))
		}
		l.mu.Unlock()
	}
}

// ask sends one request. It returns the answer's status, if there was an answer, and what is wrong.
func (c client) ask(transport http.RoundTripper, port int, last bool) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+loopback.Address(port)+"/", nil)
	if err != nil {
		return "", err
	}
	request.Host, request.Close = c.host, last
	if c.key != "" {
		request.Header.Set("apikey", c.key)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body) // the connection is used again
	status := strconv.Itoa(response.StatusCode)
	switch {
	case !slices.Contains(c.may, response.StatusCode):
		return status, fmt.Errorf("answered %s, not %v", status, c.may)
	case c.problem != nil && response.StatusCode == http.StatusOK:
		return status, c.problem(response.Header)
	}
	return status, nil
}

// stop ends the clients and fails the test for every client that got a wrong answer.
func (l *load) stop(t *testing.T) {
	t.Helper()
	if l.cancel == nil {
		return
	}
	l.cancel()
	l.wait.Wait()
	l.cancel = nil
	for name, answers := range l.answers {
		t.Logf("%s: %v", name, answers)
	}
	for name, problems := range l.problems {
		t.Errorf("%s: %d wrong answers, first %q, last %q", name, len(problems), problems[0], problems[len(problems)-1])
	}
}
