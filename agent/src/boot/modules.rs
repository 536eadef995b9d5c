//! Kernel modules, in the order of a list that the image's builder made from their dependencies.

use std::path::{Path, PathBuf};

use crate::console::say;
use crate::sys::Sys;

const LIST_BYTES_MAX: usize = 64 * 1024;

/// Absolute paths, one a line; empty lines and lines that start with `#` do not count.
pub fn parse(list: &str) -> Vec<PathBuf> {
    let lines = list.lines().map(str::trim);
    lines.filter(|line| line.starts_with('/')).map(PathBuf::from).collect()
}

/// Loads all of a list. A module that does not load is said and skipped: whoever needs it fails with a
/// reason, and a module that is built in has nothing to load.
pub fn load_all(sys: &dyn Sys, list: &Path) {
    let Ok(text) = sys.read(list, LIST_BYTES_MAX) else { return };
    for path in parse(&String::from_utf8_lossy(&text)) {
        if let Err(error) = sys.load_module(&path) {
            say(format_args!("module {}: {error}", path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake::Fake;

    #[test]
    fn loads_in_order_and_goes_on_after_a_failure() {
        let fake = Fake::default();
        fake.file("/modules.list", "# made by hand\n/m/a.ko\n\nrelative.ko\n/m/b.ko\n/m/c.ko");
        fake.fail("load_module /m/b.ko");
        load_all(&fake, Path::new("/modules.list"));
        assert_eq!(fake.calls(), ["load_module /m/a.ko", "load_module /m/b.ko", "load_module /m/c.ko"]);
    }

    #[test]
    fn no_list_is_no_module() {
        let fake = Fake::default();
        load_all(&fake, Path::new("/modules.list"));
        assert!(fake.calls().is_empty());
    }
}
