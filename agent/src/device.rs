//! Where devices appear. The host names a place (a PCI position, an NFIT handle); the kernel's sysfs says
//! which block device is there, and its uevents say when to look again.

use std::path::{Path, PathBuf};

use crate::fault::Fault;
use crate::fault::Outcome;
use crate::sys::Sys;

const SLOT_MAX: u32 = 31;
const FUNCTION_MAX: u32 = 7;
/// More block or network devices than a VM of ours can have.
const DEVICES_MAX: usize = 4096;
const ATTRIBUTE_BYTES_MAX: usize = 256;

/// A place where the host puts a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Locator {
    /// A function of the device behind a root port on bus 0.
    Behind { slot: u32, port_function: u32, function: u32 },
    /// A function on bus 0 itself.
    Direct { slot: u32, function: u32 },
    /// An NVDIMM by its ACPI handle.
    Nfit { handle: u32 },
}

impl Locator {
    pub fn behind(slot: u32, port_function: u32, function: u32) -> Outcome<Self> {
        let locator = Locator::Behind { slot, port_function, function };
        let fits = slot <= SLOT_MAX && port_function <= FUNCTION_MAX && function <= FUNCTION_MAX;
        if fits { Ok(locator) } else { Err(Fault::invalid(format!("no such PCI position: {locator}"))) }
    }

    /// Of the kernel command line: `pci:<slot>.<fn>/<fn>`, `pci0:<slot>.<fn>` or `nfit:<handle>`; decimal.
    pub fn parse(text: &str) -> Option<Self> {
        let pair = |text: &str| -> Option<(u32, u32)> {
            let (slot, function) = text.split_once('.')?;
            let (slot, function) = (slot.parse().ok()?, function.parse().ok()?);
            (slot <= SLOT_MAX && function <= FUNCTION_MAX).then_some((slot, function))
        };
        let (kind, place) = text.split_once(':')?;
        match kind {
            "pci" => {
                let (port, function) = place.split_once('/')?;
                let (slot, port_function) = pair(port)?;
                Locator::behind(slot, port_function, function.parse().ok()?).ok()
            }
            "pci0" => pair(place).map(|(slot, function)| Locator::Direct { slot, function }),
            "nfit" => place.parse().ok().map(|handle| Locator::Nfit { handle }),
            _ => None,
        }
    }
}

impl std::fmt::Display for Locator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Locator::Behind { slot, port_function, function } => {
                write!(f, "pci:{slot}.{port_function}/{function}")
            }
            Locator::Direct { slot, function } => write!(f, "pci0:{slot}.{function}"),
            Locator::Nfit { handle } => write!(f, "nfit:{handle}"),
        }
    }
}

/// Name of the block device at the place, such as `pmem0`; undefined while there is none. The kernel shows
/// a device in sysfs before it makes the node, and sends its uevent after both.
pub fn block_at(sys: &dyn Sys, locator: &Locator) -> Option<String> {
    let blocks = Path::new("/sys/class/block");
    let names = sys.list(blocks, DEVICES_MAX).ok()?;
    let found = names.into_iter().find(|name| {
        let link = sys.read_link(&blocks.join(name)).unwrap_or_default();
        let link = link.to_string_lossy();
        match locator {
            Locator::Nfit { handle } => nfit_handle(sys, &link) == Some(*handle),
            _ => pci_matches(locator, &link),
        }
    })?;
    sys.list(Path::new("/dev"), DEVICES_MAX).ok()?.contains(&found).then_some(found)
}

/// Whether a block device's sysfs path leads over the PCI position.
fn pci_matches(locator: &Locator, link: &str) -> bool {
    let mut parts = link.split('/').skip_while(|part| *part != "pci0000:00").skip(1);
    let (Some(first), Some(second)) = (parts.next(), parts.next()) else { return false };
    let driven = |part: Option<&str>| part.is_some_and(|part| part.starts_with("virtio"));
    match locator {
        Locator::Behind { slot, port_function, function } => {
            let behind = second.split_once(':').is_some_and(|(domain, rest)| {
                domain == "0000" && rest.split_once(':').is_some_and(|(_, at)| at == format!("00.{function}"))
            });
            first == format!("0000:00:{slot:02x}.{port_function}") && behind && driven(parts.next())
        }
        Locator::Direct { slot, function } => {
            first == format!("0000:00:{slot:02x}.{function}") && driven(Some(second))
        }
        Locator::Nfit { .. } => false,
    }
}

/// The NFIT handle of the NVDIMM below a pmem device: its region's first mapping names the DIMM.
fn nfit_handle(sys: &dyn Sys, link: &str) -> Option<u32> {
    let region = link.split('/').skip_while(|part| !part.starts_with("ndbus")).nth(1)?;
    let devices = Path::new("/sys/bus/nd/devices");
    let mapping = attribute(sys, devices.join(region).join("mapping0"))?;
    let dimm = mapping.split(',').next()?;
    let handle = attribute(sys, devices.join(dimm).join("nfit/handle"))?;
    u32::from_str_radix(handle.strip_prefix("0x").unwrap_or(&handle), 16).ok()
}

/// A network interface as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    /// Lower case, with colons.
    pub mac: String,
}

