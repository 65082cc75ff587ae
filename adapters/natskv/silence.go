package natskv

import "time"

// A server that has stalled, or that is gone without a word, is silent. The driver finds
// that out after three pings of Options.PingInterval; in a cluster, where the other
// servers go on, that is long. So when nothing at all has come over the connection since
// a call began that has been given up, the server is asked for a sign of life. If it
// gives none in time, the connection is broken, and the driver goes to the next server.
// That is done to a connection of the backend's own only.

// minPatience is the least time that a server has for a sign of life.
const minPatience = time.Second

// probeLocked asks for a sign of life if nothing has come since r.heard was heard.
func (r *requester) probeLocked(heard uint64) {
	if r.link == nil || r.probing || r.away || r.heard != heard {
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

// keepAlive also asks when nothing has come for a second, and nobody has called. A
// leader that was stopped, and goes on when another one has been elected, answers the
// reads that it finds in its sockets before it learns of the other: what they return has
// been replaced. The election takes four seconds at least (minElectionTimeout of
// nats-server), and by then the backend is not connected to it any more.
func (r *requester) keepAlive() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var heard uint64
	for {
		select {
		case <-r.stopped:
			return
		case <-tick.C:
		}
		r.mu.Lock()
		r.probeLocked(heard)
		heard = r.heard
		r.mu.Unlock()
	}
}
