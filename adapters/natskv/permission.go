package natskv

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// A server does not reply to a request, or to a subscription, for which the client
// lacks the permission. It tells the connection, and the driver calls the connection's
// error handler, which on a connection of the caller's is the caller's: there the
// requester looks at the connection's last error while somebody waits.

// lookAfter is for how long a call over a connection of the caller's waits before the
// requester looks, and how long until it looks again.
const lookAfter = 100 * time.Millisecond

// listenForViolations is called before anything is sent.
func (r *requester) listenForViolations() {
	if r.link != nil {
		r.nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { r.refused(err) })
		return
	}
	err := r.nc.LastError() // from before
	r.mu.Lock()
	defer r.mu.Unlock()
	r.violation = err
}

// lookLaterLocked looks for a violation after lookAfter, and until nobody waits. It
// does so in another goroutine than run: the driver's lock may be held for long.
func (r *requester) lookLaterLocked() {
	if r.link != nil || r.looking {
		return
	}
	r.looking = true
	time.AfterFunc(lookAfter, func() {
		r.refused(r.nc.LastError())
		r.mu.Lock()
		defer r.mu.Unlock()
		r.looking = false
		if len(r.pending) > 0 {
			r.lookLaterLocked()
		}
	})
}

// refused ends the calls that the server has refused, if err says that it has.
func (r *requester) refused(err error) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == r.violation { // the last error, looked at again
		return
	}
	r.violation, r.violatedAt = err, r.token
	// Nothing but the text has the subject.
	text := err.Error()
	refusedAll := strings.Contains(text, "Subscription to "+strconv.Quote(r.inbox+"*"))
	r.deaf = r.deaf || refusedAll
	for token, c := range r.pending {
		if c.sent && (refusedAll || strings.Contains(text, "Publish to "+strconv.Quote(c.subject))) {
			delete(r.pending, token)
			c.reply(nil, err)
		}
	}
}

// takeDeaf reports whether the subscription has been refused since the last call.
func (r *requester) takeDeaf() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	deaf := r.deaf
	r.deaf = false
	return deaf
}
