// TLS of the applications' own: certificates they sign themselves or are given, and a client that tells what it met.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"flag"
	"io"
	"math/big"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// selfSigned makes a certificate for this pod that nobody vouches for, as many applications do.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "own certificate of " + podName()},
		DNSNames:     []string{podName()},
		NotBefore:    time.Now().Add(-time.Minute),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// keyPair reads a certificate chain and its key from one PEM file; "-" is standard input.
func keyPair(path string) (tls.Certificate, error) {
	var pem []byte
	var err error
	if path == "-" {
		pem, err = io.ReadAll(os.Stdin)
	} else {
		pem, err = os.ReadFile(path)
	}
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(pem, pem)
}

// serverTLS is how a server speaks TLS: with the certificate of a file, or with one it signs itself.
func serverTLS(path, alpn string) (*tls.Config, error) {
	load := selfSigned
	if path != "" {
		load = func() (tls.Certificate, error) { return keyPair(path) }
	}
	certificate, err := load()
	return &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: words(alpn)}, err
}

// webProtocols is what browsers and web servers agree on.
const webProtocols = "h2,http/1.1"

// insideTLS hands out what is inside TLS as if there were none: net/http refuses protocol names it does not know.
type insideTLS struct{ net.Listener }

func (l insideTLS) Accept() (net.Conn, error) {
	connection, err := l.Listener.Accept()
	return struct{ net.Conn }{connection}, err
}

func words(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

// met is what one dial met. `Error` is the first thing that went wrong, after which the rest may be missing.
type met struct {
	Target    string  `json:"target"`
	Connected bool    `json:"connected"`
	TLS       *metTLS `json:"tls,omitempty"`
	Received  string  `json:"received"`
	Error     string  `json:"error"`
}

type metTLS struct {
	Version string   `json:"version"`
	Group   string   `json:"group"`
	ALPN    string   `json:"alpn"`
	Subject string   `json:"subject"`
	URIs    []string `json:"uris"`
}

// texts is a repeatable flag of text with Go's escapes, such as `\r\n` and `\x16`.
type texts []string

func (t *texts) String() string { return "" }

func (t *texts) Set(text string) error {
	unquoted, err := strconv.Unquote(`"` + strings.ReplaceAll(text, `"`, `\"`) + `"`)
	if err != nil {
		return err
	}
	*t = append(*t, unquoted)
	return nil
}

// dialer is how `dial` goes about one target.
type dialer struct {
	tls     *tls.Config
	timeout time.Duration
}

// runDial connects to each target, for each text on a connection of its own, and prints what came back, one line for each.
func runDial(args []string) error {
	flags := flag.NewFlagSet("dial", flag.ContinueOnError)
	var send texts
	flags.Var(&send, "send", "what to send, with escapes; may be repeated: a connection for each")
	timeout := flags.Duration("timeout", 3*time.Second, "how long to wait for the connection, and for the end of what comes back")
	overTLS := flags.Bool("tls", false, "inside TLS, whoever answers")
	alpn := flags.String("alpn", "", "protocols to offer, separated by commas")
	pem := flags.String("pem", "", "a file with the certificate and key to show; - is standard input")
	targets, err := parse(flags, args, 1)
	if err != nil {
		return err
	}
	dialer := dialer{timeout: *timeout}
	if *overTLS {
		dialer.tls = &tls.Config{InsecureSkipVerify: true, NextProtos: words(*alpn)}
		if *pem != "" {
			certificate, err := keyPair(*pem)
			if err != nil {
				return err
			}
			dialer.tls.Certificates = []tls.Certificate{certificate}
		}
	}
	if len(send) == 0 {
		send = texts{""}
	}
	for _, target := range words(targets[0]) {
		for _, text := range send {
			if err := printJSON(dialer.visit(target, text)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *dialer) visit(target, text string) met {
	met := met{Target: target}
	if err := d.converse(&met, text); err != nil {
		met.Error = err.Error()
	}
	return met
}

func (d *dialer) converse(met *met, text string) error {
	connection, err := net.DialTimeout("tcp", met.Target, d.timeout)
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	met.Connected = true
	if err := connection.SetDeadline(time.Now().Add(d.timeout)); err != nil {
		return err
	}
	if d.tls != nil {
		inside := tls.Client(connection, d.tls)
		if err := inside.Handshake(); err != nil {
			return err
		}
		met.TLS = describe(inside.ConnectionState())
		connection = inside
	}
	if _, err := io.WriteString(connection, text); err != nil {
		return err
	}
	received, err := io.ReadAll(io.LimitReader(connection, 1<<20))
	met.Received = string(received)
	return err
}

func describe(state tls.ConnectionState) *metTLS {
	met := &metTLS{Version: tls.VersionName(state.Version), Group: state.CurveID.String(), ALPN: state.NegotiatedProtocol, URIs: []string{}}
	if len(state.PeerCertificates) > 0 {
		leaf := state.PeerCertificates[0]
		met.Subject = leaf.Subject.CommonName
		for _, uri := range leaf.URIs {
			met.URIs = append(met.URIs, uri.String())
		}
	}
	return met
}
