package envelope_test

import (
	"fmt"
	"time"

	"github.com/l2cache/l2cache/envelope"
)

// Deadline and value in one string of bytes.
func Example() {
	now := time.Now()
	stored := envelope.NewHeader(now, time.Minute).Append(nil) // 20 bytes
	stored = append(stored, "value"...)

	header, value, err := envelope.Decode(stored)
	if err != nil {
		return // matches l2cache.ErrCorrupt
	}
	left, live := header.Remaining(now.Add(20*time.Second), time.Millisecond)
	fmt.Printf("%s, %v left: %v\n", value, left, live)
	// Output: value, 40s left: true
}
