//! Documents as people write them: YAML or JSON, several in one file if they like.
//!
//! ```yaml
//! name: redis
//! select: {labels: {com.docker.compose.service: redis}}
//! ingress:
//!   - from: [{labels: {com.docker.compose.service: web}}]
//!     ports: [6379]
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Direction, Number, Peer, Selector, Traffic, Verdict, tables::Origin};

/// A document.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// What it is called: letters, digits, `-`, `_`, `.`; 1 to 63 of them.
    pub name: Name,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// It is watched what it would do, and nothing is done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub audit: bool,
    /// Whom it is about.
    pub select: Selector,
    /// Who may speak to them. None: it says nothing of that; an empty list: nobody may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Vec<Incoming>>,
    /// Whom they may speak to. None and empty as above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<Outgoing>>,
}

/// A document as it is kept among other records, which have fields of their own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// The document.
    pub policy: Policy,
    /// It is a copy of the cluster's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

/// The name of a document.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

/// A rule of either direction.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rule {
    /// What it says.
    pub action: Verdict,
    /// Of whom. None: of everybody.
    pub peers: Option<Vec<Peer>>,
    /// Of what traffic. None: of all.
    pub traffic: Option<Vec<Traffic>>,
}

/// A rule of what is heard.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "IncomingWords", into = "IncomingWords")]
pub struct Incoming(pub Rule);

/// A rule of what is said.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "OutgoingWords", into = "OutgoingWords")]
pub struct Outgoing(pub Rule);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IncomingWords {
    #[serde(default)]
    action: Verdict,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<Vec<Peer>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ports: Option<Vec<Traffic>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutgoingWords {
    #[serde(default)]
    action: Verdict,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<Vec<Peer>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ports: Option<Vec<Traffic>>,
}

/// Text that is no document.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotADocument {
    /// What is wrong, with the line and column where it stands.
    #[error("line {line}, column {column}: {what}")]
    Wrong {
        /// From 1.
        line: u64,
        /// From 1.
        column: u64,
        /// What is wrong.
        what: String,
    },
    /// What is wrong, when it stands nowhere.
    #[error("{0}")]
    Elsewhere(String),
}

/// All documents of a text.
pub fn read(text: &str) -> Result<Vec<Policy>, NotADocument> {
    let policies: Vec<Policy> = serde_saphyr::from_multiple(text).map_err(|error| NotADocument::of(&error))?;
    if policies.is_empty() {
        return Err(NotADocument::Elsewhere("there is no policy in it".to_owned()));
    }
    let mut names: Vec<&Name> = policies.iter().map(|policy| &policy.name).collect();
    names.sort();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(NotADocument::Elsewhere(format!(
            "there are two policies called {}",
            pair[0].as_str()
        ))),
        None => Ok(policies),
    }
}

// === impl NotADocument ===

impl NotADocument {
    fn of(error: &serde_saphyr::Error) -> Self {
        let what = error.without_snippet().to_string();
        match error.location() {
            Some(at) => {
                let (line, column) = (at.line(), at.column());
                // It says where by itself, behind what is wrong.
                let told = format!(" at line {line}, column {column}");
                Self::Wrong {
                    line,
                    column,
                    what: what.replace(&told, ""),
                }
            }
            None => Self::Elsewhere(what),
        }
    }
}

// === impl Policy ===

impl Policy {
    /// Its rules of a direction. None: it says nothing of that.
    pub fn rules(&self, direction: Direction) -> Option<impl Iterator<Item = &Rule>> {
        let (incoming, outgoing) = match direction {
            Direction::Ingress => (self.ingress.as_ref()?.as_slice(), [].as_slice()),
            Direction::Egress => ([].as_slice(), self.egress.as_ref()?.as_slice()),
        };
        let incoming = incoming.iter().map(|Incoming(rule)| rule);
        Some(incoming.chain(outgoing.iter().map(|Outgoing(rule)| rule)))
    }

    /// The number of a rule by its place.
    pub fn rule_number(&self, direction: Direction, place: usize) -> Number {
        Number::of("rule", [self.name.as_str(), &direction.to_string(), &place.to_string()])
    }

    /// Where its rules stand, by their numbers.
    pub fn origins(&self) -> BTreeMap<Number, Origin> {
        let mut origins = BTreeMap::new();
        for direction in [Direction::Ingress, Direction::Egress] {
            let Some(rules) = self.rules(direction) else { continue };
            let origin = |place| Origin {
                policy: self.name.clone(),
                direction,
                place,
            };
            origins.insert(self.default_number(direction), origin(None));
            origins.extend((0..rules.count()).map(|place| (self.rule_number(direction, place), origin(Some(place)))));
        }
        origins
    }

    /// The number of what it says of a direction when no rule does.
    pub fn default_number(&self, direction: Direction) -> Number {
        Number::of("default", [self.name.as_str(), &direction.to_string()])
    }
}

// === impl Name ===

impl Name {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let fits = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        let is_name = (1..=63).contains(&name.len())
            && name.chars().all(fits)
            && name.starts_with(|first: char| first.is_ascii_alphanumeric());
        match is_name {
            true => Ok(Self(name)),
            false => Err(format!(
                "{name:?} cannot be the name of a policy: 1 to 63 letters, digits, '-', '_' and '.', the first a letter or digit"
            )),
        }
    }
}

// === impl Incoming, Outgoing ===

/// An empty list would be read by one as everybody, by the other as nobody.
fn somebody<T>(list: Option<Vec<T>>, what: &str, all: &str) -> Result<Option<Vec<T>>, String> {
    match list {
        Some(list) if list.is_empty() => Err(format!("{what}: is empty: leave it out for {all}")),
        list => Ok(list),
    }
}

impl TryFrom<IncomingWords> for Incoming {
    type Error = String;

    fn try_from(words: IncomingWords) -> Result<Self, String> {
        Ok(Self(Rule {
            action: words.action,
            peers: somebody(words.from, "from", "everybody")?,
            traffic: somebody(words.ports, "ports", "all traffic")?,
        }))
    }
}

impl From<Incoming> for IncomingWords {
    fn from(Incoming(rule): Incoming) -> Self {
        Self {
            action: rule.action,
            from: rule.peers,
            ports: rule.traffic,
        }
    }
}

impl TryFrom<OutgoingWords> for Outgoing {
    type Error = String;

    fn try_from(words: OutgoingWords) -> Result<Self, String> {
        Ok(Self(Rule {
            action: words.action,
            peers: somebody(words.to, "to", "everybody")?,
            traffic: somebody(words.ports, "ports", "all traffic")?,
        }))
    }
}

impl From<Outgoing> for OutgoingWords {
    fn from(Outgoing(rule): Outgoing) -> Self {
        Self {
            action: rule.action,
            to: rule.peers,
            ports: rule.traffic,
        }
    }
}
