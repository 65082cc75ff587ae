package memcached

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/envelope"
)

// The flags of an item say that it is ours, and in which form:
//
//	flagsPlain    key k+key      data: envelope
//	flagsHashed   key h+digest   data: length of the key (2, big-endian), key, envelope
//
// These, the keys and the data are API: every later version reads them.
const (
	flagsPlain  uint32 = 0xC54C0100
	flagsHashed uint32 = 0xC54C0101
)

// maxItemKey is the longest key of an item, in bytes: KEY_MAX_LENGTH of memcached.
const maxItemKey = 250

// plain reports whether key can be (the end of) an item's key. The protocol ends a
// key at a space or a line feed; gomemcache refuses all control characters and DEL.
func plain(key string) bool {
	if 1+len(key) > maxItemKey {
		return false
	}
	for i := range len(key) {
		if c := key[i]; c <= ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

// itemKey returns the key under which the servers keep key's entry. Different
// keys have different ones.
func itemKey(key string) string {
	if plain(key) {
		return "k" + key
	}
	digest := sha256.Sum256([]byte(key))
	return "h" + base64.RawURLEncoding.EncodeToString(digest[:])
}

// An outgoing is an item to be set, in a buffer of its own until free.
type outgoing struct{ memcache.Item }

// maxPooled is the largest buffer that is kept for another Set.
const maxPooled = 64 << 10

var pool = sync.Pool{New: func() any { return new(outgoing) }}

func encode(key string, value []byte, now time.Time, ttl time.Duration) *outgoing {
	out := pool.Get().(*outgoing)
	out.Key = itemKey(key)
	out.Flags = flagsPlain
	out.Expiration = exptime(now, ttl)
	data := out.Value[:0]
	if out.Key[0] == 'h' {
		out.Flags = flagsHashed
		data = binary.BigEndian.AppendUint16(data, uint16(len(key)))
		data = append(data, key...)
	}
	data = envelope.NewHeader(now, ttl).Append(data)
	out.Value = append(data, value...)
	return out
}

// free hands the buffer to a later Set. Nobody may read the item any more.
func (out *outgoing) free() {
	if cap(out.Value) <= maxPooled {
		pool.Put(out)
	}
}

// decode returns what item says about key. The value is a part of item's.
func decode(item *memcache.Item, key string) (envelope.Header, []byte, error) {
	data := item.Value
	switch hashed := item.Key[0] == 'h'; {
	case hashed && item.Flags == flagsHashed:
		if len(data) < 2+len(key) || int(binary.BigEndian.Uint16(data)) != len(key) || string(data[2:2+len(key)]) != key {
			return envelope.Header{}, nil, fmt.Errorf("%w: the item does not have the key that it is stored under", l2cache.ErrCorrupt)
		}
		data = data[2+len(key):]
	case !hashed && item.Flags == flagsPlain:
	default:
		return envelope.Header{}, nil, fmt.Errorf("%w: another program's item (flags %#x)", l2cache.ErrCorrupt, item.Flags)
	}
	return envelope.Decode(data)
}

// entry returns the entry in item, which is stored under key, or ErrNotFound if it
// has ended by now. The value is a part of item's.
func entry(item *memcache.Item, key string, now time.Time) (l2cache.Entry, error) {
	header, value, err := decode(item, key)
	if err != nil {
		return l2cache.Entry{}, err
	}
	left, live := header.Remaining(now, resolution)
	if !live {
		return l2cache.Entry{}, l2cache.ErrNotFound
	}
	return l2cache.Entry{Value: value, TTL: left}, nil
}

const (
	// maxRelative is the longest exptime, in seconds, that the server adds to its
	// clock; a larger one is a Unix time. (protocol.txt, "Expiration times")
	maxRelative = 30 * 24 * 60 * 60

	// slackRelative is added to an exptime that the server adds to its clock, in
	// seconds. That clock is read by a timer, so that a server which was stalled
	// for some seconds, and goes on with a set before the timer, counts from a time
	// that long ago. Measured with memcached 1.6.18: after SIGSTOP for 4 s it
	// dropped up to 64 of 600 new items early that had one second of slack.
	slackRelative = 5

	// slackAbsolute is added to a Unix time, in seconds: it is compared with the
	// server's clock, which may be ahead of ours.
	slackAbsolute = 24 * 60 * 60
)

// exptime returns the exptime of an entry that is set at now for ttl, after its
// deadline; 0 is never. The server's clock moves in steps of a second: an item with
// exptime n is gone after n−1 to n seconds.
func exptime(now time.Time, ttl time.Duration) int32 {
	if ttl == l2cache.NoExpiry {
		return 0
	}
	seconds := int64((ttl-1)/time.Second) + 1 // rounded up
	if relative := seconds + 1 + slackRelative; relative <= maxRelative {
		return int32(relative)
	}
	at := now.Unix() + 1 + seconds + slackAbsolute
	if at > math.MaxInt32 { // from January 2038 on
		return 0
	}
	return int32(at)
}
