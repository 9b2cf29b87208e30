#!/usr/bin/env bash
# A session with a generic gRPC client: no stubs, no protos; the server describes itself by reflection.
#   examples/shell/session.sh [HOST:PORT]     (or EPOCHD_SERVER; 127.0.0.1:50051 without either)
# Needs buf (https://buf.build/docs/cli, or `pip install buf-bin`) and od from coreutils.
set -euo pipefail

server="http://${1:-${EPOCHD_SERVER:-127.0.0.1:50051}}"
buf=${BUF:-buf}

call() { # call METHOD JSON: one request, every response as JSON
  "$buf" curl --protocol grpc --http2-prior-knowledge -d "$2" "$server/$1"
}
field() { # field NAME: the (last) value of a text field in JSON on standard input
  sed -n 's/.*"'"$1"'": *"\([^"]*\)".*/\1/p' | tail -n 1
}
floats() { # floats SIZE: little-endian numbers of SIZE bytes, in base64, as text
  base64 -d | od -A n -t "f$1" | xargs
}

echo "── Is it ready?"
call grpc.health.v1.Health/Check '{"service": "epochd.v1.Trainer"}'

echo "── Train on three points; the epoch logs come as they happen"
log=$(mktemp) && trap 'rm -f "$log"' EXIT
call epochd.v1.Trainer/Train '{
  "modelName": "three-points-shell",
  "data": {"tensors": {"features": {"shape": [3, 1], "numbers": {"values": [1, 2, 3]}},
                       "targets":  {"shape": [3, 1], "numbers": {"values": [2, 4, 6]}}}},
  "model": {"linear": {}, "init": "INIT_ZEROS"},
  "loss": {"mse": {}},
  "gradient": {"epochs": 2000, "optimizer": {"sgd": {"lr": 0.01}}},
  "logging": {"every": 500}
}' | tee "$log"
version=$(field modelVersion <"$log")

echo "── Predict for 4 with $version"
answer=$(call epochd.v1.Trainer/Predict '{"model": "'"$version"'", "tensor": {"shape": [1, 1], "numbers": {"values": [4]}}}')
echo "4 → $(field data <<<"$answer" | floats 4)"

echo "── The derivative of the sigmoid at 37, where autograd in float64 says 0"
answer=$(call epochd.v1.Trainer/ActivationTransform '{
  "input": {"shape": [1], "numbers": {"values": [37]}},
  "chain": [{"function": "ACTIVATION_FUNCTION_SIGMOID", "operation": "ACTIVATION_OPERATION_DERIVATIVE"}]
}')
echo "σ'(37) = $(field data <<<"$answer" | floats 8)"

echo "── A gradient by autograd"
answer=$(call epochd.v1.Trainer/Differentiate '{
  "expression": "2*w**2 + 5", "variables": [{"name": "w", "tensor": {"numbers": {"values": [2]}}}]
}')
echo "d(2w² + 5)/dw at w = 2: $(sed -n '/"history"/q; p' <<<"$answer" | field data | floats 8)"

echo "── A mistake: every problem at once, with the field and what would be right"
call epochd.v1.Trainer/Train '{"model": {"linear": {}}, "loss": {"mse": {}},
  "gradient": {"epochs": 0, "optimizer": {"sgd": {"lr": -1}}}}' && exit 1 || true
