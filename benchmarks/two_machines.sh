#!/bin/sh
# Trains on two "machines": two network namespaces with a veth pair between them. Needs root and iproute2.
#
#     sh benchmarks/two_machines.sh SOLVER [PYTHON]
#
# Prints the bytes that each machine sent, by the counters of the interfaces, and leaves nothing behind.
set -eu
solver=$1
python=${2:-python}
one=caffe-one-$$
two=caffe-two-$$

clean() {
    ip netns del "$one" 2>/dev/null || true
    ip netns del "$two" 2>/dev/null || true
}
trap clean EXIT INT TERM

ip netns add "$one"
ip netns add "$two"
ip link add veth0 netns "$one" type veth peer name veth0 netns "$two"
ip -n "$one" addr add 10.77.0.1/24 dev veth0
ip -n "$two" addr add 10.77.0.2/24 dev veth0
for machine in "$one" "$two"; do
    ip -n "$machine" link set lo up
    ip -n "$machine" link set veth0 up
done

run() {
    ip netns exec "$1" "$python" -m torch.distributed.run --nnodes=2 --nproc-per-node=1 --node-rank="$2" \
        --master-addr=10.77.0.1 --master-port=29511 -m caffe train -solver "$solver" -timeout 60
}
run "$two" 1 &
other=$!
run "$one" 0
wait "$other"
for machine in "$one" "$two"; do
    echo "$machine sent $(ip netns exec "$machine" cat /sys/class/net/veth0/statistics/tx_bytes) bytes"
done
