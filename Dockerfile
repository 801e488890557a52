# The images for people who have only Docker; `make images` makes the same from a checkout with Rust.
#
#   docker build --target berth-operator --tag berth-operator:dev .
#   docker build --target berth-registry --tag berth-registry:dev .

ARG RUST_VERSION=1.95
FROM rust:${RUST_VERSION}-slim-bookworm AS build
WORKDIR /src
COPY . .
# The target is named, so that static linking does not apply to procedural macros.
RUN target=$(rustc -vV | sed -n 's/^host: //p') \
 && RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target "$target" -p operator -p registry \
 && mkdir /out \
 && mv target/"$target"/release/berth-operator target/"$target"/release/berth-registry /out

FROM scratch AS berth-registry
LABEL org.opencontainers.image.title=berth-registry \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.source=https://github.com/berth-dev/berth
COPY --from=build /out/berth-registry /berth-registry
USER 65532:65532
ENTRYPOINT ["/berth-registry"]

FROM scratch AS berth-operator
LABEL org.opencontainers.image.title=berth-operator \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.source=https://github.com/berth-dev/berth
COPY --from=build /out/berth-operator /berth-operator
USER 65532:65532
ENTRYPOINT ["/berth-operator"]
