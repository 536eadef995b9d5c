//! What the containers of the pod share: names, files, kernel settings, memory.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::fault::{Doing, Fault, Outcome};
use crate::net::plan::limit;
use crate::sync::lock;
use crate::sys::{Mount, Sys};

/// Bind-mounted into containers by their OCI configs.
pub const POD_DIR: &str = "/run/herkos/pod";
const FILES: [&str; 3] = ["hostname", "hosts", "resolv.conf"];
const FILE_BYTES_MAX: usize = 1 << 20;
const SYSCTLS_MAX: usize = 256;
const SYSCTL_NAME_BYTES_MAX: usize = 256;
const SYSCTL_VALUE_BYTES_MAX: usize = 4096;
const HOSTNAME_BYTES_MAX: usize = 64;
const SHM_BYTES_DEFAULT: u64 = 64 << 20;

/// The checked settings of a pod.
#[derive(Debug)]
pub struct PodSettings {
    pub hostname: String,
    pub hosts: String,
    pub resolv_conf: String,
    pub sysctls: Vec<(PathBuf, String)>,
    /// 0: the usual 64 MiB.
    pub shm_bytes: u64,
}

impl PodSettings {
    pub fn check(self_unchecked: Unchecked) -> Outcome<Self> {
        let Unchecked { hostname, hosts, resolv_conf, sysctls, shm_bytes } = self_unchecked;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if hostname.is_empty() || hostname.len() > HOSTNAME_BYTES_MAX || !hostname.bytes().all(plain) {
            return Err(Fault::invalid(format!("{hostname:?} is no host name")));
        }
        limit("bytes of hosts", hosts.len(), FILE_BYTES_MAX)?;
        limit("bytes of resolv.conf", resolv_conf.len(), FILE_BYTES_MAX)?;
        limit("sysctls", sysctls.len(), SYSCTLS_MAX)?;
        let sysctls = sysctls.into_iter().map(|(name, value)| {
            limit("bytes of a sysctl", value.len(), SYSCTL_VALUE_BYTES_MAX)?;
            Ok((sysctl_path(&name)?, value))
        });
        let sysctls = sysctls.collect::<Outcome<Vec<_>>>()?;
        Ok(PodSettings { hostname, hosts, resolv_conf, sysctls, shm_bytes })
    }
}

/// As the host sent it.
pub struct Unchecked {
    pub hostname: String,
    pub hosts: String,
    pub resolv_conf: String,
    pub sysctls: Vec<(String, String)>,
    pub shm_bytes: u64,
}

/// The file of a sysctl in dot form. Nothing but a file below /proc/sys can be named.
fn sysctl_path(name: &str) -> Outcome<PathBuf> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let parts = || name.split('.');
    let fits = name.len() <= SYSCTL_NAME_BYTES_MAX && parts().count() >= 2;
    if !fits || !parts().all(|part| !part.is_empty() && part.bytes().all(plain)) {
        return Err(Fault::invalid(format!("{name:?} is no sysctl in dot form")));
    }
    Ok(Path::new("/proc/sys").join(parts().collect::<PathBuf>()))
}

/// The memory that the pod's containers share; its size once it is mounted.
#[derive(Default)]
pub struct Shm(Mutex<Option<u64>>);

/// Names the pod and writes its files; can be repeated.
pub fn write_files(sys: &dyn Sys, settings: &PodSettings, shm: &Shm) -> Outcome<()> {
    sys.set_hostname(&settings.hostname).doing("set the host name")?;
    let dir = Path::new(POD_DIR);
    sys.make_dir(dir, 0o755).doing("make the pod's directory")?;
    let hostname = format!("{}\n", settings.hostname);
    let contents = [&hostname, &settings.hosts, &settings.resolv_conf];
    for (name, content) in FILES.into_iter().zip(contents) {
        let path = dir.join(name);
        // A file that is replaced would be lost to the containers that have it mounted.
        if !sys.read(&path, FILE_BYTES_MAX + 1).is_ok_and(|present| present == content.as_bytes()) {
            sys.replace(&path, content.as_bytes(), 0o644).doing(format_args!("write {name}"))?;
        }
    }
    mount_shm(sys, settings.shm_bytes, shm)
}

/// Does for nobody what `write_files` does for a pod, and takes it back, but for the shared memory: that can be
/// there before a pod has a name, and is then found mounted.
pub fn rehearse(sys: &dyn Sys, shm: &Shm) -> Outcome<()> {
    let settings = PodSettings {
        hostname: "rehearsal".into(),
        hosts: "127.0.0.1\tlocalhost\n".into(),
        resolv_conf: "nameserver 192.0.2.1\n".into(),
        sysctls: Vec::new(),
        shm_bytes: SHM_BYTES_DEFAULT,
    };
    write_files(sys, &settings, shm)?;
    // The first of a pod are written in their place, which is less work than replacing others.
    FILES
        .iter()
        .try_for_each(|name| sys.remove_file(&Path::new(POD_DIR).join(name)))
        .doing("remove the files again")
}

