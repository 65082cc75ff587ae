package servertest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
)

// StartRedis starts a redis-server that keeps nothing on disk, unless args say
// otherwise: with "--appendonly", "yes" its data outlive Kill, too.
func StartRedis(args ...string) (*Server, error) { return start(&redis, args, reserve) }

var redis = kind{
	name: "redis-server",
	find: installed("redis-server", "redis-server"),
	args: func(host, port, dir string) []string {
		return []string{"--bind", host, "--port", port, "--dir", dir, "--save", ""}
	},
	ready: func(conn net.Conn) error {
		// Before it has loaded its data it answers -LOADING.
		return ask(conn, "PING\r\n", "+PONG", "-NOAUTH")
	},
}

// ask sends a request, if there is one, and wants a line that begins in one of
// the given ways.
func ask(conn net.Conn, request string, want ...string) error {
	if _, err := io.WriteString(conn, request); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	for _, w := range want {
		if strings.HasPrefix(line, w) {
			return nil
		}
	}
	return fmt.Errorf("answer %.60q, want %q", line, want)
}
