// Package redis keeps entries in a Redis database or a Redis Cluster, or that of a
// server which speaks its protocol, through go-redis v9. A key is stored under its own name
// and a value as it is, so other programs can read and write them.
//
//	Get         GET k; concurrent calls share a pipeline
//	GetWithTTL  MULTI, GET k, PTTL k, EXEC; concurrent calls share the transaction
//	Set         SET k v PX ms; for NoExpiry SET k v
//	Delete      DEL k
//	Ping        PING
//	GetMany     MULTI, MGET k…, PTTL k for each, EXEC
//	SetMany     SET k v PX ms for each, in a pipeline
//	DeleteMany  UNLINK k…
//	Touch       PEXPIRE k ms; to NoExpiry MULTI, EXISTS k, PERSIST k, EXEC
//	Add         SET k v PX ms NX
//	Scan        SCAN MATCH prefix* COUNT 1000, INFO server; for each page
//	            MULTI, STRLEN k, PTTL k for each, EXEC
//	DeletePattern
//	            the same SCAN; UNLINK k… for each page
//	Watch       CLIENT TRACKING ON BCAST PREFIX p, on a connection of its own
//
// # Time
//
// The clock is the server's, so that TTLs hold between any machines. They are
// whole milliseconds, rounded up. Redis keeps a key through the millisecond in
// which it ends and says PTTL 0 then, which is reported as 1 ns.
//
// # Consistency
//
// All calls about a key go to one server, which runs one command at a time. Replicas
// are not read from. GetWithTTL needs
// value and TTL of one instant, and two commands in a pipeline can be torn apart: by
// a write, or by the expiry between them. So it asks in a transaction. If the server
// refuses that, because it is out of memory or does not permit one of the keys or
// MULTI, then a key that is not itself refused is read by a script (EVALSHA, EVAL if
// the server does not have it), which is as atomic; if that is refused, the call
// fails.
//
// A write is sent once, whatever the client's MaxRetries, but for a refusal or a failure to
// dial that proves that nothing was done (see Clusters, Sentinels). One that failed by its ctx,
// a timeout or a broken connection may have been done, or may still be. A read is
// sent once more if its connection turns out to have been closed before.
//
// # Batches
//
// Two batches of Gets and two of GetWithTTLs are under way at most. Calls that come
// meanwhile share the next: 128 of them, or fewer that make about 1 MiB by the
// running mean of the sizes of values. GetMany goes in parts of that size; SetMany in
// parts of 1000 keys, or fewer that make 1 MiB, and DeleteMany of 1000 keys. Each part
// has op_timeout to itself, and is atomic in GetMany and DeleteMany. After one that got
// no answer the rest is not sent, and fails with the same error. A value is read into a
// slice of its own, which is the caller's; nothing else is copied.
//
// # Clusters
//
// A handle has a map from slot to master. The map is loaded (CLUSTER SLOTS) when it is
// needed first, after MOVED, and when a master is down or does not answer; once for all
// calls that need it, and not again for 20 ms, or for 100 ms if that failed. Who is asked
// has 20 ms before another server is asked, too; the first to answer is believed. What is
// refused with MOVED or ASK, or could not be sent because the master did not accept a
// connection, goes to the other server that the answer or the new map names: up to five
// times, within op_timeout.
//
// Calls share round trips and transactions only with those to the same server. In a
// transaction there is one key: GetMany and Scan have one for each, in a pipeline, and
// DeleteMany an UNLINK for each. The parts that a batch has for several masters are done
// at the same time, and fail by themselves.
//
// Scan and DeletePattern go over the masters one after another. A key can be moved
// meanwhile from one that was not looked at yet to one that was. So all masters say what
// slots they have, and which are moving (CLUSTER NODES), before and after; those that are
// or were moving or have another master now are listed again, by CLUSTER GETKEYSINSLOT
// from where their keys are moving from and then to. That has no pages: of a slot come
// 10,000 keys, and if there may be more, both servers are scanned for the slot once more. A
// slot whose keys are moved and moved back, without its getting another owner, is not
// noticed.
//
// Watch follows all masters, with slots or without. It asks one server for them (CLUSTER
// NODES) every 500 ms, for all loops of a handle together. Slots that move between masters
// need no Gap: changes are told by the one where they are made.
//
// The servers are dialed by the names that the cluster has for them: host names where
// cluster-preferred-endpoint-type says so.
//
// # Sentinels
//
// The sentinels of the URL are asked for the master at each dial, every 500 ms, and
// when it does not answer or is READONLY: once for all calls, and not again for 20 ms, or
// for 100 ms if that failed. That with the newest configuration is believed,
// or most of them if it is the same; one that has not answered 250 ms after another is not
// waited for. Others are not looked for. Each connection begins with ROLE, and is not used
// if the server is no master. When the sentinels name another master all connections to
// the old one are closed; a read that was under way is sent once more.
//
// # Scans
//
// Scan and DeletePattern look at all keys of the database, in pages. Each page has
// op_timeout to itself. They begin again if the server is restarted meanwhile, which
// makes Scan yield keys that it has yielded before. Size and TTL are of one instant.
// Keys that are none of an entry, for they are empty, too long or of another type, are
// not yielded; DeletePattern does not look at the type.
//
// # Watching
//
// Each Watch has a connection of its own beyond pool_size to each master, on which it sends
// the keys that change: by any client and, as it does not tell the databases apart, in
// any of them. It tells of expiry and eviction, too. A server that is flushed and a
// connection that was lost are a Gap. One that has been silent for 3 s is sent a PING,
// and is lost if nothing comes within op_timeout. It is made anew until the loop ends,
// or the server does not accept the user any more. It is made with the options of a
// caller's client, and does not end with that. It takes version 3 of the protocol, which
// Redis has since 6.0; a handle that was opened by URL does all else over version 2.
//
// # Waiting
//
// A handle that was opened by URL closes the connection of a call whose ctx ends, or
// that takes longer than op_timeout; the next call dials. Through a caller's client
// that cannot be done, for go-redis looks at no ctx while it reads. There a call waits
// beside a goroutine that reads, for at most twice OpTimeout after the call has
// returned, and Set sends a copy of the value.
//
// # Limits
//
// Values have at most 512 MiB, the default of the server's proto-max-bulk-len; larger
// ones are ErrTooLarge and are not sent. A server that is out of memory and may not
// evict answers Set with ErrFull. A key that holds something other than a string is
// ErrCorrupt until it is set or deleted; Touch does not look, and Add finds the key
// taken. All else that a server refuses (LOADING, READONLY, NOPERM, NOAUTH, …) is
// ErrUnavailable.
//
// # Profile
//
// Evicts: whether a server evicts is its configuration. Opening by URL asks for it
// (INFO memory), and says Evicts unless maxmemory is 0 or maxmemory-policy is
// noeviction; so it does for lazy=true and where INFO is not permitted. [New] asks
// nothing and says Evicts unless Options.NoEviction is set.
//
// Durable: what survives a restart is the server's configuration too, and no reply
// tells whether it suffices: appendonly with appendfsync everysec loses a second.
// It is declared by durable=true or Options.Durable, to be set for appendonly yes
// and appendfsync always.
//
// # URLs
//
//	redis://[user[:password]@]host[:6379][/db]
//	redis+unix://[user[:password]@localhost]/socket[?db=n]
//	redis+cluster://[user[:password]@]host[:6379][,host…]
//	redis+sentinel://[user[:password]@]sentinel[:26379][,sentinel…]/master[/db]
//	rediss://…  rediss+cluster://…  rediss+sentinel://…     the same over TLS
//
// Options: pool_size (connections to each server, 10 per CPU by default, 10000 at most),
// client_name, durable, those of all backends, and with TLS the tls_ ones. With
// rediss+sentinel the sentinels and the servers have TLS. A certificate has to
// be for the host that is dialed, as the cluster or the sentinels name it, or for
// tls_server_name. With sentinel_auth=true user and password are for the sentinels, too;
// sentinels that have others need a client of New.
//
// # A caller's client
//
// [New] takes a *redis.Client or a *redis.ClusterClient with any settings but a client-side
// cache, which serves what has expired or was overwritten, and ReadOnly, RouteByLatency,
// RouteRandomly and ClusterSlots of a cluster, whose replicas serve what was overwritten. It
// refuses a [redis.Ring]. A failover client must not have ReplicaOnly, which does not show:
// all writes fail then. A cluster client's map of slots and connections are used, not what it
// does about redirections; a server that it does not know, because its first slot is moving
// there or because it has lost its last, gets a client of its own with the same settings.
// Worth setting are:
//
//   - ContextTimeoutEnabled: true saves the goroutine in calls whose ctx cannot be
//     cancelled.
//   - DialerRetries: 1. By default go-redis dials five times in 400 ms before it says
//     that a server refuses, and it prints each failure to stderr.
//   - Dialer: Watch calls it, too, with a ctx that ends when the loop has to. That of
//     go-redis does not look at it for TLS, so that Close may wait for DialTimeout.
//   - PoolSize: after that many failures to dial, go-redis looks no more than once a
//     second whether the server is back.
//
// The user needs permission for get, set, del, pttl, multi, exec and ping, for eval
// and evalsha where a transaction can be refused, and for info by URL, or the profile
// says Evicts. Further for
//
//	GetMany     mget
//	DeleteMany  unlink
//	Touch       pexpire, exists, persist
//	Scan        scan, info, strlen
//	DeletePattern
//	            scan, info, unlink
//	Watch       hello, client (client|tracking with Redis 7), ping
//	a cluster   asking, cluster (cluster|slots, and for Scan, DeletePattern and Watch
//	            cluster|nodes and cluster|getkeysinslot, with Redis 7)
//	sentinels   role
package redis

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
)

