//! The pod's interfaces, addresses and routes.

pub mod netlink;
pub mod plan;

use std::io;
use std::path::Path;
use std::time::Duration;

use self::netlink::LinkSettings;
use self::plan::{InterfacePlan, is_interface_name};
use crate::device::{Interface, interface_with};
use crate::fault::{Doing, Fault, Outcome};
use crate::sync::blocking;
use crate::sys::Sys;
use crate::uevent::Devices;

use std::sync::Arc;

const LOOPBACK_INDEX: u32 = 1;
const INTERFACE_TIMEOUT: Duration = Duration::from_secs(30);
const INTERFACES: &str = "/sys/class/net";
const HAS_IPV6: &str = "/proc/net/if_inet6";
const IPV6_OF_NEW: &str = "/proc/sys/net/ipv6/conf/default";

pub fn raise_loopback(sys: &dyn Sys) -> Outcome<()> {
    sys.netlink(&netlink::set_up(LOOPBACK_INDEX)).doing("raise the loopback interface")
}

/// For every interface that appears from now on. Addresses come from the host alone, and a link-local one has to
/// serve at once: no router advertisements, no detection of duplicates. Without IPv6 there is nothing to do.
pub fn quiet_ipv6(sys: &dyn Sys) {
    for setting in ["accept_dad", "accept_ra"] {
        let _ = sys.write(&Path::new(IPV6_OF_NEW).join(setting), b"0");
    }
}

/// Waits until every interface is there, then configures them in order.
pub async fn apply(sys: &Arc<dyn Sys>, devices: &Devices, plans: Vec<InterfacePlan>) -> Outcome<()> {
    for plan in &plans {
        let what = format!("the interface with MAC address {}", plan.mac);
        devices.wait(what, INTERFACE_TIMEOUT, |sys| find(sys, plan)).await?;
    }
    let sys = sys.clone();
    blocking(move || plans.iter().try_for_each(|plan| configure(sys.as_ref(), plan))).await
}

/// Waits for a card that is nobody's yet, raises it as a pod's would be, and takes everything back but its name.
/// Nobody hears it: the host forwards nothing from or to a machine without a pod.
pub async fn rehearse(sys: &Arc<dyn Sys>, devices: &Devices, card_mac: &str) -> Outcome<()> {
    let card_mac = plan::mac(card_mac)?;
    let what = format!("the interface with MAC address {card_mac}");
    devices.wait(what, INTERFACE_TIMEOUT, |sys| interface_with(sys, &[&card_mac])).await?;
    let sys = sys.clone();
    blocking(move || {
        let plan = plan::rehearsal(card_mac, sys.read(Path::new(HAS_IPV6), 1).is_ok());
        configure(sys.as_ref(), &plan)?;
        take_back(sys.as_ref(), &plan)
    })
    .await
}

/// With the interface go its routes and IPv6 addresses.
fn take_back(sys: &dyn Sys, plan: &InterfacePlan) -> Outcome<()> {
    let index = index_of(sys, &plan.name).ok_or_else(|| Fault::internal("the card has gone"))?;
    sys.netlink(&netlink::set_down(index)).doing("set the card down again")?;
    for (ip, prefix_length) in plan.addresses.iter().filter(|(ip, _)| ip.is_ipv4()) {
        sys.netlink(&netlink::remove_address(index, *ip, *prefix_length)).doing("remove its address")?;
    }
    let card = LinkSettings { mac: Some(&plan.card_mac), ..LinkSettings::default() };
    sys.netlink(&netlink::set_link(index, &card)).doing("give it its MAC address back")
}

/// By its own address when it has been given it, else by that of its card.
fn find(sys: &dyn Sys, plan: &InterfacePlan) -> Option<Interface> {
    interface_with(sys, &[&plan.mac, &plan.card_mac])
}

