package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/conformance"
	"github.com/l2cache/l2cache/internal/servertest"

	_ "github.com/l2cache/l2cache/adapters/bolt"
	_ "github.com/l2cache/l2cache/adapters/mem"
	_ "github.com/l2cache/l2cache/adapters/memcached"
	_ "github.com/l2cache/l2cache/adapters/natskv"
	_ "github.com/l2cache/l2cache/adapters/redis"
)

// A backend is what to open, and what can happen to it.
type backend struct {
	name   string
	url    string
	copies int // handles at a time
	faults []fault
	close  func() error
}

// A fault happens, lasts for d where it can last, and is over when it returns.
type fault struct {
	name string
	do   func(r *run, d time.Duration) error
}

// start starts what the named backend needs. dir is an empty folder.
func start(name, dir string) (*backend, error) {
	var server *servertest.Server
	var err error
	var url string
	b := &backend{name: name, copies: 2}
	keeps := true // what was acknowledged outlives the server's death
	switch name {
	case "mem":
		b.url, b.close = "mem://soak", func() error { return nil }
		return b, nil
	case "bolt":
		b.url, b.close, b.copies = "bolt://"+filepath.ToSlash(filepath.Join(dir, "cache.db")), func() error { return nil }, 1
		b.faults = []fault{{"reopen", func(r *run, _ time.Duration) error { return r.reopen(b.url) }}}
		return b, nil
	case "redis":
		url = "redis://%s?op_timeout=300ms&durable=true"
		server, err = servertest.StartRedis("--appendonly", "yes", "--appendfsync", "always")
	case "memcached":
		url, keeps = "memcached://%s?op_timeout=300ms", false
		server, err = servertest.StartMemcached("-m", "1024")
	case "nats":
		url = "nats://%s/soak?op_timeout=300ms"
		server, err = servertest.StartNATS()
	case "nats-r3":
		servers, err := servertest.StartNATSCluster()
		if err != nil {
			return nil, err
		}
		b.url = "nats://" + servers[0].Addr + "," + servers[1].Addr + "," + servers[2].Addr + "/soak?op_timeout=1s&replicas=3"
		b.close = servers.Close
		for _, s := range servers { // one of them at a time is away
			b.faults = append(b.faults, serverFaults(s, true)...)
		}
		return b, nil
	default:
		return nil, fmt.Errorf("no backend %q", name)
	}
	if err != nil {
		return nil, err
	}
	proxy, err := conformance.NewProxy(server.Addr)
	if err != nil {
		return nil, errors.Join(err, server.Close())
	}
	b.url = fmt.Sprintf(url, proxy.Addr())
	b.close = func() error { return errors.Join(proxy.Close(), server.Close()) }
	b.faults = append(serverFaults(server, keeps), proxyFaults(proxy)...)
	return b, nil
}

// proxyFaults break connections; the server itself goes on.
func proxyFaults(p *conformance.Proxy) []fault {
	return []fault{
		{"reset", func(*run, time.Duration) error {
			p.Reset()
			return nil
		}},
		{"cut mid-reply", func(_ *run, d time.Duration) error {
			p.CutMidReply(int(d % 500))
			time.Sleep(d / 4)
			p.CutMidReply(-1)
			return nil
		}},
		{"delay", func(_ *run, d time.Duration) error {
			p.Delay(d / 20)
			time.Sleep(d)
			p.Delay(0)
			return nil
		}},
		{"refuse", func(_ *run, d time.Duration) error {
			p.Refuse()
			time.Sleep(d)
			return p.Accept()
		}},
	}
}

func serverFaults(s *servertest.Server, keeps bool) []fault {
	down := func(r *run, f func() error) error {
		if keeps {
			return f()
		}
		return r.wipe(f)
	}
	return []fault{
		{"stall", func(_ *run, d time.Duration) error {
			if err := s.Pause(); err != nil {
				return err
			}
			time.Sleep(d)
			return s.Resume()
		}},
		{"kill", func(r *run, d time.Duration) error {
			return down(r, func() error {
				if err := s.Kill(); err != nil {
					return err
				}
				time.Sleep(d)
				return s.Start()
			})
		}},
		{"restart", func(r *run, _ time.Duration) error { return down(r, s.Restart) }},
	}
}

// reopen closes the handle while calls are under way, and opens another.
func (r *run) reopen(url string) error {
	r.closing.Store(true)
	defer r.closing.Store(false)
	if err := (*r.handles[0].Load()).Close(); err != nil {
		return err
	}
	b, err := l2cache.Open(context.Background(), url)
	if err != nil {
		return err
	}
	r.handles[0].Store(&b)
	return nil
}

// harass makes faults happen, one after the other, until ctx ends.
func (r *run) harass(ctx context.Context, faults []fault, rand *rand.Rand) error {
	for len(faults) > 0 {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Duration(200+rand.IntN(2500)) * time.Millisecond):
		}
		f := faults[rand.IntN(len(faults))]
		if err := f.do(r, time.Duration(20+rand.IntN(1500))*time.Millisecond); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		r.faults.Add(1)
	}
	return nil
}
