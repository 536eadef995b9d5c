//! Uses the processors that were plugged.

use std::sync::Arc;

use super::api::{OnlineCpusRequest, OnlineCpusResponse};
use crate::cpu;
use crate::fault::Outcome;
use crate::guest::Guest;

pub async fn online_cpus(guest: &Arc<Guest>, request: &OnlineCpusRequest) -> Outcome<OnlineCpusResponse> {
    Ok(OnlineCpusResponse { cpus: cpu::bring_online(guest, request.cpus).await? })
}
