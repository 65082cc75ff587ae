package servertest

import (
	"crypto/tls"
	"net"
)

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

// StartMemcachedTLS starts a memcached that takes TLS only, from clients with a
// certificate. The files cert and key, as [Certificate] makes them, are the server's own,
// and cert is the authority that signs clients' certificates.
func StartMemcachedTLS(cert, key string, args ...string) (*Server, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	k := memcached
	k.ready = func(conn net.Conn) error {
		// Only the server's own process has the key, so there is nothing to verify.
		client := tls.Client(conn, &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true})
		return memcached.ready(client)
	}
	const verifyRequire = "2"
	args = append([]string{
		"-Z", "-o", "ssl_chain_cert=" + cert + ",ssl_key=" + key + ",ssl_ca_cert=" + cert + ",ssl_verify_mode=" + verifyRequire,
	}, args...)
	return start(&k, args, reserve)
}
