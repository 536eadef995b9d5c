//! The limits of a container that can change while it lives: `linux.resources` of the OCI runtime
//! specification, as far as control groups v2 have it.

use serde_json::{Map, Value};

use super::config::object;
use crate::fault::{Fault, Outcome};

const MEMORY: [&str; 3] = ["limit", "reservation", "swap"];
const CPU: [&str; 5] = ["shares", "quota", "period", "burst", "idle"];
const CPU_LISTS: [&str; 2] = ["cpus", "mems"];
const PIDS: [&str; 1] = ["limit"];

/// Refuses everything but limits that the OCI runtime applies: it passes over names and types that it does
/// not expect, and a limit that seems set and is not is worse than an error.
pub fn check(oci_resources: &[u8]) -> Outcome<Vec<u8>> {
    let resources = object(oci_resources, "oci_resources")?;
    for (section, value) in &resources {
        let limits = value.as_object().ok_or_else(|| refused(section))?;
        for (name, limit) in limits {
            if !is_limit(section, name, limit) {
                return Err(refused(&format!("{section}.{name}")));
            }
        }
    }
    if resources.values().filter_map(Value::as_object).all(Map::is_empty) {
        return Err(Fault::invalid("oci_resources names no limit"));
    }
    Ok(Value::Object(resources).to_string().into_bytes())
}

fn is_limit(section: &str, name: &str, limit: &Value) -> bool {
    let number = limit.is_i64() || limit.is_u64();
    match section {
        "memory" => number && MEMORY.contains(&name),
        "cpu" => number && CPU.contains(&name) || limit.is_string() && CPU_LISTS.contains(&name),
        "pids" => number && PIDS.contains(&name),
        "unified" => limit.is_string() && is_file_name(name),
        _ => false,
    }
}

/// Of a file in the container's own control group.
fn is_file_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.bytes().all(plain) && name.contains('.') && !name.starts_with("cgroup.") && !name.contains("..")
}

fn refused(what: &str) -> Fault {
    Fault::invalid(format!("oci_resources: {what:?} is no limit that can change, or not of its type"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Kind;

    #[test]
    fn takes_limits_as_they_are() {
        for good in [
            r#"{"memory":{"limit":-1,"swap":9007199254740993}}"#,
            r#"{"cpu":{"cpus":"0-1","period":100000,"quota":-1,"shares":2},"pids":{"limit":5}}"#,
            r#"{"unified":{"hugetlb.2MB.max":"0","memory.high":"1"}}"#,
        ] {
            assert_eq!(check(good.as_bytes()).unwrap(), good.as_bytes());
        }
    }

    #[test]
    fn refuses_what_would_be_passed_over() {
        for bad in [
            "",
            "[]",
            "null",
            "{",
            "{}",
            r#"{"memory":{}}"#,
            r#"{"memory":5}"#,
            r#"{"memory":{"limit":"5"}}"#,
            r#"{"memory":{"limit":1.5}}"#,
            r#"{"memory":{"limit":null}}"#,
            r#"{"memory":{"swappiness":60}}"#,
            r#"{"cpu":{"cpus":1}}"#,
            r#"{"cpu":{"limit":1}}"#,
            r#"{"devices":[]}"#,
            r#"{"blockIO":{}}"#,
            r#"{"blockIO":{"weight":10}}"#,
            r#"{"unified":{"memory.max":5}}"#,
            r#"{"unified":{"../memory.max":"5"}}"#,
            r#"{"unified":{"cgroup.kill":"1"}}"#,
            r#"{"unified":{"":"1"}}"#,
        ] {
            assert_eq!(check(bad.as_bytes()).unwrap_err().kind, Kind::Invalid, "{bad}");
        }
    }
}