fn configure(sys: &dyn Sys, plan: &InterfacePlan) -> Outcome<()> {
    let gone = || Fault::internal(format!("the interface with MAC address {} has gone", plan.mac));
    let Interface { name: present, mac } = find(sys, plan).ok_or_else(gone)?;
    let index = index_of(sys, &present).ok_or_else(gone)?;
    let ask =
        |request: Vec<u8>, what: &str| sys.netlink(&request).doing(format_args!("{}: {what}", plan.name));
    if present != plan.name {
        make_way(sys, &plan.name)?;
        // The kernel renames no interface that is up.
        ask(netlink::set_down(index), "set down")?;
        ask(netlink::rename(index, &plan.name), "rename")?;
    }
    if mac != plan.mac {
        // Not every driver changes the address of one that is up.
        ask(netlink::set_down(index), "set down")?;
    }
    settle(sys, index, plan, &mac).doing(format_args!("{}: set its MAC address and MTU", plan.name))?;
    ask(netlink::set_up(index), "set up")?;
    for (ip, prefix_length) in &plan.addresses {
        ask(netlink::add_address(index, *ip, *prefix_length), &format!("add address {ip}/{prefix_length}"))?;
    }
    for route in &plan.routes {
        let what = format!("add route to {}/{}", route.destination, route.prefix_length);
        ask(netlink::add_route(index, route), &what)?;
    }
    Ok(())
}

/// Where the network gives no IPv6 address nobody is there to speak it with, and the interface shall not call
/// for routers and neighbours on its own: it gets no link-local address either.
fn settle(sys: &dyn Sys, index: u32, plan: &InterfacePlan, mac: &str) -> io::Result<()> {
    let settings = LinkSettings {
        mac: (mac != plan.mac).then_some(plan.mac.as_str()),
        mtu: (plan.mtu > 0).then_some(plan.mtu),
        link_local: Some(plan.addresses.iter().any(|(ip, _)| ip.is_ipv6())),
    };
    match sys.netlink(&netlink::set_link(index, &settings)) {
        // A kernel, or an interface, without IPv6; of the request the kernel has done nothing.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            sys.netlink(&netlink::set_link(index, &LinkSettings { link_local: None, ..settings }))
        }
        other => other,
    }
}

/// Another interface may have the wanted name, given by the kernel; it gets a neutral one.
fn make_way(sys: &dyn Sys, name: &str) -> Outcome<()> {
    let Some(index) = index_of(sys, name) else { return Ok(()) };
    let down = sys.netlink(&netlink::set_down(index));
    let renamed = down.and_then(|()| sys.netlink(&netlink::rename(index, &format!("hk{index}"))));
    renamed.doing(format_args!("rename the interface that is called {name}"))
}

