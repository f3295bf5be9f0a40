// The promises of the application that tests of the mesh build on.
package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func testServer(t *testing.T) *httptest.Server {
	t.Helper()
	server := httptest.NewServer((&app{name: "a", version: "v7", pod: "p", status: http.StatusOK}).routes())
	t.Cleanup(server.Close)
	return server
}

func TestEchoSendsBackBodyAndTrailers(t *testing.T) {
	body := strings.Repeat("0123456789", 50_000)
	request, _ := http.NewRequest(http.MethodPost, testServer(t).URL+"/echo", io.NopCloser(strings.NewReader(body)))
	request.Trailer = http.Header{"X-Sum": {"42"}}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	echoed, err := io.ReadAll(answer.Body)
	if err != nil || string(echoed) != body {
		t.Fatalf("got %d bytes and %v, want %d", len(echoed), err, len(body))
	}
	if got := answer.Trailer.Get("X-Sum"); got != "42" {
		t.Fatalf("trailer is %q", got)
	}
}

func TestFlakyFailsAsOftenAsAskedPerKey(t *testing.T) {
	server := testServer(t)
	for _, step := range []struct {
		key  string
		want int
	}{{"a", 503}, {"a", 503}, {"a", 200}, {"b", 503}, {"a", 200}} {
		answer, err := http.Get(server.URL + "/flaky?fails=2&key=" + step.key)
		if err != nil || answer.StatusCode != step.want {
			t.Fatalf("key %s: want %d, got %v (%v)", step.key, step.want, answer, err)
		}
	}
}

func TestStallSendsHalfAndTheRestLater(t *testing.T) {
	answer, err := http.Get(testServer(t).URL + "/stall?ms=50")
	if err != nil {
		t.Fatal(err)
	}
	half := make([]byte, 4)
	began := time.Now()
	if _, err := io.ReadFull(answer.Body, half); err != nil || string(half) != "half" {
		t.Fatalf("got %q (%v)", half, err)
	}
	rest, err := io.ReadAll(answer.Body)
	if took := time.Since(began); err != nil || string(rest) != "half" || took < 40*time.Millisecond {
		t.Fatalf("got %q after %v (%v)", rest, took, err)
	}
}

func TestTurnDoesOneRequestAfterTheOther(t *testing.T) {
	server := testServer(t)
	began, all := time.Now(), new(sync.WaitGroup)
	for range 4 {
		all.Go(func() {
			answer, err := http.Get(server.URL + "/turn?ms=20")
			if err != nil || answer.StatusCode != 200 {
				t.Errorf("got %v (%v)", answer, err)
			}
		})
	}
	all.Wait()
	if took := time.Since(began); took < 80*time.Millisecond {
		t.Fatalf("four of 20 ms took %v", took)
	}
}

func TestLoadChargesAStallToEveryRequestItDelayed(t *testing.T) {
	request := requestFlags{url: testServer(t).URL + "/delay?ms=50", method: http.MethodGet, timeout: time.Minute}
	due, counts := make(chan time.Time), newCounts()
	go func() {
		schedule(due, 1000, 0, 4, nil)
		close(due)
	}()
	client := request.client(1)
	for at := range due { // one worker for requests that are all due at once
		counts.add(request.send(client), time.Since(at))
	}
	if counts.Failed > 0 || counts.ByVersion["v7"] != 4 || counts.latencies[3] < 190*time.Millisecond {
		t.Fatalf("got %+v", counts)
	}
}

func TestSigtermRefusesNewConnectionsAndFinishesRequestsInFlight(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(arrived)
		<-release
	})}
	ended, status := make(chan error, 1), make(chan int, 1)
	go func() { ended <- serveUntilTerminated(server, func() error { return server.Serve(listener) }) }()
	go func() {
		answer, err := http.Get("http://" + listener.Addr().String())
		if err != nil {
			status <- 0
			return
		}
		status <- answer.StatusCode
	}()
	<-arrived
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for refused := false; !refused; {
		connection, err := net.Dial("tcp", listener.Addr().String())
		if refused = err != nil; !refused {
			_ = connection.Close()
		}
	}
	close(release)
	if got := <-status; got != http.StatusOK {
		t.Fatalf("the request in flight got %d", got)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestMarkedRequestsReachTheServerEachWithANumberOfItsOwn(t *testing.T) {
	seen := make(chan string, 20)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header.Get(markHeader) }))
	t.Cleanup(server.Close)
	if err := runLoad([]string{server.URL, "-rate", "0", "-n", "20", "-c", "4", "-mark", "m"}); err != nil {
		t.Fatal(err)
	}
	close(seen)
	marks := map[string]bool{}
	for mark := range seen {
		marks[mark] = true
	}
	if len(marks) != 20 || !marks["m-1"] || !marks["m-20"] {
		t.Fatalf("marks are %v", marks)
	}
}
