package memcached_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/memcached"
	"github.com/l2cache/l2cache/conformance"
	"github.com/l2cache/l2cache/internal/servertest"
)

// Of 32 callers one adds the entry: where there is none, where one has been deleted,
// and where one has ended that the server still has.
func TestAddHasOneWinner(t *testing.T) {
	eachWay(t, func(t *testing.T, open func(string) l2cache.L2CacheBackend) {
		server := servertest.Memcached(t)
		cache := open(server.Addr)
		raw := newClient(t, server.Addr)
		const rounds, callers = 400, 32
		ended := 0
		for round := range rounds {
			key := fmt.Sprint("add ", round)
			switch round % 4 {
			case 0, 1:
				mustSet(t, cache, key, "old", time.Millisecond)
				await(t, "the end of the entry", func() bool {
					_, err := cache.Get(t.Context(), key)
					return err == l2cache.ErrNotFound
				})
				if _, err := raw.Get(memcached.ItemKey(key)); err == nil {
					ended++
				}
			case 2:
				mustSet(t, cache, key, "old", time.Minute)
				if err := cache.Delete(t.Context(), key); err != nil {
					t.Fatal(err)
				}
			}
			var winners, winner atomic.Int64
			errs := atOnce(callers, func(i int) error {
				added, err := l2cache.Add(context.Background(), cache, key, []byte(strconv.Itoa(i)), time.Minute)
				if added {
					winners.Add(1)
					winner.Store(int64(i))
				}
				return err
			})
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
			if n := winners.Load(); n != 1 {
				t.Fatalf("%d of %d callers added %q, want 1", n, callers, key)
			}
			wantGet(t, cache, key, strconv.FormatInt(winner.Load(), 10))
		}
		if ended < rounds/4 {
			t.Errorf("the server had only %d of %d entries that had ended", ended, rounds/2)
		}
		if conflicts := stat(t, server.Addr, "cas_badval"); conflicts == 0 {
			t.Error("no two callers met at an entry that had ended")
		}
	})
}

// What a Set or Delete did while a Touch was under way stands.
func TestTouchUndoesNothing(t *testing.T) {
	eachWay(t, func(t *testing.T, open func(string) l2cache.L2CacheBackend) {
		server := servertest.Memcached(t)
		cache := open(server.Addr)
		const rounds, touches = 1000, 4
		for round := range rounds {
			key := fmt.Sprint("touch:", round)
			mustSet(t, cache, key, "old", time.Minute)
			deletes := round%2 == 0
			errs := atOnce(1+touches, func(i int) error {
				switch {
				case i != touches/2:
					err := l2cache.Touch(context.Background(), cache, key, time.Hour)
					if deletes && err == l2cache.ErrNotFound {
						return nil
					}
					return err
				case deletes:
					return cache.Delete(context.Background(), key)
				default:
					return cache.Set(context.Background(), key, []byte("new"), time.Minute)
				}
			})
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
			if !deletes {
				wantGet(t, cache, key, "new")
			} else if value, err := cache.Get(t.Context(), key); err != l2cache.ErrNotFound {
				t.Errorf("Get after Delete beside Touch = %q, %v; want ErrNotFound", value, err)
			}
		}
		if conflicts := stat(t, server.Addr, "cas_badval"); conflicts == 0 {
			t.Error("no Touch met another call")
		}
	})
}

func TestTouchKeepsTheValue(t *testing.T) {
	eachWay(t, func(t *testing.T, open func(string) l2cache.L2CacheBackend) {
		cache := open(shared(t).Addr)
		for _, key := range []string{"touched", "touched, hashed", strings.Repeat("x", l2cache.MaxKeyLen)} {
			for _, value := range []string{"", "v", strings.Repeat("v", memcached.DefaultMaxValueLen)} {
				mustSet(t, cache, key, value, time.Minute)
				for _, ttl := range []time.Duration{time.Hour, 10 * time.Second, l2cache.NoExpiry, 40 * 24 * time.Hour} {
					if err := l2cache.Touch(t.Context(), cache, key, ttl); err != nil {
						t.Fatal(err)
					}
					e, err := cache.GetWithTTL(t.Context(), key)
					if err != nil || string(e.Value) != value || e.TTL > ttl || e.TTL < ttl-5*time.Second {
						t.Errorf("GetWithTTL after Touch for %v = %.40q for %v, %v; want %.40q", ttl, e.Value, e.TTL, err, value)
					}
				}
			}
		}
	})
}