const (
	name       = "redis"
	resolution = time.Millisecond

	// maxValueLen is the server's default proto-max-bulk-len. It drops the
	// connection of a client that announces more.
	maxValueLen = 512 << 20
)

// Options are the settings of New. The zero value is the default.
type Options struct {
	// OpTimeout bounds every call; 1 s by default.
	OpTimeout time.Duration

	// NoEviction: the server never evicts (maxmemory 0, or maxmemory-policy
	// noeviction), so the profile need not say that it does.
	NoEviction bool

	// Durable: the server writes to disk before it answers (appendonly yes,
	// appendfsync always), so the profile may say that entries survive a restart.
	Durable bool
}

// Cache is a handle on a database.
type Cache struct {
	servers   topology
	cluster   bool    // a transaction is about one key
	roster    *roster // of a cluster
	prompt    bool    // clients return when ctx ends
	bounded   bool    // clients return at ctx's deadline
	opTimeout time.Duration
	profile   l2cache.Profile
	meanSize  atomic.Int64 // of the replies to recent reads, in bytes

	closing context.Context // the handle's, not a call's: ends with Close
	end     context.CancelFunc
	calls   sync.WaitGroup

	mu     sync.RWMutex
	closed bool // guarded by mu; while it is false, calls may grow
}

var (
	_ l2cache.L2CacheBackend = (*Cache)(nil)
	_ l2cache.Profiler       = (*Cache)(nil)
)

