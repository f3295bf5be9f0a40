// What the HTTP server answers.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/websocket"
)

// versionHeader tells clients who answered, whatever the body is.
const versionHeader, podHeader = "X-App-Version", "X-App-Pod"

// markHeader marks a request whose arrival the server logs.
const markHeader = "X-Test-Mark"

// answer is the JSON body of ordinary answers: who answered, and the request as it arrived.
type answer struct {
	Name    string      `json:"name"`
	Version string      `json:"version"`
	Pod     string      `json:"pod"`
	Proto   string      `json:"proto"`
	Method  string      `json:"method"`
	Host    string      `json:"host"`
	Target  string      `json:"target"`
	Path    string      `json:"path"`
	Query   string      `json:"query"`
	Headers http.Header `json:"headers"`
	Remote  string      `json:"remote"`
	Served  int64       `json:"served"`
}

func (a *app) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { a.answer(w, r, a.status) })
	mux.HandleFunc("/status/{code}", a.answerStatus)
	mux.HandleFunc("/delay", a.answerLate)
	mux.HandleFunc("/flaky", a.answerFlaky)
	mux.HandleFunc("/turn", a.answerInTurn)
	mux.HandleFunc("/stall", a.answerHalf)
	mux.HandleFunc("/bytes", a.answerBytes)
	mux.HandleFunc("/echo", a.echo)
	overHTTP1 := websocket.Server{Handler: func(socket *websocket.Conn) { _, _ = io.Copy(socket, socket) }}
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		if isExtendedConnect(r) {
			echoFrames(w, r)
			return
		}
		overHTTP1.ServeHTTP(w, r)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			_, _ = io.WriteString(w, "ok\n")
			return
		}
		a.served.Add(1)
		if mark := r.Header.Get(markHeader); mark != "" {
			fmt.Printf("arrived %s %s\n", r.Method, mark)
		}
		w.Header().Set(versionHeader, a.version)
		w.Header().Set(podHeader, a.pod)
		time.Sleep(a.delay)
		if tidy := path.Clean(r.URL.Path); r.URL.Path != tidy && r.URL.Path != tidy+"/" {
			a.answer(w, r, a.status) // the mux would redirect to the tidy path, and nobody would learn which one arrived
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (a *app) answer(w http.ResponseWriter, r *http.Request, status int) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer{
		Name: a.name, Version: a.version, Pod: a.pod, Proto: r.Proto, Method: r.Method, Host: r.Host,
		Target: r.RequestURI, Path: r.URL.Path, Query: r.URL.RawQuery, Headers: r.Header, Remote: r.RemoteAddr, Served: a.served.Load(),
	})
}

// answerStatus: /status/503
func (a *app) answerStatus(w http.ResponseWriter, r *http.Request) {
	code, err := strconv.Atoi(r.PathValue("code"))
	if err != nil || code < 200 || code > 599 {
		http.Error(w, "want a status from 200 to 599", http.StatusBadRequest)
		return
	}
	a.answer(w, r, code)
}

// answerLate: /delay?ms=250
func (a *app) answerLate(w http.ResponseWriter, r *http.Request) {
	millis, err := number(r, "ms")
	if err != nil {
		http.Error(w, "want ?ms=N", http.StatusBadRequest)
		return
	}
	select {
	case <-time.After(time.Duration(millis) * time.Millisecond):
		a.answer(w, r, a.status)
	case <-r.Context().Done(): // the caller gave up
	}
}

// answerInTurn: /turn?ms=20 does one request after the other, in so long each; others queue.
func (a *app) answerInTurn(w http.ResponseWriter, r *http.Request) {
	millis, err := number(r, "ms")
	if err != nil {
		http.Error(w, "want ?ms=N", http.StatusBadRequest)
		return
	}
	a.turn.Lock()
	time.Sleep(time.Duration(millis) * time.Millisecond)
	a.turn.Unlock()
	a.answer(w, r, a.status)
}

// answerHalf: /stall?ms=5000 sends half of an answer, and the rest only so much later.
func (a *app) answerHalf(w http.ResponseWriter, r *http.Request) {
	millis, err := number(r, "ms")
	if err != nil {
		http.Error(w, "want ?ms=N", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Length", "8")
	_, _ = io.WriteString(w, "half")
	_ = http.NewResponseController(w).Flush()
	select {
	case <-time.After(time.Duration(millis) * time.Millisecond):
		_, _ = io.WriteString(w, "half")
	case <-r.Context().Done(): // the caller gave up
	}
}

// answerBytes: /bytes?n=1048576
func (a *app) answerBytes(w http.ResponseWriter, r *http.Request) {
	left, err := number(r, "n")
	if err != nil {
		http.Error(w, "want ?n=N", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(left))
	chunk := make([]byte, 32<<10)
	for left > 0 {
		written, err := w.Write(chunk[:min(left, len(chunk))])
		if err != nil {
			return
		}
		left -= written
	}
}

// answerFlaky: /flaky?key=K&fails=2 answers 503 (or ?status=N) to the first two requests of that key, then 200.
func (a *app) answerFlaky(w http.ResponseWriter, r *http.Request) {
	fails, err := number(r, "fails")
	if err != nil {
		http.Error(w, "want ?key=K&fails=N", http.StatusBadRequest)
		return
	}
	status := http.StatusServiceUnavailable
	if wanted, err := number(r, "status"); err == nil {
		status = wanted
	}
	if a.flaky.seen(r.URL.Query().Get("key")) > fails {
		status = http.StatusOK
	}
	a.answer(w, r, status)
}

// echo sends the body back while it arrives, then the request's trailers.
func (a *app) echo(w http.ResponseWriter, r *http.Request) {
	stream := http.NewResponseController(w)
	_ = stream.EnableFullDuplex() // HTTP/2 is so anyway and says it cannot
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	_ = stream.Flush()
	buffer := make([]byte, 16<<10)
	for {
		read, err := r.Body.Read(buffer)
		if _, failed := w.Write(buffer[:read]); failed != nil {
			return
		}
		_ = stream.Flush()
		if err == io.EOF {
			break
		}
		if err != nil {
			panic(http.ErrAbortHandler) // the caller sees a broken answer, as it broke its request
		}
	}
	for name, values := range r.Trailer {
		w.Header()[http.TrailerPrefix+name] = values
	}
}

func number(r *http.Request, name string) (int, error) {
	value, err := strconv.Atoi(r.URL.Query().Get(name))
	if err == nil && value < 0 {
		err = strconv.ErrRange
	}
	return value, err
}

// flakyKeys counts the requests of each key.
type flakyKeys struct {
	mutex  sync.Mutex
	counts map[string]int
}

func (k *flakyKeys) seen(key string) int {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	if k.counts == nil {
		k.counts = map[string]int{}
	}
	k.counts[key]++
	return k.counts[key]
}