// A write whose answer was lost is in doubt: an error, and sent once.
func TestLostAnswersAreInDoubt(t *testing.T) {
	server := servertest.Memcached(t)
	direct := open(t, "memcached://"+server.Addr+patient)
	addr := proxy(t, server.Addr, nil, func(client net.Conn, server io.Reader) error {
		answer := make([]byte, 64<<10)
		for {
			n, err := server.Read(answer)
			if err != nil || bytes.HasPrefix(answer[:n], []byte("STORED")) {
				return err
			}
			if _, err := client.Write(answer[:n]); err != nil {
				return err
			}
		}
	})
	cache := open(t, "memcached://"+addr+patient+"&lazy=true")
	for _, test := range []struct {
		name   string
		before time.Duration // the TTL of an entry that is there
		call   func(key string) error
		want   string
		writes int // that the server counts, those too that it refuses
	}{
		{"set", time.Hour, func(key string) error { return cache.Set(t.Context(), key, []byte("new"), time.Minute) }, "new", 1},
		{"add", 0, func(key string) error {
			added, err := l2cache.Add(t.Context(), cache, key, []byte("new"), time.Minute)
			if added {
				t.Error("Add = true without an answer")
			}
			return err
		}, "new", 1},
		{"add after the end", time.Millisecond, func(key string) error {
			added, err := l2cache.Add(t.Context(), cache, key, []byte("new"), time.Minute)
			if added {
				t.Error("Add = true without an answer")
			}
			return err
		}, "new", 2},
		{"touch", time.Hour, func(key string) error { return l2cache.Touch(t.Context(), cache, key, time.Minute) }, "old", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			key := test.name
			if test.before > 0 {
				mustSet(t, direct, key, "old", test.before)
			}
			if test.before == time.Millisecond {
				await(t, "the end of the entry", func() bool {
					_, err := direct.Get(t.Context(), key)
					return err == l2cache.ErrNotFound
				})
			}
			before := stat(t, server.Addr, "cmd_set")
			wantError(t, test.name, test.call(key), l2cache.ErrUnavailable)
			if writes := stat(t, server.Addr, "cmd_set") - before; writes != test.writes {
				t.Errorf("%d writes were sent, want %d", writes, test.writes)
			}
			e, err := direct.GetWithTTL(t.Context(), key)
			if err != nil || string(e.Value) != test.want || e.TTL > time.Minute {
				t.Errorf("GetWithTTL afterwards = %q for %v, %v; want %q for a minute: the server has done it", e.Value, e.TTL, err, test.want)
			}
		})
	}
}

// One op_timeout is for the gets and the cas of a Touch together.
func TestTouchIsBoundedAsAWhole(t *testing.T) {
	const delay = opTimeout * 3 / 4
	server := shared(t)
	direct := open(t, "memcached://"+server.Addr+patient)
	mustSet(t, direct, "slow", "v", time.Minute)
	addr := proxy(t, server.Addr, nil, func(client net.Conn, server io.Reader) error {
		answer := make([]byte, 4096)
		for {
			n, err := server.Read(answer)
			if err != nil {
				return err
			}
			time.Sleep(delay)
			if _, err := client.Write(answer[:n]); err != nil {
				return err
			}
		}
	})
	cache := open(t, fmt.Sprintf("memcached://%s?op_timeout=%v&lazy=true", addr, opTimeout))
	inTime(t, "Touch", opTimeout, func() {
		wantError(t, "Touch", l2cache.Touch(t.Context(), cache, "slow", time.Hour), l2cache.ErrUnavailable)
	})
}

