# Runs in both of two guests, after `vm_test.sh`: the first one receives what the second one sends, and each
# has the file to compare with.

# Seconds for one item: where packets are lost, most of the time is waiting for what is not coming.
LIMIT=600

# meet PORT: waits until both machines are here.
meet() {
    if [ "$RDMA_MR_VM_HOST" = 1 ]; then
        timeout -s KILL "$LIMIT" nc -l -p "$1" </dev/null
        return
    fi
    for _ in $(seq $((5 * LIMIT))); do
        nc "$RDMA_MR_VM_PEER" "$1" </dev/null 2>/dev/null && return
        sleep 0.2
    done
    return 1
}

# receive PROGRAM MODE PORT SLOTS...: prints what went wrong, as `send`.
receive() {
    at=$RDMA_MR_VM_ADDR:$3
    timeout -s KILL "$LIMIT" "$1" --listen "$at" --mode "$2" $4 >/tmp/output 2>&1 &
    listener=$!
    listening $listener "$3" || echo "it does not listen"
    meet "$3" || echo "the sender did not come"
    wait $listener
    ended $?
}

send() {
    meet "$3" || echo "there is no receiver"
    at=$RDMA_MR_VM_PEER:$3
    timeout -s KILL "$LIMIT" "$1" --connect "$at" "$DATA" --mode "$2" $4 >/tmp/output 2>&1
    ended $?
}

# ended STATUS: how it ended, and what it said of the bytes.
ended() {
    [ "$1" = 0 ] || echo "exit status $1"
    got=$(digest /tmp/output)
    [ "$got" = "$want" ] || echo "digest '$got', the file has $want"
}

# dropped: how many packets were lost on purpose.
dropped() {
    $tc -s qdisc show dev eth0 | sed -n 's/.*(dropped \([0-9]*\),.*/\1/p' | head -n 1
}

# run_joined PROGRAM MODE PORT LOSS: LOSS of a hundred packets get lost, of both directions.
run_joined() {
    side=send
    [ "$RDMA_MR_VM_HOST" = 1 ] && side=receive
    name="$side, --mode $2, $4 % loss"
    echo "-- $name"
    [ "$4" = 0 ] || $tc qdisc replace dev eth0 root netem loss "$4%"
    # When packets of an answer are lost, soft-RoCE asks for the rest of it, takes its first packet for one too
    # many, and ends the queue pair: each READ is of one packet then.
    slots=
    [ "$2 $4" = "read 0" ] || [ "$2" != read ] || slots="--slot 1024 --slots 64"
    : >/tmp/output
    problem=$($side "$1" "$2" "$3" "$slots" | paste -s -d ';')
    cat /tmp/output
    if [ "$4" != 0 ]; then
        lost=$(dropped)
        echo "$lost packets were lost"
        # Of the few that the receiver sends, maybe none.
        [ "$side" = receive ] || [ "$lost" -gt 0 ] || problem="no packet was lost;$problem"
        $tc qdisc del dev eth0 root
    fi
    verdict "$name" "$problem"
    # What comes next would wait for a peer that has stopped, or is not where this one is.
    [ -z "$problem" ] || { finish; exit 1; }
}

# Not busybox's own.
tc=/usr/sbin/tc
want=$(sha256sum "$DATA" | cut -d ' ' -f 1)
