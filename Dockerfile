# Leno's images: `controller` and `proxy`.
#
#   docker build --target controller -t leno/controller:0.1.0 .
#   docker build --target proxy      -t leno/proxy:0.1.0 .
#
# Binaries built elsewhere can take the place of the `build` stage, given as a folder that holds leno-controller and leno-proxy:
#
#   buildah bud --target proxy --build-context build=FOLDER -t leno/proxy:0.1.0 .

FROM docker.io/library/rust:1.95-bookworm AS compile
WORKDIR /leno
COPY . .
# Static binaries: the final images hold nothing else.
RUN bin="$(src/build-release --images)" && install -D -t /out "$bin/leno-controller" "$bin/leno-proxy"

FROM scratch AS build
COPY --from=compile /out/ /

FROM scratch AS controller
COPY --from=build /leno-controller /leno-controller
USER 65532:65532
EXPOSE 8443 9090 15110
ENTRYPOINT ["/leno-controller"]

FROM scratch AS proxy
COPY --from=build /leno-proxy /leno-proxy
# The sidecar's user: what it sends is never redirected. The injector runs `leno-proxy init` as root, with NET_ADMIN alone.
USER 15100:15100
EXPOSE 15101 15106 15120
ENTRYPOINT ["/leno-proxy"]