// New returns a Cache over a client that the caller has made and goes on to own:
// Close leaves it open. It does no I/O. The error names what about the client
// keeps the contract from holding.
func New(client redis.UniversalClient, o *Options) (*Cache, error) {
	if o == nil {
		o = &Options{}
	}
	bounded, err := check(client, o)
	if err != nil {
		return nil, &l2cache.Error{Op: "new", Backend: name, Err: err}
	}
	c := &Cache{opTimeout: cmp.Or(o.OpTimeout, l2cache.DefaultOpTimeout), bounded: bounded}
	switch client := client.(type) {
	case *redis.Client:
		c.servers = alone{c.newNode(client.Options().Addr, shared{c.clone(client)}, newLink(*client.Options()))}
	case *redis.ClusterClient:
		c.cluster = true
		c.servers = newBorrowed(c, client)
	}
	c.init(l2cache.Profile{Evicts: !o.NoEviction, Durable: o.Durable})
	return c, nil
}

// newLink returns what makes a connection for Watch, which is dialed as a client with the
// settings of o dials.
func newLink(o redis.Options) func() *conn {
	return func() *conn { return newConn(resp3(o), dialer(o.Dialer)) }
}

// clone returns a client with the connections of single, a caller's, or single itself. Its
// timeouts bound the goroutines that read for calls which have returned.
func (c *Cache) clone(single *redis.Client) *redis.Client {
	if c.bounded {
		return single
	}
	return single.WithTimeout(c.opTimeout)
}

