package servertest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"
)

// Redis starts a redis-server for the time of the test: see [StartRedis].
func Redis(t testing.TB, args ...string) *Server {
	t.Helper()
	return own(t, StartRedis, args)
}

// Memcached starts a memcached for the time of the test: see [StartMemcached].
func Memcached(t testing.TB, args ...string) *Server {
	t.Helper()
	return own(t, StartMemcached, args)
}

// MemcachedTLS starts a memcached with TLS for the time of the test: see
// [StartMemcachedTLS].
func MemcachedTLS(t testing.TB, cert, key string, args ...string) *Server {
	t.Helper()
	s, err := StartMemcachedTLS(cert, key, args...)
	closeAfter(t, s, err)
	return s
}

// NATS starts a nats-server for the time of the test: see [StartNATS].
func NATS(t testing.TB, args ...string) *Server {
	t.Helper()
	return own(t, StartNATS, args)
}

// RedisCluster starts a cluster for the time of the test: see [StartRedisCluster].
func RedisCluster(t testing.TB, replicas int, args ...string) *Cluster {
	t.Helper()
	c, err := StartRedisCluster(replicas, args...)
	closeAfter(t, c, err)
	return c
}

// RedisSentinel starts a master, its replicas and sentinels for the time of the test:
// see [StartRedisSentinel].
func RedisSentinel(t testing.TB, gone time.Duration, args ...string) *Sentinel {
	t.Helper()
	s, err := StartRedisSentinel(gone, args...)
	closeAfter(t, s, err)
	return s
}

// NATSCluster starts a cluster for the time of the test: see [StartNATSCluster].
func NATSCluster(t testing.TB, args ...string) NATSServers {
	t.Helper()
	servers, err := StartNATSCluster(args...)
	closeAfter(t, servers, err)
	return servers
}

func own(t testing.TB, start func(...string) (*Server, error), args []string) *Server {
	t.Helper()
	s, err := start(args...)
	closeAfter(t, s, err)
	return s
}

// closeAfter closes c after the test, which it ends if c could not be started.
func closeAfter(t testing.TB, c io.Closer, err error) {
	t.Helper()
	if err != nil {
		SkipOrFail(t, err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Shared returns a function that gives the same server to each test that calls
// it. The first call starts the server, with start and args, and [Main] closes
// it.
//
//	var server = servertest.Shared(servertest.StartRedis)
//
//	func TestMain(m *testing.M) { servertest.Main(m) }
//
//	func TestGet(t *testing.T) {
//		client := dial(server(t).Addr)
//		…
//	}
//
// Tests keep out of each other's way by their keys. A test that stops or
// stalls the server starts its own.
func Shared(start func(args ...string) (*Server, error), args ...string) func(testing.TB) *Server {
	once := sync.OnceValues(func() (*Server, error) {
		s, err := start(args...)
		if err != nil {
			return nil, err
		}
		shared.mu.Lock()
		defer shared.mu.Unlock()
		shared.servers = append(shared.servers, s)
		return s, nil
	})
	return func(t testing.TB) *Server {
		t.Helper()
		if !shared.closing {
			t.Fatal("servertest: a shared server needs func TestMain(m *testing.M) { servertest.Main(m) }")
		}
		s, err := once()
		if err != nil {
			SkipOrFail(t, err)
		}
		return s
	}
}

var shared struct {
	closing bool // Main will close them; set before the first test

	mu      sync.Mutex
	servers []*Server // guarded by mu
}

// Main runs the tests, then closes the shared servers. It is the body of a
// TestMain.
func Main(m *testing.M) {
	shared.closing = true
	m.Run()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	for _, s := range shared.servers {
		if err := s.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}

// SkipOrFail ends a test that did not get its server, and err is why: it skips
// the test if the server is not installed and need not be, else it fails.
func SkipOrFail(t testing.TB, err error) {
	t.Helper()
	var missing *MissingError
	if !errors.As(err, &missing) || os.Getenv("L2CACHE_REQUIRE_SERVERS") == "1" {
		t.Fatal(err)
	}
	if _, said := announced.LoadOrStore(missing.Server, true); !said {
		announce(fmt.Sprintf("SKIPPED: %v\n", err))
	}
	t.Skip(err)
}

var announced sync.Map // of server names

// announce prints line where it is seen although all tests pass.
func announce(line string) {
	if f := goStderr(); f != nil && !testing.Verbose() {
		defer f.Close()
		if _, err := f.WriteString(line); err == nil {
			return
		}
	}
	os.Stderr.WriteString(line)
}
