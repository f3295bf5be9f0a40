#!/usr/bin/env bash
# node.sh NAME STATE BINARIES IMAGES STARTED: pid 1 of the cluster, run by `up` in new namespaces.
#
# Reading order: the node's files (mounts), its network, its certificates and settings (node-config.sh), its
# daemons. All mounts are private to this namespace: when pid 1 ends, all of it is gone.
. "$(dirname "$0")/lib.sh"
name=$1 state=$2 binaries=$3 images=$4 started=$5
export PATH="$binaries:$PATH"
logs=$state/log pki=$state/pki
. "$cluster_dir/node-config.sh"

# `up` must find this process, so note its pid as the host sees it; then take a cgroup namespace whose root is
# the cluster's own group.
if [ -z "${LENO_NODE_STAGE:-}" ]; then
  read -r pid _ </proc/self/stat
  echo "$pid" >"$state/pid"
  for group in $(cluster_cgroups); do echo 0 >"$group/cgroup.procs"; done
  LENO_NODE_STAGE=2 exec unshare --cgroup "$0" "$@"
fi

step() { printf '%6d ms  %s\n' $((($(date +%s%N) - started) / 1000000)) "$1" >>"$logs/timing"; }

# Tries a command every 50 ms until it succeeds; `up` gives up for all of us, and a dead daemon ends the wait.
await() {
  until "$@" >/dev/null 2>&1; do
    [ ! -e "$state/dead" ] || { cat "$state/dead"; exit 1; }
    sleep 0.05
  done
}

mount_cgroups() {
  local kind
  if [ "$(stat -fc %T /sys/fs/cgroup)" != cgroup2fs ]; then
    local kinds=()
    for kind in $(cluster_cgroups); do kind=${kind%/*}; kinds+=("${kind##*/}"); done
    mount -t sysfs sysfs /sys
    mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
    for kind in "${kinds[@]}"; do
      mkdir "/sys/fs/cgroup/$kind"
      if [ "$kind" = systemd ]; then mount -t cgroup -o none,name=systemd cgroup "/sys/fs/cgroup/$kind"
      else mount -t cgroup -o "$kind" cgroup "/sys/fs/cgroup/$kind"; fi
    done
    return
  fi
  mount -t sysfs sysfs /sys
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  # A v2 group either holds processes or hands controllers down: the daemons get a group of their own.
  mkdir -p /sys/fs/cgroup/init
  echo 1 >/sys/fs/cgroup/init/cgroup.procs
  for kind in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$kind" >/sys/fs/cgroup/cgroup.subtree_control || true
  done
}

mount_files() {
  local dir sysctl file
  mount -t proc proc /proc
  mount_cgroups
  mount --make-rshared /
  # Writes to /etc, /var, /opt and /run land in memory; only the state folder stays shared with the host.
  mount -t tmpfs -o mode=755 tmpfs /mnt
  mkdir /mnt/state /mnt/run
  mount --bind "$state" /mnt/state
  for dir in etc var opt; do
    mkdir "/mnt/$dir" "/mnt/.$dir"
    mount -t overlay overlay -o "lowerdir=/$dir,upperdir=/mnt/$dir,workdir=/mnt/.$dir" "/$dir"
  done
  mount --bind /mnt/run /run
  mkdir -p "$state"
  mount --bind /mnt/state "$state"
  for dir in /var/lib/kubelet /var/lib/containerd /var/lib/etcd /run/containerd; do
    mkdir -p "$dir"
    mount -t tmpfs -o mode=700 tmpfs "$dir"
  done
  # The kubelet insists on three host-wide sysctls: show it the values it wants instead of changing the host.
  mkdir -p "$state/etc"
  for sysctl in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do
    file=$state/etc/${sysctl//\//_}
    echo "${sysctl#*=}" >"$file"
    mount --bind "$file" "/proc/sys/${sysctl%%=*}"
  done
  printf 'nameserver %s\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n' \
    "$dns_ip" >"$state/etc/resolv.conf"
  [ ! -e /etc/resolv.conf ] || mount --bind "$state/etc/resolv.conf" "$(readlink -f /etc/resolv.conf)"
}

# A veth pair with both ends in here is the node's network card; no packet can leave.
make_network() {
  hostname "$node_name"
  ip link set lo up
  ip link add eth0 type veth peer name eth0peer
  ip addr add "$node_ip/24" dev eth0
  [ -z "$node_ip6" ] || ip addr add "$node_ip6/64" dev eth0 nodad
  ip link set eth0 up
  ip link set eth0peer up
  ip route add default via "$gateway_ip" dev eth0
  [ -z "$node_ip6" ] || ip -6 route add default via "$gateway_ip6" dev eth0
  sysctl -qw net.ipv4.ip_forward=1
  [ -z "$node_ip6" ] || sysctl -qw net.ipv6.conf.all.forwarding=1
  sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.ipv4.conf.all.rp_filter=0 2>/dev/null || true
}

# Starts a daemon; when it ends, its last words go to node.log, where `up` finds them.
daemon() {
  local daemon=$1
  (
    "$@" >"$logs/$daemon.log" 2>&1 || true
    tail -3 "$logs/$daemon.log"
    echo "$daemon ended; see $logs/$daemon.log" | tee -a "$state/dead"
  ) &
}

import_images() {
  await ctr -a "$containerd_socket" version
  step "containerd up"
  ls "$images"/*.tar | xargs -P 4 -n 1 ctr -a "$containerd_socket" -n k8s.io images import >"$logs/import.log" 2>&1
  step "images imported"
}

api_ready() {
  curl -sf --cacert "$pki/ca.crt" --cert "$pki/apiserver-kubelet-client.crt" \
    --key "$pki/apiserver-kubelet-client.key" "https://$node_ip:6443/readyz"
}

start_control_plane() {
  daemon etcd --data-dir /var/lib/etcd --unsafe-no-fsync --log-level warn --listen-peer-urls http://127.0.0.1:2380 \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379
  daemon containerd -c "$state/etc/containerd.toml"
  daemon kube-apiserver "${apiserver_flags[@]}"
  import_images
  await api_ready
  step "API server ready"
  daemon kube-controller-manager "${controller_manager_flags[@]}"
  daemon kube-scheduler "${scheduler_flags[@]}"
}

start_node() {
  daemon kubelet --config="$state/etc/kubelet.yaml" --kubeconfig="$pki/kubelet.kubeconfig" \
    --node-ip="$node_ip${node_ip6:+,$node_ip6}" --hostname-override="$node_name"
  daemon kube-proxy --config="$state/etc/kube-proxy.yaml" --hostname-override="$node_name"
  export KUBECONFIG=$pki/admin.kubeconfig
  kubectl apply -f "$cluster_dir/coredns.yaml" >/dev/null
  await kubectl get node "$node_name"
  kubectl wait --for=condition=Ready "node/$node_name" --timeout=120s >/dev/null
  step "node Ready"
  kubectl -n kube-system wait --for=condition=Available deploy/coredns --timeout=120s >/dev/null
  step "CoreDNS Available"
}

mount_files
make_network
kit pki "$pki" "$node_name" "$node_ip" "$service_ip" $node_ip6 $service_ip6
write_config
step "files and network"
start_control_plane
start_node
touch "$state/ready"
# Pid 1 inherits every orphan of the node: collect them for as long as the cluster lives.
while :; do wait -n || true; sleep 1; done
