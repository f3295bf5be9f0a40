package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"testing"
)

// Go's server offers extended CONNECT only where the environment said so when the process began.
func TestWebSocketsOverHTTP2EchoAndEnd(t *testing.T) {
	if os.Getenv("GODEBUG") != "http2xconnect=1" {
		again := exec.Command(os.Args[0], "-test.run=^TestWebSocketsOverHTTP2EchoAndEnd$")
		again.Env = append(os.Environ(), "GODEBUG=http2xconnect=1")
		if out, err := again.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	server := httptest.NewUnstartedServer((&app{name: "a", version: "v7", pod: "p", status: http.StatusOK}).routes())
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	defer server.Close()
	socket, err := dialSocket2(server.URL + "/ws")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := socket.echo(fmt.Sprintf("message %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := socket.end(); err != nil {
		t.Fatal(err)
	}
}
