//! rtnetlink requests as bytes (linux/netlink.h, linux/rtnetlink.h, linux/if_link.h). Only what the agent
//! asks for, so that a library of several hundred kilobytes is not needed.

use std::io;
use std::net::IpAddr;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const HEADER_BYTES: usize = 16;
const ALIGN_BYTES: usize = 4;

/// A request that is being written; attributes are appended.
struct Request {
    bytes: Vec<u8>,
}

impl Request {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(body);
        Request { bytes }
    }

    fn attribute(mut self, kind: u16, data: &[u8]) -> Self {
        self.bytes.extend_from_slice(&attribute(kind, data));
        self
    }

    fn done(mut self) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX).to_ne_bytes();
        self.bytes.splice(..length.len(), length);
        self.bytes
    }
}

/// May be another one's data.
fn attribute(kind: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(ALIGN_BYTES), 0);
    bytes
}

/// `struct ifinfomsg` of an RTM_NEWLINK for one interface.
fn link(index: u32, flags: u32, change: u32) -> Request {
    let mut body = [0_u8; 4].to_vec();
    body.extend_from_slice(&index.to_ne_bytes());
    body.extend_from_slice(&flags.to_ne_bytes());
    body.extend_from_slice(&change.to_ne_bytes());
    Request::new(libc::RTM_NEWLINK, 0, &body)
}

const IFF_UP: u32 = 1;

pub fn set_up(index: u32) -> Vec<u8> {
    link(index, IFF_UP, IFF_UP).done()
}

pub fn set_down(index: u32) -> Vec<u8> {
    link(index, 0, IFF_UP).done()
}

pub fn rename(index: u32, name: &str) -> Vec<u8> {
    let mut name = name.as_bytes().to_vec();
    name.push(0);
    link(index, 0, 0).attribute(libc::IFLA_IFNAME, &name).done()
}

/// How an interface is before it is raised. Absent: as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkSettings<'a> {
    /// Checked, six octets in hexadecimal with colons.
    pub mac: Option<&'a str>,
    pub mtu: Option<u32>,
    /// Whether it gives itself a link-local IPv6 address once it is up.
    pub link_local: Option<bool>,
}

/// All in one request, as each has the kernel tell everybody about the interface again.
pub fn set_link(index: u32, settings: &LinkSettings<'_>) -> Vec<u8> {
    const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
    const IN6_ADDR_GEN_MODE_EUI64: u8 = 0;
    const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
    let mut request = link(index, 0, 0);
    if let Some(mac) = settings.mac {
        let octets: Vec<u8> = mac.split(':').filter_map(|octet| u8::from_str_radix(octet, 16).ok()).collect();
        request = request.attribute(libc::IFLA_ADDRESS, &octets);
    }
    if let Some(mtu) = settings.mtu {
        request = request.attribute(libc::IFLA_MTU, &mtu.to_ne_bytes());
    }
    if let Some(link_local) = settings.link_local {
        let mode = if link_local { IN6_ADDR_GEN_MODE_EUI64 } else { IN6_ADDR_GEN_MODE_NONE };
        let inet6 = attribute(IFLA_INET6_ADDR_GEN_MODE, &[mode]);
        request = request
            .attribute(libc::IFLA_AF_SPEC, &attribute(u16::try_from(libc::AF_INET6).unwrap_or(0), &inet6));
    }
    request.done()
}

/// Adds an address, or succeeds when it is there. IPv6 addresses are used at once, without duplicate
/// detection: the network that gave them is responsible for them.
pub fn add_address(index: u32, ip: IpAddr, prefix_length: u8) -> Vec<u8> {
    const IFA_F_NODAD: u8 = 0x02;
    let flags = if ip.is_ipv6() { IFA_F_NODAD } else { 0 };
    let mut body = vec![family(ip), prefix_length, flags, libc::RT_SCOPE_UNIVERSE];
    body.extend_from_slice(&index.to_ne_bytes());
    let request = Request::new(libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &body);
    let request = request.attribute(libc::IFA_LOCAL, &octets(ip)).attribute(libc::IFA_ADDRESS, &octets(ip));
    match ip {
        IpAddr::V4(v4) if prefix_length < 31 => {
            let broadcast = u32::from(v4) | (u32::MAX >> prefix_length);
            request.attribute(libc::IFA_BROADCAST, &broadcast.to_be_bytes()).done()
        }
        _ => request.done(),
    }
}

