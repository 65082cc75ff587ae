package mem

import (
	"context"
	"sync"

	"github.com/l2cache/l2cache"
)

func init() { l2cache.Register("mem", open) }

// shared is a store that has a name, and how many open handles it has.
type shared struct {
	store   *Store
	handles int
}

var (
	namesMu sync.Mutex
	names   = map[string]*shared{} // guarded by namesMu
)

func open(_ context.Context, p *l2cache.Params) (l2cache.L2CacheBackend, error) {
	if len(p.Hosts) > 1 || p.Path != "" || p.User != "" || p.Password.Reveal() != "" {
		p.Fault("URL", "mem:// or mem://name is all there is")
	}
	if err := p.Err(); err != nil {
		return nil, err
	}
	if len(p.Hosts) == 0 {
		return New(NewStore()), nil
	}
	return named(p.Hosts[0]), nil
}

func named(name string) *Cache {
	namesMu.Lock()
	defer namesMu.Unlock()
	s := names[name]
	if s == nil {
		s = &shared{store: NewStore()}
		names[name] = s
	}
	s.handles++
	c := New(s.store)
	c.release = func() {
		namesMu.Lock()
		defer namesMu.Unlock()
		if s.handles--; s.handles == 0 {
			delete(names, name)
		}
	}
	return c
}
