package redis

import "strings"

// slots is how many parts a cluster's keys are in.
const slots = 16384

// slotOf returns the slot of key: a CRC of it, or of what is between the first { and
// the } after it, if there is anything (Redis Cluster specification, "Hash tags").
func slotOf(key string) int {
	if _, tag, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok = strings.Cut(tag, "}"); ok && tag != "" {
			key = tag
		}
	}
	crc := uint16(0)
	for i := range len(key) {
		crc = crc<<8 ^ crcTable[byte(crc>>8)^key[i]]
	}
	return int(crc % slots)
}

// crcTable is that of CRC-16/XMODEM: polynomial 0x1021, most significant bit first.
var crcTable = func() (table [256]uint16) {
	for i := range table {
		crc := uint16(i) << 8
		for range 8 {
			carry := crc & 0x8000
			crc <<= 1
			if carry != 0 {
				crc ^= 0x1021
			}
		}
		table[i] = crc
	}
	return table
}()
