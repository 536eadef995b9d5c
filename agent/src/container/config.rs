//! The OCI configuration as the host sends it, with what only the guest knows filled in.

use serde_json::{Map, Value, json};

use super::cgroup;
use super::pidns::POD_NAMESPACE;
use crate::fault::{Fault, Outcome};

/// A configuration that is ready for the OCI runtime.
#[derive(Debug)]
pub struct Prepared {
    pub json: Vec<u8>,
    pub terminal: bool,
    /// It joins the PID namespace that the containers of the pod share.
    pub joins_pod_pid_namespace: bool,
}

/// Sets the root file system and the control group; everything else stays as it is.
pub fn prepare(oci_config: &[u8], id: &str, rootfs: &str) -> Outcome<Prepared> {
    let mut config = object(oci_config, "oci_config")?;
    let root = section(&mut config, "root")?;
    root.insert("path".into(), json!(rootfs));
    let linux = section(&mut config, "linux")?;
    linux.insert("cgroupsPath".into(), json!(cgroup::oci_path(id)));
    let namespaces = linux.get("namespaces").and_then(Value::as_array);
    let joins_pod_pid_namespace = namespaces.is_some_and(|list| {
        list.iter().any(|namespace| namespace.get("path").and_then(Value::as_str) == Some(POD_NAMESPACE))
    });
    let process = section(&mut config, "process")?;
    let terminal = prepare_process(process)?;
    Ok(Prepared { json: Value::Object(config).to_string().into_bytes(), terminal, joins_pod_pid_namespace })
}

/// A process object that is ready for the OCI runtime.
#[derive(Debug)]
pub struct PreparedExec {
    pub json: Vec<u8>,
    pub terminal: bool,
    pub oom_score_adj: i16,
}

/// The process object of an exec, with what whoever starts it has to know.
pub fn prepare_exec(oci_process: &[u8]) -> Outcome<PreparedExec> {
    let mut process = object(oci_process, "oci_process")?;
    let terminal = prepare_process(&mut process)?;
    let oom_score_adj = oom_score_adj(&process)?;
    Ok(PreparedExec { json: Value::Object(process).to_string().into_bytes(), terminal, oom_score_adj })
}

fn prepare_process(process: &mut Map<String, Value>) -> Outcome<bool> {
    let args = process.get("args").and_then(Value::as_array);
    if !args.is_some_and(|args| !args.is_empty() && args.iter().all(Value::is_string)) {
        return Err(Fault::invalid("process.args has to name a command"));
    }
    // The agent itself is exempt from the OOM killer; nothing may inherit that.
    process.entry("oomScoreAdj").or_insert(json!(0));
    match process.get("terminal") {
        None | Some(Value::Bool(false)) => Ok(false),
        Some(Value::Bool(true)) => Ok(true),
        Some(_) => Err(Fault::invalid("process.terminal has to be true or false")),
    }
}

/// Within what the kernel takes.
fn oom_score_adj(process: &Map<String, Value>) -> Outcome<i16> {
    let score =
        process.get("oomScoreAdj").and_then(Value::as_i64).and_then(|score| i16::try_from(score).ok());
    score
        .filter(|score| (-1000..=1000).contains(score))
        .ok_or_else(|| Fault::invalid("process.oomScoreAdj has to be a number from -1000 to 1000"))
}

/// A JSON object, or `Invalid` by its name.
pub fn object(json: &[u8], name: &str) -> Outcome<Map<String, Value>> {
    match serde_json::from_slice(json) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Fault::invalid(format!("{name} is not a JSON object"))),
        Err(error) => Err(Fault::invalid(format!("{name} is not JSON: {error}"))),
    }
}

fn section<'a>(map: &'a mut Map<String, Value>, name: &str) -> Outcome<&'a mut Map<String, Value>> {
    let value = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
    value.as_object_mut().ok_or_else(|| Fault::invalid(format!("{name} is not an object")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(config: Value) -> Outcome<Prepared> {
        prepare(config.to_string().as_bytes(), "abc", "/r")
    }

    #[test]
    fn replaces_only_what_the_guest_knows() {
        let config = json!({
            "ociVersion": "1.0.2",
            "root": { "path": "/etc", "readonly": true },
            "process": { "args": ["sh"], "oomScoreAdj": 500, "env": ["A=1"] },
            "linux": { "cgroupsPath": "/x", "resources": { "memory": { "limit": 9_007_199_254_740_993_i64 } } },
        });
        let result = prepared(config).unwrap();
        let json: Value = serde_json::from_slice(&result.json).unwrap();
        assert_eq!(json["root"], json!({ "path": "/r", "readonly": true }));
        assert_eq!(json["linux"]["cgroupsPath"], "/herkos/abc");
        assert_eq!(json["linux"]["resources"]["memory"]["limit"], 9_007_199_254_740_993_i64);
        assert_eq!(json["process"], json!({ "args": ["sh"], "oomScoreAdj": 500, "env": ["A=1"] }));
        assert!(!result.terminal && !result.joins_pod_pid_namespace);
    }

    #[test]
    fn fills_in_what_is_missing() {
        let result = prepared(json!({ "process": { "args": ["sh"], "terminal": true } })).unwrap();
        let json: Value = serde_json::from_slice(&result.json).unwrap();
        assert_eq!(json["process"]["oomScoreAdj"], 0);
        assert!(result.terminal);
    }

    #[test]
    fn sees_the_shared_pid_namespace() {
        let config = json!({
            "process": { "args": ["sh"] },
            "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid", "path": POD_NAMESPACE }] },
        });
        assert!(prepared(config).unwrap().joins_pod_pid_namespace);
    }

    #[test]
    fn knows_what_an_exec_is_started_with() {
        let plain = prepare_exec(b"{\"args\": [\"a\"]}").unwrap();
        assert_eq!((plain.terminal, plain.oom_score_adj), (false, 0));
        let process = |score: Value| {
            let process = json!({ "args": ["a"], "terminal": true, "oomScoreAdj": score });
            prepare_exec(process.to_string().as_bytes())
        };
        for score in [-1000, -997, 900, 1000] {
            let prepared = process(json!(score)).unwrap();
            assert_eq!((prepared.terminal, prepared.oom_score_adj), (true, score));
        }
        for bad in [json!(1001), json!(-1001), json!(1_i64 << 40), json!(1.5), json!("900"), json!(null)] {
            assert!(process(bad).is_err());
        }
    }

    #[test]
    fn refuses_what_is_no_configuration() {
        let deep = "[".repeat(100_000);
        for bad in ["", "null", "[]", "{", "\u{0}", "{\"process\": 1}", deep.as_str()] {
            assert!(prepare(bad.as_bytes(), "abc", "/r").is_err());
        }
        for bad in [json!({}), json!({ "process": { "args": [] } }), json!({ "process": { "args": [1] } })] {
            assert!(prepared(bad).is_err());
        }
        assert!(prepared(json!({ "process": { "args": ["a"], "terminal": "yes" } })).is_err());
        assert!(prepared(json!({ "process": { "args": ["a"] }, "linux": [] })).is_err());
        assert!(prepare_exec(b"\xff").is_err());
    }
}
