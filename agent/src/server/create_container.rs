//! Checks everything about a container that can be checked before its devices are there.

use std::sync::Arc;

use super::api::{CreateContainerRequest, DeviceLocator, LayerDevice, device_locator::Where};
use crate::container::create::{self, Request};
use crate::container::rootfs::{LAYERS_MAX, check_subdir};
use crate::container::{check_id, config};
use crate::device::Locator;
use crate::fault::{Fault, Outcome};
use crate::guest::Guest;
use crate::net::plan::limit;

pub async fn create_container(guest: &Arc<Guest>, request: CreateContainerRequest) -> Outcome<()> {
    create::create(guest, check(request)?).await
}

fn check(request: CreateContainerRequest) -> Outcome<Request> {
    let CreateContainerRequest { container_id: id, layers, writable_disk, oci_config, stdin } = request;
    check_id(&id)?;
    let count = layers.iter().map(|layer| layer.subdirs.len()).sum();
    limit("layers", count, LAYERS_MAX)?;
    if count == 0 {
        return Err(Fault::invalid("a container needs a layer"));
    }
    let layers = layers.into_iter().map(layer).collect::<Outcome<Vec<_>>>()?;
    let disk = locator(writable_disk.as_ref())?;
    if layers.iter().any(|(place, _)| *place == disk) {
        return Err(Fault::invalid(format!("{disk} is both a layer and the writable disk")));
    }
    // The real values follow when the container is made; what is wrong with the rest shows now.
    config::prepare(&oci_config, &id, "/")?;
    Ok(Request { id, layers, disk, oci_config, stdin })
}

fn layer(layer: LayerDevice) -> Outcome<(Locator, Vec<String>)> {
    layer.subdirs.iter().try_for_each(|subdir| check_subdir(subdir))?;
    Ok((locator(layer.device.as_ref())?, layer.subdirs))
}

fn locator(locator: Option<&DeviceLocator>) -> Outcome<Locator> {
    match locator.and_then(|locator| locator.r#where.as_ref()) {
        Some(Where::Pci(pci)) => Locator::behind(pci.root_port_slot, pci.root_port_function, pci.function),
        Some(Where::NfitHandle(handle)) => Ok(Locator::Nfit { handle: *handle }),
        None => Err(Fault::invalid("a device without a place")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::api::PciLocator;
    use super::*;

    fn place(slot: u32) -> Option<DeviceLocator> {
        let pci = PciLocator { root_port_slot: slot, root_port_function: 0, function: 0 };
        Some(DeviceLocator { r#where: Some(Where::Pci(pci)) })
    }

    fn good() -> CreateContainerRequest {
        CreateContainerRequest {
            container_id: "a".repeat(64),
            layers: vec![LayerDevice { device: place(2), subdirs: vec![String::new()] }],
            writable_disk: place(3),
            oci_config: b"{\"process\":{\"args\":[\"sh\"]}}".to_vec(),
            stdin: false,
        }
    }

    #[test]
    fn takes_a_whole_request() {
        let request = check(good()).unwrap();
        assert_eq!(request.layers.len(), 1);
        assert_eq!(request.disk, Locator::behind(3, 0, 0).unwrap());
    }

    #[test]
    fn refuses_a_request_that_cannot_work() {
        type Spoil = Box<dyn Fn(&mut CreateContainerRequest)>;
        let bad: Vec<Spoil> = vec![
            Box::new(|r| r.container_id = "../etc".into()),
            Box::new(|r| r.layers.clear()),
            Box::new(|r| r.layers[0].subdirs.clear()),
            Box::new(|r| r.layers[0].subdirs = vec!["a".into(); LAYERS_MAX + 1]),
            Box::new(|r| r.layers[0].subdirs = vec!["../x".into()]),
            Box::new(|r| r.layers[0].device = None),
            Box::new(|r| r.layers[0].device = place(32)),
            Box::new(|r| r.writable_disk = None),
            Box::new(|r| r.writable_disk = place(2)),
            Box::new(|r| r.oci_config = b"{".to_vec()),
        ];
        for (number, spoil) in bad.iter().enumerate() {
            let mut request = good();
            spoil(&mut request);
            assert!(check(request).is_err(), "case {number}");
        }
    }
}
