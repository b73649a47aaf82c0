//! Documents are read as they are written, and what is wrong with one is said with its place.

use sluice_policy::{Direction, Policy, document};

const REDIS: &str = "\
# only the web talks to redis
name: redis
description: only the web talks to redis
select:
  labels: {com.docker.compose.service: redis}
ingress:
  - from:
      - labels: {com.docker.compose.service: [web, worker]}
        network: shop
    ports: [6379]
  - action: reject
    from: [world, {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]
egress: []
";

#[test]
fn yaml_and_json_say_the_same() {
    let policies = document::read(REDIS).unwrap();
    let json = serde_json::to_string(&policies[0]).unwrap();
    assert_eq!(document::read(&json).unwrap(), policies);
    assert_eq!(
        json,
        concat!(
            r#"{"name":"redis","description":"only the web talks to redis","select":{"labels":{"com.docker.compose.service":"redis"}},"#,
            r#""ingress":[{"action":"allow","from":[{"labels":{"com.docker.compose.service":["web","worker"]},"network":"shop"}],"ports":["6379/tcp"]},"#,
            r#"{"action":"reject","from":["world",{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}]}],"egress":[]}"#
        )
    );
    assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), policies[0]);
    assert_eq!(policies[0].rules(Direction::Egress).unwrap().count(), 0);
}

#[test]
fn several_documents_stand_in_one_file() {
    let text = format!("{REDIS}---\nname: other\nselect: {{}}\ningress: []\n");
    let names: Vec<_> = document::read(&text)
        .unwrap()
        .into_iter()
        .map(|policy| policy.name)
        .collect();
    assert_eq!(
        names.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        ["redis", "other"]
    );
    let twice = document::read(&format!("{REDIS}---\n{REDIS}")).unwrap_err().to_string();
    assert_eq!(twice, "there are two policies called redis");
}

#[test]
fn what_looks_like_a_number_is_a_labels_text() {
    let policies = document::read("{name: a, select: {labels: {version: 2, debug: true}}, ingress: []}").unwrap();
    let json = serde_json::to_string(&policies[0].select).unwrap();
    assert_eq!(json, r#"{"labels":{"debug":"true","version":"2"}}"#);
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    for (from, to, line, what) in [
        ("ports: [6379]", "ports: [0/tcp]", 10, "a port is 1 to 65535"),
        ("ports: [6379]", "ports: []", 7, "ports: is empty"),
        ("ports: [6379]", "port: [6379]", 10, "unknown field `port`"),
        ("action: reject", "action: refuse", 11, "unknown variant `refuse`"),
        ("network: shop", "netwrk: shop", 9, "unknown field `netwrk`"),
        ("[world,", "[everybody,", 12, "\"everybody\" is nobody"),
        ("except: [10.1.0.0/16]", "except: [11.0.0.0/8]", 12, "lies outside"),
        ("10.0.0.0/8,", "10.0.0.1/8,", 12, "10.0.0.0/8 is meant?"),
        ("name: redis", "name: red is", 2, "cannot be the name"),
        ("egress: []", "egress: [{from: [world]}]", 13, "unknown field `from`"),
        ("[web, worker]", "[]", 8, "no value to choose from"),
        ("select:", "selects:", 4, "unknown field `selects`"),
    ] {
        let text = REDIS.replacen(from, to, 1);
        assert_ne!(text, REDIS, "{from}");
        let error = document::read(&text).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("line {line}, ")) && error.contains(what),
            "{to}: {error}"
        );
    }
}

#[test]
fn what_is_no_document_at_all_is_refused() {
    for text in [
        "",
        "---",
        "web",
        "[]",
        "{name: a}",
        "a: [",
        "{name: a, select: {}, ingress: 5}",
    ] {
        assert!(document::read(text).is_err(), "{text}");
    }
}