// A server with -C answers CAS id 0, and EXISTS to every cas.
func TestNoCAS(t *testing.T) {
	const cas = l2cache.CanTouch | l2cache.CanAdd
	server := servertest.Memcached(t, "-C")
	t.Run("asked", func(t *testing.T) {
		conformance.Run(t, func(ctx context.Context, namespace string) (l2cache.L2CacheBackend, error) {
			return l2cache.Open(ctx, "memcached://"+server.Addr+patient+"&prefix="+prefix(namespace))
		}, &conformance.Options{Only: []string{"capability"}})
		for _, addrs := range []string{server.Addr, server.Addr + "," + shared(t).Addr, shared(t).Addr + "," + server.Addr} {
			cache := open(t, "memcached://"+addrs+patient)
			if got := l2cache.ProfileOf(cache).Supports; got != l2cache.CanGetMany {
				t.Errorf("%s: Supports = %v, want GetMany", addrs, got)
			}
			_, err := l2cache.Add(t.Context(), cache, "k", nil, time.Hour)
			wantNoCAS(t, "Add", err)
			wantNoCAS(t, "Touch", l2cache.Touch(t.Context(), cache, "k", time.Hour))
		}
	})
	t.Run("not asked", func(t *testing.T) {
		eachWay(t, func(t *testing.T, open func(string) l2cache.L2CacheBackend) { // these are lazy
			cache := open(server.Addr)
			if got := l2cache.ProfileOf(cache).Supports; !got.Has(cas) {
				t.Errorf("Supports = %v, want %v", got, cas)
			}
			mustSet(t, cache, "there", "v", time.Hour)
			wantNoCAS(t, "Touch", l2cache.Touch(t.Context(), cache, "there", time.Minute))
			if e, err := cache.GetWithTTL(t.Context(), "there"); err != nil || e.TTL < 59*time.Minute {
				t.Errorf("GetWithTTL after Touch = %v, %v; want the entry as it was", e, err)
			}
			mustSet(t, cache, "ended", "v", time.Millisecond)
			await(t, "the end of the entry", func() bool {
				_, err := l2cache.Add(t.Context(), cache, "ended", nil, time.Hour)
				if err != nil {
					wantNoCAS(t, "Add", err)
				}
				return err != nil
			})
			if value, err := cache.Get(t.Context(), "ended"); err != l2cache.ErrNotFound {
				t.Errorf("Get after Add = %q, %v; want ErrNotFound", value, err)
			}
		})
	})
}

func wantNoCAS(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "-C") {
		t.Errorf("%s = %v, want ErrUnsupported that names -C", what, err)
	}
}

func TestTouchOfAFullServer(t *testing.T) {
	server := servertest.Memcached(t, "-m", "1", "-M", "-I", "512k")
	cache := open(t, "memcached://"+server.Addr+patient)
	stored := 0
	for ; stored < 1000; stored++ {
		if added, err := l2cache.Add(t.Context(), cache, fmt.Sprint(stored), make([]byte, 100_000), time.Minute); !added {
			wantError(t, "Add", err, l2cache.ErrFull)
			break
		}
	}
	full := 0
	for i := range stored {
		if err := l2cache.Touch(t.Context(), cache, fmt.Sprint(i), time.Hour); err != nil {
			wantError(t, "Touch", err, l2cache.ErrFull)
			full++
		}
		if _, err := cache.Get(t.Context(), fmt.Sprint(i)); err != nil {
			t.Errorf("Get after Touch = %v; want the entry", err)
		}
	}
	if full == 0 {
		t.Errorf("Touch of each of %d entries of a full server succeeded", stored)
	}
}

// await polls until done.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 10s", what)
		}
	}
}

// stat returns one of the server's counters.
func stat(t *testing.T, addr, name string) int {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "stats\r\n"); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(conn); lines.Scan() && lines.Text() != "END"; {
		if value, found := strings.CutPrefix(lines.Text(), "STAT "+name+" "); found {
			n, err := strconv.Atoi(value)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("the server has no %s", name)
	return 0
}
