/**
 * How Node runs the daemon. The first line of main.ts says the same, for whoever starts the program by its
 * name, as the systemd unit does; a test compares them.
 *
 * V8 by itself lets young garbage grow to 16 MiB in each half before it looks, with helper threads that
 * compete with conversions for processors. What lives through a call here is small: collecting early and
 * on the spot took a twentieth of the time of the event loop while an image was pulled, and less memory.
 */
export const daemonNodeFlags = ['--max-semi-space-size=1', '--single-threaded-gc'] as const;
