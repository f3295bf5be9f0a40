// What the HTTP clients share: one request as the flags describe it, and the count of what came back.
package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// requestFlags describes the requests a client sends.
type requestFlags struct {
	url     string
	method  string
	body    string
	headers headers
	http2   bool
	newConn bool
	cookies bool
	timeout time.Duration
}

func (f *requestFlags) register(flags *flag.FlagSet) {
	flags.StringVar(&f.method, "method", http.MethodGet, "")
	flags.StringVar(&f.body, "body", "", "")
	flags.Var(&f.headers, "H", "name:value, may be repeated")
	flags.BoolVar(&f.http2, "h2", false, "HTTP/2 with prior knowledge")
	flags.BoolVar(&f.newConn, "new-conn", false, "a new connection for each request")
	flags.BoolVar(&f.cookies, "cookies", false, "keep the cookies of answers and send them back")
	flags.DurationVar(&f.timeout, "timeout", 10*time.Second, "of one request")
}

func (f *requestFlags) client(connections int) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!f.http2)
	protocols.SetUnencryptedHTTP2(f.http2)
	var jar http.CookieJar
	if f.cookies {
		// Without options nothing can fail.
		jar, _ = cookiejar.New(nil)
	}
	return &http.Client{
		Jar:           jar,
		Timeout:       f.timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Protocols:           protocols,
			DisableKeepAlives:   f.newConn,
			MaxIdleConnsPerHost: connections,
			TLSClientConfig:     &tls.Config{InsecureSkipVerify: true}, // tests make their own certificates
		},
	}
}

// response is what a client remembers of one answer; err says why there was none.
type response struct {
	status  int
	version string
	pod     string
	body    []byte
	err     error
	headers http.Header
}

func (f *requestFlags) send(client *http.Client, more ...[2]string) response {
	request, err := http.NewRequestWithContext(context.Background(), f.method, f.url, strings.NewReader(f.body))
	if err != nil {
		return response{err: err}
	}
	for _, header := range slices.Concat(f.headers, more) {
		if strings.EqualFold(header[0], "host") {
			request.Host = header[1]
		} else {
			request.Header.Add(header[0], header[1])
		}
	}
	answer, err := client.Do(request)
	if err != nil {
		return response{err: err}
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	return response{answer.StatusCode, answer.Header.Get(versionHeader), answer.Header.Get(podHeader), body, err, answer.Header}
}

// counts is what clients print. Failed requests got no whole answer, or one with a status of 500 and more.
type counts struct {
	Requests  int            `json:"requests"`
	Failed    int            `json:"failed"`
	ByStatus  map[string]int `json:"byStatus"`
	ByVersion map[string]int `json:"byVersion"`
	ByPod     map[string]int `json:"byPod"`
	P50       float64        `json:"p50ms"`
	P99       float64        `json:"p99ms"`
	Max       float64        `json:"maxms"`
	Errors    []string       `json:"errors"`
	Cookies   []string       `json:"cookies,omitempty"`

	mutex     sync.Mutex
	latencies []time.Duration
}

const errorsKept = 10

func newCounts() *counts {
	return &counts{ByStatus: map[string]int{}, ByVersion: map[string]int{}, ByPod: map[string]int{}, Errors: []string{}}
}

func (c *counts) add(answer response, latency time.Duration) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.Requests++
	c.latencies = append(c.latencies, latency)
	if answer.err != nil {
		c.fail(answer.err)
		return
	}
	c.ByStatus[strconv.Itoa(answer.status)]++
	c.ByVersion[cmp.Or(answer.version, "none")]++
	c.ByPod[cmp.Or(answer.pod, "none")]++
	if answer.status >= http.StatusInternalServerError {
		c.fail(fmt.Errorf("%d: %.200s", answer.status, answer.body))
	}
}

func (c *counts) fail(err error) {
	c.Failed++
	if len(c.Errors) < errorsKept {
		at := time.Now().UTC().Format("15:04:05.000 ")
		c.Errors = append(c.Errors, at+err.Error())
	}
}

func (c *counts) print() error {
	slices.Sort(c.latencies)
	quantile := func(share float64) float64 {
		if len(c.latencies) == 0 {
			return 0
		}
		at := c.latencies[int(share*float64(len(c.latencies)-1))]
		return float64(at.Microseconds()) / 1000
	}
	c.P50, c.P99, c.Max = quantile(0.50), quantile(0.99), quantile(1)
	return printJSON(c)
}

func runGet(args []string) error {
	flags := flag.NewFlagSet("get", flag.ContinueOnError)
	var request requestFlags
	request.register(flags)
	number := flags.Int("n", 1, "")
	printBody := flags.Bool("print", false, "print the bodies instead of counts; fail unless every status is below 400")
	printHead := flags.Bool("head", false, "print the head of one answer instead: its status and fields")
	urls, err := parse(flags, args, 1)
	if err != nil {
		return err
	}
	request.url = urls[0]
	client, counts := request.client(1), newCounts()
	if *printHead {
		answer := request.send(client)
		if answer.err != nil {
			return answer.err
		}
		return printJSON(map[string]any{"status": answer.status, "headers": answer.headers})
	}
	for range *number {
		started := time.Now()
		answer := request.send(client)
		counts.add(answer, time.Since(started))
		if !*printBody {
			continue
		}
		fmt.Printf("%s", answer.body)
		if answer.err != nil || answer.status >= http.StatusBadRequest {
			return errors.Join(fmt.Errorf("status %d", answer.status), answer.err)
		}
	}
	if *printBody {
		return nil
	}
	counts.Cookies = kept(client, request.url)
	return counts.print()
}

// kept gives the cookies that client sends to address, as NAME=VALUE.
func kept(client *http.Client, address string) []string {
	at, err := url.Parse(address)
	if err != nil || client.Jar == nil {
		return nil
	}
	var cookies []string
	for _, cookie := range client.Jar.Cookies(at) {
		cookies = append(cookies, cookie.Name+"="+cookie.Value)
	}
	return cookies
}

func runHTTPWait(args []string) error {
	flags := flag.NewFlagSet("http-wait", flag.ContinueOnError)
	var request requestFlags
	request.register(flags)
	status := flags.Int("status", http.StatusOK, "")
	limit := flags.Duration("for", time.Minute, "how long to wait")
	urls, err := parse(flags, args, 1)
	if err != nil {
		return err
	}
	request.url = urls[0]
	client, deadline := request.client(1), time.Now().Add(*limit)
	for {
		answer := request.send(client)
		if answer.err == nil && answer.status == *status {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("%s: no status %d within %s; last: %d", request.url, *status, *limit, answer.status), answer.err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
