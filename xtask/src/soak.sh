# Runs in the guest. What a soft-RoCE device sends to itself does not leave it; but it has two addresses
# here, and the way from one to the other is over veth0 to veth1, into a network that sends all back.

ip=/usr/sbin/ip
tc=/usr/sbin/tc
other=${RDMA_MR_VM_ADDR%.*}.3
mirror=${RDMA_MR_VM_ADDR%.*}.2

# gid ADDR: the index of its GID.
gid() {
    hex=$(printf '%02x%02x:%02x%02x' $(echo "$1" | tr . ' '))
    for _ in $(seq 50); do
        for file in /sys/class/infiniband/rxe0/ports/1/gids/*; do
            grep -q "ffff:$hex\$" "$file" 2>/dev/null && { basename "$file"; return; }
        done
        sleep 0.1
    done
}

# lose LOSS: sets it up, with so many of a hundred packets lost, and names both GIDs.
lose() {
    $ip netns add mirror
    $ip link set veth1 netns mirror
    $ip netns exec mirror sh -c "
        $ip address add $mirror/24 dev veth1
        $ip link set veth1 up
        echo 1 >/proc/sys/net/ipv4/ip_forward
        for each in all veth1; do
            echo 0 >/proc/sys/net/ipv4/conf/\$each/send_redirects
            echo 0 >/proc/sys/net/ipv4/conf/\$each/rp_filter
        done"
    $ip address add "$other/24" dev veth0
    for each in all veth0; do
        echo 0 >/proc/sys/net/ipv4/conf/$each/rp_filter
        echo 1 >/proc/sys/net/ipv4/conf/$each/accept_local
        echo 0 >/proc/sys/net/ipv4/conf/$each/accept_redirects
    done
    $ip route add default via "$mirror" dev veth0 table 200
    # What comes in is for this machine, what goes out goes by the table.
    $ip rule add pref 10 iif veth0 lookup local
    $ip rule add pref 20 to "$RDMA_MR_VM_ADDR" lookup 200
    $ip rule add pref 21 to "$other" lookup 200
    $ip rule add pref 30 lookup local
    $ip rule del pref 0
    export RDMA_MR_GIDS="$(gid "$RDMA_MR_VM_ADDR"),$(gid "$other")"
    echo "GIDs $RDMA_MR_GIDS, $1 % of packets are lost between them"
    $tc qdisc add dev veth0 root netem loss "$1%"
}

# account: packets were lost.
account() {
    $tc -s qdisc show dev veth0
    $tc -s qdisc show dev veth0 | grep -q 'dropped [1-9]'
}

