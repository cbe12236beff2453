#!/bin/sh
# The guest's first process: sets up a soft-RoCE device, runs /command, reports how it ended.
#
# ttyS0 is the kernel's console, ttyS1 the command's output, ttyS2 takes the reports:
# "setup WHAT" when the machine could not be set up, "running", and "exit STATUS". Of two machines that are
# joined, the kernel's command line gives each its number, RDMA_MR_VM_HOST.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root
# Output is a terminal here, but where it ends may be none: no colours, no cursor movements.
export TERM=dumb

report() {
    echo "$*" >/dev/ttyS2
}

finish() {
    # Changing a terminal's settings waits until all that was written to it has left.
    stty -F /dev/ttyS1 sane
    stty -F /dev/ttyS2 sane
    poweroff -f
}

# must WHAT COMMAND...: ends the machine when the command fails.
must() {
    what=$1
    shift
    "$@" || { report "setup $what"; finish; }
}

# wait_for COMMAND...: waits up to 10 s until the command succeeds.
wait_for() {
    for _ in $(seq 100); do
        "$@" && return
        sleep 0.1
    done
    return 1
}

mount -t devtmpfs none /dev
exec </dev/null >/dev/console 2>&1
mount -t proc none /proc
mount -t sysfs none /sys
mount -t tmpfs none /tmp
mkdir -p /dev/shm
mount -t tmpfs none /dev/shm
# Output leaves as it was written: no carriage returns are added.
stty -F /dev/ttyS1 raw
stty -F /dev/ttyS2 raw
. /environment

for module in /lib/modules/*.ko; do
    must "insmod $module" insmod "$module"
done

has_gid() {
    # The address as the last bytes of the GID at index 1.
    hex=$(printf '%02x%02x:%02x%02x' $(echo "$RDMA_MR_VM_ADDR" | tr . ' '))
    grep -q "$hex\$" /sys/class/infiniband/rxe0/ports/1/gids/1
}

is_active() {
    grep -q ACTIVE /sys/class/infiniband/rxe0/ports/1/state
}

# By its full path: busybox's shell prefers its own `ip`, which cannot name a veth's peer.
ip=/usr/sbin/ip
must "ip link lo" $ip link set lo up
if [ -n "$RDMA_MR_VM_HOST" ]; then
    # One of two machines: the wire between them is the network.
    export RDMA_MR_VM_PEER="${RDMA_MR_VM_ADDR%.*}.$((3 - RDMA_MR_VM_HOST))"
    export RDMA_MR_VM_ADDR="${RDMA_MR_VM_ADDR%.*}.$RDMA_MR_VM_HOST"
    netdev=eth0
else
    netdev=veth0
    must "ip link veth" $ip link add veth0 type veth peer name veth1
fi
# The address comes before the link is up: then its GID precedes those of IPv6.
must "ip address $netdev" $ip address add "$RDMA_MR_VM_ADDR/24" dev $netdev
must "ip link $netdev up" $ip link set $netdev up
if [ $netdev = veth0 ]; then
    # After the other's, whose way to the network is the first one then.
    must "ip address veth1" $ip address add "${RDMA_MR_VM_ADDR%.*}.2/24" dev veth1
    must "ip link veth1 up" $ip link set veth1 up
fi
must "rdma link add" rdma link add rxe0 type rxe netdev $netdev
must "rxe0 is not active" wait_for is_active
must "rxe0 has no GID at index 1" wait_for has_gid

ulimit -l unlimited
cd /root
report running
sh /command >/dev/ttyS1 2>&1
report "exit $?"
finish
