package natskv_test

import (
	"testing"

	"github.com/l2cache/l2cache/internal/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }
