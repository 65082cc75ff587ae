package servertest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	redisMasters = 3
	redisSlots   = 16384

	// clusterTimeout is for a machine that is short of CPU. A cluster takes 2 s, which a
	// master waits before it serves (CLUSTER_WRITABLE_DELAY in Redis's cluster.c).
	clusterTimeout = 60 * time.Second
)

// A Cluster is a Redis Cluster of three masters, with replicas or without. Which of its
// servers are masters changes when one is killed.
type Cluster struct {
	Servers []*Server // masters first, then the replica of each

	buses []*port
}

// StartRedisCluster starts a cluster whose masters have so many replicas each. The args
// are for every server.
func StartRedisCluster(replicas int, args ...string) (*Cluster, error) {
	c := &Cluster{}
	for range redisMasters * (1 + replicas) {
		if _, err := c.Add(args...); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	if err := c.join(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Add starts a server that can be a node of the cluster, and does not make it one.
func (c *Cluster) Add(args ...string) (*Server, error) {
	bus, err := reserve()
	if err != nil {
		return nil, err
	}
	c.buses = append(c.buses, bus)
	s, err := StartRedis(append([]string{
		"--cluster-enabled", "yes", "--cluster-port", bus.number, "--cluster-node-timeout", "2000",
	}, args...)...)
	if err != nil {
		return nil, err
	}
	c.Servers = append(c.Servers, s)
	return s, nil
}

// Meet makes the i-th server known to all others that run.
func (c *Cluster) Meet(i int) error {
	host, number, _ := strings.Cut(c.Servers[i].Addr, ":")
	for j, s := range c.Servers {
		if j == i || !s.Running() {
			continue
		}
		if _, err := command(s, "CLUSTER", "MEET", host, number, c.buses[i].number); err != nil {
			return err
		}
	}
	return nil
}

// join makes the servers a cluster, and returns when all of them say that it serves.
func (c *Cluster) join() error {
	for i, s := range c.Servers[:redisMasters] {
		add := []string{"CLUSTER", "ADDSLOTS"}
		for slot := i * redisSlots / redisMasters; slot < (i+1)*redisSlots/redisMasters; slot++ {
			add = append(add, strconv.Itoa(slot))
		}
		if _, err := command(s, add...); err != nil {
			return err
		}
		if _, err := command(s, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1)); err != nil {
			return err
		}
	}
	for i := range c.Servers {
		if err := c.Meet(i); err != nil {
			return err
		}
	}
	replicas := c.Servers[redisMasters:]
	for i, s := range replicas {
		id, err := command(c.Servers[i], "CLUSTER", "MYID")
		if err != nil {
			return err
		}
		// It has to have heard of its master.
		err = poll(clusterTimeout, func() error {
			_, err := command(s, "CLUSTER", "REPLICATE", id)
			return err
		})
		if err != nil {
			return err
		}
	}
	return c.Await()
}

// Await returns when every server that runs says that the cluster serves, knows all
// that run, and has its data from its master if it is a replica.
func (c *Cluster) Await() error {
	var running []*Server
	for _, s := range c.Servers {
		if s.Running() {
			running = append(running, s)
		}
	}
	return poll(clusterTimeout, func() error {
		for _, s := range running {
			info, err := command(s, "CLUSTER", "INFO")
			if err != nil {
				return err
			}
			if !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, fmt.Sprintf("cluster_slots_ok:%d", redisSlots)) {
				return fmt.Errorf("%s: %s", s.Addr, info)
			}
			nodes, err := command(s, "CLUSTER", "NODES")
			if err != nil {
				return err
			}
			for _, other := range running {
				if !strings.Contains(nodes, " "+other.Addr+"@") {
					return fmt.Errorf("%s does not know %s:\n%s", s.Addr, other.Addr, nodes)
				}
			}
			replication, err := command(s, "INFO", "replication")
			if err != nil {
				return err
			}
			if strings.Contains(replication, "role:slave") && !strings.Contains(replication, "master_link_status:up") {
				return fmt.Errorf("%s: %s", s.Addr, replication)
			}
		}
		return nil
	})
}

// Each calls do for all servers at once: (*Server).Kill, say.
func (c *Cluster) Each(do func(*Server) error) error {
	errs := make([]error, len(c.Servers))
	var all sync.WaitGroup
	for i, s := range c.Servers {
		all.Go(func() { errs[i] = do(s) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// Addrs returns the addresses of the servers, with commas between them.
func (c *Cluster) Addrs() string { return addrs(c.Servers) }

func addrs(servers []*Server) string {
	list := make([]string, len(servers))
	for i, s := range servers {
		list[i] = s.Addr
	}
	return strings.Join(list, ",")
}

// Close is that of each server.
func (c *Cluster) Close() error {
	err := c.Each((*Server).Close)
	for _, bus := range c.buses {
		bus.release()
	}
	return err
}

// A Sentinel is a master, two replicas of it, and three sentinels that watch it
// under the name "mymaster".
type Sentinel struct {
	Servers   []*Server // the first is the master to begin with
	Sentinels []*Server
}

// RedisSentinelMaster is the name of the master.
const RedisSentinelMaster = "mymaster"

// StartRedisSentinel starts them. A master is replaced that is gone for so long. The
// args are for the servers.
func StartRedisSentinel(gone time.Duration, args ...string) (*Sentinel, error) {
	r := &Sentinel{}
	if err := r.start(gone, args); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Sentinel) start(gone time.Duration, args []string) error {
	for i := range 3 {
		a := append([]string{"--repl-diskless-sync-delay", "0"}, args...)
		if i > 0 {
			host, number, _ := strings.Cut(r.Servers[0].Addr, ":")
			a = append(a, "--replicaof", host, number)
		}
		s, err := StartRedis(a...)
		if err != nil {
			return err
		}
		r.Servers = append(r.Servers, s)
	}
	for range 3 {
		s, err := StartLoneSentinel()
		if err != nil {
			return err
		}
		r.Sentinels = append(r.Sentinels, s)
		host, number, _ := strings.Cut(r.Servers[0].Addr, ":")
		for _, args := range [][]string{
			{"SENTINEL", "MONITOR", RedisSentinelMaster, host, number, "2"},
			{"SENTINEL", "SET", RedisSentinelMaster, "down-after-milliseconds", strconv.FormatInt(gone.Milliseconds(), 10)},
			{"SENTINEL", "SET", RedisSentinelMaster, "failover-timeout", "3000"},
		} {
			if _, err := command(s, args...); err != nil {
				return err
			}
		}
	}
	return r.Await()
}

// StartLoneSentinel starts a sentinel that watches nothing.
func StartLoneSentinel(args ...string) (*Server, error) { return start(&redisSentinel, args, reserve) }

// Await returns when each sentinel that runs knows the others and two replicas.
func (r *Sentinel) Await() error {
	return poll(clusterTimeout, func() error {
		for _, s := range r.Sentinels {
			if !s.Running() {
				continue
			}
			info, err := command(s, "INFO", "sentinel")
			if err != nil {
				return err
			}
			if !strings.Contains(info, "status=ok") || !strings.Contains(info, "slaves=2,sentinels=3") {
				return fmt.Errorf("%s: %s", s.Addr, info)
			}
		}
		for _, s := range r.Servers {
			if !s.Running() {
				continue
			}
			info, err := command(s, "INFO", "replication")
			if err != nil {
				return err
			}
			if strings.Contains(info, "role:slave") && !strings.Contains(info, "master_link_status:up") {
				return fmt.Errorf("%s: %s", s.Addr, info)
			}
		}
		return nil
	})
}

// Addrs returns the addresses of the sentinels, with commas between them.
func (r *Sentinel) Addrs() string { return addrs(r.Sentinels) }

// Close is that of each server.
func (r *Sentinel) Close() error {
	var errs []error
	for _, s := range append(r.Sentinels, r.Servers...) {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

var redisSentinel = kind{
	name: "redis-sentinel",
	find: redis.find,
	args: func(host, port, dir string) []string {
		// A sentinel writes what it learns into its configuration file, which must be
		// there.
		file := filepath.Join(dir, "sentinel.conf")
		os.WriteFile(file, nil, 0o600) // a failure shows when the sentinel does not start
		return []string{file, "--sentinel", "--bind", host, "--port", port, "--dir", dir}
	},
	ready: redis.ready,
}

// poll calls ready until it returns nil.
func poll(timeout time.Duration, ready func() error) error {
	for end := time.Now().Add(timeout); ; time.Sleep(10 * time.Millisecond) {
		err := ready()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("servertest: not ready after %v: %w", timeout, err)
		}
	}
}

// command returns the reply of a Redis server that is not an array.
func command(s *Server, args ...string) (string, error) {
	conn, err := net.DialTimeout("tcp", s.Addr, time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	var request strings.Builder
	fmt.Fprintf(&request, "*%d\r\n", len(args))
	for _, arg := range args {
		fmt.Fprintf(&request, "$%d\r\n%s\r\n", len(arg), arg)
	}
	if _, err := io.WriteString(conn, request.String()); err != nil {
		return "", err
	}
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	switch line[0] {
	case '-':
		return "", fmt.Errorf("%s: %s: %s", s.Addr, args[0], line[1:])
	case '$':
		size, err := strconv.Atoi(line[1:])
		if err != nil || size < 0 {
			return "", err
		}
		bulk := make([]byte, size)
		_, err = io.ReadFull(r, bulk)
		return string(bulk), err
	}
	return line[1:], nil
}
