package main

import (
	"bytes"
	"encoding/binary"
	"strconv"
)

// findMarkers calls `found` for each marker in a response: a marked address, as text or as its four
// bytes, or a marked route. Nothing of the resource's schema is assumed, so it may change freely.
func findMarkers(message []byte, found func(marker int)) {
	findBinaryAddresses(message, found)
	findTextAddresses(message, found)
	findRoutes(message, found)
}

func findBinaryAddresses(message []byte, found func(marker int)) {
	for i := 0; i+4 <= len(message); i++ {
		if message[i] == 172 && message[i+1]&0xf0 == 16 {
			found(int(binary.BigEndian.Uint32(message[i:]) & (1<<markerBits - 1)))
		}
	}
}

func findTextAddresses(message []byte, found func(marker int)) {
	rest := message
	for {
		_, after, ok := bytes.Cut(rest, []byte("172."))
		if !ok {
			return
		}
		rest = after
		second, after, ok := leadingNumber(after)
		if !ok || second < 16 || second > 31 || !bytes.HasPrefix(after, []byte(".")) {
			continue
		}
		third, after, ok := leadingNumber(after[1:])
		if !ok || third > 255 || !bytes.HasPrefix(after, []byte(".")) {
			continue
		}
		if fourth, _, ok := leadingNumber(after[1:]); ok && fourth <= 255 {
			found((second-16)<<16 | third<<8 | fourth)
		}
	}
}

func findRoutes(message []byte, found func(marker int)) {
	rest := message
	for {
		_, after, ok := bytes.Cut(rest, []byte("/marker-"))
		if !ok {
			return
		}
		rest = after
		if marker, after, ok := leadingNumber(after); ok && bytes.HasPrefix(after, []byte("/")) {
			found(marker)
		}
	}
}

// leadingNumber takes the digits in front, at most seven.
func leadingNumber(text []byte) (number int, rest []byte, ok bool) {
	digits := 0
	for digits < len(text) && digits < 7 && text[digits] >= '0' && text[digits] <= '9' {
		digits++
	}
	number, err := strconv.Atoi(string(text[:digits]))
	return number, text[digits:], err == nil
}
