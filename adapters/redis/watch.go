package redis

import (
	"context"
	"errors"
	"iter"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/l2cache/l2cache"
)

const (
	// silence is how long a link may be silent before it is sent a PING.
	silence = 3 * time.Second

	// Between two attempts to make a link again.
	minPause = 10 * time.Millisecond
	maxPause = time.Second

	// lookout is how often a cluster is asked for new servers.
	lookout = 500 * time.Millisecond
)

var _ l2cache.Watcher = (*Cache)(nil)

// Watch tells of changes by CLIENT TRACKING with BCAST, on a connection of its own.
func (c *Cache) Watch(ctx context.Context, prefix string) iter.Seq2[l2cache.Event, error] {
	return func(yield func(l2cache.Event, error) bool) {
		if err := l2cache.PreflightNoKey(ctx, name, "watch", c.isClosed()); err != nil {
			yield(l2cache.Event{}, err)
			return
		}
		linkCtx, cancel := context.WithCancel(ctx)
		defer cancel()
		stop := context.AfterFunc(c.closing, cancel)
		defer stop()
		var hub l2cache.Hub
		started := make(chan error, 1)
		if c.begin() {
			go func() {
				defer c.calls.Done()
				c.track(linkCtx, prefix, &hub, started)
			}()
		}
		var err error
		select {
		case err = <-started:
		case <-linkCtx.Done():
			err = linkCtx.Err()
		}
		if err != nil {
			yield(l2cache.Event{}, c.newError(ctx, "watch", prefix, err))
			return
		}
		hub.Watch(ctx, name, prefix, c.closing.Done())(yield)
	}
}

// track tells hub of changes until ctx ends. When it has a link to each server, or why
// it has not, goes to started.
func (c *Cache) track(ctx context.Context, prefix string, hub *l2cache.Hub, started chan<- error) {
	var followers sync.WaitGroup
	defer followers.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ends := map[*node]context.CancelFunc{}
	begin := func(n *node, linked func(error)) {
		ctx, end := context.WithCancel(ctx)
		ends[n] = end
		followers.Go(func() { c.trackNode(ctx, n, prefix, hub, linked) })
	}
	relinked := func(n *node, err error) {
		switch {
		case err == nil:
			hub.Gap()
		case (redis.IsAuthError(err) || redis.IsPermissionError(err)) && c.needs(n):
			hub.Fail(err) // its reader may not have come yet, so go on
		}
	}

	nodes, err := c.tracked(ctx)
	if err != nil {
		started <- err
		return
	}
	first := make(chan error, len(nodes))
	for n, needed := range nodes {
		linked := func(_ *node, err error) { // the reader begins with a Gap
			if !needed {
				err = nil
			}
			first <- err
		}
		begin(n, func(err error) { linked(n, err); linked = relinked })
	}
	for range nodes {
		if err := <-first; err != nil {
			started <- err
			return
		}
	}
	started <- nil

	ticker := time.NewTicker(lookout)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		nodes, err := c.tracked(ctx)
		if err != nil {
			continue // the links say what is wrong
		}
		for n := range nodes {
			if ends[n] == nil {
				begin(n, func(err error) { relinked(n, err) })
			}
		}
		for n, end := range ends {
			if _, listed := nodes[n]; !listed {
				end()
				delete(ends, n)
				hub.Gap() // what n has not told yet is missed
			}
		}
	}
}

// A roster is what a Watch of a cluster follows: all its masters, as one of its servers
// knows them. One without slots is among them, for the keys of a slot that moves to it
// change there before the slot is its own.
type roster struct {
	c       *Cache
	servers members
	ask     *inquiry

	mu      sync.Mutex
	masters map[*node]bool // whether it has slots; guarded by mu
}

func newRoster(c *Cache, servers members) *roster {
	r := &roster{c: c, servers: servers}
	r.ask = &inquiry{c: c, fresh: lookout * 3 / 4, do: r.fetch} // the loops of a handle share it
	return r
}