/// The network interface with the first of these MAC addresses that there is (lower case, with colons).
pub fn interface_with(sys: &dyn Sys, macs: &[&str]) -> Option<Interface> {
    let class = Path::new("/sys/class/net");
    let names = sys.list(class, DEVICES_MAX).ok()?;
    let present = names.into_iter().filter_map(|name| {
        let mac = attribute(sys, class.join(&name).join("address"))?;
        Some((macs.iter().position(|wanted| *wanted == mac)?, Interface { name, mac }))
    });
    present.min_by_key(|(rank, _)| *rank).map(|(_, interface)| interface)
}

/// The device node of the virtio-serial port with a name.
pub fn serial_port_named(sys: &dyn Sys, wanted: &str) -> Option<PathBuf> {
    let class = Path::new("/sys/class/virtio-ports");
    let names = sys.list(class, DEVICES_MAX).ok()?;
    let found = names
        .into_iter()
        .find(|name| attribute(sys, class.join(name).join("name")).as_deref() == Some(wanted))?;
    Some(Path::new("/dev").join(found))
}

fn attribute(sys: &dyn Sys, path: PathBuf) -> Option<String> {
    let data = sys.read(&path, ATTRIBUTE_BYTES_MAX).ok()?;
    Some(String::from_utf8_lossy(&data).trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake::Fake;

    const BEHIND: &str =
        "../../devices/pci0000:00/0000:00:1c.2/0000:04:00.7/virtio9/ndbus2/region2/namespace2.0/block/pmem2";
    const DIRECT: &str = "../../devices/pci0000:00/0000:00:05.0/virtio1/block/vda";

    #[test]
    fn reads_places_from_the_command_line() {
        let behind = Locator::Behind { slot: 28, port_function: 2, function: 7 };
        assert_eq!(Locator::parse("pci:28.2/7"), Some(behind));
        assert_eq!(Locator::parse("pci0:5.0"), Some(Locator::Direct { slot: 5, function: 0 }));
        assert_eq!(Locator::parse("nfit:1"), Some(Locator::Nfit { handle: 1 }));
        for bad in [
            "",
            "pci",
            "pci:",
            "pci:1",
            "pci:1.0",
            "pci:32.0/0",
            "pci:1.8/0",
            "pci:1.0/8",
            "nfit:-1",
            "nfit:x",
            "usb:1",
            "pci:1.0/0/0",
        ] {
            assert_eq!(Locator::parse(bad), None, "{bad}");
        }
        assert_eq!(Locator::parse(&behind.to_string()), Some(behind));
    }

    #[test]
    fn matches_pci_positions_exactly() {
        let at = |text| Locator::parse(text).unwrap();
        assert!(pci_matches(&at("pci:28.2/7"), BEHIND));
        assert!(!pci_matches(&at("pci:28.2/6"), BEHIND));
        assert!(!pci_matches(&at("pci:28.1/7"), BEHIND));
        assert!(!pci_matches(&at("pci0:28.2"), BEHIND));
        assert!(pci_matches(&at("pci0:5.0"), DIRECT));
        assert!(!pci_matches(&at("pci:5.0/0"), DIRECT));
        for garbage in ["", "/", "pci0000:00", "a/pci0000:00/b", "../../devices/virtual/block/loop0"] {
            assert!(!pci_matches(&at("pci0:5.0"), garbage), "{garbage}");
        }
    }

    #[test]
    fn finds_block_devices_by_pci_and_nfit() {
        let fake = Fake::default();
        fake.link("/sys/class/block/pmem2", BEHIND);
        fake.link("/sys/class/block/vda", DIRECT);
        fake.link(
            "/sys/class/block/pmem0",
            "../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/pfn0.0/block/pmem0",
        );
        fake.file("/sys/bus/nd/devices/region0/mapping0", "nmem3,0,1048576,0\n");
        fake.file("/sys/bus/nd/devices/nmem3/nfit/handle", "0x11\n");
        let find = |text| block_at(&fake, &Locator::parse(text).unwrap());
        assert_eq!(find("pci0:5.0"), None, "its node is not there yet");
        for node in ["/dev/pmem0", "/dev/pmem2", "/dev/vda"] {
            fake.file(node, "");
        }
        assert_eq!(find("pci:28.2/7").as_deref(), Some("pmem2"));
        assert_eq!(find("pci0:5.0").as_deref(), Some("vda"));
        assert_eq!(find("nfit:17").as_deref(), Some("pmem0"));
        assert_eq!(find("nfit:16"), None);
        assert_eq!(find("pci:1.0/0"), None);
    }

    #[test]
    fn finds_interfaces_and_ports() {
        let fake = Fake::default();
        fake.file("/sys/class/net/eth0/address", "02:00:00:00:00:01\n");
        fake.file("/sys/class/virtio-ports/vport0p1/name", "other\n");
        fake.file("/sys/class/virtio-ports/vport0p2/name", "herkos.agent.0\n");
        let [first, second] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];
        let named = |macs: &[&str]| interface_with(&fake, macs).map(|interface| interface.name);
        assert_eq!(named(&[first]).as_deref(), Some("eth0"));
        assert_eq!(named(&[second]), None);
        assert_eq!(named(&[second, first]).as_deref(), Some("eth0"));
        assert_eq!(serial_port_named(&fake, "herkos.agent.0"), Some(PathBuf::from("/dev/vport0p2")));
    }
}
