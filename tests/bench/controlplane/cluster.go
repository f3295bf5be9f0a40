package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// connect gives a client with an HTTP/2 connection of its own and no limit on its rate. Clients with
// different names share no connection.
func connect(kubeconfig, name string) (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	config.UserAgent = "leno-bench-" + name
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.TLSClientConfig.NextProtos = []string{"h2"}
	return kubernetes.NewForConfig(config)
}

// putMarker makes the marked address the one extra endpoint of a service.
func putMarker(ctx context.Context, client *kubernetes.Clientset, w world, service, marker int) error {
	slice := w.sliceObject(service, markerAddress(marker))
	_, err := client.DiscoveryV1().EndpointSlices(slice.Namespace).Update(ctx, slice, metav1.UpdateOptions{})
	return err
}

// routeMarker is the text that a routing change leaves in the resource of its service.
func routeMarker(marker int) string { return fmt.Sprintf("/marker-%d/", marker) }

// putRoute gives service 0 a route whose path carries the marker.
func putRoute(ctx context.Context, client *kubernetes.Clientset, w world, marker int) error {
	policy := map[string]any{
		"apiVersion": "leno.dev/v1alpha1", "kind": "TrafficPolicy",
		"metadata": map[string]any{"name": "bench"},
		"spec": map[string]any{
			"targetRef": map[string]any{"kind": "Service", "name": serviceName(0)},
			"routes": []any{map[string]any{
				"name":         "marked",
				"matches":      []any{map[string]any{"path": map[string]any{"exact": routeMarker(marker)}}},
				"destinations": []any{map[string]any{"service": serviceName(1)}},
			}},
		},
	}
	body, err := json.Marshal(policy)
	if err != nil {
		return err
	}
	path := "/apis/leno.dev/v1alpha1/namespaces/" + w.namespace(0) + "/trafficpolicies/bench"
	return client.CoreV1().RESTClient().Patch(types.ApplyPatchType).AbsPath(path).
		Param("fieldManager", "leno-bench").Param("force", "true").
		SetHeader("Accept", "application/json").Body(body).Do(ctx).Error()
}

// hasTrafficPolicies says whether the kind is installed, so that routing changes can be measured.
func hasTrafficPolicies(ctx context.Context, client *kubernetes.Clientset) bool {
	var status int
	client.CoreV1().RESTClient().Get().AbsPath("/apis/leno.dev/v1alpha1/trafficpolicies").
		SetHeader("Accept", "application/json").Do(ctx).StatusCode(&status)
	return status == http.StatusOK
}
