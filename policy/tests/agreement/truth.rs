//! `docs/policy-truth.md`: what documents mean, as a table that is written from what they do.

use std::{net::IpAddr, path::Path};

use sluice_policy::{Conversation, Direction, Facts, Party, Policy, Surroundings, Verdict, compile, document, judge};

const HEAD: &str = "\
# What is allowed when

Two containers, `web` and `db`, of one network, each selected by the documents of a line or by none; `web` opens a connection to `db`. This page is written by
the test that judges each line both by the plain meaning of the documents and by the tables that the datapath looks at
(`UPDATE_DOCS=1 cargo test -p sluice-policy`).

What is left out of a document says nothing: without `ingress` everybody may speak to whom it selects. What networks forbid (isolation, `internal`,
`icc=false`, `publish-from`) no document allows. Answers pass with what they answer.

| about `web` (egress) | about `db` (ingress) | `web` opens a connection to `db` | what the documents under audit would do |
|---|---|---|---|
";

const HOSTS: &str = "
The same for who is no container: `db` is spoken to, or speaks. `world` is everybody outside, `host` the host itself at all of its addresses; a CIDR is about
addresses, whoever has them.

| about `db` | the host speaks to it | the world speaks to it | it speaks to the host | it speaks to the world |
|---|---|---|---|---|
";

/// A few words for a table, and the documents that say it of whoever is called `NAME`.
const OF_ONE: [(&str, &str); 9] = [
    ("nothing", ""),
    ("an empty list", "[]"),
    ("allow the other", "[{PEERS: [{name: OTHER}]}]"),
    ("allow somebody else", "[{PEERS: [{name: somebody-else}]}]"),
    ("allow everybody", "[{}]"),
    ("deny the other", "[{action: deny, PEERS: [{name: OTHER}]}]"),
    (
        "allow everybody, deny the other",
        "[{}, {action: deny, PEERS: [{name: OTHER}]}]",
    ),
    (
        "allow everybody, reject the other",
        "[{}, {action: reject, PEERS: [{name: OTHER}]}]",
    ),
    (
        "allow the other at another port",
        "[{PEERS: [{name: OTHER}], ports: [81]}]",
    ),
];

const OF_OUTSIDE: [(&str, &str); 9] = [
    ("nothing", ""),
    ("an empty list", "[]"),
    ("allow every container", "[{PEERS: [{}]}]"),
    ("allow `host`", "[{PEERS: [host]}]"),
    ("allow `world`", "[{PEERS: [world]}]"),
    ("allow 0.0.0.0/0", "[{PEERS: [{cidr: 0.0.0.0/0}]}]"),
    (
        "allow 0.0.0.0/0 except 203.0.113.0/24",
        "[{PEERS: [{cidr: 0.0.0.0/0, except: [203.0.113.0/24]}]}]",
    ),
    ("allow everybody, deny `world`", "[{}, {action: deny, PEERS: [world]}]"),
    (
        "allow everybody, reject `host`",
        "[{}, {action: reject, PEERS: [host]}]",
    ),
];

fn about(name: &str, other: &str, direction: Direction, rules: &str, audit: bool) -> Option<Policy> {
    if rules.is_empty() {
        return None;
    }
    let (list, peers) = match direction {
        Direction::Ingress => ("ingress", "from"),
        Direction::Egress => ("egress", "to"),
    };
    let rules = rules.replace("PEERS", peers).replace("OTHER", other);
    let text = format!("{{name: {name}-{list}-{audit}, audit: {audit}, select: {{name: {name}}}, {list}: {rules}}}");
    document::read(&text).unwrap().pop()
}

fn facts(name: &str, address: &str) -> Facts {
    Facts {
        name: name.to_owned(),
        network: "shop".to_owned(),
        addresses: vec![address.parse().unwrap()],
        ..Facts::default()
    }
}

struct World {
    web: Facts,
    db: Facts,
    host: IpAddr,
    outside: IpAddr,
}

impl World {
    fn new() -> Self {
        Self {
            web: facts("web", "10.9.0.2"),
            db: facts("db", "10.9.0.3"),
            host: "10.9.0.1".parse().unwrap(),
            outside: "203.0.113.7".parse().unwrap(),
        }
    }

    fn container<'a>(&self, facts: &'a Facts) -> Party<'a> {
        Party::Endpoint(facts, facts.addresses[0])
    }

    /// By their meaning, and by tables, which must say the same.
    fn judge(&self, policies: &[Policy], source: Party<'_>, destination: Party<'_>) -> (Verdict, Verdict) {
        let surroundings = Surroundings {
            endpoints: vec![(Some(1), self.web.clone()), (Some(2), self.db.clone())],
            host: [self.host].into(),
            subnets: ["10.9.0.0/24".parse().unwrap()].into(),
        };
        let tables = compile(policies, &surroundings);
        let conversation = Conversation {
            source,
            destination,
            protocol: 6,
            port: 80,
        };
        let meant = judge(policies, &conversation);
        let end = |party: Party<'_>| match party {
            Party::Endpoint(facts, address) => (if facts.name == "web" { 1 } else { 2 }, address),
            Party::Host(address) | Party::World(address) | Party::Vacant(address) => (0, address),
        };
        let ((from, from_address), (to, to_address)) = (end(source), end(destination));
        let found = tables
            .judge(from, Direction::Egress, to_address, 6, 80)
            .and(tables.judge(to, Direction::Ingress, from_address, 6, 80));
        assert_eq!(found, meant);
        (meant.verdict(), meant.would_be())
    }
}

fn word(verdict: Verdict) -> String {
    match verdict {
        Verdict::Allow => "passes".to_owned(),
        Verdict::Reject => "**refused**".to_owned(),
        Verdict::Deny => "**dropped**".to_owned(),
    }
}

fn page() -> String {
    let world = World::new();
    let (web, db) = (world.container(&world.web), world.container(&world.db));
    let mut page = HEAD.to_owned();
    for (of_web, egress) in OF_ONE {
        for (of_db, ingress) in OF_ONE {
            let policies: Vec<Policy> = about("web", "db", Direction::Egress, egress, false)
                .into_iter()
                .chain(about("db", "web", Direction::Ingress, ingress, false))
                .collect();
            let (is, would_be) = world.judge(&policies, web, db);
            assert_eq!(is, would_be);
            page += &format!("| {of_web} | {of_db} | {} | |\n", word(is));
        }
    }
    for (of_db, ingress) in OF_ONE {
        let policies: Vec<Policy> = about("db", "web", Direction::Ingress, ingress, true)
            .into_iter()
            .collect();
        let (is, would_be) = world.judge(&policies, web, db);
        page += &format!(
            "| nothing | {of_db}, under audit | {} | {} |\n",
            word(is),
            word(would_be)
        );
    }
    page += HOSTS;
    for (said, rules) in OF_OUTSIDE {
        let both = [Direction::Ingress, Direction::Egress];
        let policies: Vec<Policy> = both
            .into_iter()
            .filter_map(|direction| about("db", "web", direction, rules, false))
            .collect();
        let (host, outside) = (Party::Host(world.host), Party::World(world.outside));
        let words = [(host, db), (outside, db), (db, host), (db, outside)]
            .map(|(from, to)| word(world.judge(&policies, from, to).0));
        page += &format!("| {said} | {} |\n", words.join(" | "));
    }
    page
}

#[test]
fn the_page_of_truths_is_what_documents_do() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy-truth.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, page, "run UPDATE_DOCS=1 cargo test -p sluice-policy");
}
