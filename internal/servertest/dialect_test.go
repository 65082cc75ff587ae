package servertest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// A dialect is what these tests say to a server in its own protocol: enough to
// keep one entry and to ask for it.
type dialect struct {
	kind  *kind
	start func(args ...string) (*Server, error)
	keep  []string // the arguments with which data outlive a restart
	keeps bool     // they do
	set   func(*wire) error
	get   func(*wire) (found bool, err error)
}

var dialects = map[string]dialect{
	"redis": {
		kind:  &redis,
		start: StartRedis,
		keep:  []string{"--appendonly", "yes", "--appendfsync", "always"},
		keeps: true,
		set:   func(w *wire) error { return w.expect("SET k v\r\n", "+OK") },
		get: func(w *wire) (bool, error) {
			line, err := w.call("GET k\r\n")
			if line != "$1" {
				return false, err
			}
			return true, w.expect("", "v")
		},
	},
	"memcached": {
		kind:  &memcached,
		start: StartMemcached,
		set:   func(w *wire) error { return w.expect("set k 0 0 1\r\nv\r\n", "STORED") },
		get: func(w *wire) (bool, error) {
			line, err := w.call("get k\r\n")
			if line != "VALUE k 0 1" {
				return false, err
			}
			return true, errors.Join(w.expect("", "v"), w.expect("", "END"))
		},
	},
	"nats": {
		kind:  &nats,
		start: StartNATS,
		keeps: true,
		set: func(w *wire) error {
			if _, err := w.jetStream("$JS.API.STREAM.CREATE.S", `{"name":"S","subjects":["s.*"],"storage":"file"}`); err != nil {
				return err
			}
			_, err := w.jetStream("s.k", "v")
			return err
		},
		get: func(w *wire) (bool, error) {
			answer, err := w.jetStream("$JS.API.STREAM.MSG.GET.S", `{"last_by_subj":"s.k"}`)
			return strings.Contains(answer, `"data":"dg=="`), err
		},
	},
}

// wire is a connection to a server. Each answer has a second to arrive.
type wire struct {
	conn net.Conn
	r    *bufio.Reader
}

func dial(t *testing.T, s *Server) *wire {
	t.Helper()
	conn, err := net.DialTimeout("tcp", s.Addr, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &wire{conn, bufio.NewReader(conn)}
}

// call sends a request and returns the next line.
func (w *wire) call(request string) (string, error) {
	w.conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(w.conn, request); err != nil {
		return "", err
	}
	line, err := w.r.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

func (w *wire) expect(request, want string) error {
	line, err := w.call(request)
	if err == nil && line != want {
		err = fmt.Errorf("%q = %q, want %q", request, line, want)
	}
	return err
}

// jetStream makes a request by way of an inbox and returns the answer's JSON.
func (w *wire) jetStream(subject, payload string) (string, error) {
	request := fmt.Sprintf("CONNECT {\"verbose\":false}\r\nSUB inbox 1\r\nUNSUB 1 1\r\nPUB %s inbox %d\r\n%s\r\n", subject, len(payload), payload)
	for {
		line, err := w.call(request)
		if err != nil {
			return "", err
		}
		request = ""
		if strings.HasPrefix(line, "MSG ") {
			return w.call("")
		}
	}
}