/// A route to add or replace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteEntry {
    pub destination: IpAddr,
    pub prefix_length: u8,
    pub gateway: Option<IpAddr>,
    /// The gateway is reached over the interface even if no address of it says so.
    pub on_link: bool,
    pub mtu: u32,
    pub metric: u32,
}

/// What `add_address` added.
pub fn remove_address(index: u32, ip: IpAddr, prefix_length: u8) -> Vec<u8> {
    let mut body = vec![family(ip), prefix_length, 0, libc::RT_SCOPE_UNIVERSE];
    body.extend_from_slice(&index.to_ne_bytes());
    Request::new(libc::RTM_DELADDR, 0, &body).attribute(libc::IFA_LOCAL, &octets(ip)).done()
}

pub fn add_route(index: u32, route: &RouteEntry) -> Vec<u8> {
    const RTNH_F_ONLINK: u32 = 4;
    const RTAX_MTU: u16 = 2;
    let scope = match route.gateway {
        None if route.destination.is_ipv4() => libc::RT_SCOPE_LINK,
        _ => libc::RT_SCOPE_UNIVERSE,
    };
    let mut body = vec![family(route.destination), route.prefix_length, 0, 0];
    body.extend_from_slice(&[libc::RT_TABLE_MAIN, libc::RTPROT_STATIC, scope, libc::RTN_UNICAST]);
    let flags = if route.on_link && route.gateway.is_some() { RTNH_F_ONLINK } else { 0 };
    body.extend_from_slice(&flags.to_ne_bytes());
    let mut request = Request::new(libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &body)
        .attribute(libc::RTA_DST, &octets(route.destination))
        .attribute(libc::RTA_OIF, &index.to_ne_bytes());
    if let Some(gateway) = route.gateway {
        request = request.attribute(libc::RTA_GATEWAY, &octets(gateway));
    }
    if route.metric > 0 {
        request = request.attribute(libc::RTA_PRIORITY, &route.metric.to_ne_bytes());
    }
    if route.mtu > 0 {
        request = request.attribute(libc::RTA_METRICS, &attribute(RTAX_MTU, &route.mtu.to_ne_bytes()));
    }
    request.done()
}

fn family(ip: IpAddr) -> u8 {
    let family = if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    u8::try_from(family).unwrap_or(0)
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The result that an NLMSG_ERROR message carries; 0 is success.
pub fn acknowledgement(reply: &[u8]) -> io::Result<()> {
    let kind = reply.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let code = reply
        .get(HEADER_BYTES..HEADER_BYTES + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map(i32::from_ne_bytes);
    match (kind, code) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(code)) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        _ => Err(io::Error::other("an answer that is no acknowledgement")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_right_and_aligned() {
        let route = RouteEntry {
            destination: "::".parse().unwrap(),
            prefix_length: 0,
            gateway: Some("fe80::1".parse().unwrap()),
            on_link: true,
            mtu: 1400,
            metric: 7,
        };
        let requests = [
            set_up(1),
            set_down(2),
            rename(3, "net1"),
            set_link(3, &LinkSettings { mac: Some("02:00:00:00:00:01"), mtu: Some(1450), link_local: None }),
            set_link(3, &LinkSettings { link_local: Some(false), ..LinkSettings::default() }),
            add_address(3, "10.0.0.2".parse().unwrap(), 24),
            add_address(3, "fd00::2".parse().unwrap(), 64),
            add_route(3, &route),
        ];
        for request in requests {
            assert_eq!(u32::from_ne_bytes(request[..4].try_into().unwrap()) as usize, request.len());
            assert_eq!(request.len() % 4, 0);
        }
    }

    #[test]
    fn an_address_carries_its_broadcast() {
        let request = add_address(2, "10.1.2.3".parse().unwrap(), 20);
        let tail = &request[request.len() - 4..];
        assert_eq!(tail, [10, 1, 15, 255]);
    }

    #[test]
    fn reads_acknowledgements() {
        let reply = |code: i32| {
            let mut bytes = vec![0; 36];
            bytes[4] = 2;
            bytes[16..20].copy_from_slice(&code.to_ne_bytes());
            bytes
        };
        assert!(acknowledgement(&reply(0)).is_ok());
        assert_eq!(acknowledgement(&reply(-17)).unwrap_err().raw_os_error(), Some(17));
        for garbage in [&b""[..], &[2; 3], &[0; 40], &[0xff; 17]] {
            assert!(acknowledgement(garbage).is_err());
        }
    }
}
