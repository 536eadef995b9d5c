/** Names that clients see. */
export const runtimeName = 'herkos';
/** What `Version` must return as `version` (kubelet checks it). */
export const kubeletApiVersion = '0.1.0';
export const criApiVersion = 'v1';
/** RuntimeClass handlers that are served; the empty one is the default. */
export const runtimeHandlers: readonly string[] = ['', 'herkos'];
