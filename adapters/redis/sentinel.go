package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
)

const (
	// vigilance is how often the sentinels are asked whether there is another master.
	vigilance = 500 * time.Millisecond

	// grace is how long others are waited for when a sentinel has answered.
	grace = 250 * time.Millisecond

	// sentinelPool is how many connections there are to each sentinel.
	sentinelPool = 4
)

// sentinels is the topology of a server that sentinels know by a name. All connections
// to it are closed when they say another address.
type sentinels struct {
	alone
	c    *Cache
	name string
	ask  []pipeliner // one for each sentinel
	dial dialer
	poll *inquiry // of who the master is

	mu      sync.Mutex
	current string                // address of the master; empty before the first answer; guarded by mu
	since   time.Time             // when it was learned; guarded by mu
	open    map[*tracked]struct{} // connections to it; guarded by mu
}

// tracked is a connection that is closed when there is another master.
type tracked struct {
	net.Conn
	s *sentinels
}

func (t *tracked) Close() error {
	t.s.mu.Lock()
	delete(t.s.open, t)
	t.s.mu.Unlock()
	return t.Conn.Close()
}

// SyscallConn is for go-redis, as that of tlsConn is.
func (t *tracked) SyscallConn() (syscall.RawConn, error) {
	conn, ok := t.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return conn.SyscallConn()
}

// NetConn returns the connection below that of TLS, for hangUp.
func (t *tracked) NetConn() net.Conn {
	if secure, ok := t.Conn.(interface{ NetConn() net.Conn }); ok {
		return secure.NetConn()
	}
	return t.Conn
}

// connect is the dialer of the connections to the master.
func (s *sentinels) connect(ctx context.Context, network, _ string) (net.Conn, error) {
	addr, err := s.master(ctx, time.Now().Add(s.c.opTimeout))
	if err != nil {
		return nil, err
	}
	conn, err := s.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != addr {
		conn.Close()
		return nil, &net.OpError{Op: "dial", Net: network, Err: errAnotherMaster}
	}
	t := &tracked{conn, s}
	s.open[t] = struct{}{}
	return t, nil
}

var (
	errAnotherMaster = errors.New("the sentinels have named another master")
	errNoSentinels   = errors.New("the hosts of redis+sentinel:// are sentinels, and this server is none")
	errNoSentinel    = errors.New("no sentinel knows a master of this name")
	errReplica       = errors.New("the server that the sentinels name is not a master")
)

// checkRole is called with each new connection. Sentinels may name a server that is a
// replica by now, and what it has may be old.
func checkRole(ctx context.Context, conn *redis.Conn) error {
	role, err := conn.Do(ctx, "role").Slice()
	if err != nil {
		return err
	}
	if len(role) == 0 || role[0] != "master" {
		return errReplica
	}
	return nil
}

// instead has a call done again that was refused because the server is a replica, if
// there is another master since it began.
func (s *sentinels) instead(ctx context.Context, begun, deadline time.Time, n *node, _ string, err error) (*node, bool) {
	switch {
	case err == nil || err == redis.Nil:
	case redis.IsReadOnlyError(err):
		if s.poll.wait(ctx, deadline) != nil {
			break
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.since.After(begun) {
			return n, false
		}
	case !answered(err) && ctx.Err() == nil:
		s.poll.begin(deadline)
	}
	return nil, false
}

// A verdict is what a sentinel says of the master.
type verdict struct {
	addr  string
	epoch int // of the configuration: a sentinel with an older one has missed a failover
	err   error
}

// master returns the address that the sentinels say.
func (s *sentinels) master(ctx context.Context, deadline time.Time) (string, error) {
	if err := s.poll.wait(ctx, deadline); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current, nil
}

// fetch learns the address that the sentinels say whose configuration is the newest, or
// most of them if they differ, in what has come until the deadline.
func (s *sentinels) fetch(deadline time.Time) error {
	ctx, cancel := context.WithCancel(s.c.closing)
	defer cancel()
	verdicts := make(chan verdict, len(s.ask))
	for _, sentinel := range s.ask {
		go func() { verdicts <- s.say(ctx, deadline, sentinel) }()
	}
	votes := map[verdict]int{}
	var best verdict
	var errs []error
	var late <-chan time.Time // nil before the first verdict
	for waiting := len(s.ask); waiting > 0; waiting-- {
		select {
		case v := <-verdicts:
			if v.err != nil {
				errs = append(errs, v.err)
				continue
			}
			votes[v]++
			if v.epoch > best.epoch || v.epoch == best.epoch && votes[v] > votes[best] {
				best = v
			}
			if late == nil {
				late = time.After(grace)
			}
		case <-late:
			waiting = 0
		}
	}
	if best.addr == "" {
		return fmt.Errorf("sentinel: %w", errors.Join(errs...))
	}
	s.learn(best.addr)
	return nil
}

// say returns what a sentinel says. The leader of a failover has the address of the new
// master sooner in the reply to the first command than in that to the second.
func (s *sentinels) say(ctx context.Context, deadline time.Time, sentinel pipeliner) verdict {
	if !s.c.begin() {
		return verdict{err: l2cache.ErrClosed}
	}
	defer s.c.calls.Done()
	addr := redis.NewStringSliceCmd(ctx, "sentinel", "get-master-addr-by-name", s.name)
	details := redis.NewMapStringStringCmd(ctx, "sentinel", "master", s.name)
	err := sentinel.pipeline(ctx, deadline, []redis.Cmder{once{addr}, once{details}})
	switch {
	case err == redis.Nil || err == nil && len(addr.Val()) != 2:
		return verdict{err: errNoSentinel}
	case redis.HasErrorPrefix(err, "unknown command"):
		return verdict{err: errNoSentinels}
	case err != nil:
		return verdict{err: err}
	}
	epoch, err := strconv.Atoi(details.Val()["config-epoch"])
	return verdict{addr: net.JoinHostPort(addr.Val()[0], addr.Val()[1]), epoch: epoch, err: err}
}

// learn takes the address of the master, and closes the connections to another.
func (s *sentinels) learn(addr string) {
	var old map[*tracked]struct{}
	s.mu.Lock()
	if s.current != addr {
		old, s.open = s.open, map[*tracked]struct{}{}
		s.current, s.since = addr, time.Now()
	}
	s.mu.Unlock()
	for t := range old {
		hangUp(t)
	}
}

// watch asks until the handle is closed. The sentinels themselves close connections to
// a master that they replace, but not while they cannot reach it.
func (s *sentinels) watch() {
	ticker := time.NewTicker(vigilance)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-s.c.closing.Done():
			return
		}
		s.poll.begin(time.Now()) // an error shows in the calls that need to dial
	}
}

func (s *sentinels) close() {
	s.alone.close()
	for _, sentinel := range s.ask {
		sentinel.close()
	}
}
