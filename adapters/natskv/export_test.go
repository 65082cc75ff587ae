package natskv

import "github.com/nats-io/nats.go"

// Conn is the connection of c.
func (c *Cache) Conn() *nats.Conn {
	c.gate <- struct{}{}
	defer func() { <-c.gate }()
	return c.requester.nc
}

// KeyForm is the form that key has in a subject.
func KeyForm(key string) string { return string(appendKey(nil, key)) }

// LifetimeIn is how many seconds the server keeps a message with these headers.
func LifetimeIn(header nats.Header) int64 { return int64(lifetimeIn(header)) }
