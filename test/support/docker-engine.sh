# The first process of the namespaces that docker-engine.ts makes: `docker-engine.sh LOGS CGROUP`.
# When it ends, the kernel ends all others in here, and takes the mounts and networks away.
set -eu
logs=$1
cgroup=$2

busybox ip link set lo up

# All that the engine writes is in memory, at the places where it would write anyway: images and volumes too.
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/engine/etc /run/engine/work
mount -t overlay -o lowerdir=/etc,upperdir=/run/engine/etc,workdir=/run/engine/work overlay /etc

cat >/run/engine/containerd.toml <<'TOML'
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
TOML
containerd --config /run/engine/containerd.toml --address /run/engine/containerd.sock \
  --root /run/engine/containerd --state /run/engine/containerd-state >"$logs/containerd.log" 2>&1 &

echo '{}' >/run/engine/daemon.json
dockerd --config-file /run/engine/daemon.json --containerd /run/engine/containerd.sock \
  --host unix:///run/docker.sock --pidfile /run/engine/dockerd.pid \
  --data-root /run/engine/docker --exec-root /run/engine/docker-state \
  --iptables=false --ip6tables=false \
  --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "$cgroup" >"$logs/dockerd.log" 2>&1 &

# It also reaps what the engine leaves behind.
wait "$!"
