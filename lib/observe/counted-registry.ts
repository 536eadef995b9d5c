import type { RegistryClient } from '../image/ports.js';

/** The same registries; every part of a layer that comes from one is told. */
export function countedRegistry(registry: RegistryClient, onBytes: (bytes: number) => void): RegistryClient {
  return {
    open(credentials) {
      const source = registry.open(credentials);
      return {
        fetchManifest: (ctx, name) => source.fetchManifest(ctx, name),
        async *fetchBlob(ctx, name, blob, options) {
          for await (const part of source.fetchBlob(ctx, name, blob, options)) {
            onBytes(part.length);
            yield part;
          }
        },
      };
    },
  };
}