// check returns what about the client or o keeps the contract from holding, and whether
// the client looks at the deadlines of calls.
func check(client redis.UniversalClient, o *Options) (bounded bool, err error) {
	if o.OpTimeout < 0 {
		return false, errors.New("Options.OpTimeout is negative")
	}
	switch client := client.(type) {
	case *redis.Client:
		if client == nil {
			return false, errNilClient
		}
		return client.Options().ContextTimeoutEnabled, checkSingle(client.Options())
	case *redis.ClusterClient:
		if client == nil {
			return false, errNilClient
		}
		return client.Options().ContextTimeoutEnabled, checkCluster(client.Options())
	}
	// A Ring looks for the keys of a shard that is down on another one, where they are
	// missing.
	return false, fmt.Errorf("a %T is not supported: use a *redis.Client or a *redis.ClusterClient", client)
}

var errNilClient = errors.New("the client is nil")

func checkSingle(o *redis.Options) error {
	switch {
	case o.ClientSideCache != nil:
		return errors.New("Options.ClientSideCache is set: it serves entries that have expired or were overwritten")
	case o.ClientSideCacheConfig != nil:
		return errors.New("Options.ClientSideCacheConfig is set: it serves entries that have expired or were overwritten")
	}
	return nil
}

func checkCluster(o *redis.ClusterOptions) error {
	switch {
	case o.ReadOnly: // RouteByLatency and RouteRandomly set it, too
		return errors.New("ClusterOptions.ReadOnly is set: replicas serve entries that were overwritten or deleted")
	case o.ClusterSlots != nil:
		return errors.New("ClusterOptions.ClusterSlots is set: only the servers themselves know where a key is")
	}
	return nil
}

func (c *Cache) init(p l2cache.Profile) {
	c.profile = p
	c.profile.Clock = l2cache.ServerClock
	c.profile.MaxValueLen = maxValueLen
	c.profile.Supports = l2cache.CanGetMany | l2cache.CanSetMany | l2cache.CanDeleteMany |
		l2cache.CanTouch | l2cache.CanAdd | l2cache.CanDeletePattern | l2cache.CanScan |
		l2cache.CanWatch
	if servers, ok := c.servers.(members); ok {
		c.roster = newRoster(c, servers)
	}
	c.meanSize.Store(firstMean)
	c.closing, c.end = context.WithCancel(context.Background())
}

// Name returns "redis".
func (c *Cache) Name() string { return name }

// Format writes the name, whatever the verb: what else there is changes all the time.
func (c *Cache) Format(f fmt.State, _ rune) { io.WriteString(f, name) }

// Profile says that the clock is the server's, and what is known of the server's
// configuration.
func (c *Cache) Profile() l2cache.Profile { return c.profile }

// Get returns the value of key, by GET.
func (c *Cache) Get(ctx context.Context, key string) ([]byte, error) {
	e, err := c.read(ctx, getsOf, key)
	return e.Value, err
}

