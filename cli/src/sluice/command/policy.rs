//! `sluice policy`: who may speak to whom, by documents.

use std::io::Read;

use bytes::Bytes;
use clap::{Args, Subcommand};
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use crate::{
    daemon::{Body, Daemon, empty, json},
    failure::Failure,
    output::print,
    query::{query, segment},
    table,
};

/// Who may speak to whom
#[derive(Subcommand)]
pub enum Policy {
    /// Put the policies of files in force
    Apply(Apply),
    /// List policies, or print one
    #[command(visible_alias = "ls")]
    Get(Get),
    /// Take policies away
    #[command(visible_alias = "rm")]
    Delete(Delete),
    /// Print what applying files would change
    Diff(Diff),
    /// Print what policies say of a conversation
    Test(Test),
}

/// Where policies are read.
#[derive(Args)]
struct Files {
    /// File with policies, YAML or JSON; - is standard input
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    files: Vec<String>,
}

/// `sluice policy apply`
#[derive(Args)]
pub struct Apply {
    #[command(flatten)]
    files: Files,
}

/// `sluice policy get`
#[derive(Args)]
pub struct Get {
    /// Its name
    #[arg(conflicts_with = "all")]
    name: Option<String>,
    /// Also what networks, links and published ports say, and the entries of the datapath that it is
    #[arg(short, long)]
    all: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// `sluice policy delete`
#[derive(Args)]
pub struct Delete {
    /// Their names
    #[arg(required = true)]
    names: Vec<String>,
}

/// `sluice policy diff`
#[derive(Args)]
pub struct Diff {
    #[command(flatten)]
    files: Files,
}

/// `sluice policy test`
#[derive(Args)]
pub struct Test {
    /// File with policies that are to stand in the place of those of the same names; - is standard input
    #[arg(short, long = "filename", value_name = "FILE")]
    files: Vec<String>,
    /// Who speaks: a container, an address, host or world
    from: String,
    /// Who is spoken to
    to: String,
    /// To which port, as 80/tcp, or by what, as icmp
    #[arg(default_value = "tcp")]
    traffic: String,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Fail unless this is what is done
    #[arg(long, value_parser = ["allow", "reject", "deny"])]
    expect: Option<String>,
}

const POLICIES: &str = "/sluice/v1/policies";
const YAML: &str = "application/yaml";

impl Policy {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        match self {
            Self::Apply(apply) => apply.answer(daemon).await,
            Self::Get(get) => get.answer(daemon).await,
            Self::Delete(delete) => delete.answer(daemon).await,
            Self::Diff(diff) => diff.answer(daemon).await,
            Self::Test(test) => test.answer(daemon).await,
        }
    }
}

impl Apply {
    async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let applied = put(daemon, &self.files.files, "").await?;
        let mut text = String::new();
        for (kind, names) in kinds(&applied) {
            names.iter().for_each(|name| text += &format!("policy {name} {kind}\n"));
        }
        print(&text)
    }
}

impl Get {
    async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let path = match &self.name {
            Some(name) => format!("{POLICIES}/{}", segment(name)),
            None => POLICIES.to_owned(),
        };
        let found = daemon.get(&path).await?;
        if self.all {
            let standing = daemon.get("/sluice/v1/standing-rules").await?;
            return match self.json {
                true => print(&format!(
                    "{}\n",
                    serde_json::json!({ "standing": standing, "policies": found })
                )),
                false => print(&format!("{}\n{}", rules(&standing), list(&found))),
            };
        }
        match (&self.name, self.json) {
            (_, true) => print(&format!("{found}\n")),
            (None, false) => print(&list(&found)),
            (Some(_), false) => print(&one(&found)),
        }
    }
}

impl Delete {
    async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        super::each(&self.names, true, |name| async move {
            daemon.delete(&format!("{POLICIES}/{}", segment(&name))).await.map(drop)
        })
        .await
    }
}

impl Diff {
    async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        print(&difference(&put(daemon, &self.files.files, "?dry-run=1").await?))
    }
}

impl Test {
    async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let asked = query(&[("from", &self.from), ("to", &self.to), ("traffic", &self.traffic)]);
        let (headers, body) = match self.files.is_empty() {
            true => (vec![], empty()),
            false => (vec![("Content-Type", YAML.to_owned())], body(&self.files)?),
        };
        let response = daemon
            .post_with(&format!("/sluice/v1/judge{asked}"), &headers, body)
            .await?;
        let bytes = response
            .into_body()
            .collect()
            .await
            .map_err(crate::daemon::broken)?
            .to_bytes();
        let judged = json(&bytes)?;
        match self.json {
            true => print(&format!("{judged}\n"))?,
            false => print(&verdict(&judged))?,
        }
        match &self.expect {
            Some(expected) if judged["verdict"] != expected.as_str() => Err(Failure::Code(1)),
            _ => Ok(()),
        }
    }
}

