package natskv

import "time"

// A server that has stalled, or that is gone without a word, is silent. The driver finds
// that out after three pings of Options.PingInterval; in a cluster, where the other
// servers go on, that is long. So when a call has been given up, and nothing at all has
// come over the connection since the call began, the server is asked for a sign of life.
// If it gives none in time, the connection is broken, and the driver goes to the next
// server. That is done to a connection of the backend's own only.

// minPatience is the least time that a server has for a sign of life.
const minPatience = time.Second

// probeLocked asks for a sign of life if nothing has come since c began.
func (r *requester) probeLocked(c *call) {
	if r.link == nil || r.probing || r.heard != c.heard {
		return
	}
	r.probing = true
	go r.probe()
}

func (r *requester) probe() {
	patience := max(r.link.opTimeout, minPatience)
	timer := time.AfterFunc(patience, r.link.breaker())
	r.nc.FlushTimeout(2 * patience) // waits for a pong; a connection that breaks ends it, too
	timer.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.probing = false
}
