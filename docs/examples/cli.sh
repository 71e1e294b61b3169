#!/bin/sh
# The same with the command line of NATS: sh cli.sh QUESTION
set -eu
question=$1
export NATS_URL="${SKELGRAPH_NATS_URL:-nats://127.0.0.1:4222}"

# Who answers.
nats micro ls

# Ask and wait. The id is ours, so that the same line once more asks once.
request=$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
nats request skelgraph.v1.answer --raw --timeout 120s \
    "{\"request\": \"$request\", \"question\": \"$question\", \"mode\": \"sgd\"}"

# The first facts that are stored of it; without --count it goes on listening.
nats sub "skelgraph.v1.event.*.$request.>" --all --raw --count 4

# Store another one, and cancel it.
nats request skelgraph.v1.submit --raw "{\"request\": \"$request-2\", \"question\": \"$question\"}"
nats request "skelgraph.v1.cancel.$request-2" --raw '{"reason": "changed my mind"}'
nats request "skelgraph.v1.answer.$request-2" --raw '{}'
