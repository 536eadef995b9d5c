//! The pod's interfaces, addresses and routes, by netlink.

pub mod netlink;

use crate::fault::{Doing, Outcome};
use crate::sys::Sys;

const LOOPBACK_INDEX: u32 = 1;

pub fn raise_loopback(sys: &dyn Sys) -> Outcome<()> {
    sys.netlink(&netlink::set_up(LOOPBACK_INDEX)).doing("raise the loopback interface")
}
