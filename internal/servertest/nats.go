package servertest

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// StartNATS starts a nats-server with JetStream, whose file storage outlives
// Stop and Kill.
func StartNATS(args ...string) (*Server, error) { return start(&nats, args, reserve) }

var nats = kind{
	name: "nats-server",
	find: sync.OnceValues(findNATS),
	args: func(host, port, dir string) []string {
		return []string{"--addr", host, "--port", port, "--jetstream", "--store_dir", dir}
	},
	ready: func(conn net.Conn) error {
		// The server speaks first, once JetStream has recovered its streams.
		return ask(conn, "", "INFO ")
	},
}

const natsPackage = "github.com/nats-io/nats-server/v2"

// findNATS returns $L2CACHE_NATS_SERVER, else .tools/bin/nats-server beside
// tools.mod, which it builds if need be. It does not look in $PATH: Debian has
// nats-server 2.9, and message TTLs began with 2.11. ./scripts/test rebuilds
// what tools.mod has moved on from.
func findNATS() (string, error) {
	if path := os.Getenv("L2CACHE_NATS_SERVER"); path != "" {
		return filepath.Abs(path) // the server runs in a folder of its own
	}
	root, err := toolsRoot()
	if err != nil {
		return "", &MissingError{Server: "nats-server", Install: "set L2CACHE_NATS_SERVER to its path", Err: err}
	}
	path := filepath.Join(root, ".tools", "bin", "nats-server")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := build(root, natsPackage, path); err != nil {
		return "", &MissingError{
			Server:  "nats-server",
			Install: "go build -modfile=tools.mod -o .tools/bin/nats-server " + natsPackage,
			Err:     err,
		}
	}
	return path, nil
}

// toolsRoot returns the nearest folder upwards that has a tools.mod.
func toolsRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "tools.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("tools.mod: %w", fs.ErrNotExist)
		}
		dir = parent
	}
}

// build builds a tool of tools.mod. Several test binaries may do so at a time:
// each renames a whole file into place.
func build(root, pkg, path string) error {
	tmp := fmt.Sprintf("%s.%d", path, os.Getpid())
	defer os.Remove(tmp)
	cmd := exec.Command("go", "build", "-modfile=tools.mod", "-o", tmp, pkg)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(fmt.Errorf("%v: %w", cmd, err), errors.New(string(out)))
	}
	return os.Rename(tmp, path)
}