func (r *roster) fetch(deadline time.Time) error {
	ctx := r.c.closing
	r.mu.Lock()
	servers := slices.Collect(maps.Keys(r.masters)) // the map may be older
	r.mu.Unlock()
	patience := deadline
	if len(servers) > 0 { // they are to be asked in any case
		patience = time.Now().Add(time.Until(deadline) / 2)
	}
	others, err := r.servers.some(ctx, patience)
	if len(servers) == 0 && err != nil {
		return err
	}
	for _, n := range others {
		if !slices.Contains(servers, n) {
			servers = append(servers, n)
		}
	}
	masters, err := askAny(r.c, servers, func(n *node) (map[*node]bool, error) {
		cmd := redis.NewStringCmd(ctx, "cluster", "nodes")
		if err := r.c.exec(ctx, deadline, n, []redis.Cmder{once{cmd}}); err != nil {
			return nil, err
		}
		masters := map[*node]bool{}
		member := false // n, of a cluster
		for _, m := range parseNodes(cmd.Val(), n.addr) {
			has := len(m.slots) > 0
			member = member || has
			if m.is("master") && !m.is("noaddr") && !m.is("handshake") && (has || !m.is("fail")) {
				masters[r.servers.at(m.addr)] = has
			}
		}
		if !member {
			return nil, errNoMaster
		}
		return masters, nil
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.masters = masters
	return nil
}

// tracked returns the servers that there have to be links to, and of each whether a Watch
// cannot do without.
func (c *Cache) tracked(ctx context.Context) (map[*node]bool, error) {
	deadline := time.Now().Add(c.opTimeout)
	if !c.cluster {
		nodes, err := c.servers.masters(ctx, deadline)
		all := map[*node]bool{}
		for _, n := range nodes {
			all[n] = true
		}
		return all, err
	}
	if err := c.roster.ask.wait(ctx, deadline); err != nil {
		return nil, err
	}
	c.roster.mu.Lock()
	defer c.roster.mu.Unlock()
	return c.roster.masters, nil
}

// needs reports whether a link to n is one that a Watch cannot do without.
func (c *Cache) needs(n *node) bool {
	if !c.cluster {
		return true
	}
	c.roster.mu.Lock()
	defer c.roster.mu.Unlock()
	return c.roster.masters[n]
}

// trackNode tells hub of n's changes until ctx ends. It calls linked with nil when
// changes are seen from there on, and with an error after that and after each attempt
// to make a link that failed.
func (c *Cache) trackNode(ctx context.Context, n *node, prefix string, hub *l2cache.Hub, linked func(error)) {
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		linked(c.follow(ctx, n, prefix, hub, func() {
			linked(nil)
			pause = minPause
		}))
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// follow makes a link to n, calls tracking when changes are seen from there on, and tells
// hub of them until the link is lost or ctx ends. The error is never nil.
func (c *Cache) follow(ctx context.Context, n *node, prefix string, hub *l2cache.Hub, tracking func()) error {
	link := n.newLink()
	defer link.client.Close()
	// The handshake is go-redis's. After it nothing is on the way, so that the
	// connection can be taken from it: it would read the changes only with replies.
	hello := redis.NewStatusCmd(ctx, "ping")
	if err := link.pipeline(ctx, time.Now().Add(c.opTimeout), []redis.Cmder{hello}); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, link.close)
	defer stop()
	conn := link.net
	send := func(args ...string) error {
		conn.SetWriteDeadline(time.Now().Add(c.opTimeout))
		_, err := conn.Write(request(args...))
		return err
	}
	track := []string{"client", "tracking", "on", "bcast"}
	if prefix != "" {
		track = append(track, "prefix", prefix)
	}
	if err := send(track...); err != nil {
		return err
	}
	changes := newInvalidations(hub, tracking)
	buf := make([]byte, 16<<10)
	asked := true // something is to be answered within the operation timeout
	for {
		wait := silence
		if asked {
			wait = c.opTimeout
		}
		conn.SetReadDeadline(time.Now().Add(wait))
		n, err := conn.Read(buf)
		if n > 0 {
			if _, err := changes.Write(buf[:n]); err != nil {
				return err
			}
			asked = false
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && !asked:
			if err := send("ping"); err != nil {
				return err
			}
			asked = true
		default:
			return err
		}
	}
}

// resp3 returns the options of a link.
func resp3(o redis.Options) redis.Options {
	o.Protocol = 3
	o.PipelinePoolSize = -1
	o.MinIdleConns = 0
	o.MaxRetries = -1
	o.DialerRetries = 1
	o.ReadTimeout = -2 // none: the end of ctx closes the connection
	o.WriteTimeout = -2
	o.Limiter = nil
	o.PushNotificationProcessor = nil
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return o
}

// request is a command as it is sent.
func request(args ...string) []byte {
	b := append(strconv.AppendInt([]byte("*"), int64(len(args)), 10), "\r\n"...)
	for _, arg := range args {
		b = append(strconv.AppendInt(append(b, '$'), int64(len(arg)), 10), "\r\n"...)
		b = append(append(b, arg...), "\r\n"...)
	}
	return b
}

// invalidations decodes what the server sends over a link: a status for CLIENT
// TRACKING and one for each PING, and pushes of "invalidate" with an array of keys, or
// with null for all.
type invalidations struct {
	lexer
	hub      *l2cache.Hub
	tracking func()

	on   bool // CLIENT TRACKING was answered
	name bool // a push's name is to come
	what bool // the array or null is to come
	keys int  // of the array, that are to come
}

func newInvalidations(hub *l2cache.Hub, tracking func()) *invalidations {
	i := &invalidations{hub: hub, tracking: tracking}
	i.init(i.take)
	return i
}

func (i *invalidations) take(r reply) error {
	switch {
	case r.kind == '-':
		return serverError(r.text)
	case !i.on && r.kind == '+':
		i.on = true
		i.tracking()
	case i.keys > 0 && r.kind == '$':
		i.keys--
		if key := string(r.text); l2cache.CheckKey(key, l2cache.MaxKeyLen) == nil {
			i.hub.Changed(key)
		}
	case i.keys > 0:
		return errReply
	case i.name && r.kind == '$' && string(r.text) == "invalidate":
		i.name, i.what = false, true
	case i.what && r.kind == '_':
		i.what = false
		i.hub.Gap()
	case i.what && r.kind == '*':
		n, err := strconv.Atoi(string(r.text))
		if err != nil || n < 0 {
			return errReply
		}
		i.what, i.keys = false, n
	case i.name || i.what:
		return errReply
	case r.kind == '>' && string(r.text) == "2":
		i.name = true
	case r.kind != '+':
		return errReply
	}
	return nil
}
