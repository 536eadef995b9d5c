//! From the host's words to checked values. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::netlink::RouteEntry;
use crate::fault::{Fault, Outcome};
use crate::server::api;

const INTERFACES_MAX: usize = 16;
const ADDRESSES_MAX: usize = 64;
const ROUTES_MAX: usize = 512;
/// `IFNAMSIZ` without its final NUL.
const NAME_BYTES_MAX: usize = 15;
const MTU_MAX: u32 = 65_535;

/// One interface as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfacePlan {
    pub name: String,
    /// Lower case, with colons, as sysfs writes it.
    pub mac: String,
    /// What it is found by when nobody has given it `mac` yet; the same for a card of its own.
    pub card_mac: String,
    /// 0: as it is.
    pub mtu: u32,
    pub addresses: Vec<(IpAddr, u8)>,
    /// Those without a gateway first: they make the gateways of the others reachable.
    pub routes: Vec<RouteEntry>,
}

pub fn plan(interfaces: &[api::Interface]) -> Outcome<Vec<InterfacePlan>> {
    limit("interfaces", interfaces.len(), INTERFACES_MAX)?;
    let plans = interfaces.iter().map(plan_one).collect::<Outcome<Vec<_>>>()?;
    for (at, one) in plans.iter().enumerate() {
        if plans.iter().skip(at + 1).any(|other| other.name == one.name || other.mac == one.mac) {
            return Err(Fault::invalid(format!(
                "two interfaces are called {} or have its address",
                one.name
            )));
        }
    }
    Ok(plans)
}

/// Everything that a pod's interface may want, with addresses that nobody has (RFC 5737, RFC 3849).
pub fn rehearsal(card_mac: String, has_ipv6: bool) -> InterfacePlan {
    let default_route = |unspecified: IpAddr, gateway: IpAddr| RouteEntry {
        destination: unspecified,
        prefix_length: 0,
        gateway: Some(gateway),
        on_link: false,
        mtu: 0,
        metric: 0,
    };
    let mut addresses = vec![(Ipv4Addr::new(192, 0, 2, 2).into(), 24)];
    let mut routes = vec![default_route(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into())];
    if has_ipv6 {
        let host = |last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into();
        addresses.push((host(2), 64));
        routes.push(default_route(Ipv6Addr::UNSPECIFIED.into(), host(1)));
    }
    // Locally administered, as the card's is.
    let mac = format!("06{}", card_mac.get(2..).unwrap_or_default());
    InterfacePlan { name: "eth0".into(), mac, card_mac, mtu: 1500, addresses, routes }
}

fn plan_one(interface: &api::Interface) -> Outcome<InterfacePlan> {
    let name = interface.name.clone();
    if !is_interface_name(&name) || name == "lo" {
        return Err(Fault::invalid(format!("{name:?} is no name for an interface")));
    }
    limit("addresses", interface.addresses.len(), ADDRESSES_MAX)?;
    limit("routes", interface.routes.len(), ROUTES_MAX)?;
    if interface.mtu > MTU_MAX {
        return Err(Fault::invalid(format!("MTU {} is more than {MTU_MAX}", interface.mtu)));
    }
    let addresses = interface.addresses.iter().map(address).collect::<Outcome<Vec<_>>>()?;
    let mut routes = interface.routes.iter().map(route).collect::<Outcome<Vec<_>>>()?;
    routes.sort_by_key(|route| route.gateway.is_some());
    let own = mac(&interface.mac)?;
    let card_mac = if interface.card_mac.is_empty() { own.clone() } else { mac(&interface.card_mac)? };
    Ok(InterfacePlan { name, mac: own, card_mac, mtu: interface.mtu, addresses, routes })
}

/// A name that the kernel takes and that leads to no other directory of sysfs or procfs.
pub fn is_interface_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.starts_with('.') && name.bytes().all(plain)
}

pub fn mac(text: &str) -> Outcome<String> {
    let lower = text.to_ascii_lowercase();
    let octet = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    if lower.split(':').count() == 6 && lower.split(':').all(octet) {
        return Ok(lower);
    }
    Err(Fault::invalid(format!("{text:?} is no MAC address")))
}

fn ip(text: &str) -> Outcome<IpAddr> {
    text.parse().map_err(|_| Fault::invalid(format!("{text:?} is no IP address")))
}

fn prefix(ip: IpAddr, length: u32) -> Outcome<u8> {
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let length = u8::try_from(length).ok().filter(|length| *length <= most);
    length.ok_or_else(|| Fault::invalid(format!("a prefix of {ip} that is longer than {most}")))
}

