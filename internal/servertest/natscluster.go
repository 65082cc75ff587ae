package servertest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// NATSServers are the servers of a cluster: n0, n1 and n2.
type NATSServers []*Server

// StartNATSCluster starts three nats-servers that form a cluster with JetStream, and
// returns once that has a leader. Stop and Start of a server leave it in the cluster.
func StartNATSCluster(args ...string) (NATSServers, error) {
	var routes []string
	for range 3 {
		route, err := reserve()
		if err != nil {
			return nil, err
		}
		defer route.release() // the server listens on it by then
		routes = append(routes, "nats://"+route.addr())
	}
	var servers NATSServers
	start := func(i int) error {
		s, err := StartNATS(append([]string{
			"--server_name", fmt.Sprintf("n%d", i), "--cluster_name", "servertest",
			"--cluster", routes[i], "--routes", strings.Join(routes, ","),
		}, args...)...)
		if err == nil {
			servers = append(servers, s)
		}
		return err
	}
	var err error
	for i := 0; i < len(routes) && err == nil; i++ {
		err = start(i)
	}
	for i := 0; i < len(servers) && err == nil; i++ {
		err = awaitJetStream(servers[i].Addr)
	}
	if err != nil {
		servers.Close() // the error that led here is the one to report
		return nil, err
	}
	return servers, nil
}

// Close closes all servers.
func (servers NATSServers) Close() error {
	var errs []error
	for _, s := range servers {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// awaitJetStream polls until the cluster's leader answers through the server at addr.
func awaitJetStream(addr string) error {
	var err error
	for deadline := time.Now().Add(readyTimeout); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err = askJetStream(addr); err == nil {
			return nil
		}
	}
	return fmt.Errorf("servertest: no JetStream at %s after %v: %w", addr, readyTimeout, err)
}

func askJetStream(addr string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(250 * time.Millisecond)) // a leader that is not there yet does not answer
	if _, err := io.WriteString(conn, "CONNECT {\"verbose\":false}\r\nSUB i 1\r\nPUB $JS.API.INFO i 0\r\n\r\n"); err != nil {
		return err
	}
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "{") { // the answer, behind its MSG line
			if strings.Contains(lines.Text(), `"error":`) {
				return errors.New(lines.Text())
			}
			return nil
		}
	}
	return errors.Join(errors.New("no answer"), lines.Err())
}
