//! First call on every connection.

use std::path::Path;

use super::api::{HelloRequest, HelloResponse, ProtocolVersion};
use crate::fault::{Doing, Fault, Outcome};
use crate::guest::Guest;
use crate::sys::Sys;

const ENTROPY_BYTES_MAX: usize = 512;
/// What makes a clone differ from its twins whatever they share.
const ENTROPY_BYTES_MIN: usize = 32;
const VERSIONS_BYTES_MAX: usize = 4096;
/// `name=value` lines that the image's builder wrote, so that nothing has to be started to know them.
const VERSIONS: &str = "/etc/herkos/versions";

pub fn hello(guest: &Guest, request: &HelloRequest) -> Outcome<HelloResponse> {
    if request.protocol_version() != ProtocolVersion::ProtocolVersion1 {
        return Err(Fault::invalid(format!(
            "protocol version {} is not spoken here, only 1",
            request.protocol_version
        )));
    }
    if request.entropy.len() > ENTROPY_BYTES_MAX {
        return Err(Fault::invalid(format!("more than {ENTROPY_BYTES_MAX} bytes of entropy")));
    }
    let machine_id = guest.identity.check(&request.machine_id)?;
    if machine_id.is_some() && request.entropy.len() < ENTROPY_BYTES_MIN {
        return Err(Fault::invalid(format!("a machine needs {ENTROPY_BYTES_MIN} bytes of entropy")));
    }
    let sys = guest.sys.as_ref();
    if !request.entropy.is_empty() {
        sys.add_entropy(&request.entropy).doing("credit entropy")?;
    }
    // Last: whoever sees the id finds everything else the machine's own.
    if let Some(id) = machine_id {
        guest.identity.take(sys, id)?;
    }
    Ok(HelloResponse {
        protocol_version: ProtocolVersion::ProtocolVersion1.into(),
        agent_version: env!("CARGO_PKG_VERSION").to_string(),
        kernel_release: sys.kernel_release(),
        oci_runtime_version: guest.runtime_version.get_or_init(|| version_of(sys, "crun")).clone(),
        boot_milliseconds: guest.boot_milliseconds,
        memory_bytes: sys.memory_bytes(),
        cpus: sys.cpus(),
    })
}

fn version_of(sys: &dyn Sys, name: &str) -> String {
    let text = sys.read(Path::new(VERSIONS), VERSIONS_BYTES_MAX).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().filter_map(|line| line.split_once('='));
    let found = lines.into_iter().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim());
    found.unwrap_or("unknown").to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fault::Kind;
    use crate::sys::fake::Fake;

    fn ask(fake: &Arc<Fake>, request: HelloRequest) -> Outcome<HelloResponse> {
        hello(&Guest::for_test(fake.clone()), &request)
    }

    fn good() -> HelloRequest {
        HelloRequest { protocol_version: 1, entropy: vec![1; 512], machine_id: vec![] }
    }

    #[test]
    fn credits_the_entropy_and_answers() {
        let fake = Arc::new(Fake::default());
        fake.file(VERSIONS, "kernel=6.1\ncrun = 1.8.1\n");
        let answer = ask(&fake, good()).unwrap();
        assert_eq!(answer.oci_runtime_version, "1.8.1");
        assert_eq!(answer.memory_bytes, 128 << 20);
        assert_eq!(fake.calls(), ["add_entropy 512"]);
    }

    #[test]
    fn a_machine_gets_its_id_after_its_entropy_and_keeps_it() {
        let fake = Arc::new(Fake::default());
        let guest = Guest::for_test(fake.clone());
        hello(&guest, &good()).unwrap();
        let named = HelloRequest { machine_id: vec![0x2a; 16], ..good() };
        hello(&guest, &named).unwrap();
        hello(&guest, &named).unwrap();
        hello(&guest, &good()).unwrap();
        let again = ["add_entropy 512"];
        let written = "replace /run/herkos/machine-id 444";
        assert_eq!(fake.calls(), [&again[..], &again, &[written], &again, &again].concat());
        let other = HelloRequest { machine_id: vec![0x2b; 16], ..good() };
        assert_eq!(hello(&guest, &other).unwrap_err().kind, Kind::Invalid);
        assert_eq!(fake.calls().len(), 5, "a stranger changes nothing");
        assert_eq!(fake.content("/run/herkos/machine-id"), Some(format!("{}\n", "2a".repeat(16))));
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        let fake = Arc::new(Fake::default());
        let bad = [
            HelloRequest { protocol_version: 2, ..good() },
            HelloRequest { entropy: vec![0; 513], ..good() },
            HelloRequest { machine_id: vec![1; 15], ..good() },
            HelloRequest { machine_id: vec![1; 17], ..good() },
            HelloRequest { machine_id: vec![1; 16], entropy: vec![1; 31], ..good() },
        ];
        for request in bad {
            assert_eq!(ask(&fake, request).unwrap_err().kind, Kind::Invalid);
        }
        assert!(fake.calls().is_empty());
    }
}
