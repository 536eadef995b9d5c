//! `/sbin/modprobe` of the guest, a link to this binary: the kernel starts it when something asks for what
//! a module brings, such as the first bridge that a container makes. It knows the few modules of its list.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::sys::Sys;

/// As the kernel calls it: `/sbin/modprobe -q -- NAME`.
const PROGRAM: &str = "modprobe";
/// Lines of a module's name or alias, and the absolute paths of what is to be loaded for it, in order.
const LIST: &str = "/etc/herkos/modules.demand";
const LIST_BYTES_MAX: usize = 64 * 1024;

/// The exit code, when this process was started as modprobe.
pub fn run_if_asked(sys: &dyn Sys, mut arguments: impl Iterator<Item = String>) -> Option<i32> {
    let program = arguments.next()?;
    if Path::new(&program).file_name() != Some(OsStr::new(PROGRAM)) {
        return None;
    }
    Some(arguments.last().map_or(1, |name| run(sys, &name)))
}

fn run(sys: &dyn Sys, name: &str) -> i32 {
    let list = sys.read(Path::new(LIST), LIST_BYTES_MAX).unwrap_or_default();
    let Some(paths) = find(&String::from_utf8_lossy(&list), name) else { return 1 };
    // The caller asks the kernel again, which says what is missing.
    i32::from(paths.iter().any(|path| sys.load_module(path).is_err()))
}

/// `-` and `_` are the same to the kernel.
fn find(list: &str, name: &str) -> Option<Vec<PathBuf>> {
    let plain = |name: &str| name.replace('-', "_");
    let mut lines = list.lines().map(str::split_ascii_whitespace);
    lines.find_map(|mut words| {
        (plain(words.next()?) == plain(name)).then(|| words.map(PathBuf::from).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake::Fake;

    fn ask(fake: &Fake, words: &str) -> Option<i32> {
        run_if_asked(fake, words.split(' ').map(String::from))
    }

    fn guest() -> Fake {
        let fake = Fake::default();
        fake.file(LIST, "bridge /m/stp.ko /m/bridge.ko\nrtnl-link-bridge /m/stp.ko /m/bridge.ko\n");
        fake
    }

    #[test]
    fn loads_what_a_name_or_an_alias_needs_in_order() {
        for name in ["bridge", "rtnl-link-bridge", "rtnl_link_bridge"] {
            let fake = guest();
            assert_eq!(ask(&fake, &format!("/sbin/modprobe -q -- {name}")), Some(0));
            assert_eq!(fake.calls(), ["load_module /m/stp.ko", "load_module /m/bridge.ko"]);
        }
    }

    #[test]
    fn knows_nothing_beyond_its_list() {
        for words in ["/sbin/modprobe -q -- net-pf-12", "/sbin/modprobe", "/sbin/modprobe /m/stp.ko"] {
            let fake = guest();
            assert_eq!(ask(&fake, words), Some(1));
            assert!(fake.calls().is_empty());
        }
        assert_eq!(ask(&Fake::default(), "/sbin/modprobe -q -- bridge"), Some(1));
    }

    #[test]
    fn fails_with_a_module() {
        let fake = guest();
        fake.fail("load_module /m/stp.ko");
        assert_eq!(ask(&fake, "/sbin/modprobe -q -- bridge"), Some(1));
        assert_eq!(fake.calls(), ["load_module /m/stp.ko"]);
    }

    #[test]
    fn is_not_asked_under_another_name() {
        assert_eq!(ask(&guest(), "/sbin/herkos-agent --root-stage"), None);
        assert_eq!(run_if_asked(&guest(), std::iter::empty()), None);
    }
}
