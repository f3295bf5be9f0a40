// An admission webhook that marks pods: it shows that a cluster calls webhooks through a Service.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"path/filepath"
)

const markPatch = `[{"op": "add", "path": "/metadata/annotations", "value": {"testapp": "was-here"}}]`

func runWebhook(args []string) error {
	flags := flag.NewFlagSet("webhook", flag.ContinueOnError)
	port := flags.Int("port", 8443, "")
	tls := flags.String("tls", "/tls", "the folder of tls.crt and tls.key")
	if _, err := parse(flags, args, 0); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/mutate", markPod)
	server := &http.Server{Addr: fmt.Sprintf(":%d", *port), Handler: mux}
	return serveUntilTerminated(server, func() error {
		return server.ListenAndServeTLS(filepath.Join(*tls, "tls.crt"), filepath.Join(*tls, "tls.key"))
	})
}

func markPod(w http.ResponseWriter, r *http.Request) {
	var review struct {
		Request struct {
			UID string `json:"uid"`
		} `json:"request"`
	}
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"apiVersion": "admission.k8s.io/v1",
		"kind":       "AdmissionReview",
		"response": map[string]any{
			"uid": review.Request.UID, "allowed": true, "patchType": "JSONPatch", "patch": []byte(markPatch),
		},
	})
}
