#!/bin/sh
# The same with the command line of NATS: sh cli.sh QUESTION (without quotes and backslashes)
set -eu
question=$1
export NATS_URL="${SKELGRAPH_NATS_URL:-nats://127.0.0.1:4222}"
if [ -n "${SKELGRAPH_NATS_CREDS:-}" ]; then export NATS_CREDS="$SKELGRAPH_NATS_CREDS"; fi
if [ -n "${SKELGRAPH_NATS_CA:-}" ]; then export NATS_CA="$SKELGRAPH_NATS_CA"; fi
if [ -n "${SKELGRAPH_NATS_CERT:-}" ]; then
    export NATS_CERT="$SKELGRAPH_NATS_CERT" NATS_KEY="$SKELGRAPH_NATS_KEY"
fi
tenant=${SKELGRAPH_ID_PREFIX:-}

# Who answers. (A tenant is not told.)
if [ -z "$tenant" ]; then nats micro ls; fi

# Ask and wait. The id is ours, so that the same line once more asks once.
request=$tenant$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
nats request skelgraph.v1.answer --raw --timeout 120s \
    "{\"request\": \"$request\", \"question\": \"$question\", \"mode\": \"sgd\"}"

if [ -z "${SKELGRAPH_NATS_CREDS:-}" ]; then
    # The first facts that are stored of it; without --count it goes on listening.
    nats sub "skelgraph.v1.event.*.$request.>" --all --raw --count 4
else
    # With credentials they are read by subject: accepted, planned.1, …, plan, decoded.1, …, end.
    log='$JS.API.DIRECT.GET.SKELGRAPH_EVENTS'
    for fact in accepted decoded.1; do
        nats request "$log.skelgraph.v1.event.*.$request.$fact" --raw ''
    done
fi

# Store another one, and cancel it.
nats request skelgraph.v1.submit --raw "{\"request\": \"$request-2\", \"question\": \"$question\"}"
nats request "skelgraph.v1.cancel.$request-2" --raw '{"reason": "changed my mind"}'
nats request "skelgraph.v1.answer.$request-2" --raw '{}'
