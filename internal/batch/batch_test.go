package batch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

type req struct{ in, out int }

func group(inFlight, most int, run func([]*req)) *Group[req] {
	return &Group[req]{
		Run: run, InFlight: inFlight, Max: func() int { return most }, Timeout: time.Second,
	}
}

func TestEveryRequestIsRunOnce(t *testing.T) {
	var batches, requests atomic.Int64
	g := group(2, 16, func(reqs []*req) {
		if len(reqs) == 0 || len(reqs) > 16 {
			t.Errorf("batch of %d, want 1 to 16", len(reqs))
		}
		batches.Add(1)
		requests.Add(int64(len(reqs)))
		for _, r := range reqs {
			r.out += r.in * 2
		}
	})
	cancellable, cancel := context.WithCancel(t.Context())
	defer cancel()
	const workers, each = 32, 500
	var wg sync.WaitGroup
	for w := range workers {
		ctx := context.Background()
		if w%2 == 0 {
			ctx = cancellable
		}
		wg.Go(func() {
			for i := range each {
				r := &req{in: w*each + i}
				if err := g.Do(ctx, r); err != nil {
					t.Errorf("Do = %v", err)
				}
				if r.out != 2*r.in {
					t.Errorf("request %d got %d, want %d", r.in, r.out, 2*r.in)
				}
			}
		})
	}
	wg.Wait()
	if n := requests.Load(); n != workers*each {
		t.Errorf("%d requests were run, want %d", n, workers*each)
	}
	if g.running != 0 || len(g.queue) != 0 {
		t.Errorf("running %d, queued %d after all is done, want 0, 0", g.running, len(g.queue))
	}
	t.Logf("%d requests in %d batches", requests.Load(), batches.Load())
}

// blocked makes a group whose only place is taken by a batch that ends when
// release is closed, and records what is run after it.
func blocked(t *testing.T, ctx context.Context) (g *Group[req], release chan struct{}, ran *[]int) {
	release = make(chan struct{})
	var mu sync.Mutex
	ran = &[]int{}
	g = group(1, 100, func(reqs []*req) {
		mu.Lock()
		for _, r := range reqs {
			*ran = append(*ran, r.in)
		}
		mu.Unlock()
		if reqs[0].in == 0 {
			<-release
		}
	})
	go g.Do(ctx, &req{in: 0})
	synctest.Wait()
	return g, release, ran
}

func TestWithdrawnWhileQueuedIsNeverRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, release, ran := blocked(t, context.Background())
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error, 1)
		go func() { errs <- g.Do(ctx, &req{in: 1}) }()
		go g.Do(context.Background(), &req{in: 2})
		synctest.Wait()
		cancel()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("Do = %v, want context.Canceled", err)
		}
		close(release)
		synctest.Wait()
		if len(*ran) != 2 || (*ran)[1] != 2 {
			t.Errorf("ran %v, want [0 2]", *ran)
		}
	})
}

func TestCancelledLeaderDoesNotFailTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		g, release, ran := blocked(t, ctx)
		errs := make(chan error, 1)
		go func() { errs <- g.Do(context.Background(), &req{in: 1}) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(release)
		if err := <-errs; err != nil {
			t.Errorf("Do behind a cancelled leader = %v, want nil", err)
		}
		if len(*ran) != 2 {
			t.Errorf("ran %v, want both", *ran)
		}
	})
}

func TestTimeoutCountsFromTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, release, ran := blocked(t, context.Background())
		start := time.Now()
		if err := g.Do(context.Background(), &req{in: 1}); !errors.Is(err, ErrTimeout) {
			t.Errorf("Do = %v, want ErrTimeout", err)
		}
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("Do gave up after %v, want 1s", waited)
		}
		close(release)
		synctest.Wait()
		if len(*ran) != 1 {
			t.Errorf("ran %v, want the first only", *ran)
		}
	})
}

func TestHeavyRequestsGoInDifferentBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var batches [][]int
		g := group(1, 10, func(reqs []*req) {
			var ins []int
			for _, r := range reqs {
				ins = append(ins, r.in)
			}
			batches = append(batches, ins)
			if ins[0] == 0 {
				<-release
			}
		})
		g.Weight = func(r *req) int { return max(r.in, 1) }
		for _, in := range []int{0, 4, 6, 1, 30, 9} { // queued one by one, in this order
			go g.Do(t.Context(), &req{in: in})
			synctest.Wait()
		}
		close(release)
		synctest.Wait()
		if got, want := fmt.Sprint(batches), "[[0] [4 6] [1] [30] [9]]"; got != want {
			t.Errorf("batches of at most 10 = %s, want %s", got, want)
		}
	})
}

func TestAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := group(1, 10, func(reqs []*req) {
			for _, r := range reqs {
				r.out = len(reqs)
			}
		})
		g.Alone = func(ctx context.Context, r *req) {
			<-ctx.Done()
			r.out = -1
		}
		ctx, cancel := context.WithCancel(t.Context())
		first, second, third := &req{}, &req{}, &req{}
		for _, r := range []*req{first, second, third} {
			go func() {
				if err := g.Do(ctx, r); err != nil {
					t.Errorf("Do = %v", err)
				}
			}()
			synctest.Wait()
			ctx = t.Context() // for those that queue
		}
		cancel()
		synctest.Wait()
		if first.out != -1 || second.out != 2 || third.out != 2 {
			t.Errorf("results %d, %d, %d; want -1 (alone), 2, 2 (together)", first.out, second.out, third.out)
		}
		if g.running != 0 {
			t.Errorf("running %d after all is done", g.running)
		}
	})
}
