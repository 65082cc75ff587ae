package natskv_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/internal/servertest"
)

// publishHeaders publishes a message with headers as they are, which a client that
// writes them by itself may get wrong.
func publishHeaders(t *testing.T, srv *servertest.Server, subject, headers string) {
	t.Helper()
	conn, err := net.Dial("tcp", srv.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	acks := nats.NewInbox()
	headers = "NATS/1.0\r\n" + headers + "\r\n\r\n"
	fmt.Fprintf(conn, "CONNECT {\"headers\":true,\"verbose\":false}\r\nSUB %[1]s 1\r\nHPUB %[2]s %[1]s %[3]d %[4]d\r\n%[5]stheirs\r\n",
		acks, subject, len(headers), len(headers)+len("theirs"), headers)
	from := bufio.NewReader(conn)
	for line := ""; !strings.HasPrefix(line, "MSG "+acks); {
		if line, err = from.ReadString('\n'); err != nil || strings.HasPrefix(line, "-ERR") {
			t.Fatal(line, err)
		}
	}
}

// What other programs have put into the headers keeps nobody from replacing the message.
func TestForeignHeaders(t *testing.T) {
	t.Parallel()
	srv := server(t)
	b := open(t, srv, "headers")
	ctx := context.Background()
	for name, headers := range map[string]string{
		"copied from a direct get": "Nats-Sequence: 1\r\nNats-Subject: elsewhere\r\nNats-Stream: KV_elsewhere",
		"a sequence that is none":  "Nats-Sequence: x",
		"not headers":              "theirs",
	} {
		key := strings.ReplaceAll(name, " ", "-")
		for what, replace := range map[string]func() error{
			"Set":           func() error { return b.Set(ctx, key, []byte("v"), time.Minute) },
			"Delete":        func() error { return b.Delete(ctx, key) },
			"SetMany":       func() error { return l2cache.SetMany(ctx, b, []l2cache.Item{{Key: key, TTL: time.Minute}}) },
			"DeleteMany":    func() error { return l2cache.DeleteMany(ctx, b, []string{key}) },
			"DeletePattern": func() error { return l2cache.DeletePattern(ctx, b, key+"*") },
		} {
			publishHeaders(t, srv, "$KV.headers."+key, headers)
			if got, err := b.Get(ctx, key); !errors.Is(err, l2cache.ErrCorrupt) {
				t.Errorf("%s: Get = %q, %v; want %v", name, got, err, l2cache.ErrCorrupt)
			}
			for info, err := range l2cache.Scan(ctx, b, key) {
				t.Errorf("%s: Scan yields %v, %v", name, info, err)
			}
			if err := replace(); err != nil {
				t.Errorf("%s: %s = %v", name, what, err)
			}
			if _, err := b.Get(ctx, key); err != nil && err != l2cache.ErrNotFound {
				t.Errorf("%s: Get after %s = %v", name, what, err)
			}
		}
	}
}
