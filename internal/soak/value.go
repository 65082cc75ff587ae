package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
)

// encode makes the value with the given number of a key: a head that says which
// it is, and a body whose length and bytes follow from the head, so that a read
// can tell a value that is torn, cut or somebody else's.
func encode(key string, number int) []byte {
	sum := fnv.New64a()
	sum.Write([]byte(key))
	id := sum.Sum64()
	body := rand.New(rand.NewPCG(id, uint64(number)))
	size := 16 + body.IntN(200)
	switch body.IntN(40) {
	case 0:
		size += body.IntN(100_000)
	case 1, 2:
		size += body.IntN(20_000) // beyond what bolt keeps in one row
	}
	p := make([]byte, 0, size+8)
	p = binary.LittleEndian.AppendUint64(p, id)
	p = binary.LittleEndian.AppendUint64(p, uint64(number))
	for len(p) < size {
		p = binary.LittleEndian.AppendUint64(p, body.Uint64())
	}
	return p
}

// decode returns the number of a value that was read under key.
func decode(key string, p []byte) (number int, v *violation) {
	want := encode(key, 0)
	switch {
	case len(p) < 16:
		return 0, &violation{"torn", fmt.Sprintf("read of %s: a value of %d bytes", key, len(p))}
	case !bytes.Equal(p[:8], want[:8]):
		return 0, &violation{"wrong", fmt.Sprintf("read of %s: the value of another key", key)}
	}
	number = int(binary.LittleEndian.Uint64(p[8:]))
	if want := encode(key, number); !bytes.Equal(p, want) {
		return 0, &violation{"torn", fmt.Sprintf("read of %s: value %d, %d bytes, is not as it was set, %d bytes", key, number, len(p), len(want))}
	}
	return number, nil
}
