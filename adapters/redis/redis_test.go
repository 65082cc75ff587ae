package redis

import (
	"testing"

	"github.com/l2cache/l2cache/internal/servertest"
)

// server is shared by the tests that neither stop nor configure it.
var server = servertest.Shared(servertest.StartRedis)

func TestMain(m *testing.M) { servertest.Main(m) }
