//! Small helpers around threads and tasks.

use std::sync::{Mutex, MutexGuard};

use crate::fault::{Fault, Outcome};

/// Takes a mutex that a panicked task may have held: the data behind ours is whole between statements.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Runs what may wait in the kernel (mounts, forks) off the event loop. Goes on when the caller is dropped.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Outcome<T> + Send + 'static) -> Outcome<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Fault::internal("a worker ended with a fault of its own")))
}

/// Runs to its end even when the caller is dropped, and keeps a panic from the caller.
pub async fn detached<T: Send + 'static>(
    work: impl Future<Output = Outcome<T>> + Send + 'static,
) -> Outcome<T> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|_| Err(Fault::internal("a task ended with a fault of its own")))
}
