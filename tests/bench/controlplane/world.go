package main

import "fmt"

const (
	nodeCount   = 100
	zoneCount   = 3
	servicePort = 80
	podPort     = 8080

	// Marked addresses are 172.16.0.0/12: twenty bits say which change put them there.
	markerBits = 20
)

// world is the state a cluster is filled with. Every name and address follows from these numbers, so
// the loader and the simulated proxies agree without talking.
type world struct {
	services, endpoints, perNamespace int
}

func (w world) namespaces() int { return (w.services + w.perNamespace - 1) / w.perNamespace }

func (w world) pods() int { return w.services * w.endpoints }

func (w world) namespace(service int) string {
	return fmt.Sprintf("ns-%d", service/w.perNamespace)
}

func (w world) node(service, endpoint int) int {
	return (service*w.endpoints + endpoint) % nodeCount
}

func (w world) address(service, endpoint int) string {
	pod := service*w.endpoints + endpoint
	return fmt.Sprintf("10.%d.%d.%d", 128+pod>>16, pod>>8&255, pod&255)
}

// resource is the name under which the controller publishes a service.
func (w world) resource(service int) string {
	return w.namespace(service) + "/" + serviceName(service)
}

func serviceName(service int) string { return fmt.Sprintf("svc-%d", service) }

func podName(service, endpoint int) string { return fmt.Sprintf("svc-%d-%d", service, endpoint) }

func nodeName(node int) string { return fmt.Sprintf("node-%d", node) }

func zoneName(node int) string { return fmt.Sprintf("zone-%d", node%zoneCount) }

func markerAddress(marker int) string {
	return fmt.Sprintf("172.%d.%d.%d", 16+marker>>16, marker>>8&255, marker&255)
}
