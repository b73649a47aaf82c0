//! `sluice inspect`

use bytes::Bytes;
use clap::{Args, ValueEnum};

use crate::{
    daemon::{self, Daemon},
    failure::Failure,
    output::print,
    query::segment,
    template::{Missing, Template},
};

/// `sluice inspect`
#[derive(Args)]
pub struct Inspect {
    /// `json` or a Go template
    #[arg(short, long)]
    format: Option<String>,
    /// What the names are of
    #[arg(long = "type")]
    kind: Option<Kind>,
    /// With sizes, if it is a container
    #[arg(short, long)]
    size: bool,
    #[arg(required = true, value_name = "NAME|ID")]
    names: Vec<String>,
}

/// What can be inspected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Kind {
    /// Containers
    Container,
    /// Images
    Image,
    /// Networks
    Network,
    /// Volumes
    Volume,
}

impl Inspect {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        show_with(daemon, &self.names, self.format.as_deref(), self.kind, self.size).await
    }
}

/// Prints what is known under `names`; of any kind, containers first, when none is said.
pub async fn show(daemon: &Daemon, names: &[String], format: Option<&str>, kind: Option<Kind>) -> Result<(), Failure> {
    show_with(daemon, names, format, kind, false).await
}

async fn show_with(
    daemon: &Daemon,
    names: &[String],
    format: Option<&str>,
    kind: Option<Kind>,
    size: bool,
) -> Result<(), Failure> {
    let template = match format {
        None | Some("json") => None,
        Some(text) => Some(Template::parse(text)?),
    };
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in names {
        match find(daemon, name, kind, size).await {
            Ok(document) => found.push(document),
            Err(failure @ Failure::Unreachable { .. }) => return Err(failure),
            Err(failure) => failures.push(failure),
        }
    }
    match &template {
        Some(template) => {
            for document in &found {
                print(&(template.fill(&daemon::json(document)?, Missing::NoValue)? + "\n"))?;
            }
        }
        None => {
            let texts: Vec<&str> = found
                .iter()
                .filter_map(|document| str::from_utf8(document).ok())
                .collect();
            let list = format!("[{}]", texts.join(","));
            print(&if format.is_some() {
                list + "\n"
            } else {
                indent(&list) + "\n"
            })?;
        }
    }
    match failures.is_empty() {
        true => Ok(()),
        false => {
            failures.iter().for_each(|failure| eprintln!("{failure}"));
            Err(Failure::Code(1))
        }
    }
}

async fn find(daemon: &Daemon, name: &str, kind: Option<Kind>, size: bool) -> Result<Bytes, Failure> {
    let kinds = match kind {
        Some(kind) => vec![kind],
        None => vec![Kind::Container, Kind::Image, Kind::Network, Kind::Volume],
    };
    for kind in kinds {
        let name = segment(name);
        let path = match kind {
            Kind::Container if size => format!("/containers/{name}/json?size=1"),
            Kind::Container => format!("/containers/{name}/json"),
            Kind::Image => format!("/images/{name}/json"),
            Kind::Network => format!("/networks/{name}"),
            Kind::Volume => format!("/volumes/{name}"),
        };
        match daemon.get_bytes(&path).await {
            // 400: a name that cannot be one of this kind
            Err(Failure::Refused { status: 404 | 400, .. }) => {}
            other => return other,
        }
    }
    Err(Failure::Usage(match kind {
        Some(kind) => format!("Error: No such {}: {name}", format!("{kind:?}").to_lowercase()),
        None => format!("Error: No such object: {name}"),
    }))
}

/// JSON with four blanks a level, its fields in the order they came in.
fn indent(json: &str) -> String {
    let (mut text, mut depth, mut in_string, mut escaped) = (String::new(), 0usize, false, false);
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("    ", depth));
    };
    let mut characters = json.chars().peekable();
    while let Some(character) = characters.next() {
        if in_string {
            text.push(character);
            in_string = character != '"' || escaped;
            escaped = character == '\\' && !escaped;
            continue;
        }
        match character {
            '"' => {
                in_string = true;
                text.push('"');
            }
            '{' | '[' => {
                text.push(character);
                while characters.next_if(|next| next.is_whitespace()).is_some() {}
                if let Some(close) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    text.push(close);
                } else {
                    depth += 1;
                    line(&mut text, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut text, depth);
                text.push(character);
            }
            ',' => {
                text.push(',');
                line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            blank if blank.is_whitespace() => {}
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_as_docker_does_and_keeps_its_order() {
        let json = r#"[{"b":1,"a":{"x":"{\"[,:\\","y":[]},"c":[1,null], "d":{ }}]"#;
        let text = indent(json);
        assert_eq!(
            text,
            "[\n    {\n        \"b\": 1,\n        \"a\": {\n            \"x\": \"{\\\"[,:\\\\\",\n            \"y\": []\n        },\n        \
             \"c\": [\n            1,\n            null\n        ],\n        \"d\": {}\n    }\n]"
        );
        assert_eq!(indent("[]"), "[]");
    }
}
