package servertest

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// port is a TCP port of the loopback interface that is ours while a server
// comes and goes on it.
//
// The UDP port of the same number is the lock: no server here uses UDP, the
// kernel lets one process have it, and gives it back when that process dies.
// Without it a test binary that runs at the same time could settle on the port
// of a server that this one has stopped for a moment.
type port struct {
	host, number string
	lock         net.PacketConn
}

// reserve takes a port that no other test process has reserved and nobody
// listens on. It stays below the ports that systems give to outgoing
// connections (from 32768 on Linux, from 49152 elsewhere), for a client that
// keeps dialling a stopped server would take its port sooner or later.
func reserve() (*port, error) {
	var err error
	for range 100 {
		p := &port{host: "127.0.0.1", number: strconv.Itoa(20000 + rand.IntN(12000))}
		if p.lock, err = net.ListenPacket("udp", p.addr()); err != nil {
			continue
		}
		var ln net.Listener
		if ln, err = net.Listen("tcp", p.addr()); err != nil {
			p.release()
			continue
		}
		ln.Close()
		return p, nil
	}
	return nil, errors.Join(errors.New("servertest: no free port"), err)
}

func (p *port) addr() string { return net.JoinHostPort(p.host, p.number) }

func (p *port) release() {
	p.lock.Close() // a second time is harmless
}
