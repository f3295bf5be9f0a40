// What tests of identity rely on: certificates as they were asked for, tokens good and bad, and cuts that are noticed.
package main

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestADialTellsOfTheHandshakeAndOfWhatCameBack(t *testing.T) {
	settings, err := serverTLS("", "leno/http")
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", settings)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: (&app{version: "v7", status: http.StatusOK}).routes()}
	go func() { _ = server.Serve(insideTLS{listener}) }()
	t.Cleanup(func() { _ = server.Close() })
	dialer := dialer{tls: &tls.Config{InsecureSkipVerify: true, NextProtos: words("leno/http,other")}, timeout: 5 * time.Second}
	met := dialer.visit(listener.Addr().String(), "GET /a/../b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if met.Error != "" || !strings.Contains(met.Received, `"target":"/a/../b"`) {
		t.Fatalf("got %+v", met)
	}
	if met.TLS.Version != "TLS 1.3" || met.TLS.Group != "X25519MLKEM768" || met.TLS.ALPN != "leno/http" {
		t.Fatalf("got %+v", met.TLS)
	}
	if want := "own certificate of " + podName(); met.TLS.Subject != want {
		t.Fatalf("want %s, got %+v", want, met.TLS)
	}
}

func TestADialThatIsRefusedSaysSo(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target := listener.Addr().String()
	_ = listener.Close()
	dialer := dialer{timeout: time.Second}
	if met := dialer.visit(target, ""); met.Connected || !strings.Contains(met.Error, "refused") {
		t.Fatalf("got %+v", met)
	}
}

func TestTheIssuersTokensAreWhatTheyWereAskedToBe(t *testing.T) {
	issuer, err := newIssuer()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(issuer.routes())
	t.Cleanup(server.Close)
	token := func(query string) (string, []byte) {
		answer, err := http.Get(server.URL + "/token?claims=" + url.QueryEscape(`{"sub":"a"}`) + "&" + query)
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("%s: got %v (%v)", query, answer, err)
		}
		text, _ := io.ReadAll(answer.Body)
		at := strings.LastIndexByte(string(text), '.')
		signature, err := base64.RawURLEncoding.DecodeString(string(text[at+1:]))
		if err != nil {
			t.Fatal(err)
		}
		return string(text[:at]), signature
	}
	known := issuer.known
	verify := map[string]func(text string, signature []byte) bool{
		"RS256": func(text string, signature []byte) bool {
			hash := sha256.Sum256([]byte(text))
			return rsa.VerifyPKCS1v15(&known.rsa.PublicKey, crypto.SHA256, hash[:], signature) == nil
		},
		"ES256": func(text string, signature []byte) bool {
			hash := sha256.Sum256([]byte(text))
			r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
			return ecdsa.Verify(&known.ecdsa.PublicKey, hash[:], r, s)
		},
		"EdDSA": func(text string, signature []byte) bool {
			return ed25519.Verify(known.ed25519.Public().(ed25519.PublicKey), []byte(text), signature)
		},
	}
	for algorithm, verify := range verify {
		if text, signature := token("alg=" + algorithm); !verify(text, signature) {
			t.Errorf("%s: the known key did not sign %s", algorithm, text)
		}
		if text, signature := token("key=other&alg=" + algorithm); verify(text, signature) {
			t.Errorf("%s: the known key signed %s too", algorithm, text)
		}
	}
	if _, signature := token("alg=none"); len(signature) != 0 {
		t.Errorf("an unsigned token has the signature %x", signature)
	}
	if _, signature := token("alg=HS256"); len(signature) != sha256.Size {
		t.Errorf("an HS256 signature has %d bytes", len(signature))
	}
	shown, err := json.Marshal(known.public())
	if err != nil || strings.Contains(string(shown), `"d"`) {
		t.Errorf("keys are shown as %s (%v)", shown, err)
	}
}

func TestAHeldConnectionThatIsCutIsCounted(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		_, _ = connection.Write([]byte("hello from v1 p\n"))
		line, _ := bufio.NewReader(connection).ReadString('\n')
		_, _ = connection.Write([]byte(line))
		_ = connection.Close()
	}()
	var counts tcpCounts
	if err := counts.visit(listener.Addr().String(), make(chan struct{})); err == nil || counts.Lines != 1 {
		t.Fatalf("got %v after %d lines, want an error after the first", err, counts.Lines)
	}
}
