package servertest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestRedisCluster kills a master and wants its replica to take over.
func TestRedisCluster(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	c := RedisCluster(t, 1)
	t.Logf("ready after %v", time.Since(begin))
	if err := c.Servers[0].Kill(); err != nil {
		t.Fatal(err)
	}
	begin = time.Now()
	err := poll(clusterTimeout, func() error {
		role, err := command(c.Servers[3], "INFO", "replication")
		if err == nil && !strings.Contains(role, "role:master") {
			err = errors.New(role)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the replica is master after %v", time.Since(begin))
	if err := c.Servers[0].Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.Await(); err != nil {
		t.Error(err)
	}
}

// TestRedisSentinel kills the master and wants the sentinels to name another.
func TestRedisSentinel(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	r := RedisSentinel(t, 500*time.Millisecond)
	t.Logf("ready after %v", time.Since(begin))
	if err := r.Servers[0].Kill(); err != nil {
		t.Fatal(err)
	}
	begin = time.Now()
	for _, s := range r.Sentinels {
		err := poll(clusterTimeout, func() error {
			info, err := command(s, "INFO", "sentinel")
			if err == nil && strings.Contains(info, fmt.Sprintf("address=%s,", r.Servers[0].Addr)) {
				err = errors.New(info)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("there is another master after %v", time.Since(begin))
	if err := r.Servers[0].Start(); err != nil {
		t.Fatal(err)
	}
	if err := r.Await(); err != nil {
		t.Error(err)
	}
}
