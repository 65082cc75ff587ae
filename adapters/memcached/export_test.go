package memcached

import "github.com/bradfitz/gomemcache/memcache"

var ItemKey = itemKey

// OpenConns returns how many connections c has, by callersConns if the client is
// not its own.
func OpenConns(c *Cache, callersConns func(*memcache.Client) int) int {
	switch store := c.store.(type) {
	case *servers:
		n := 0
		for _, s := range store.list {
			s.mu.Lock()
			n += len(s.open)
			s.mu.Unlock()
		}
		return n
	case *callers:
		return callersConns(store.client)
	}
	return 0
}
