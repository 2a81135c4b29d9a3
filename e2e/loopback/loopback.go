// Package loopback finds ports on 127.0.0.1 for servers that are told their port before they start.
package loopback

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// The range lies below Linux's range for outgoing connections (32768 to 60999), so that no client of a running test
// is given a port that Port has promised to a server.
const first, last = 20000, 32000

var (
	mu    sync.Mutex
	given = map[int]bool{}
)

// Port returns a port that nobody listens on and that this process has not returned before.
func Port() int {
	mu.Lock()
	defer mu.Unlock()
	for range last - first {
		port := first + rand.IntN(last-first)
		if !given[port] && free(port) {
			given[port] = true
			return port
		}
	}
	panic(fmt.Sprintf("no free port between %d and %d", first, last))
}

// Address is 127.0.0.1 with a port.
func Address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// free asks for the port on all addresses: a program of the same machine may hold it on another one.
func free(port int) bool {
	l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
	if err != nil {
		return false
	}
	return l.Close() == nil
}
