package main

import (
	"bytes"
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
)

// Below etcd's limit of 128 operations in a transaction.
const podsPerTransaction = 50

// writePodsToEtcd stores pods where the API server keeps them. Through the API each costs it about
// 5 ms; it finds these by its own watch of etcd.
func writePodsToEtcd(endpoint string, w world) error {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 5 * time.Second})
	if err != nil {
		return err
	}
	defer client.Close()
	// The storage form is what client-go's protobuf serializer writes.
	serializer := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	batches := (w.pods() + podsPerTransaction - 1) / podsPerTransaction
	return inParallel("transactions of pods", batches, func(batch int) error {
		var puts []clientv3.Op
		for i := batch * podsPerTransaction; i < min((batch+1)*podsPerTransaction, w.pods()); i++ {
			pod := w.storedPod(i)
			var stored bytes.Buffer
			if err := serializer.Encode(pod, &stored); err != nil {
				return err
			}
			puts = append(puts, clientv3.OpPut("/registry/pods/"+pod.Namespace+"/"+pod.Name, stored.String()))
		}
		_, err := client.Txn(context.Background()).Then(puts...).Commit()
		return err
	})
}

// storedPod is a pod with what the API server would have filled in.
func (w world) storedPod(i int) *corev1.Pod {
	pod := w.podObject(i/w.endpoints, i%w.endpoints)
	pod.TypeMeta = metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}
	pod.UID = types.UID(fmt.Sprintf("%08x-0000-4000-8000-%012x", i, i))
	pod.CreationTimestamp = metav1.Now()
	pod.Generation = 1
	spec := &pod.Spec
	spec.RestartPolicy = corev1.RestartPolicyAlways
	spec.DNSPolicy = corev1.DNSClusterFirst
	spec.SchedulerName = corev1.DefaultSchedulerName
	spec.TerminationGracePeriodSeconds = new(int64(30))
	spec.SecurityContext = &corev1.PodSecurityContext{}
	spec.EnableServiceLinks = new(true)
	spec.DeprecatedServiceAccount = spec.ServiceAccountName
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			fillContainer(&containers[i])
		}
	}
	return pod
}

func fillContainer(container *corev1.Container) {
	container.TerminationMessagePath = corev1.TerminationMessagePathDefault
	container.TerminationMessagePolicy = corev1.TerminationMessageReadFile
	container.ImagePullPolicy = corev1.PullIfNotPresent
	for i := range container.Ports {
		container.Ports[i].Protocol = corev1.ProtocolTCP
	}
}