async fn put(daemon: &Daemon, files: &[String], query: &str) -> Result<Value, Failure> {
    let response = daemon
        .put_stream(&format!("{POLICIES}{query}"), YAML, body(files)?)
        .await?;
    let bytes = response
        .into_body()
        .collect()
        .await
        .map_err(crate::daemon::broken)?
        .to_bytes();
    json(&bytes)
}

/// The texts of all files as one: each is a stream of documents.
fn body(files: &[String]) -> Result<Body, Failure> {
    let mut texts = Vec::new();
    for file in files {
        let mut text = String::new();
        let read = match file.as_str() {
            "-" => std::io::stdin().read_to_string(&mut text).map(drop),
            path => std::fs::read_to_string(path).map(|read| text = read),
        };
        read.map_err(|why| Failure::Usage(format!("cannot read {file}: {why}")))?;
        texts.push(text);
    }
    let text = texts.join("\n---\n");
    Ok(Full::new(Bytes::from(text))
        .map_err(|never| match never {})
        .boxed_unsync())
}

fn kinds(applied: &Value) -> [(&'static str, Vec<String>); 3] {
    let names = |list: &Value, of: fn(&Value) -> &Value| -> Vec<String> {
        let names = list
            .as_array()
            .into_iter()
            .flatten()
            .map(|policy| text(&of(policy)["name"]));
        names.collect()
    };
    [
        ("created", names(&applied["created"], |policy| policy)),
        ("changed", names(&applied["changed"], |change| &change["after"])),
        ("unchanged", names(&applied["unchanged"], |policy| policy)),
    ]
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// What is judged before policies.
fn rules(standing: &Value) -> String {
    let heads = ["SAID BY", "VERDICT", "FROM", "TO", "TRAFFIC", "REASON", "ENTRY"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    for rule in standing.as_array().into_iter().flatten() {
        let cells = ["origin", "verdict", "from", "to", "traffic", "reason", "entry"];
        lines.push(cells.map(|cell| text(&rule[cell])).to_vec());
    }
    table::align(&lines)
}

fn list(found: &Value) -> String {
    let heads = [
        "NAME", "SCOPE", "SELECTS", "INGRESS", "EGRESS", "ALLOWED", "REFUSED", "AUDITED",
    ];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    for view in found.as_array().into_iter().flatten() {
        let policy = &view["policy"];
        let rules = |list: &str| match &policy[list] {
            Value::Array(rules) => rules.len().to_string(),
            _ => "-".to_owned(),
        };
        let name = match policy["audit"].as_bool() {
            Some(true) => format!("{} (audit)", text(&policy["name"])),
            _ => text(&policy["name"]),
        };
        let (allowed, refused, audited) = counts(view);
        lines.push(vec![
            name,
            text(&view["scope"]),
            view["selects"].as_array().map_or(0, Vec::len).to_string(),
            rules("ingress"),
            rules("egress"),
            allowed.to_string(),
            refused.to_string(),
            audited.to_string(),
        ]);
    }
    table::align(&lines)
}

/// Packets that its rules have allowed, refused, and would have refused.
fn counts(view: &Value) -> (u64, u64, u64) {
    let (mut allowed, mut refused, mut audited) = (0, 0, 0);
    for rule in view["rules"].as_array().into_iter().flatten() {
        let packets = rule["packets"].as_u64().unwrap_or(0);
        audited += rule["audited_packets"].as_u64().unwrap_or(0);
        match action(view, rule) {
            "allow" => allowed += packets,
            _ => refused += packets,
        }
    }
    (allowed, refused, audited)
}

/// What a rule says; where no rule says anything, that is denied.
fn action<'a>(view: &'a Value, rule: &Value) -> &'a str {
    let place = rule["rule"].as_u64().and_then(|place| usize::try_from(place).ok());
    let direction = rule["direction"].as_str().unwrap_or_default();
    let written = place.map(|place| &view["policy"][direction][place - 1]["action"]);
    written.map_or("deny", |action| action.as_str().unwrap_or("allow"))
}

fn one(view: &Value) -> String {
    let written = serde_json::to_string_pretty(&view["policy"]).unwrap_or_default();
    let mut shown = format!("{written}\n\nScope: {}\nSelects:", text(&view["scope"]));
    let selects = view["selects"].as_array().map_or(&[][..], Vec::as_slice);
    for selected in selects {
        shown += &format!(" {}@{}", text(&selected["container"]), text(&selected["network"]));
    }
    shown += if selects.is_empty() { " nobody\n\n" } else { "\n\n" };
    let heads = ["RULE", "ACTION", "PACKETS", "BYTES", "AUDITED"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    for rule in view["rules"].as_array().into_iter().flatten() {
        let place = match rule["rule"].as_u64() {
            Some(place) => format!("{} {place}", text(&rule["direction"])),
            None => format!("{} otherwise", text(&rule["direction"])),
        };
        let action = action(view, rule).to_owned();
        lines.push(vec![
            place,
            action,
            text(&rule["packets"]),
            text(&rule["bytes"]),
            text(&rule["audited_packets"]),
        ]);
    }
    shown + &table::align(&lines)
}

fn difference(applied: &Value) -> String {
    let lines = |policy: &Value| -> Vec<String> {
        let written = serde_json::to_string_pretty(policy).unwrap_or_default();
        written.lines().map(str::to_owned).collect()
    };
    let mut shown = String::new();
    for policy in applied["created"].as_array().into_iter().flatten() {
        shown += &format!("policy {}: new\n", text(&policy["name"]));
        lines(policy).iter().for_each(|line| shown += &format!("+ {line}\n"));
    }
    for change in applied["changed"].as_array().into_iter().flatten() {
        shown += &format!("policy {}: changes\n", text(&change["after"]["name"]));
        shown += &changes(&lines(&change["before"]), &lines(&change["after"]));
    }
    shown
}

/// What lines become others, by the longest run that both share.
fn changes(before: &[String], after: &[String]) -> String {
    let mut common = vec![vec![0_usize; after.len() + 1]; before.len() + 1];
    for one in (0..before.len()).rev() {
        for other in (0..after.len()).rev() {
            common[one][other] = match before[one] == after[other] {
                true => common[one + 1][other + 1] + 1,
                false => common[one + 1][other].max(common[one][other + 1]),
            };
        }
    }
    let (mut one, mut other, mut shown) = (0, 0, String::new());
    while one < before.len() || other < after.len() {
        if one < before.len() && other < after.len() && before[one] == after[other] {
            shown += &format!("  {}\n", before[one]);
            (one, other) = (one + 1, other + 1);
        } else if other == after.len() || (one < before.len() && common[one + 1][other] >= common[one][other + 1]) {
            shown += &format!("- {}\n", before[one]);
            one += 1;
        } else {
            shown += &format!("+ {}\n", after[other]);
            other += 1;
        }
    }
    shown
}

fn verdict(judged: &Value) -> String {
    let end = |end: &Value| match (text(&end["name"]), text(&end["address"])) {
        (name, address) if name == address => address,
        (name, address) => format!("{name} ({address})"),
    };
    let mut shown = format!(
        "{} → {}: {}\n",
        end(&judged["from"]),
        end(&judged["to"]),
        text(&judged["verdict"])
    );
    for direction in ["egress", "ingress"] {
        let opinion = &judged[direction];
        let rule = |rule: &Value| match rule {
            Value::Null => "no policy says anything".to_owned(),
            rule => text(&rule["words"]),
        };
        shown += &format!(
            "  {direction}: {} ({})\n",
            text(&opinion["verdict"]),
            rule(&opinion["rule"])
        );
        if opinion["would_be"] != opinion["verdict"] {
            let (would_be, of_rule) = (text(&opinion["would_be"]), rule(&opinion["would_be_rule"]));
            shown += &format!("    without audit: {would_be} ({of_rule})\n");
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_shows_the_lines_that_go_and_come() {
        let applied = json!({
            "created": [],
            "changed": [{ "before": {"name": "a", "audit": true}, "after": {"name": "a", "egress": []} }],
            "unchanged": [{ "name": "b" }],
        });
        let shown = difference(&applied);
        assert!(shown.starts_with("policy a: changes\n  {\n"), "{shown}");
        assert!(
            shown.contains("\n-   \"audit\": true") && shown.contains("\n+   \"egress\": []"),
            "{shown}"
        );
        assert_eq!(kinds(&applied)[2], ("unchanged", vec!["b".to_owned()]));
    }

    #[test]
    fn a_policy_is_a_line_with_what_it_has_done() {
        let view = json!({
            "policy": {"name": "a", "audit": true, "ingress": [{"action": "allow"}, {"action": "reject"}]},
            "scope": "host",
            "selects": [{"container": "web", "network": "shop"}],
            "rules": [
                {"direction": "ingress", "rule": 1, "packets": 5, "audited_packets": 0},
                {"direction": "ingress", "rule": 2, "packets": 2, "audited_packets": 3},
                {"direction": "ingress", "rule": null, "packets": 1, "audited_packets": 4},
            ],
        });
        assert_eq!(counts(&view), (5, 3, 7));
        let shown = list(&json!([view]));
        let line = shown.lines().nth(1).unwrap();
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["a", "(audit)", "host", "1", "2", "-", "5", "3", "7"]
        );
        assert!(one(&view).contains("ingress otherwise"), "{}", one(&view));
    }

    #[test]
    fn a_verdict_names_both_ends_and_the_rules() {
        let shown = verdict(&json!({
            "from": {"name": "web", "address": "10.0.0.2"}, "to": {"name": "world", "address": "203.0.113.1"},
            "verdict": "allow",
            "egress": {"verdict": "allow", "rule": null, "would_be": "deny", "would_be_rule": {"words": "a, rule 1 of egress"}},
            "ingress": {"verdict": "allow", "rule": null, "would_be": "allow", "would_be_rule": null},
        }));
        assert_eq!(
            shown,
            "web (10.0.0.2) → world (203.0.113.1): allow\n  egress: allow (no policy says anything)\n    without audit: deny (a, rule 1 of egress)\n  \
             ingress: allow (no policy says anything)\n"
        );
    }
}
