# The node's addresses, and the settings of its daemons. Sourced by node.sh.

node_name=node0
gateway_ip=172.30.0.1 node_ip=172.30.0.10 pod_cidr=10.244.0.0/24
service_cidr=10.96.0.0/16 service_ip=10.96.0.1 dns_ip=10.96.0.10
gateway_ip6='' node_ip6='' pod_cidr6='' service_cidr6='' service_ip6=''
if [ -e /proc/net/if_inet6 ]; then # the kernel speaks IPv6
  gateway_ip6=fd00:172:30::1 node_ip6=fd00:172:30::10 pod_cidr6=fd00:10:244::/64
  service_cidr6=fd00:10:96::/112 service_ip6=fd00:10:96::1
fi
pod_cidrs=$pod_cidr${pod_cidr6:+,$pod_cidr6}
service_cidrs=$service_cidr${service_cidr6:+,$service_cidr6}

apiserver_flags=(
  --etcd-servers=http://127.0.0.1:2379
  --secure-port=6443
  --advertise-address="$node_ip"
  --service-cluster-ip-range="$service_cidrs"
  --allow-privileged=true
  --authorization-mode=Node,RBAC
  --enable-admission-plugins=NodeRestriction
  --client-ca-file="$pki/ca.crt"
  --tls-cert-file="$pki/apiserver.crt"
  --tls-private-key-file="$pki/apiserver.key"
  --kubelet-client-certificate="$pki/apiserver-kubelet-client.crt"
  --kubelet-client-key="$pki/apiserver-kubelet-client.key"
  --kubelet-certificate-authority="$pki/ca.crt"
  --kubelet-preferred-address-types=InternalIP
  --service-account-issuer=https://kubernetes.default.svc.cluster.local
  --service-account-key-file="$pki/sa.pub"
  --service-account-signing-key-file="$pki/sa.key"
  --requestheader-client-ca-file="$pki/front-proxy-ca.crt"
  --requestheader-allowed-names=front-proxy-client
  --requestheader-extra-headers-prefix=X-Remote-Extra-
  --requestheader-group-headers=X-Remote-Group
  --requestheader-username-headers=X-Remote-User
  --proxy-client-cert-file="$pki/front-proxy-client.crt"
  --proxy-client-key-file="$pki/front-proxy-client.key"
)

# With the default limit of 20 requests a second the controllers alone take five seconds to get going.
controller_manager_flags=(
  --kubeconfig="$pki/controller-manager.kubeconfig"
  --authentication-kubeconfig="$pki/controller-manager.kubeconfig"
  --authorization-kubeconfig="$pki/controller-manager.kubeconfig"
  --leader-elect=false
  --controllers='*'
  --kube-api-qps=1000
  --kube-api-burst=2000
  --node-monitor-period=250ms
  --use-service-account-credentials=true
  --service-account-private-key-file="$pki/sa.key"
  --root-ca-file="$pki/ca.crt"
  --cluster-signing-cert-file="$pki/ca.crt"
  --cluster-signing-key-file="$pki/ca.key"
  --service-cluster-ip-range="$service_cidrs"
)

scheduler_flags=(
  --kubeconfig="$pki/scheduler.kubeconfig"
  --authentication-kubeconfig="$pki/scheduler.kubeconfig"
  --authorization-kubeconfig="$pki/scheduler.kubeconfig"
  --leader-elect=false
)

write_config() {
  local etc=$state/etc
  echo "nameserver 127.0.0.1" >"$etc/resolv.pods" # CoreDNS itself has nobody to ask
  local ranges="[{\"subnet\": \"$pod_cidr\"}]" routes='{"dst": "0.0.0.0/0"}'
  if [ -n "$pod_cidr6" ]; then
    ranges+=", [{\"subnet\": \"$pod_cidr6\"}]" routes+=', {"dst": "::/0"}'
  fi
  mkdir -p /etc/cni/net.d
  cat >/etc/cni/net.d/10-bridge.conflist <<CNI
{"cniVersion": "1.0.0", "name": "pods", "plugins": [{
  "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
  "ipam": {
    "type": "host-local", "dataDir": "/run/cni",
    "ranges": [$ranges],
    "routes": [$routes]
  }
}]}
CNI
  # restrict_oom_score_adj: root in a container may not lower a process's score.
  cat >"$etc/containerd.toml" <<CONTAINERD
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.internal.v1.tracing", "io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.native", "io.containerd.tracing.processor.v1.otlp",
]
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "leno/pause:1"
[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "$(command -v runc)"
  SystemdCgroup = false
CONTAINERD
  cat >"$etc/kubelet.yaml" <<KUBELET
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
registerNode: true
containerRuntimeEndpoint: unix://$containerd_socket
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
serializeImagePulls: false
clusterDNS: [$dns_ip]
clusterDomain: cluster.local
resolvConf: $etc/resolv.pods
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $pki/kubelet.crt
tlsPrivateKeyFile: $pki/kubelet.key
# A full disk of the host is no reason to evict a test.
imageGCHighThresholdPercent: 100
evictionHard:
  {memory.available: 50Mi, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%, imagefs.inodesFree: 0%}
KUBELET
  # conntrack limits are host-wide, so kube-proxy leaves them alone; it writes rules at once, tests are waiting.
  cat >"$etc/kube-proxy.yaml" <<PROXY
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: $pod_cidrs
clientConnection: {kubeconfig: $pki/proxy.kubeconfig}
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
nftables: {minSyncPeriod: 50ms, syncPeriod: 30s}
PROXY
}
