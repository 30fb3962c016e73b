# syntax=docker/dockerfile:1
# The server alone, not as root, in some 100 MB: docker build -t qbc .
FROM rust:1-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ python3 python3-venv strace libclang-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# scripts/env.sh builds RocksDB once and tells cargo where it is.
RUN bash -c '. scripts/env.sh && cargo build --profile dist --bin qbc && strip target/dist/qbc'

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends libstdc++6 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 7420 --home-dir /var/lib/qbc --shell /usr/sbin/nologin qbc \
 && install -d -o qbc -g qbc -m 0700 /var/lib/qbc
COPY --from=build /src/target/dist/qbc /usr/local/bin/qbc
USER 7420:7420
VOLUME /var/lib/qbc
EXPOSE 7420
# SIGTERM hands the leaderships over first.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["qbc", "chains", "no-chain-begins-so", "--endpoint", "http://127.0.0.1:7420", "--deadline-s", "4"]
ENTRYPOINT ["qbc"]
# Outside a container the node would refuse to listen beyond loopback unasked: publish the port to whom you mean.
CMD ["serve", "--data", "/var/lib/qbc", "--listen", "0.0.0.0:7420", "--insecure"]