/// What containers keep in it stays when its size changes.
fn mount_shm(sys: &dyn Sys, shm_bytes: u64, shm: &Shm) -> Outcome<()> {
    let bytes = if shm_bytes == 0 { SHM_BYTES_DEFAULT } else { shm_bytes };
    let mut mounted = lock(&shm.0);
    if *mounted == Some(bytes) {
        return Ok(());
    }
    let target = Path::new(POD_DIR).join("shm");
    sys.make_dir(&target, 0o755).doing("make the pod's shm")?;
    let again = if mounted.is_some() { libc::MS_REMOUNT } else { 0 };
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | again;
    let data = format!("size={bytes},mode=1777");
    sys.mount(&Mount { source: "shm", target: &target, fstype: "tmpfs", flags, data: &data })
        .doing("mount the pod's shm")?;
    *mounted = Some(bytes);
    Ok(())
}

pub fn set_sysctls(sys: &dyn Sys, settings: &PodSettings) -> Outcome<()> {
    for (path, value) in &settings.sysctls {
        sys.write(path, value.as_bytes())
            .map_err(|error| Fault::invalid(format!("set {} to {value:?}: {error}", path.display())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake::Fake;

    fn unchecked() -> Unchecked {
        Unchecked {
            hostname: "web-0".into(),
            hosts: "127.0.0.1 localhost\n".into(),
            resolv_conf: "nameserver 10.0.0.10\n".into(),
            sysctls: vec![("net.ipv4.ip_forward".into(), "1".into())],
            shm_bytes: 1 << 20,
        }
    }

    #[test]
    fn sysctls_stay_below_proc_sys() {
        let path = sysctl_path("net.ipv4.conf.eth0.rp_filter").unwrap();
        assert_eq!(path, Path::new("/proc/sys/net/ipv4/conf/eth0/rp_filter"));
        let long = "a.".repeat(200) + "b";
        for bad in [
            "",
            ".",
            "kernel",
            "..",
            "net..x",
            ".net.x",
            "net.x.",
            "net/ipv4.x",
            "../x.y",
            "a.b c",
            "a.b\0",
            &long,
        ] {
            assert!(sysctl_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn writes_each_file_once() {
        let fake = Fake::default();
        let settings = PodSettings::check(unchecked()).unwrap();
        let shm = Shm::default();
        write_files(&fake, &settings, &shm).unwrap();
        write_files(&fake, &settings, &shm).unwrap();
        let written = fake.calls().iter().filter(|call| call.starts_with("replace ")).count();
        assert_eq!(written, 3);
        assert_eq!(fake.content("/run/herkos/pod/hostname").as_deref(), Some("web-0\n"));
        set_sysctls(&fake, &settings).unwrap();
        assert_eq!(fake.content("/proc/sys/net/ipv4/ip_forward").as_deref(), Some("1"));
    }

    #[test]
    fn refuses_strange_settings() {
        for hostname in ["", "a b", "a/b", &"x".repeat(65)] {
            assert!(PodSettings::check(Unchecked { hostname: hostname.into(), ..unchecked() }).is_err());
        }
        assert!(
            PodSettings::check(Unchecked { hosts: "x".repeat(FILE_BYTES_MAX + 1), ..unchecked() }).is_err()
        );
        let many = vec![("a.b".to_string(), String::new()); SYSCTLS_MAX + 1];
        assert!(PodSettings::check(Unchecked { sysctls: many, ..unchecked() }).is_err());
    }

    #[test]
    fn a_rehearsal_leaves_nothing_but_the_shared_memory() {
        let fake = Fake::default();
        rehearse(&fake, &Shm::default()).unwrap();
        let calls = fake.calls();
        assert!(calls.contains(&"mount shm /run/herkos/pod/shm".to_string()), "{calls:?}");
        for name in FILES {
            let path = format!("{POD_DIR}/{name}");
            let at = |verb: &str| calls.iter().position(|call| call.starts_with(&format!("{verb} {path}")));
            assert!(at("replace").is_some() && at("replace") < at("remove_file"), "{calls:?}");
        }
    }

    #[test]
    fn shared_memory_is_mounted_once_for_each_size() {
        let fake = Fake::default();
        let shm = Shm::default();
        let mount = "mount shm /run/herkos/pod/shm";
        fake.fail_once(mount);
        assert!(mount_shm(&fake, 0, &shm).is_err());
        for bytes in [0, SHM_BYTES_DEFAULT, 1 << 20, 1 << 20] {
            mount_shm(&fake, bytes, &shm).unwrap();
        }
        assert_eq!(fake.calls(), [mount, mount, mount], "the failed one, the first, and its other size");
    }
}
