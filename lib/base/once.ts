/** Does `body` once for all who ask; after a failure the next who asks has it tried again. */
export function once<T>(body: () => Promise<T>): () => Promise<T> {
  let done: Promise<T> | undefined;
  return async () =>
    (done ??= body().catch((error: unknown) => {
      done = undefined;
      throw error;
    }));
}