fn index_of(sys: &dyn Sys, name: &str) -> Option<u32> {
    if !is_interface_name(name) {
        return None;
    }
    let data = sys.read(&Path::new(INTERFACES).join(name).join("ifindex"), 16).ok()?;
    String::from_utf8_lossy(&data).trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake::Fake;

    fn plan() -> InterfacePlan {
        InterfacePlan {
            name: "eth0".into(),
            mac: "02:00:00:00:00:01".into(),
            card_mac: "02:00:00:00:00:01".into(),
            mtu: 1450,
            addresses: vec![("10.0.0.2".parse().unwrap(), 24)],
            routes: vec![],
        }
    }

    #[test]
    fn frees_the_wanted_name_and_renames_while_down() {
        let fake = Fake::default();
        fake.file("/sys/class/net/eth0/address", "02:00:00:00:00:09\n");
        fake.file("/sys/class/net/eth0/ifindex", "2\n");
        fake.file("/sys/class/net/eth1/address", "02:00:00:00:00:01\n");
        fake.file("/sys/class/net/eth1/ifindex", "3\n");
        configure(&fake, &plan()).unwrap();
        let expected = [
            netlink::set_down(2),
            netlink::rename(2, "hk2"),
            netlink::set_down(3),
            netlink::rename(3, "eth0"),
            netlink::set_link(3, &LinkSettings { mac: None, mtu: Some(1450), link_local: Some(false) }),
            netlink::set_up(3),
            netlink::add_address(3, "10.0.0.2".parse().unwrap(), 24),
        ];
        assert_eq!(fake.netlink_requests(), expected);
    }

    #[test]
    fn new_interfaces_take_no_advertisements() {
        let fake = Fake::default();
        quiet_ipv6(&fake);
        let default = "write /proc/sys/net/ipv6/conf/default";
        assert_eq!(fake.calls(), [format!("{default}/accept_dad 0"), format!("{default}/accept_ra 0")]);
    }

    #[test]
    fn an_interface_has_a_link_local_address_only_beside_others_of_ipv6() {
        let settled = |address: &str, has_ipv6: bool| {
            let fake = Fake::default();
            if !has_ipv6 {
                fake.refuse_netlink_once(libc::EAFNOSUPPORT);
            }
            let plan = InterfacePlan { addresses: vec![(address.parse().unwrap(), 24)], ..plan() };
            settle(&fake, 2, &plan, &plan.mac).unwrap();
            fake.netlink_requests()
        };
        let with =
            |link_local| netlink::set_link(2, &LinkSettings { mac: None, mtu: Some(1450), link_local });
        assert_eq!(settled("10.0.0.2", true), [with(Some(false))]);
        assert_eq!(settled("fd00::2", true), [with(Some(true))]);
        assert_eq!(settled("10.0.0.2", false), [with(Some(false)), with(None)]);
    }

    #[test]
    fn an_interface_that_has_its_name_stays_up() {
        let fake = Fake::default();
        fake.file("/sys/class/net/eth0/address", "02:00:00:00:00:01\n");
        fake.file("/sys/class/net/eth0/ifindex", "2\n");
        configure(&fake, &plan()).unwrap();
        assert!(!fake.netlink_requests().contains(&netlink::set_down(2)));
    }

    #[test]
    fn a_card_that_waited_gets_the_address_of_the_pod() {
        let fake = Fake::default();
        fake.file("/sys/class/net/eth0/address", "02:00:00:00:00:77\n");
        fake.file("/sys/class/net/eth0/ifindex", "2\n");
        let plan = InterfacePlan { card_mac: "02:00:00:00:00:77".into(), ..plan() };
        configure(&fake, &plan).unwrap();
        let settings = LinkSettings { mac: Some(&plan.mac), mtu: Some(1450), link_local: Some(false) };
        let expected = [netlink::set_down(2), netlink::set_link(2, &settings)];
        assert_eq!(fake.netlink_requests()[..2], expected);
        // Asked again, after the kernel has taken it.
        fake.file("/sys/class/net/eth0/address", "02:00:00:00:00:01\n");
        configure(&fake, &plan).unwrap();
        assert_eq!(fake.netlink_requests().iter().filter(|one| **one == expected[1]).count(), 1);
    }

    #[test]
    fn what_was_rehearsed_is_taken_back() {
        let fake = Fake::default();
        let card = "02:68:6b:00:00:00";
        fake.file("/sys/class/net/eth0/address", &format!("{card}\n"));
        fake.file("/sys/class/net/eth0/ifindex", "2\n");
        let plan = plan::rehearsal(card.into(), true);
        configure(&fake, &plan).unwrap();
        take_back(&fake, &plan).unwrap();
        let asked = fake.netlink_requests();
        let of = |kind: u16| asked.iter().filter(|one| one[4..6] == kind.to_ne_bytes()).count();
        let (v4, v6) = (1, 1);
        assert_eq!((of(libc::RTM_NEWADDR), of(libc::RTM_DELADDR)), (v4 + v6, v4));
        let with = |mac| LinkSettings { mac: Some(mac), ..LinkSettings::default() };
        let raised = LinkSettings { mtu: Some(1500), link_local: Some(true), ..with(&plan.mac) };
        assert_eq!(asked[1], netlink::set_link(2, &raised));
        assert_eq!(*asked.last().unwrap(), netlink::set_link(2, &with(card)));
        assert_ne!(plan.mac, card);
        let without = plan::rehearsal(card.into(), false);
        assert!(without.addresses.iter().all(|(ip, _)| ip.is_ipv4()) && without.routes.len() == 1);
    }

    #[test]
    fn says_when_the_interface_has_gone() {
        assert!(configure(&Fake::default(), &plan()).unwrap_err().message.contains("has gone"));
    }
}
