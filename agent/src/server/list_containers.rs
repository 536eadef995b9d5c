//! What the agent knows of every container.

use super::api::container_state::Phase as ApiPhase;
use super::api::{ContainerExit, ContainerState, ListContainersResponse};
use crate::container::{Exit, Phase};
use crate::guest::Guest;

pub fn list_containers(guest: &Guest) -> ListContainersResponse {
    let mut containers = Vec::new();
    for container in guest.containers.all() {
        let (phase, exit) = match container.phase() {
            // Not a container yet: the call that creates it tells what becomes of it.
            Phase::Creating => continue,
            Phase::Created { .. } => (ApiPhase::Created, None),
            Phase::Running { .. } => (ApiPhase::Running, None),
            Phase::Exited(exit) => (ApiPhase::Exited, Some(exit_message(&container.id, &exit))),
        };
        containers.push(ContainerState { container_id: container.id.clone(), phase: phase.into(), exit });
    }
    containers.sort_by(|one, other| one.container_id.cmp(&other.container_id));
    ListContainersResponse { containers }
}

pub fn exit_message(id: &str, exit: &Exit) -> ContainerExit {
    ContainerExit {
        container_id: id.to_string(),
        exit_code: exit.code,
        oom_killed: exit.oom_killed,
        finished_at_unix_nano: exit.finished_at_unix_nano,
    }
}
