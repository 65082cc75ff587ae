package natskv

import (
	"errors"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/l2cache/l2cache"
)

// Codes of the JetStream API for which package jetstream has no name, or only its newest
// version: server/errors.json of nats-server.
const (
	codeNotAvailable          jetstream.ErrorCode = 10008 // in a cluster, without a leader
	codeInsufficientResources jetstream.ErrorCode = 10023 // max_file_store, max_memory_store
	codeMemoryExceeded        jetstream.ErrorCode = 10028 // limits of the account
	codeStorageExceeded       jetstream.ErrorCode = 10047
	codeMessageTooLarge       jetstream.ErrorCode = 10054
	codeStoreFailed           jetstream.ErrorCode = 10077 // MaxBytes, MaxMsgs
	codeWrongLastSequence     jetstream.ErrorCode = 10164
)

// kind returns the kind of an error of the driver or the server.
func kind(err error) error {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return l2cache.ErrTooLarge
	case !errors.As(err, &api):
		return nil // what l2cache.NewError finds in err
	}
	switch api.ErrorCode {
	case codeInsufficientResources, codeMemoryExceeded, codeStorageExceeded, codeStoreFailed:
		return l2cache.ErrFull
	case codeMessageTooLarge:
		return l2cache.ErrTooLarge
	}
	return l2cache.ErrUnavailable
}

func isCode(err error, code jetstream.ErrorCode) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == code
}

// isGone: nobody serves the stream. It may have been removed, or have been in the
// memory of a server that was restarted.
func isGone(err error) bool {
	return errors.Is(err, nats.ErrNoResponders) || isCode(err, jetstream.JSErrCodeStreamNotFound)
}
