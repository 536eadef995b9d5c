//! The command line. Every option must be given exactly as often as it says here.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use lexopt::{Arg, Parser, ValueExt};

use crate::jail::{Jail, SharedMemory};
use crate::memory::Memory;
use crate::netns::Netns;
use crate::trouble::{Outcome, Trouble};

const USAGE: &str = "usage: herkos-host jail|memory|netns|starter OPTION... (docs/decisions/0011)";

pub enum Command {
    Jail(Jail),
    Memory(Memory),
    Netns(Netns),
    Starter { lock: Option<PathBuf> },
}

impl Command {
    /// `words`: without the program's own name.
    pub fn read(mut words: Vec<OsString>) -> Outcome<Self> {
        let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
        let rest = words.split_off(end).into_iter().skip(1).collect();
        let mut parser = Parser::from_args(words);
        let verb = match parser.next().map_err(wrong)? {
            Some(Arg::Value(verb)) => verb,
            _ => return Err(Trouble::new(USAGE)),
        };
        let mut options = Options::read(parser, rest)?;
        let command = match verb.to_str() {
            Some("jail") => Self::Jail(jail(&mut options)?),
            Some("memory") => Self::Memory(memory(&mut options)?),
            Some("netns") => Self::Netns(netns(&mut options)?),
            Some("starter") => {
                // For those who look at the list of processes: other daemons, and people.
                options.maybe("instance")?;
                Self::Starter { lock: options.maybe("lock")?.map(PathBuf::from) }
            }
            _ => return Err(Trouble::new(USAGE)),
        };
        options.end()?;
        Ok(command)
    }
}

fn jail(options: &mut Options) -> Outcome<Jail> {
    let memory = match options.maybe("memory")? {
        None => None,
        Some(path) => Some(SharedMemory {
            path: PathBuf::from(path),
            inode: options.number("memory-inode")?,
            sealed: options.flag("memory-sealed")?,
        }),
    };
    Ok(Jail {
        uid: options.number("uid")?,
        groups: list(&options.text("groups")?)?,
        netns: PathBuf::from(options.one("netns")?),
        devices: PathBuf::from(options.one("devices")?),
        open_files: options.number("open-files")?,
        huge_pages: options.flag("huge-pages")?,
        feign_holes: options.flag("feign-holes")?,
        procs_files: options.many("procs").into_iter().map(PathBuf::from).collect(),
        memory,
        program: std::mem::take(&mut options.rest),
    })
}

fn memory(options: &mut Options) -> Outcome<Memory> {
    Ok(Memory {
        name: options.text("name")?,
        bytes: options.number("bytes")?,
        owner: options.number("owner")?,
    })
}

fn netns(options: &mut Options) -> Outcome<Netns> {
    Ok(Netns {
        directory: PathBuf::from(options.one("directory")?),
        name: options.text("name")?,
        tap: options.text("tap")?,
        uid: options.number("uid")?,
    })
}

fn list(text: &str) -> Outcome<Vec<u32>> {
    text.split(',').map(|one| parse("groups", one)).collect()
}

/// `--name value` pairs, and what follows `--`.
struct Options {
    pairs: Vec<(String, OsString)>,
    rest: Vec<OsString>,
}

impl Options {
    fn read(mut parser: Parser, rest: Vec<OsString>) -> Outcome<Self> {
        let mut options = Self { pairs: Vec::new(), rest };
        while let Some(arg) = parser.next().map_err(wrong)? {
            match arg {
                Arg::Long(name) => {
                    let name = name.to_owned();
                    let value = parser.value().map_err(wrong)?;
                    options.pairs.push((name, value));
                }
                other => return Err(wrong(other.unexpected())),
            }
        }
        Ok(options)
    }

    fn many(&mut self, name: &str) -> Vec<OsString> {
        let (found, others) = std::mem::take(&mut self.pairs).into_iter().partition(|(own, _)| own == name);
        self.pairs = others;
        let found: Vec<(String, OsString)> = found;
        found.into_iter().map(|(_, value)| value).collect()
    }

    fn maybe(&mut self, name: &str) -> Outcome<Option<OsString>> {
        let mut values = self.many(name);
        if values.len() > 1 {
            return Err(Trouble::new(format!("--{name} is given twice")));
        }
        Ok(values.pop())
    }

    fn one(&mut self, name: &str) -> Outcome<OsString> {
        self.maybe(name)?.ok_or_else(|| Trouble::new(format!("--{name} is missing")))
    }

    fn text(&mut self, name: &str) -> Outcome<String> {
        self.one(name)?.string().map_err(wrong)
    }

    fn number<T: FromStr>(&mut self, name: &str) -> Outcome<T> {
        parse(name, &self.text(name)?)
    }

    /// `1` or `0`: always given, so that none is forgotten.
    fn flag(&mut self, name: &str) -> Outcome<bool> {
        match self.number::<u8>(name)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Trouble::new(format!("--{name} is 0 or 1, not {other}"))),
        }
    }

    fn end(&self) -> Outcome<()> {
        match (self.pairs.first(), self.rest.first()) {
            (Some((name, _)), _) => Err(Trouble::new(format!("--{name} does not belong here"))),
            (None, Some(word)) => {
                Err(Trouble::new(format!("'{}' does not belong here", word.to_string_lossy())))
            }
            (None, None) => Ok(()),
        }
    }
}

fn parse<T: FromStr>(name: &str, text: &str) -> Outcome<T> {
    text.parse().map_err(|_| Trouble::new(format!("--{name}: '{text}' is not a number in its range")))
}

fn wrong(error: lexopt::Error) -> Trouble {
    Trouble::new(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Outcome<Command> {
        Command::read(line.split(' ').map(OsString::from).collect())
    }

    const JAIL: &str = "jail --uid 70001 --groups 7,8 --netns /n --devices /d --open-files 64 --huge-pages 1 --feign-holes 0 --procs /a --procs /b";

    #[test]
    fn reads_a_jail_and_leaves_the_programs_options_alone() {
        let Ok(Command::Jail(jail)) = read(&format!("{JAIL} -- qemu --uid 0 -S")) else { panic!() };
        assert_eq!((jail.uid, jail.groups, jail.procs_files.len()), (70001, vec![7, 8], 2));
        assert_eq!(jail.program, ["qemu", "--uid", "0", "-S"]);
        assert!(jail.memory.is_none());
    }

    #[test]
    fn refuses_what_is_missing_doubled_unknown_or_no_number() {
        for line in [
            "",
            "what",
            "jail --uid 1",
            "netns --directory /d --name n --tap t --uid x",
            "netns --directory /d --name n --tap t --uid -1",
            "netns --directory /d --name n --tap t --uid 1 --uid 1",
            "netns --directory /d --name n --tap t --uid 1 --more 1",
            "netns --directory /d --name n --tap t --uid 1 -- x",
            "netns --directory /d --name n --tap t --uid 1 x",
            &format!("{JAIL} qemu"),
            "memory --name n --bytes 1 --owner 1 -x",
            "starter --uid 1",
            "starter --lock /a --lock /b",
            "starter --instance a --instance b",
            &format!("{JAIL} --memory /proc/1/fd/3 -- qemu"),
            &format!("{JAIL} --memory /proc/1/fd/3 --memory-inode 1 --memory-sealed 2 -- qemu"),
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
