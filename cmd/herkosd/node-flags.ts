/**
 * How Node runs the daemon. The first line of main.ts says the same, for whoever starts the program by its
 * name, as the systemd unit does; a test compares them.
 *
 * V8 by itself lets young garbage grow to 16 MiB in each half before it looks, and gives collecting to helper
 * threads that compete with conversions for processors. What lives through a call here is small, so collecting
 * early and on the spot is cheaper: with 1,000 pods listed while an image is pulled, the event loop's
 * collections took 0.26 s instead of 0.65 s, 21 ms instead of 77 ms at most, and the process had 60 MiB less.
 * The small heap without the second flag took longer than neither. Conversion threads ask for a larger one.
 */
export const daemonNodeFlags = ['--max-semi-space-size=1', '--single-threaded-gc'] as const;
