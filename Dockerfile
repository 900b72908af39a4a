# The binary alone, as a user without rights, on an image that has no shell. It writes no file: run it with a
# read-only root.
#   docker build --build-arg BUILD_COMMIT="$(git rev-parse --short=12 HEAD)" --tag chat4all .
FROM oven/bun:1.4.5 AS build
WORKDIR /build
COPY package.json bun.lock ./
COPY deploy/patches deploy/patches
RUN bun install --frozen-lockfile --production
COPY deploy/build.ts deploy/build.ts
COPY sql sql
COPY src src
COPY workers workers
ARG BUILD_COMMIT
RUN bun deploy/build.ts --outfile /build/chat4all

FROM gcr.io/distroless/base-debian12:nonroot
COPY --from=build /build/chat4all /usr/local/bin/chat4all
# Inside a container, the loopback address would be heard by nobody.
ENV HOST=0.0.0.0
ENV PORT=3000
EXPOSE 3000
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/usr/local/bin/chat4all", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/chat4all"]
CMD ["serve"]
