# syntax=docker/dockerfile:1
#
#   docker build --target runtime --tag checkback .         the service, for production
#   docker build --target dev --tag checkback-dev .         everything: demo, simulators, a private Postgres
#
# By hand: cargo build --release --locked --no-default-features is all that `runtime` holds.

# Dependencies alone, so that a change of the source compiles only the source.
FROM rust:1.95-bookworm AS dependencies
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
# Benches have no stand-in here, so their sections are left out of the manifest.
RUN sed -i '/^\[\[bench\]\]/,/^$/d' Cargo.toml \
    && mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --no-default-features --lib --bins

FROM dependencies AS source
COPY . .
# The stand-ins are newer than what was just copied, and cargo goes by time.
RUN touch src/main.rs src/lib.rs

FROM source AS build-runtime
RUN cargo build --release --locked --no-default-features --bin checkback && mkdir /evidence

FROM source AS build-dev
RUN cargo build --release --locked --bin checkback


# Everything on one machine: `docker run --rm checkback-dev` shows the demo.
FROM debian:bookworm-slim AS dev
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends postgresql-common \
    && sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf \
    && apt-get install --yes --no-install-recommends ca-certificates postgresql \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 65532 --create-home --home-dir /data checkback
COPY --from=build-dev /build/target/release/checkback /usr/local/bin/checkback
USER 65532:65532
WORKDIR /data
EXPOSE 8080 8081 9090
ENTRYPOINT ["checkback"]
CMD ["demo"]


# The service and nothing else. Of the bases that fit, this one is the smallest that holds what the binary needs from
# outside (glibc and its resolver, the CA bundle for TLS to the provider, time zones) and neither shell nor package
# manager. A static binary on `scratch` would have to bring bundle and resolver by itself; a slim Debian brings a
# shell and some eighty packages to keep patched. Only evidence is written, and only where CHECKBACK_EVIDENCE__URL is a
# folder: mount a volume there and the root file system read-only.
FROM gcr.io/distroless/cc-debian12:nonroot AS runtime
COPY --from=build-runtime /build/target/release/checkback /usr/local/bin/checkback
# A new volume takes over whose folder this is.
COPY --from=build-runtime --chown=65532:65532 /evidence /evidence
USER 65532:65532
ENV CHECKBACK_EVIDENCE__URL=file:/evidence
# In a container the loopback address reaches nobody. So keys are required: auth.mode = "none" is refused here.
ENV CHECKBACK_SERVER__INTERNAL_LISTEN=0.0.0.0:8081
EXPOSE 8080 8081
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["checkback", "health"]
ENTRYPOINT ["checkback"]
CMD ["serve"]
