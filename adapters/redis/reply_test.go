package redis

import (
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
)

const transaction = "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n"

// TestDecodePairs cuts the replies in all places.
func TestDecodePairs(t *testing.T) {
	replies := transaction + "*8\r\n$3\r\na\r\n\r\n:1500\r\n$-1\r\n:-2\r\n$0\r\n\r\n:-1\r\n" +
		"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n:-1\r\n"
	check := func(t *testing.T, reads []*read) {
		t.Helper()
		for i, want := range []read{
			{entry: l2cache.Entry{Value: []byte("a\r\n"), TTL: 1500 * time.Millisecond}},
			{call: call{err: l2cache.ErrNotFound}},
			{entry: l2cache.Entry{Value: []byte{}, TTL: l2cache.NoExpiry}},
			{call: call{err: l2cache.ErrCorrupt}},
		} {
			got := reads[i]
			if string(got.entry.Value) != string(want.entry.Value) || got.entry.TTL != want.entry.TTL || kind(got.err) != want.err {
				t.Errorf("entry %d = %q, %v, %v; want %q, %v, %v", i,
					got.entry.Value, got.entry.TTL, got.err, want.entry.Value, want.entry.TTL, want.err)
			}
		}
		if reads[2].entry.Value == nil {
			t.Error("an empty value is nil")
		}
	}
	for cut := range len(replies) {
		p := fourPairs()
		for _, part := range []string{replies[:cut], replies[cut:]} {
			if n, err := p.Write([]byte(part)); n != len(part) || err != nil {
				t.Fatalf("Write of the part at %d = %d, %v", cut, n, err)
			}
		}
		check(t, p.reads)
	}
	for name, r := range map[string]io.Reader{
		"ReadFrom":          strings.NewReader(replies),
		"ReadFrom by bytes": iotest.OneByteReader(strings.NewReader(replies)),
	} {
		p := fourPairs()
		if n, err := p.ReadFrom(r); n != int64(len(replies)) || err != nil {
			t.Fatalf("%s = %d, %v", name, n, err)
		}
		check(t, p.reads)
	}
}

func fourPairs() *pairs {
	reads := []*read{{}, {}, {}, {}}
	return newPairs(reads, 1+2*len(reads))
}

func TestDecodeRefusal(t *testing.T) {
	p := fourPairs()
	replies := "+OK\r\n+QUEUED\r\n+QUEUED\r\n-NOPERM no\r\n+QUEUED\r\n+QUEUED\r\n-OOM full\r\n+QUEUED\r\n+QUEUED\r\n-EXECABORT discarded\r\n"
	if _, err := io.WriteString(p, replies); err != nil {
		t.Fatal(err)
	}
	if !redis.IsExecAbortError(p.refused) {
		t.Errorf("refused = %v, want EXECABORT", p.refused)
	}
	for i, want := range []string{"", "NOPERM", "OOM", ""} {
		if err := p.reads[i].err; (err == nil) != (want == "") || want != "" && !redis.HasErrorPrefix(err, want) {
			t.Errorf("error of read %d = %v, want %q", i, err, want)
		}
	}
}

// TestDecodeColumns cuts the replies in all places.
func TestDecodeColumns(t *testing.T) {
	const replies = "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n" +
		"*4\r\n*3\r\n$2\r\nab\r\n$-1\r\n$-1\r\n:1500\r\n:-2\r\n:-1\r\n"
	for cut := range len(replies) {
		c := newColumns([]*read{{}, {}, {}})
		for _, part := range []string{replies[:cut], replies[cut:]} {
			if n, err := io.WriteString(c, part); n != len(part) || err != nil {
				t.Fatalf("Write of the part at %d = %d, %v", cut, n, err)
			}
		}
		if r := c.reads[0]; string(r.entry.Value) != "ab" || r.entry.TTL != 1500*time.Millisecond || r.err != nil {
			t.Errorf("first = %q, %v, %v; want ab, 1.5s", r.entry.Value, r.entry.TTL, r.err)
		}
		if r := c.reads[1]; r.err != redis.Nil {
			t.Errorf("nil with PTTL -2 = %v, want a miss", r.err)
		}
		if r := c.reads[2]; !errors.Is(r.err, l2cache.ErrCorrupt) {
			t.Errorf("nil with PTTL -1 = %v, want ErrCorrupt", r.err)
		}
	}
}

func TestDecodeColumnsRefusal(t *testing.T) {
	for name, replies := range map[string]string{
		"a key":           "+OK\r\n-NOPERM mget\r\n+QUEUED\r\n-NOPERM key\r\n+QUEUED\r\n-EXECABORT discarded\r\n",
		"MULTI and a key": "-NOPERM multi\r\n-NOPERM mget\r\n:1\r\n-NOPERM key\r\n:-1\r\n-ERR EXEC without MULTI\r\n",
		"MULTI":           "-NOPERM multi\r\n*3\r\n$1\r\na\r\n$-1\r\n$-1\r\n:1\r\n-NOPERM key\r\n:-1\r\n-ERR EXEC without MULTI\r\n",
	} {
		c := newColumns([]*read{{}, {}, {}})
		if _, err := io.WriteString(c, replies); err != nil {
			t.Fatal(err)
		}
		if c.refused == nil {
			t.Errorf("%s refused: the transaction is not", name)
		}
		for i, r := range c.reads {
			if (r.err != nil) != (i == 1) || r.entry.Value != nil {
				t.Errorf("%s refused: read %d = %q, %v; want an error for the second alone", name, i, r.entry.Value, r.err)
			}
		}
	}
}

var long = regexp.MustCompile(`\$\+?[0-9]{7}`)

func FuzzDecodePairs(f *testing.F) {
	for _, s := range []string{"*8\r\n$1\r\na\r\n:1\r\n", "*8\r\n$-2\r\n", "*9\r\n", "$99999999999999999999\r\n", "\r\n", ":1\r\n"} {
		f.Add(transaction + s)
	}
	f.Fuzz(func(t *testing.T, replies string) {
		if long.MatchString(replies) {
			return // as much is allocated
		}
		p := fourPairs()
		_, err := io.WriteString(p, replies)
		if err != nil && !errors.Is(err, errReply) {
			t.Errorf("Write(%q) = %v, want errReply", replies, err)
		}
		for _, r := range p.reads {
			if r.err == nil && r.entry.Value != nil && r.entry.TTL <= 0 {
				t.Errorf("Write(%q) made an entry with TTL %v", replies, r.entry.TTL)
			}
		}
	})
}
