package main

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func nodeObject(node int) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName(node), Labels: map[string]string{
		"kubernetes.io/hostname":        nodeName(node),
		"topology.kubernetes.io/region": "region-0",
		"topology.kubernetes.io/zone":   zoneName(node),
	}}}
}

func serviceObject(service int) *corev1.Service {
	labels := map[string]string{"app": serviceName(service)}
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: serviceName(service), Labels: labels},
		Spec: corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{
			Name: "http", Port: servicePort, TargetPort: intstr.FromInt32(podPort), AppProtocol: new("http"),
		}}},
	}
}

// sliceObject is the EndpointSlice of a service. A marker, if not empty, is one address more.
func (w world) sliceObject(service int, marker string) *discovery.EndpointSlice {
	slice := &discovery.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name:      serviceName(service) + "-bench",
			Namespace: w.namespace(service),
			Labels: map[string]string{
				discovery.LabelServiceName: serviceName(service),
				discovery.LabelManagedBy:   "leno-bench",
			},
		},
		AddressType: discovery.AddressTypeIPv4,
		Ports: []discovery.EndpointPort{{
			Name: new("http"), Protocol: new(corev1.ProtocolTCP), Port: new(int32(podPort)), AppProtocol: new("http"),
		}},
	}
	for i := range w.endpoints {
		endpoint := readyEndpoint(w.address(service, i), w.node(service, i))
		endpoint.TargetRef = &corev1.ObjectReference{
			Kind: "Pod", Namespace: w.namespace(service), Name: podName(service, i),
		}
		slice.Endpoints = append(slice.Endpoints, endpoint)
	}
	if marker != "" {
		slice.Endpoints = append(slice.Endpoints, readyEndpoint(marker, 0))
	}
	return slice
}

func readyEndpoint(address string, node int) discovery.Endpoint {
	return discovery.Endpoint{
		Addresses:  []string{address},
		NodeName:   new(nodeName(node)),
		Zone:       new(zoneName(node)),
		Conditions: discovery.EndpointConditions{Ready: new(true), Serving: new(true), Terminating: new(false)},
	}
}

// podObject is a running pod with a sidecar, as large as real ones are in what a controller must read.
func (w world) podObject(service, endpoint int) *corev1.Pod {
	node := w.node(service, endpoint)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:      podName(service, endpoint),
			Namespace: w.namespace(service),
			Labels: map[string]string{
				"app": serviceName(service), "version": "v1", "pod-template-hash": "5d4f8c7b9",
				"topology.kubernetes.io/zone": zoneName(node),
			},
			Annotations: map[string]string{"leno.dev/inject": "enabled", "leno.dev/injected": "1.2.3"},
		},
		Spec:   w.podSpec(service, node),
		Status: podStatus(w.address(service, endpoint), node),
	}
}

func (w world) podSpec(service, node int) corev1.PodSpec {
	always := corev1.ContainerRestartPolicyAlways
	return corev1.PodSpec{
		NodeName:                     nodeName(node),
		ServiceAccountName:           serviceName(service),
		AutomountServiceAccountToken: new(false),
		InitContainers: []corev1.Container{{
			Name: "leno-proxy", Image: "registry.example/leno-proxy:1.2.3", RestartPolicy: &always,
			Ports: []corev1.ContainerPort{{Name: "leno-admin", ContainerPort: 15120}},
			Env:   []corev1.EnvVar{{Name: "LENO_CONTROLLER", Value: "leno-controller.leno-system:15110"}},
		}},
		Containers: []corev1.Container{{
			Name: "app", Image: "registry.example/app:1.2.3",
			Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: podPort}},
			Env:   []corev1.EnvVar{{Name: "A", Value: "b"}},
		}},
	}
}

func podStatus(address string, node int) corev1.PodStatus {
	host := fmt.Sprintf("192.168.0.%d", node+1)
	now := metav1.Now()
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}
	return corev1.PodStatus{
		Phase: corev1.PodRunning,
		PodIP: address, PodIPs: []corev1.PodIP{{IP: address}},
		HostIP: host, HostIPs: []corev1.HostIP{{IP: host}},
		StartTime: &now,
		Conditions: []corev1.PodCondition{
			{Type: corev1.PodReady, Status: corev1.ConditionTrue},
			{Type: corev1.ContainersReady, Status: corev1.ConditionTrue},
		},
		InitContainerStatuses: []corev1.ContainerStatus{
			{Name: "leno-proxy", Ready: true, Image: "registry.example/leno-proxy:1.2.3", State: running}},
		ContainerStatuses: []corev1.ContainerStatus{
			{Name: "app", Ready: true, Image: "registry.example/app:1.2.3", State: running}},
	}
}
