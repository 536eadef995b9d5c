//! Whose machine this is. A guest that was made as a template is nobody's: its clones are told apart by the
//! id that the host gives each of them.

use std::path::Path;
use std::sync::Mutex;

use crate::fault::{Doing, Fault, Outcome};
use crate::sync::lock;
use crate::sys::Sys;

const ID_BYTES: usize = 16;
const DIR: &str = "/run/herkos";
/// What the link /etc/machine-id of the read-only root leads to. Without it there is nothing to read, which
/// is better than what another machine has.
const FILE: &str = "/run/herkos/machine-id";

type Id = [u8; ID_BYTES];

#[derive(Default)]
pub struct Identity(Mutex<Option<Id>>);

impl Identity {
    /// The id to take, if any: none is asked for, or the machine may have it. `Invalid` for anything that is
    /// no id, and for another one than the machine has: a machine changes its owner never.
    pub fn check(&self, machine_id: &[u8]) -> Outcome<Option<Id>> {
        if machine_id.is_empty() {
            return Ok(None);
        }
        let id = Id::try_from(machine_id)
            .map_err(|_| Fault::invalid(format!("a machine id has {ID_BYTES} bytes")))?;
        match *lock(&self.0) {
            Some(present) if present != id => Err(Fault::invalid(format!(
                "this machine is {} and cannot become {}",
                hex(&present),
                hex(&id)
            ))),
            _ => Ok(Some(id)),
        }
    }

    pub fn is_taken(&self) -> bool {
        lock(&self.0).is_some()
    }

    /// Writes the id as machine-id(5) has it; nothing when the machine has it already.
    pub fn take(&self, sys: &dyn Sys, id: Id) -> Outcome<()> {
        let mut present = lock(&self.0);
        if *present == Some(id) {
            return Ok(());
        }
        sys.make_dir(Path::new(DIR), 0o755).doing(format_args!("make {DIR}"))?;
        let text = format!("{}\n", hex(&id));
        sys.replace(Path::new(FILE), text.as_bytes(), 0o444).doing("write the machine id")?;
        *present = Some(id);
        Ok(())
    }
}

fn hex(id: &Id) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Kind;
    use crate::sys::fake::Fake;

    #[test]
    fn a_machine_has_one_id_for_ever() {
        let fake = Fake::default();
        let identity = Identity::default();
        let id = identity.check(&[0xa5; 16]).unwrap().unwrap();
        identity.take(&fake, id).unwrap();
        assert_eq!(fake.content(FILE), Some(format!("{}\n", "a5".repeat(16))));
        identity.take(&fake, identity.check(&[0xa5; 16]).unwrap().unwrap()).unwrap();
        assert_eq!(fake.calls(), [format!("replace {FILE} 444")], "the second time there is nothing to do");
        let fault = identity.check(&[1; 16]).unwrap_err();
        assert_eq!(fault.kind, Kind::Invalid);
        assert!(fault.message.contains(&"a5".repeat(16)) && fault.message.contains(&"01".repeat(16)));
        assert!(identity.check(&[]).unwrap().is_none());
    }

    #[test]
    fn what_could_not_be_written_was_not_taken() {
        let fake = Fake::default();
        let identity = Identity::default();
        fake.fail_once(&format!("replace {FILE} 444"));
        assert_eq!(identity.take(&fake, [1; 16]).unwrap_err().kind, Kind::Internal);
        identity.take(&fake, identity.check(&[2; 16]).unwrap().unwrap()).unwrap();
        assert_eq!(fake.content(FILE), Some(format!("{}\n", "02".repeat(16))));
    }
}
