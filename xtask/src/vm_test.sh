#!/bin/sh
# Runs in the guest: programs that use the verbs. `vm_test.rs` appends the items to run, and the
# call of `finish`.

# Seconds for one item.
LIMIT=180
DATA=/tmp/data

passed=0
failed=0
summary=

# verdict NAME [PROBLEM]: counts an item; without a problem it has passed.
verdict() {
    if [ -z "$2" ]; then
        passed=$((passed + 1))
        line="pass  $1"
    else
        failed=$((failed + 1))
        line="FAIL  $1: $2"
    fi
    echo "$line"
    summary="$summary$line
"
}

# run_test NAME PROGRAM: a test binary. Its tests are ignored where there may be no device.
run_test() {
    echo "-- $1"
    timeout -s KILL "$LIMIT" "$2" --include-ignored --test-threads=1
    status=$?
    if [ "$status" = 0 ]; then verdict "$1"; else verdict "$1" "exit status $status"; fi
}

# listening PID PORT: waits up to 20 s until somebody listens at the port, over the connection
# manager or TCP; fails if the process ends before that.
listening() {
    for _ in $(seq 200); do
        rdma resource show cm_id | grep -q "LISTEN.* src-addr [^ ]*:$2 " && return
        netstat -ltn | grep -q ":$2 " && return
        kill -0 "$1" 2>/dev/null || return
        sleep 0.1
    done
    return 1
}

# digest FILE: what a program printed as the digest of the data.
digest() {
    sed -n 's/.*sha256 \([0-9a-f]\{64\}\).*/\1/p' "$1" | sort -u
}

# transfer_problem PROGRAM MODE PORT: sends the data from one process to another; prints nothing
# if all went well, and otherwise what went wrong.
transfer_problem() {
    at=$RDMA_MR_VM_ADDR:$3
    timeout -s KILL "$LIMIT" "$1" --listen "$at" --mode "$2" >/tmp/listen 2>&1 &
    listener=$!
    if ! listening $listener "$3"; then
        kill -KILL $listener 2>/dev/null
        wait $listener
        echo "the listening side does not listen, exit status $?"
        return
    fi
    timeout -s KILL "$LIMIT" "$1" --connect "$at" "$DATA" --mode "$2" >/tmp/connect 2>&1
    status=$?
    if [ $status != 0 ]; then
        # The other side may wait for ever.
        sleep 1
        kill -KILL $listener 2>/dev/null
        echo "the connecting side ended with exit status $status"
        return
    fi
    wait $listener
    status=$?
    if [ $status != 0 ]; then
        echo "the listening side ended with exit status $status"
        return
    fi
    want=$(sha256sum "$DATA" | cut -d ' ' -f 1)
    for side in listen connect; do
        got=$(digest /tmp/$side)
        [ "$got" = "$want" ] || echo "${side}ing side: digest '$got', the file's is $want"
    done
}

# run_transfer PROGRAM MODE PORT
run_transfer() {
    echo "-- transfer --mode $2"
    : >/tmp/listen
    : >/tmp/connect
    [ -f "$DATA" ] || dd if=/dev/urandom of="$DATA" bs=1M count=16 2>/dev/null
    problem=$(transfer_problem "$@" | paste -s -d ';')
    sed 's/^/listen:  /' /tmp/listen
    sed 's/^/connect: /' /tmp/connect
    verdict "transfer --mode $2" "$problem"
}

# run_refusal NAME WANT PROGRAM ARGS...: must say one line that contains WANT, and fail.
run_refusal() {
    name=$1
    want=$2
    shift 2
    echo "-- $name"
    said=$(timeout -s KILL "$LIMIT" "$@" 2>&1)
    status=$?
    echo "$said"
    if [ $status = 0 ] || [ $status -ge 128 ]; then
        verdict "$name" "exit status $status"
    elif [ "$(echo "$said" | wc -l)" != 1 ]; then
        verdict "$name" "more than one line"
    elif ! echo "$said" | grep -q "$want"; then
        verdict "$name" "nothing about '$want'"
    else
        verdict "$name"
    fi
}

# run_lost PROGRAM PORT: the receiver is killed in the middle; the sender must notice and say so.
run_lost() {
    at=$RDMA_MR_VM_ADDR:$2
    "$1" --listen "$at" >/tmp/listen 2>&1 &
    listener=$!
    listening $listener "$2"
    (sleep 1 && kill -KILL $listener) &
    # A hole of 4 GiB in small pieces: far from through when the peer dies.
    truncate -s 4G /tmp/hole
    run_refusal "transfer to a peer that dies" . "$1" --connect "$at" /tmp/hole --slot 512 --slots 4
    wait
}

# run_program NAME PROGRAM ARGS...: must succeed.
run_program() {
    name=$1
    shift
    echo "-- $name"
    timeout -s KILL "$LIMIT" "$@"
    status=$?
    if [ $status = 0 ]; then verdict "$name"; else verdict "$name" "exit status $status"; fi
}

# run_pingpong NAME PROGRAM ARGS...: with the program on the first processor and the device's work, which
# soft-RoCE leaves to the kernel's workers, on the second, as a device would be beside the program.
run_pingpong() {
    cpus=/sys/devices/virtual/workqueue/cpumask
    before=$(cat $cpus)
    echo 2 >$cpus
    name=$1
    shift
    run_program "$name" taskset 1 "$@"
    echo "$before" >$cpus
}

finish() {
    echo "--"
    printf '%s' "$summary"
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ]
}

