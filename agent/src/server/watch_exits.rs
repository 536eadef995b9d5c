//! Exits, those that have happened first.

use std::sync::Arc;

use super::Sender;
use super::api::ContainerExit;
use super::list_containers::exit_message;
use crate::guest::Guest;

pub async fn watch_exits(guest: Arc<Guest>, answers: Sender<ContainerExit>) {
    let mut news = guest.containers.watch_exits();
    let mut finished = guest.finished.subscribe();
    let mut sent = 0;
    loop {
        news.borrow_and_update();
        for (id, exit) in guest.containers.exits_after(sent) {
            sent = exit.number;
            if answers.send(Ok(exit_message(&id, &exit))).await.is_err() {
                return;
            }
        }
        tokio::select! {
            changed = news.changed() => if changed.is_err() { return },
            () = answers.closed() => return,
            _ = finished.wait_for(|finished| *finished) => return,
        }
    }
}
