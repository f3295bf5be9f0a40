// WebSockets over HTTP/2 (RFC 8441): a stream of extended CONNECT carries the frames. The server side needs
// GODEBUG=http2xconnect=1, without which Go's server offers no extended CONNECT.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/http2"
)

const (
	frameText = 0x81 // a whole message of text
	framePong = 0x8a
	frameEnd  = 0x88
	framePing = 0x89
	masked    = 0x80
	shortMax  = 125 // bytes of a message that needs no further length
)

// readFrame gives the first byte and the payload of a short frame, unmasked.
func readFrame(reader io.Reader) (byte, []byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(reader, head[:]); err != nil {
		return 0, nil, err
	}
	length := int(head[1] &^ masked)
	if length > shortMax {
		return 0, nil, errors.New("a frame longer than these tests send")
	}
	var mask [4]byte
	if head[1]&masked != 0 {
		if _, err := io.ReadFull(reader, mask[:]); err != nil {
			return 0, nil, err
		}
	}
	payload := make([]byte, length)
	if _, err := io.ReadFull(reader, payload); err != nil {
		return 0, nil, err
	}
	for i := range payload {
		payload[i] ^= mask[i%len(mask)]
	}
	return head[0], payload, nil
}

// frame is a short frame; clients mask theirs.
func frame(kind byte, payload []byte, byClient bool) []byte {
	if !byClient {
		return append([]byte{kind, byte(len(payload))}, payload...)
	}
	var mask [4]byte
	_, _ = rand.Read(mask[:])
	made := append([]byte{kind, byte(len(payload)) | masked}, mask[:]...)
	for i, letter := range payload {
		made = append(made, letter^mask[i%len(mask)])
	}
	return made
}

// isExtendedConnect tells a WebSocket over HTTP/2 from every other request.
func isExtendedConnect(r *http.Request) bool {
	return r.Method == http.MethodConnect && r.ProtoMajor == 2 && r.Header.Get(":protocol") == "websocket"
}

// echoFrames answers every message with itself until the client ends the socket.
func echoFrames(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	w.WriteHeader(http.StatusOK)
	if control.Flush() != nil {
		return
	}
	reader := bufio.NewReader(r.Body)
	for {
		kind, payload, err := readFrame(reader)
		if err != nil {
			return
		}
		answer := kind
		if kind == framePing {
			answer = framePong
		}
		if _, err := w.Write(frame(answer, payload, false)); err != nil || control.Flush() != nil || kind == frameEnd {
			return
		}
	}
}

// socket2 is the client's end.
type socket2 struct {
	send   io.WriteCloser
	answer *bufio.Reader
	cancel context.CancelFunc
	silent *time.Timer
}

// dialSocket2 opens a WebSocket on an HTTP/2 connection of prior knowledge.
func dialSocket2(url string) (*socket2, error) {
	dial := func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	transport := &http2.Transport{AllowHTTP: true, DialTLSContext: dial}
	body, send := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	silent := time.AfterFunc(callTimeout, cancel)
	request, err := http.NewRequestWithContext(ctx, http.MethodConnect, url, body)
	if err != nil {
		cancel()
		return nil, err
	}
	request.Header[":protocol"] = []string{"websocket"}
	request.Header.Set("Sec-WebSocket-Version", "13")
	response, err := transport.RoundTrip(request)
	if err != nil {
		cancel()
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		cancel()
		return nil, fmt.Errorf("want 200, got %s", response.Status)
	}
	return &socket2{send: send, answer: bufio.NewReader(response.Body), cancel: cancel, silent: silent}, nil
}

// echo sends a message and wants it back.
func (s *socket2) echo(message string) error {
	s.silent.Reset(callTimeout)
	if _, err := s.send.Write(frame(frameText, []byte(message), true)); err != nil {
		return err
	}
	kind, payload, err := readFrame(s.answer)
	if err == nil && (kind != frameText || string(payload) != message) {
		err = fmt.Errorf("want %q, got %q of kind %#x", message, payload, kind)
	}
	return err
}

// end says goodbye and wants the server to say it too.
func (s *socket2) end() error {
	defer s.cancel()
	if _, err := s.send.Write(frame(frameEnd, nil, true)); err != nil {
		return err
	}
	kind, _, err := readFrame(s.answer)
	if err == nil && kind != frameEnd {
		err = fmt.Errorf("want the end, got a frame of kind %#x", kind)
	}
	return errors.Join(err, s.send.Close())
}
