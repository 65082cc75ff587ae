package bolt_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
)

// crashFile, in the environment, makes the test binary a process that writes to
// the file of that name until it is killed.
const crashFile = "L2CACHE_TEST_BOLT_CRASH_FILE"

// children are what the test binary does in place of the tests, by the variable of the
// environment that has a path for it. They return the status of the process.
var children = map[string]func(path string) (status int){
	crashFile:   writeUntilKilled,
	damagedFile: useDamaged,
}

func TestMain(m *testing.M) {
	for name, run := range children {
		if path := os.Getenv(name); path != "" {
			os.Exit(run(path))
		}
	}
	os.Exit(m.Run())
}

const crashWriters = 16

// crashValue is what a writer sets its key to in step i of a round: i, repeated, in
// the row or in chunks.
func crashValue(round string, i int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%s.%d;", round, i), 1+i%3*2000)
}

// writeUntilKilled has writers that set a key of their own over and over, and a new
// key each time, and print what has been acknowledged.
func writeUntilKilled(path string) (status int) {
	err := writeForever(path, os.Getenv(crashFile+"_ROUND"))
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func writeForever(path, round string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c, err := l2cache.Open(ctx, "bolt:"+path+patience)
	if err != nil {
		return err
	}
	errs := make(chan error)
	var out sync.Mutex
	for w := range crashWriters {
		go func() {
			for i := 0; ; i++ {
				value := crashValue(round, i)
				if err := c.Set(ctx, fmt.Sprint("over ", w), value, time.Hour); err != nil {
					errs <- err
				}
				if err := c.Set(ctx, fmt.Sprintf("new %d %s.%d", w, round, i), value[:8], time.Hour); err != nil {
					errs <- err
				}
				out.Lock()
				fmt.Println(w, i) // one write(2), complete or absent
				out.Unlock()
			}
		}()
	}
	return <-errs
}

// TestKilled kills a process in the middle of its writes, again and again: what was
// acknowledged is there, and no value is half of one write and half of another.
func TestKilled(t *testing.T) {
	path := tempFile(t)
	acknowledged := 0
	for round := range 20 {
		name := fmt.Sprint("round", round)
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), crashFile+"="+path, crashFile+"_ROUND="+name)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		killed := false
		last := map[int]int{} // by writer: the last step that was acknowledged
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			var w, i int
			if _, err := fmt.Sscan(lines.Text(), &w, &i); err != nil {
				t.Fatalf("line %q: %v", lines.Text(), err)
			}
			last[w] = i
			if n == 100+20*round {
				killed = child.Process.Kill() == nil // what is in the pipe still counts
			}
		}
		if err := child.Wait(); !killed || err == nil {
			t.Fatalf("%s: the writing process ended by itself: %v", name, err)
		}

		c := open(t, path, "")
		for w := range crashWriters {
			i, ok := last[w]
			if !ok {
				continue
			}
			acknowledged += i + 1
			got, err := c.Get(t.Context(), fmt.Sprint("over ", w))
			step := crashStep(got)
			if err != nil || step < i || !bytes.Equal(got, crashValue(name, step)) {
				t.Errorf("%s: writer %d: step %d was acknowledged, and there is %.40q of %d bytes, %v",
					name, w, i, got, len(got), err)
			}
			for i := range i + 1 {
				wantValue(t, c, fmt.Sprintf("new %d %s.%d", w, name, i), crashValue(name, i)[:8])
			}
		}
		if err := c.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	}
	t.Logf("%d writes acknowledged, none lost", 2*acknowledged)
}

// crashStep is the step that the first words of a value name.
func crashStep(value []byte) int {
	step := -1
	first, _, _ := strings.Cut(string(value), ";")
	_, after, _ := strings.Cut(first, ".")
	fmt.Sscan(after, &step)
	return step
}
