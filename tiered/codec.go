package tiered

import "encoding/json"

// A Codec turns values into the bytes that L2 keeps, and back. Its methods are called
// from many goroutines.
type Codec[V any] interface {
	// Encode returns the bytes of v. The cache does not change them.
	Encode(v V) ([]byte, error)
	// Decode returns the value of data, which it may keep. With an error the entry is
	// l2cache.ErrCorrupt: Get and GetMany return that, and GetOrLoad loads.
	Decode(data []byte) (V, error)
}

// Bytes is the Codec of values that are bytes already. It copies nothing.
type Bytes struct{}

// Encode returns v.
func (Bytes) Encode(v []byte) ([]byte, error) { return v, nil }

// Decode returns data.
func (Bytes) Decode(data []byte) ([]byte, error) { return data, nil }

// JSON is the Codec that encoding/json is.
type JSON[V any] struct{}

// Encode is json.Marshal.
func (JSON[V]) Encode(v V) ([]byte, error) { return json.Marshal(v) }

// Decode is json.Unmarshal into a new value.
func (JSON[V]) Decode(data []byte) (V, error) {
	var v V
	err := json.Unmarshal(data, &v)
	return v, err
}

// defaultCodec is Bytes for []byte and JSON for everything else.
func defaultCodec[V any]() Codec[V] {
	if codec, ok := any(Bytes{}).(Codec[V]); ok {
		return codec
	}
	return JSON[V]{}
}
