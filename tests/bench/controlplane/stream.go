package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	grpcHeadLen = 5
	streamID    = 1
	// What a proxy's HTTP/2 grants: hyper's defaults for a client.
	streamWindow     = 2 << 20
	connectionWindow = 5 << 20
	defaultWindow    = 1<<16 - 1
	readBuffer       = 4 << 10
)

// grpcStream is one call on an HTTP/2 connection of its own, with as little work for each message as
// can be: thousands of simulated proxies share the machine with what is measured. What is sent leaves
// in one write when the caller next waits for a message, as it does from a proxy.
type grpcStream struct {
	connection net.Conn
	reader     *bufio.Reader
	framer     *http2.Framer
	out        bytes.Buffer
	waiting    []byte // beyond what the server's windows allow
	mayStream  int    // the server's window of the stream
	mayAll     int    // and of the connection
	initial    int    // the window that the server gives a stream
	received   []byte // of which messages are cut
	taken      int    // bytes since windows were last replenished
	window     int    // what this side grants the stream
}

// openStream begins a call of `path`. `window` is how much the server may send unread.
func openStream(connection net.Conn, authority, path string, window int) (*grpcStream, error) {
	s := &grpcStream{connection: connection, mayStream: defaultWindow, mayAll: defaultWindow, initial: defaultWindow, window: window}
	s.reader = bufio.NewReaderSize(connection, readBuffer)
	s.framer = http2.NewFramer(&s.out, s.reader)
	s.framer.SetReuseFrames()
	s.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	s.out.WriteString(http2.ClientPreface)
	settings := []http2.Setting{{ID: http2.SettingEnablePush}, {ID: http2.SettingInitialWindowSize, Val: uint32(window)}}
	if err := s.framer.WriteSettings(settings...); err != nil {
		return nil, err
	}
	if err := s.framer.WriteWindowUpdate(0, connectionWindow-defaultWindow); err != nil {
		return nil, err
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range [][2]string{
		{":method", "POST"}, {":scheme", "https"}, {":path", path}, {":authority", authority},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	return s, s.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: streamID, BlockFragment: block.Bytes(), EndHeaders: true})
}

// send puts a message in line.
func (s *grpcStream) send(message []byte) error {
	var head [grpcHeadLen]byte
	binary.BigEndian.PutUint32(head[1:], uint32(len(message)))
	s.waiting = append(append(s.waiting, head[:]...), message...)
	return s.release()
}

// release frames what the server's windows allow.
func (s *grpcStream) release() error {
	count := min(len(s.waiting), s.mayStream, s.mayAll)
	if count <= 0 {
		return nil
	}
	s.mayStream, s.mayAll = s.mayStream-count, s.mayAll-count
	err := s.framer.WriteData(streamID, false, s.waiting[:count])
	s.waiting = append(s.waiting[:0], s.waiting[count:]...)
	return err
}

// receive writes what is in line and waits for the next message, which is valid until the next call. No message has come
// `until` then: there is none, and no error. A zero time is no limit.
func (s *grpcStream) receive(until time.Time) ([]byte, error) {
	for {
		if message, ok := s.cut(); ok {
			return message, nil
		}
		if err := s.flush(); err != nil {
			return nil, err
		}
		if there, err := s.await(until); err != nil || !there {
			return nil, err
		}
		frame, err := s.framer.ReadFrame()
		if err != nil {
			return nil, err
		}
		if err := s.take(frame); err != nil {
			return nil, err
		}
	}
}

// await waits until a frame begins. Frames themselves are read without a limit, as one that is read in part would be lost.
func (s *grpcStream) await(until time.Time) (there bool, err error) {
	if until.IsZero() {
		return true, nil
	}
	if err := s.connection.SetReadDeadline(until); err != nil {
		return false, err
	}
	_, err = s.reader.Peek(1)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false, s.connection.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return false, err
	}
	return true, s.connection.SetReadDeadline(time.Time{})
}

func (s *grpcStream) cut() (message []byte, ok bool) {
	if len(s.received) < grpcHeadLen {
		return nil, false
	}
	end := grpcHeadLen + int(binary.BigEndian.Uint32(s.received[1:]))
	if len(s.received) < end {
		return nil, false
	}
	message, s.received = s.received[grpcHeadLen:end], s.received[end:]
	return message, true
}

func (s *grpcStream) flush() error {
	if s.out.Len() == 0 {
		return nil
	}
	_, err := s.connection.Write(s.out.Bytes())
	s.out.Reset()
	return err
}

func (s *grpcStream) take(frame http2.Frame) error {
	switch frame := frame.(type) {
	case *http2.DataFrame:
		s.received = append(s.received, frame.Data()...)
		return s.replenish(int(frame.Length))
	case *http2.SettingsFrame:
		return s.settle(frame)
	case *http2.PingFrame:
		if !frame.IsAck() {
			return s.framer.WritePing(true, frame.Data)
		}
	case *http2.WindowUpdateFrame:
		if frame.StreamID == streamID {
			s.mayStream += int(frame.Increment)
		} else {
			s.mayAll += int(frame.Increment)
		}
		return s.release()
	case *http2.MetaHeadersFrame:
		if frame.StreamEnded() {
			return fmt.Errorf("the call ended: %v", frame.RegularFields())
		}
	case *http2.RSTStreamFrame:
		return fmt.Errorf("the stream was reset: %v", frame.ErrCode)
	case *http2.GoAwayFrame:
		return fmt.Errorf("the connection ends: %v", frame.ErrCode)
	}
	return nil
}

func (s *grpcStream) settle(frame *http2.SettingsFrame) error {
	if frame.IsAck() {
		return nil
	}
	if value, ok := frame.Value(http2.SettingInitialWindowSize); ok {
		s.mayStream += int(value) - s.initial
		s.initial = int(value)
	}
	if err := s.framer.WriteSettingsAck(); err != nil {
		return err
	}
	return s.release()
}

// replenish grants again what was read, once it is half of the stream's window.
func (s *grpcStream) replenish(count int) error {
	s.taken += count
	if s.taken < s.window/2 {
		return nil
	}
	increment := uint32(s.taken)
	s.taken = 0
	if err := s.framer.WriteWindowUpdate(0, increment); err != nil {
		return err
	}
	return s.framer.WriteWindowUpdate(streamID, increment)
}