fn address(address: &api::Address) -> Outcome<(IpAddr, u8)> {
    let ip = ip(&address.ip)?;
    Ok((ip, prefix(ip, address.prefix_length)?))
}

fn route(route: &api::Route) -> Outcome<RouteEntry> {
    let bad = || Fault::invalid(format!("{:?} is no destination of a route", route.destination));
    let (destination, length) = route.destination.split_once('/').ok_or_else(bad)?;
    let destination = ip(destination)?;
    let prefix_length = prefix(destination, length.parse().map_err(|_| bad())?)?;
    let gateway = match route.gateway.as_str() {
        "" => None,
        text => Some(ip(text)?),
    };
    if gateway.is_some_and(|gateway| gateway.is_ipv4() != destination.is_ipv4()) {
        return Err(Fault::invalid(format!("{} is not of the family of {destination}", route.gateway)));
    }
    let destination = network(destination, prefix_length);
    let (on_link, mtu, metric) = (route.on_link, route.mtu, route.metric);
    Ok(RouteEntry { destination, prefix_length, gateway, on_link, mtu, metric })
}

/// The kernel refuses a destination with host bits.
fn network(ip: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    match ip {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) & !u32::MAX.checked_shr(length).unwrap_or(0)).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::MAX.checked_shr(length).unwrap_or(0)).into()),
    }
}

pub fn limit(what: &str, count: usize, most: usize) -> Outcome<()> {
    if count > most { Err(Fault::invalid(format!("more than {most} {what}"))) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface() -> api::Interface {
        let address = |ip: &str, prefix_length| api::Address { ip: ip.into(), prefix_length };
        let route = |destination: &str, gateway: &str| api::Route {
            destination: destination.into(),
            gateway: gateway.into(),
            ..api::Route::default()
        };
        api::Interface {
            name: "eth0".into(),
            card_mac: String::new(),
            mac: "02:AB:00:00:00:01".into(),
            mtu: 1450,
            addresses: vec![address("10.244.1.7", 32), address("fd00::7", 128)],
            routes: vec![
                route("0.0.0.0/0", "169.254.1.1"),
                route("169.254.1.1/32", ""),
                route("::/0", "fe80::1"),
            ],
        }
    }

    #[test]
    fn orders_routes_so_that_gateways_are_reachable() {
        let plans = plan(&[interface()]).unwrap();
        let first = plans.first().unwrap();
        assert_eq!(first.mac, "02:ab:00:00:00:01");
        let order: Vec<String> = first.routes.iter().map(|route| route.destination.to_string()).collect();
        assert_eq!(order, ["169.254.1.1", "0.0.0.0", "::"]);
    }

    #[test]
    fn clears_host_bits() {
        let cases = [("10.1.2.3", 8, "10.0.0.0"), ("10.1.2.3", 32, "10.1.2.3"), ("1.2.3.4", 0, "0.0.0.0")];
        for (from, length, to) in cases {
            assert_eq!(network(from.parse().unwrap(), length), to.parse::<IpAddr>().unwrap());
        }
        assert_eq!(network("fd00::7".parse().unwrap(), 64), "fd00::".parse::<IpAddr>().unwrap());
        assert_eq!(network("fd00::7".parse().unwrap(), 0), "::".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn refuses_what_is_no_network() {
        type Spoil = Box<dyn Fn(&mut api::Interface)>;
        let bad: Vec<Spoil> = vec![
            Box::new(|i| i.name = String::new()),
            Box::new(|i| i.name = "../../x".into()),
            Box::new(|i| i.name = "..".into()),
            Box::new(|i| i.name = "lo".into()),
            Box::new(|i| i.name = "sixteen-bytes-xx".into()),
            Box::new(|i| i.mac = "02:00".into()),
            Box::new(|i| i.mac = "02:00:00:00:00:0g".into()),
            Box::new(|i| i.mtu = 70_000),
            Box::new(|i| i.addresses[0].prefix_length = 33),
            Box::new(|i| i.addresses[0].ip = "10.0.0".into()),
            Box::new(|i| i.routes[0].destination = "default".into()),
            Box::new(|i| i.routes[0].destination = "10.0.0.0/x".into()),
            Box::new(|i| i.routes[0].gateway = "fe80::1".into()),
            Box::new(|i| i.routes = vec![api::Route::default(); 513]),
        ];
        for (number, spoil) in bad.iter().enumerate() {
            let mut one = interface();
            spoil(&mut one);
            assert!(plan(&[one]).is_err(), "case {number}");
        }
        assert!(plan(&[interface(), interface()]).is_err());
    }
}
