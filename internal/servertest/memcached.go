package servertest

import "net"

// StartMemcached starts a memcached. It comes back empty from every restart.
func StartMemcached(args ...string) (*Server, error) { return start(&memcached, args, reserve) }

var memcached = kind{
	name: "memcached",
	find: installed("memcached", "memcached"),
	args: func(host, port, _ string) []string {
		// -u counts only for root, as whom it refuses to run without.
		return []string{"-l", host, "-p", port, "-U", "0", "-u", "root"}
	},
	ready: func(conn net.Conn) error {
		return ask(conn, "version\r\n", "VERSION")
	},
}
