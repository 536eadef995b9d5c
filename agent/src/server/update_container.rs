//! Changes the limits of a container.

use std::sync::Arc;

use super::api::UpdateContainerRequest;
use crate::container::{check_id, resources, update};
use crate::fault::Outcome;
use crate::guest::Guest;
use crate::net::plan::limit;

/// All limits that there are take a few hundred bytes.
const RESOURCES_BYTES_MAX: usize = 64 * 1024;

pub async fn update_container(guest: &Arc<Guest>, request: UpdateContainerRequest) -> Outcome<()> {
    check_id(&request.container_id)?;
    limit("bytes of oci_resources", request.oci_resources.len(), RESOURCES_BYTES_MAX)?;
    let resources = resources::check(&request.oci_resources)?;
    update::update(guest, &request.container_id, resources).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Kind;
    use crate::sys::fake::Fake;

    #[tokio::test]
    async fn refuses_what_are_no_resources_or_no_container() {
        let guest = Guest::for_test(Arc::new(Fake::default()));
        let ask = |container_id: &str, oci_resources: &str| {
            let request = UpdateContainerRequest {
                container_id: container_id.into(),
                oci_resources: oci_resources.as_bytes().to_vec(),
            };
            let guest = guest.clone();
            async move { update_container(&guest, request).await.unwrap_err().kind }
        };
        let id = "a".repeat(64);
        let long = format!("{{\"unified\":{{\"memory.max\":\"{}\"}}}}", "x".repeat(RESOURCES_BYTES_MAX));
        for bad in ["[]", "{\"devices\":[]}", &long] {
            assert_eq!(ask(&id, bad).await, Kind::Invalid, "{bad:.40}");
        }
        assert_eq!(ask("../x", "{\"memory\":{\"limit\":1}}").await, Kind::Invalid);
        assert_eq!(ask(&id, "{\"memory\":{\"limit\":1}}").await, Kind::NotFound);
    }
}
