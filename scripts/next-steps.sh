#!/usr/bin/env bash
# What to do once the node runs.
cat <<'T'

QBC is built. The node starts now; its data is in ./qbc-data, Ctrl-C stops it. In another terminal:

  alias qbc=target/release/qbc
  qbc bang orders --content json
  echo '{"item":"tea","count":2}' | qbc inject orders -
  qbc leap orders
  qbc prove orders 0 -o proof.json
  qbc verify proof.json             # also with the node stopped

T
