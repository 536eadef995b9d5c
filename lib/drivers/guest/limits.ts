/** What a guest may say at most. It is hostile (S1): every size, count and time of its answers is bounded here. */
import { KIB, MIB } from '../../base/units.js';

/** Of either direction; agreed in agent.proto. */
export const messageBytesMax = 4 * MIB;
export const outputChunkBytesMax = 64 * KIB;
export const entropyBytes = 512;

/** Characters of a text for a log or an error. */
export const textLengthMax = 512;
/** Characters of a name or version. */
export const wordLengthMax = 128;

/** More containers than any pod has. */
export const containersMax = 4096;
/** Ends of containers that the host has not removed; a guest that tells more makes them up. */
export const exitsRememberedMax = 4096;
/** Repeated ends in one stream. */
export const exitsRepeatedMax = 4096;
/** An exit status has eight bits. */
export const exitCodeMax = 255;
export const cpusMax = 4096;

/** The longest a call waits when its context has no deadline. */
export const unaryTimeoutMs = 300_000;
/** After an exec's exit code, for the call itself to end. */
export const execEndTimeoutMs = 2_000;
/** Quiet connections are tried this often, and given up after this long. */
export const keepaliveTimeMs = 30_000;
export const keepaliveTimeoutMs = 60_000;

/** Between attempts to speak with a guest that answered nonsense: what it sent may have been left by its last connection. */
export const connectRetryFirstMs = 50;
export const connectRetryMaxMs = 1_000;
export const connectAttemptsMax = 100;
/** Of the HTTP/2 session, in MiB as Node counts it: streams, headers and what waits to be sent. */
export const sessionMemoryMib = 32;