// GetWithTTL returns the value and the remaining TTL of key, by GET and PTTL in a
// transaction.
func (c *Cache) GetWithTTL(ctx context.Context, key string) (l2cache.Entry, error) {
	return c.read(ctx, pairsOf, key)
}

// Set stores value under key for ttl, by SET with PX.
func (c *Cache) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := l2cache.Preflight(ctx, name, "set", key, c.isClosed()); err != nil {
		return err
	}
	args, err := c.setArgs(ctx, "set", key, value, ttl)
	if err != nil {
		return err
	}
	return c.send(ctx, "set", key, redis.NewStatusCmd(ctx, args...))
}

// setArgs returns the SET of an entry, or the error of an entry that cannot be sent.
func (c *Cache) setArgs(ctx context.Context, op, key string, value []byte, ttl time.Duration) ([]any, error) {
	ttl, err := l2cache.CheckTTL(ttl, resolution)
	if err != nil {
		return nil, l2cache.NewError(ctx, name, op, key, nil, err)
	}
	if len(value) > maxValueLen {
		err := fmt.Errorf("%d bytes, at most %d", len(value), maxValueLen)
		return nil, l2cache.NewError(ctx, name, op, key, l2cache.ErrTooLarge, err)
	}
	if !c.inline(ctx) {
		value = bytes.Clone(value) // it may be sent after the return
	}
	// Not client.Set: it takes a Duration, of which it cuts off what is below a
	// millisecond, and -1 ns for "keep the TTL that is there".
	args := []any{"set", key, value}
	if ttl != l2cache.NoExpiry {
		args = append(args, "px", ttl.Milliseconds())
	}
	return args, nil
}

// Delete removes key, by DEL.
func (c *Cache) Delete(ctx context.Context, key string) error {
	if err := l2cache.Preflight(ctx, name, "delete", key, c.isClosed()); err != nil {
		return err
	}
	return c.send(ctx, "delete", key, redis.NewIntCmd(ctx, "del", key))
}

// Ping asks the server for an answer, by PING.
func (c *Cache) Ping(ctx context.Context) error {
	if err := l2cache.PreflightNoKey(ctx, name, "ping", c.isClosed()); err != nil {
		return err
	}
	return c.newError(ctx, "ping", "", c.await(ctx, c.ping))
}

func (c *Cache) ping(ctx context.Context, deadline time.Time) error {
	return c.askAll(ctx, deadline, func() redis.Cmder { return redis.NewStatusCmd(ctx, "ping") }, nil)
}

// askAll has a command done by all servers that have keys, and takes each of the
// replies.
func (c *Cache) askAll(ctx context.Context, deadline time.Time, command func() redis.Cmder, take func(redis.Cmder)) error {
	nodes, err := c.servers.masters(ctx, deadline)
	if err != nil {
		return err
	}
	cmds := map[*node]redis.Cmder{}
	for _, n := range nodes {
		cmds[n] = command()
	}
	each(cmds, func(n *node, cmd redis.Cmder) { c.exec(ctx, deadline, n, []redis.Cmder{once{cmd}}) })
	for _, cmd := range cmds {
		if err := cmd.Err(); err != nil {
			return err
		}
		if take != nil {
			take(cmd)
		}
	}
	return nil
}

// Close ends the calls under way and waits for the goroutines that read for them:
// with a caller's client, twice OpTimeout at most, or its ReadTimeout if a cluster client
// is loading its map. That client stays open.
func (c *Cache) Close() error {
	c.mu.Lock()
	already := c.closed
	c.closed = true
	c.mu.Unlock()
	if already {
		return nil
	}
	c.end()
	c.servers.close()
	c.calls.Wait()
	return nil
}

func (c *Cache) isClosed() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.closed
}

// begin counts a use of the client that Close is to wait for, unless c is closed.
// It ends with c.calls.Done.
func (c *Cache) begin() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		return false
	}
	c.calls.Add(1)
	return true
}
