package bolt

import "go.etcd.io/bbolt"

// DB is the database behind c, for tests that reach what is stored.
func (c *Cache) DB() *bbolt.DB { return c.db }
