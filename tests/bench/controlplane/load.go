package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	loadWorkers = 32
	loadTries   = 5
	// One HTTP/2 connection has 250 streams and one thread for TLS: a few are faster.
	loadConnections = 4
)

func loadCommand(arguments []string) error {
	var w world
	var kubeconfig string
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	worldFlags(flags, &kubeconfig, &w)
	etcd := flags.String("etcd", "", "etcd's URL: pods go there directly, 30 times faster than through the API server")
	flags.Parse(arguments)

	loader := loader{world: w, context: context.Background()}
	for i := range loadConnections {
		client, err := connect(kubeconfig, fmt.Sprintf("loader-%d", i))
		if err != nil {
			return err
		}
		loader.clients = append(loader.clients, client)
	}
	return loader.load(*etcd)
}

type loader struct {
	world
	context context.Context
	clients []*kubernetes.Clientset
}

func (l *loader) client(i int) *kubernetes.Clientset { return l.clients[i%len(l.clients)] }

// load creates everything, kind by kind. What exists already is left as it is.
func (l *loader) load(etcd string) error {
	pods := func() error { return inParallel("pods", l.pods(), l.createPod) }
	if etcd != "" {
		pods = func() error { return writePodsToEtcd(etcd, l.world) }
	}
	for _, step := range []func() error{
		func() error { return inParallel("nodes", nodeCount, l.createNode) },
		func() error { return inParallel("namespaces", l.namespaces(), l.createNamespace) },
		func() error { return inParallel("service accounts", l.services, l.createServiceAccount) },
		func() error { return inParallel("services", l.services, l.createService) },
		pods,
		func() error { return inParallel("endpoint slices", l.services, l.createSlice) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (l *loader) createNode(i int) error {
	_, err := l.client(i).CoreV1().Nodes().Create(l.context, nodeObject(i), metav1.CreateOptions{})
	return err
}

func (l *loader) createNamespace(i int) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: l.namespace(i * l.perNamespace)}}
	_, err := l.client(i).CoreV1().Namespaces().Create(l.context, namespace, metav1.CreateOptions{})
	return err
}

func (l *loader) createServiceAccount(i int) error {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: serviceName(i)}}
	_, err := l.client(i).CoreV1().ServiceAccounts(l.namespace(i)).Create(l.context, account, metav1.CreateOptions{})
	return err
}

func (l *loader) createService(i int) error {
	_, err := l.client(i).CoreV1().Services(l.namespace(i)).Create(l.context, serviceObject(i), metav1.CreateOptions{})
	return err
}

func (l *loader) createSlice(i int) error {
	slice := l.sliceObject(i, "")
	_, err := l.client(i).DiscoveryV1().EndpointSlices(slice.Namespace).Create(l.context, slice, metav1.CreateOptions{})
	return err
}

func (l *loader) createPod(i int) error {
	pod := l.podObject(i/l.endpoints, i%l.endpoints)
	pods := l.client(i).CoreV1().Pods(pod.Namespace)
	created, err := pods.Create(l.context, pod, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	created.Status = pod.Status
	_, err = pods.UpdateStatus(l.context, created, metav1.UpdateOptions{})
	return err
}

// inParallel runs `create` for 0..count with many workers, a few tries each.
func inParallel(what string, count int, create func(i int) error) error {
	started := time.Now()
	var next atomic.Int64
	var group errgroup.Group
	for range loadWorkers {
		group.Go(func() error {
			for i := int(next.Add(1)) - 1; i < count; i = int(next.Add(1)) - 1 {
				if err := withTries(i, create); err != nil {
					return fmt.Errorf("%s, number %d: %w", what, i, err)
				}
			}
			return nil
		})
	}
	err := group.Wait()
	log.Printf("%6d %s in %.1f s", count, what, time.Since(started).Seconds())
	return err
}

func withTries(i int, create func(i int) error) error {
	var err error
	for range loadTries {
		if err = create(i); err == nil || apierrors.IsAlreadyExists(err) {
			return nil
		}
		time.Sleep(200 * time.Millisecond)
	}
	return err
}
